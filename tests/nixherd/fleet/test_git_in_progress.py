"""What git is in the middle of: a commit of ours would become a part of it."""

import subprocess
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.git import Repository
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.repositories import git, nobodys

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two branches of two commits each that are in conflict."""
    nobodys(monkeypatch, tmp_path)
    place = tmp_path / "repository"
    place.mkdir()
    for words in (("init", "-qb", "main"), ("config", "user.name", "a"), ("config", "user.email", "a@invalid")):
        git(place, *words)
    for branch, texts in {"main": ["0"], "other": ["1", "2"], "mine": ["3", "4"]}.items():
        git(place, "checkout", "-qB", branch, *(["main"] if branch != "main" else []))
        for text in texts:
            (place / "a").write_text(f"{text}\n")
            git(place, "add", "a")
            git(place, "commit", "-qm", text)
    return place


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        (["merge other"], "a merge is going on; finish or abort it first"),
        (["cherry-pick other"], "a cherry-pick is going on"),
        (["cherry-pick other~ other", "commit -qam x"], "a cherry-pick or revert of several commits is going on"),
        (["revert --no-edit HEAD~"], "a revert is going on"),
        (["rebase other"], "a rebase is going on"),
        (["rebase --apply other"], "a rebase is going on"),
        (["format-patch -q -1 other", "am 0001-2.patch"], "a `git am` is going on"),
        (["bisect start HEAD main"], r"a bisect is going on; end it first \(`git bisect reset`\)"),
    ],
)
def test_nothing_is_committed_meanwhile(repository: Path, commands: list[str], said: str) -> None:
    for command in commands:
        words = ["git", "-c", "core.editor=true", *command.split()]
        subprocess.run(words, cwd=repository, env=environment(), capture_output=True, check=False)
    found = Repository.around(repository)
    assert found is not None
    with pytest.raises(FleetError, match=said):
        found.require_able()


def test_afterwards_it_is(repository: Path) -> None:
    git(repository, "bisect", "start", "HEAD", "main")
    git(repository, "bisect", "reset")
    found = Repository.around(repository)
    assert found is not None
    found.require_able()
