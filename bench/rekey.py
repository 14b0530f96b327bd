"""A host joins 200 files of 10 recipients: `nixherd secrets apply` compared with a loop of `sops updatekeys`.

The whole command is measured: evaluation of the fleet, plan, encryption, reading back, replacement, one commit. The
loop only encrypts, in place. Measured with the operator's key first and last among the recipients, since sops tries
them in order.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.results import Comparison

FILES, RECIPIENTS = 200, 10
LIMIT = 0.25
NIXHERD = str(Path(sys.executable).with_name("nixherd"))
GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
HOSTS = """{
  dev = { hostname = "dev"; user = "admin"; publicKey = "placeholder"; configurationFile = ./dev.nix; };
}
"""


def run(words: list[str], directory: Path, env: dict[str, str]) -> None:
    environment = {**os.environ, **GIT, **env}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compile our modules once, as where it is installed
    done = subprocess.run(
        words, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")


def keys(place: Path) -> list[tuple[str, Path]]:
    """Return recipients, and the files of their identities."""
    made = []
    for number in range(RECIPIENTS):
        file = place / f"key{number}"
        subprocess.run(["age-keygen", "-o", file], capture_output=True, check=True)
        shown = subprocess.run(["age-keygen", "-y", file], capture_output=True, text=True, check=True)
        made.append((shown.stdout.strip(), file))
    return made


def config(recipients: list[str]) -> str:
    lines = "".join(f"          - {recipient} # key{number}\n" for number, recipient in enumerate(recipients))
    return f"creation_rules:\n  - path_regex: .*\n    key_groups:\n      - age:\n{lines}"


def fleet(place: Path, recipients: list[str], env: dict[str, str]) -> Path:
    """Create a fleet whose files are encrypted for all but the last recipient, and whose rule names all of them."""
    secrets = place / "secrets"
    secrets.mkdir(parents=True)
    (place / "hosts.nix").write_text(HOSTS)
    (place / "dev.nix").write_text("{ }\n")
    (secrets / ".sops.yaml").write_text(config(recipients[:-1]))
    names = [f"secret{number}.yaml" for number in range(FILES)]
    for name in names:
        (secrets / name).write_text("".join(f"key{number}: value of {name} {number}\n" for number in range(8)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda name: run(["sops", "encrypt", "--in-place", name], secrets, env), names))
    (secrets / ".sops.yaml").write_text(config(recipients))
    run(["git", "init", "-q"], place, env)
    for name, value in (("user.name", "bench"), ("user.email", "bench@invalid")):
        run(["git", "config", name, value], place, env)
    run(["git", "add", "-A"], place, env)
    run(["git", "commit", "-qm", "the fleet"], place, env)
    return place


def loop(directory: Path, env: dict[str, str]) -> float:
    began = time.monotonic()
    run(
        ["sh", "-c", 'for file in secret*.yaml; do sops updatekeys --yes "$file" || exit 1; done'],
        directory / "secrets",
        env,
    )
    return time.monotonic() - began


def ours(directory: Path, env: dict[str, str]) -> float:
    began = time.monotonic()
    run([NIXHERD, "--fleet", str(directory), "secrets", "apply", "--json"], directory, env)
    seconds = time.monotonic() - began
    run([NIXHERD, "--fleet", str(directory), "secrets", "status", "--json"], directory, env)  # it did its work
    return seconds


def compare(rounds: int) -> list[Comparison]:
    measurements = []
    with tempfile.TemporaryDirectory(prefix="nixherd-bench-") as name:
        place = Path(name)
        made = keys(place)
        for position, operator in (("first", 0), ("last", RECIPIENTS - 2)):
            env = {"SOPS_AGE_KEY_FILE": str(made[operator][1]), "HOME": name, "XDG_STATE_HOME": f"{name}/state"}
            original = fleet(place / position, [recipient for recipient, _ in made], env)
            times: tuple[list[float], list[float]] = ([], [])
            for number in range(rounds):
                for seconds, measure in zip(times, (ours, loop), strict=True):
                    copy = place / f"{position}-{number}-{measure.__name__}"
                    shutil.copytree(original, copy)
                    run(["git", "status"], copy, env)  # refreshes the index for the copies' times
                    os.sync()  # write the copies out, so that no measured fsync does
                    seconds.append(measure(copy, env))  # copies stay: ext4 makes files slowly where many just went
            measurements.append(Comparison(f"rekey-identity-{position}", *times, LIMIT))
    return measurements


def main(rounds: int) -> int:
    good = [comparison.report() for comparison in compare(rounds)]
    return 0 if all(good) else 1
