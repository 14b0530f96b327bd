"""Files that go with a change: all of them or none, whenever it is killed, and their directories with them."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.changeset import changing
from nixherd.fleet.tree import Temporary, Tree
from tests.nix_cli import environment
from tests.nixherd.removing import GONE
from tests.nixherd.trust.secrets.repositories import contents, git, nobodys
from tests.preloaded.programs import Programs

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]

ROOT = Path(__file__).parents[3]
OLD = {"hosts.nix": b"{ web = 1; }\n", "hosts/db.nix": b"2\n", **dict.fromkeys(GONE, b"1\n")}
NEW = {"hosts.nix": b"{ }\n", "hosts/db.nix": b"2\n"}


def repository(place: Path) -> Path:
    for name, content in OLD.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    for words in (("init", "-q"), ("config", "user.name", "a"), ("config", "user.email", "a@invalid"), ("add", "-A")):
        git(place, *words)
    git(place, "commit", "-qm", "the fleet")
    return place


Remove = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def remove(programs: Programs) -> Remove:
    """Removes in a process of its own, whose last effect is the one of this number."""

    def run(fleet: Path, last: int | None = None) -> subprocess.CompletedProcess[str]:
        words: list[str | Path] = ["nixherd-python", "-m", "tests.nixherd.removing", fleet, fleet.parent / "state"]
        words += [str(last)] if last else []
        env = programs({**os.environ, **environment()})
        return subprocess.run(words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    return run


def is_done(fleet: Path) -> None:
    assert contents(fleet) == NEW
    assert not (fleet / "hosts" / "web").exists()
    assert git(fleet, "log", "--format=%s").splitlines() == ["web retires", "the fleet"]
    assert git(fleet, "show", "--format=", "--name-only").split() == ["hosts.nix", *GONE]
    assert git(fleet, "status", "--porcelain", "--ignored") == ""
    assert [each.name for each in fleet.parent.glob("state/nixherd/.trees/*/*")] == ["lock"]


@pytest.mark.slow
def test_killed_while_files_go_the_next_run_finishes_it(remove: Remove, tmp_path: Path) -> None:
    """What names a file is changed before it goes: at no moment is one named that is not there."""
    whole = repository(tmp_path / "whole" / "fleet")
    effects = int(remove(whole).stdout.split()[-1])
    is_done(whole)
    begins = effects // 2  # what is before that stages
    for point in sorted({begins + round(at * (effects - begins) / 4) for at in range(5)}):
        fleet = repository(tmp_path / str(point) / "fleet")
        killed = remove(fleet, point)
        assert killed.returncode == -9, f"{point} of {effects}: {killed.stderr}"
        there = contents(fleet)
        assert there["hosts.nix"] == NEW["hosts.nix"] or there.keys() == OLD.keys(), point
        done = remove(fleet)
        assert done.returncode == 0, f"killed at effect {point} of {effects}, then: {done.stderr}"
        is_done(fleet)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nobodys(monkeypatch, tmp_path)
    return repository(tmp_path / "fleet")


def change(fleet: Path, *, commit: bool = True) -> None:
    with changing(fleet) as changes:
        seen = {path: changes.tree.read(path) for path in ("hosts.nix", *GONE)}
        changes.stage("hosts.nix", NEW["hosts.nix"])
        changes.publish(seen, "web retires", removed=GONE, commit=commit, say=lambda line: None)


def test_a_hook_that_refuses_brings_them_back(fleet: Path) -> None:
    (fleet / "hosts/web/data/b").chmod(0o755)
    git(fleet, "commit", "-qam", "a program")
    hook = fleet / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(FleetError, match="every file was put back as it was"):
        change(fleet)
    assert contents(fleet) == OLD
    assert git(fleet, "status", "--porcelain", "--ignored") == ""


@pytest.mark.parametrize("flag", ["assume-unchanged", "skip-worktree"])
def test_what_git_would_not_commit_is_not_changed(fleet: Path, flag: str) -> None:
    git(fleet, "update-index", f"--{flag}", "hosts.nix")
    with (
        changing(fleet) as changes,
        pytest.raises(FleetError, match=r"hosts\.nix: git was told not to look at it.*update-index --no-assume-unch"),
    ):
        changes.require_committable(["hosts.nix"], commit=True)


def test_without_a_commit_git_knows_that_they_are_gone_and_what_is_not_gits_stays(fleet: Path) -> None:
    (fleet / "hosts/web/notes").write_text("mine\n")
    change(fleet, commit=False)
    assert contents(fleet) == {**NEW, "hosts/web/notes": b"mine\n"}
    assert git(fleet, "ls-files").split() == ["hosts.nix", "hosts/db.nix"]


def test_the_one_that_names_the_others_is_put_in_place_last(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long each takes to copy: several are copied at once."""
    beside, move, moved = Tree.beside, Tree.move, []

    def slow(tree: Tree, path: str, content: bytes, mode: int) -> Temporary:
        time.sleep(0.3 if path == "a" else 0.1 if path == "b" else 0)
        return beside(tree, path, content, mode)

    def noted(tree: Tree, temporary: Temporary) -> None:
        moved.append(temporary.path)
        move(tree, temporary)

    monkeypatch.setattr(Tree, "beside", slow)
    monkeypatch.setattr(Tree, "move", noted)
    with changing(fleet) as changes:
        for path in ("hosts.nix", "b", "a"):
            changes.stage(path, b"{ a = ./a; b = ./b; }\n")
        changes.publish(
            {"hosts.nix": OLD["hosts.nix"], "b": None, "a": None}, "a, b", commit=True, say=lambda line: None
        )
    assert moved == ["a", "b", "hosts.nix"]


@pytest.mark.parametrize("filtered", [False, True], ids=["plain", "filtered"])
def test_what_git_is_given_ahead_is_what_it_commits(fleet: Path, *, filtered: bool) -> None:
    """Of many files git has the contents before it commits; a filter of the repository's still has its say."""
    paths = [f"many/{number}.txt" for number in range(20)]
    if filtered:
        (fleet / ".gitattributes").write_text("*.txt text\n")
        git(fleet, "add", "-A")
        git(fleet, "commit", "-qm", "line ends")
    with changing(fleet) as changes:
        for path in paths:
            changes.stage(path, f"{path}\r\n".encode())
        assert changes.repository is not None
        done = changes.publish(dict.fromkeys(paths), "many", commit=True, say=lambda line: None)
    assert done.paths == tuple(sorted(paths))
    assert git(fleet, "status", "--porcelain") == ""
    newline = "\n" if filtered else "\r\n"
    for path in paths:
        shown = subprocess.run(["git", "-C", fleet, "show", f"HEAD:{path}"], capture_output=True, check=True).stdout
        assert shown == f"{path}{newline}".encode()
        assert (fleet / path).read_bytes() == f"{path}\r\n".encode()
    written = git(fleet, "cat-file", "--batch-check", "--batch-all-objects", "--unordered").splitlines()
    assert len([each for each in written if each.endswith(f"blob {len(paths[0]) + 2}")]) >= 10
