"""The pre-commit hook."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nixherd.cli.main import run
from tests.conftest import MakeFleet
from tests.gate_programs import write
from tests.nixherd.gate.conftest import FORMATTED, QUICK, UNFORMATTED, git


def test_the_hook_keeps_what_is_wrong_from_being_committed(fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["hooks", "install"]) == 0
    hook = fleet.parent / ".git/hooks/pre-commit"
    before = hook.stat()
    assert run(["hooks", "install"]) == 0
    assert (hook.stat().st_ino, hook.stat().st_mode & 0o777) == (before.st_ino, 0o755)
    assert "is installed already" in capfd.readouterr().out
    seen = fleet.parent / "seen"
    write(fleet.parent.parent / "bin/nixherd", f'#!/bin/sh\necho "$@" >> "{seen}"\nexit 1\n')
    (fleet / "a.nix").write_text(UNFORMATTED)
    git(fleet, "add", "a.nix")
    with pytest.raises(subprocess.CalledProcessError):
        git(fleet, "commit", "-qm", "x")
    assert seen.read_text() == f"--fleet {fleet} check --changed --table\n"
    assert "commit" not in git(fleet, "log", "--format=%s", "-1")


@pytest.mark.parametrize("file", ["nixherd.nix", "flake.nix"])
def test_the_hook_is_for_a_fleet_of_any_file(fleet: Path, file: str) -> None:
    assert run(["hooks", "install"]) == 0
    for name in ("hosts.nix", "flake.nix", "nixherd.nix"):
        (fleet / name).unlink(missing_ok=True)
    (fleet / "README").write_text("x")
    git(fleet, "add", "README")
    write(fleet.parent.parent / "bin/nixherd", "#!/bin/sh\nexit 1\n")
    git(fleet, "commit", "-qm", "no fleet is there")
    (fleet / file).write_text("{ }")
    git(fleet, "add", file)
    with pytest.raises(subprocess.CalledProcessError):
        git(fleet, "commit", "-qm", "x")


def test_the_hook_judges_what_git_commits_by_name(fleet: Path) -> None:
    """`git commit FILE` takes the file as it lies there, from an index of its own; what is staged of it is another."""
    assert run(["hooks", "install"]) == 0
    nixherd, paths = Path(sys.executable).with_name("nixherd"), fleet.parent.parent / "bin"
    only = " ".join(QUICK)
    write(paths / "nixherd", f'#!/bin/sh\nexec {nixherd} "$@" {only}\n')
    (fleet / "a.nix").write_text(FORMATTED)
    git(fleet, "add", "a.nix")
    (fleet / "a.nix").write_text(UNFORMATTED)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        git(fleet, "commit", "-qm", "x", "a.nix")
    assert "a.nix: is not formatted" in refused.value.stderr + refused.value.stdout
    git(fleet, "commit", "-qm", "x")


def test_a_hook_of_somebody_elses_stays(fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hook = fleet.parent / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 0\n")
    assert run(["hooks", "install"]) == 4
    assert "add the line `nixherd check --changed --table || exit 1` to it" in capfd.readouterr().err
    assert hook.read_text() == "#!/bin/sh\nexit 0\n"


def test_hooks_that_are_switched_off_are_said(fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    git(fleet, "config", "core.hooksPath", os.devnull)
    assert run(["hooks", "install"]) == 4
    assert "is not a directory, so git runs no hooks" in capfd.readouterr().err


def test_the_hooks_of_all_repositories_are_left_alone(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    git(fleet, "config", "--global", "core.hooksPath", str(tmp_path / "theirs"))
    assert run(["hooks", "install"]) == 4
    assert "holds the hooks of all repositories (core.hooksPath, global configuration)" in capfd.readouterr().err
    assert not (tmp_path / "theirs").exists()
    git(fleet, "config", "core.hooksPath", ".git/hooks")
    assert run(["hooks", "install"]) == 0
    assert (fleet.parent / ".git/hooks/pre-commit").exists()


@pytest.mark.parametrize("said", [".githooks", "ABSOLUTE"])
def test_the_hook_is_where_git_looks_for_it(fleet: Path, said: str, tmp_path: Path) -> None:
    directory = tmp_path / "their hooks" if said == "ABSOLUTE" else fleet.parent / said
    git(fleet, "config", "core.hooksPath", str(directory) if said == "ABSOLUTE" else said)
    assert run(["hooks", "install"]) == 0
    assert os.access(directory / "pre-commit", os.X_OK)


def test_the_hook_of_a_worktree(fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(fleet, "worktree", "add", "-q", str(tmp_path / "tree"))
    monkeypatch.setenv("FLEET", str(tmp_path / "tree/the fleet"))
    assert run(["hooks", "install"]) == 0
    assert (fleet.parent / ".git/hooks/pre-commit").exists(), "git has one directory of hooks for all work trees"
    write(tmp_path / "bin/nixherd", f'#!/bin/sh\necho "$2" > "{tmp_path}/seen"\n')
    (tmp_path / "tree/x").write_text("x")
    git(tmp_path / "tree", "add", "x")
    git(tmp_path / "tree", "commit", "-qm", "y")
    assert (tmp_path / "seen").read_text() == f"{tmp_path}/tree/the fleet\n"


def test_there_is_no_hook_without_a_repository(
    make_fleet: MakeFleet, fleet: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET", str(make_fleet(name="elsewhere")))
    assert run(["hooks", "install"]) == 4
    assert "`git init` it" in capfd.readouterr().err
