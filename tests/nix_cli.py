"""The Nix that the lab would use, for tests: as a program, nothing of ours in between."""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab import fleet, options
from lab.places import cache_directory
from lab.setup import prepare_nix
from lab.setup.cache import Cache, stamp


def environment() -> dict[str, str]:
    """Variables with which `nix` and `git` run, nobody's own configuration among them."""
    sys.audit("tests.needs", "nix")  # a unit test may not (tests/unit_guard.py)
    return dict(_environment())


@functools.cache
def _environment() -> dict[str, str]:
    nix, tools = prepare_nix(cache_directory(), print)
    return {
        "PATH": f"{nix.bin}:{tools}:{os.environ['PATH']}",
        "NIX_CONF_DIR": str(nix.conf),
        "HOME": "/nonexistent",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }


@functools.cache
def stand_ins() -> Path:
    """A directory with `nixpkgs` and `inputs` as in `lab/`, the tables of options beside the former as in the lab."""
    parts = [fleet.LAB / name for name in ("nixpkgs", "inputs", "options")]

    def build(path: Path) -> None:
        for part in parts[:2]:
            shutil.copytree(part, path / part.name)
        options.write(path / "nixpkgs" / "options")

    with Cache(cache_directory(), print) as cache:
        return cache.make(f"stand-ins-{stamp(parts)}", "the stand-ins with their options", build)


def try_nix(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["nix", *arguments], cwd=cwd, env=environment(), capture_output=True, text=True)


def nix(*arguments: str | Path, cwd: Path | None = None) -> str:
    """What the command prints; it must succeed."""
    done = try_nix(*arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def nix_json(*arguments: str | Path, cwd: Path | None = None) -> Any:
    return json.loads(nix(*arguments, cwd=cwd))


def build(*installables: str, cwd: Path) -> list[Path]:
    """The paths of what was built, in that order."""
    return [Path(line) for line in nix("build", "--no-link", "--print-out-paths", *installables, cwd=cwd).split()]
