"""A fleet for the quality gate, with stand-ins for its programs."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from tests.conftest import MakeFleet
from tests.gate_programs import path, programs, stand_in

ROOT = Path(__file__).parents[3]
QUICK = ("--only", "alejandra", "--only", "deadnix", "--only", "statix", "--only", "merge")
UNFORMATTED = "{a=1;}\n"
FORMATTED = "{a = 1;}\n"
UNUSED = "{lib}: let\n  unused = 1;\nin\n  lib\n"


def git(directory: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *who, *words], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_fleet: MakeFleet) -> Path:
    """One in a subdirectory of its repository, formatted and committed; the tools are on PATH."""
    built = programs()
    for name in ("GITHUB_ACTIONS", "GIT_DIR", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", path(built, stand_in(tmp_path / "bin")))
    directory = make_fleet(name="my repo/the fleet")
    subprocess.run([built / "alejandra", "--quiet", directory], check=True)
    monkeypatch.setenv("FLEET", str(directory))
    git(directory.parent, "init", "-q")
    git(directory.parent, "add", "-A")
    git(directory.parent, "commit", "-qm", "x")
    return directory


Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str]) -> Ask:
    def check(*words: str) -> tuple[int, dict[str, Any]]:
        capfd.readouterr()
        status = run(["check", "--json", *words])
        return status, json.loads(capfd.readouterr().out)

    return check


def found(document: dict[str, Any]) -> list[tuple[str, str, int | None]]:
    return [(each["tool"], each["file"], each["line"]) for each in document["findings"]]
