"""A fleet in a repository, and whatever somebody may have put into it."""

import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from nixherd.errors import FleetError
from nixherd.fleet.changeset import Done, changing
from nixherd.fleet.tree import read
from tests.nixherd.trust.secrets.repositories import git, nobodys, repository


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nobodys(monkeypatch, tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    return repository(tmp_path / "fleet")


# git: what a repository says is to be run


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What is there once a program of the repository's has run."""
    return tmp_path / "it ran"


@pytest.fixture
def program(tmp_path: Path, marker: Path) -> str:
    path = tmp_path / "program"
    path.write_text(f'#!/bin/sh\necho "$0 $*" >>{shlex.quote(str(marker))}\ncat 2>/dev/null\nexit 0\n')
    path.chmod(0o755)
    return str(path)


def commit(fleet: Path, *words: str) -> None:
    git(fleet, "add", "-A")
    git(fleet, "commit", "-qm", "more", *words)


def touched(fleet: Path) -> None:
    """git has to look into the files: their times are not those that its index knows."""
    for path in fleet.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            os.utime(path, (1, 1))


def monitored(fleet: Path, program: str) -> None:
    git(fleet, "config", "core.fsmonitor", program)


def hooked(fleet: Path, program: str) -> None:
    hooks = fleet / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-index-change", "reference-transaction", "fsmonitor-watchman", "pre-commit", "post-checkout"):
        shutil.copy(program, hooks / name)


def empty(fleet: Path) -> None:
    shutil.rmtree(fleet / ".git")
    (fleet / ".git").mkdir()


# State: what lies in the tree is not one of ours


PUBLISHED = {"hosts.nix": "# changed\n", "vms/definitions.nix": "# changed\n", "docs/new.md": "new\n"}


def publish(fleet: Path, *, files: Mapping[str, str] = PUBLISHED, commit: bool = True, message: str = "ours") -> Done:
    with changing(fleet) as changes:
        changes.resume(print)
        seen = {path: read(fleet, path) for path in files}
        for path, text in files.items():
            changes.stage(path, text.encode())
        changes.require_committable(list(files), commit=commit)
        return changes.publish(seen, message, commit=commit, say=print)


def refused(act: Callable[[], object], words: str) -> None:
    with pytest.raises(FleetError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)


TEMPORARIES = "**/.nixherd-*.tmp"
