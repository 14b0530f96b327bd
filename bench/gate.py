"""Compares the quality gate with its tools one by one: the gain from running them in parallel on two cores.

The lower bound is the longer of the slowest tool and half of the sum of all. Each tool runs as a user would run it
without the gate: the program itself, and `nixherd check --only` for nixherd's own checks. `builds`, `lockout` and
`closures` share an evaluation and count once. Everything is warm: built, evaluated and read before. statix is skipped
where it is not installed. The computer must be idle, because under load two parallel programs get no more CPU than one.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.results import Comparison
from lab.places import cache_directory
from lab.setup import gate

NIXHERD = str(Path(sys.executable).with_name("nixherd"))
CORES = 2
LIMIT = 1.2
TOGETHER = ("lockout", "closures", "builds")


def main(rounds: int) -> int:
    """Measure the gate on the lab's copy of the reference fleet."""
    from tests import fleet_copy

    with tempfile.TemporaryDirectory() as made:
        fleet = fleet_copy.make(Path(made) / "fleet")
        env = {**os.environ, "PATH": f"{gate.build(cache_directory())}:{os.environ['PATH']}"}
        env |= {"XDG_STATE_HOME": f"{made}/state", "FLEET": str(fleet)}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        without = [] if shutil.which("statix", path=env["PATH"]) else ["--without", "statix"]
        names = [name for name in run(env, *without)[1] if name not in TOGETHER]  # warms everything up
        parts = [*((name,) for name in names), TOGETHER]
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(run(env, *without)[0])
            alone = [bare(env, fleet, *part) or run(env, *(f"--only={name}" for name in part))[0] for part in parts]
            theirs.append(max(*alone, sum(alone) / CORES))
        return 0 if Comparison("gate", ours, theirs, LIMIT).report() else 1


def bare(env: dict[str, str], fleet: Path, name: str, *_: str) -> float | None:
    """Return the seconds of the tool's own program; None for nixherd's own checks."""
    files = subprocess.run(["git", "ls-files", "*.nix"], cwd=fleet, capture_output=True, text=True).stdout.split("\n")
    argv = {
        "alejandra": ["alejandra", "--check", *files[:-1]],
        "deadnix": ["deadnix", "--fail", *files[:-1]],
        "statix": ["statix", "check", "."],
        "flake": ["nix", "--extra-experimental-features", "nix-command flakes", "flake", "check"],
    }.get(name)
    if argv is None:
        return None
    began = time.monotonic()
    subprocess.run(["taskset", "--cpu-list", cores(), *argv], cwd=fleet, env=env, check=True, capture_output=True)
    return time.monotonic() - began


def run(env: dict[str, str], *words: str) -> tuple[float, dict[str, float]]:
    """Return the seconds that the command took, and each tool that ran; all must pass."""
    began = time.monotonic()
    argv = ["taskset", "--cpu-list", cores(), NIXHERD, "check", "--json", *words]
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: {done.stdout}{done.stderr}")
    tools = json.loads(done.stdout)["tools"]
    return seconds, {each["name"]: each["seconds"] for each in tools if each["status"] == "ok"}


def cores() -> str:
    """Return the first two cores that we may use."""
    return ",".join(map(str, sorted(os.sched_getaffinity(0))[:CORES]))
