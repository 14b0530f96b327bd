"""What git does with a commit beside making it, as the commands say it."""

from pathlib import Path
from typing import Any

import pytest

from tests.nixherd.cli.conftest import planted_hook
from tests.nixherd.trust.secrets.repositories import administered, git

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return administered(monkeypatch, tmp_path)


def test_a_hook_that_changes_the_rules_on_their_way(secrets: Any, fleet: Path) -> None:
    planted_hook(fleet, "sed -i s/age1/age2/ secrets/.sops.yaml; git add secrets/.sops.yaml")
    ended = secrets("remove-host", "igp")
    commit = git(fleet, "rev-parse", "--short", "HEAD").strip()
    assert (ended.status, ended.out) == (1, "")
    [line] = [each for each in ended.err.splitlines() if "hook" in each]
    assert f"secrets/.sops.yaml: a git hook changed it on its way into commit {commit}, which is made and stays" in line
    assert "age2" in git(fleet, "show", f"{commit}:secrets/.sops.yaml")


def test_what_is_only_to_be_known_is_a_note(secrets: Any, fleet: Path) -> None:
    git(fleet, "checkout", "-q", "--detach")
    planted_hook(fleet, "echo hello > log.md; git add log.md")
    ended = secrets("remove-host", "igp", "--json")
    commit = ended.json["commit"]
    assert ended.status == 0, ended.err
    assert [note for note in ended.json["notes"] if note.startswith(f"commit {commit} ")] == [
        f"commit {commit} has log.md as well, which a git hook added",
        f"commit {commit} is on no branch, for HEAD is detached; `git -C {fleet} branch NAME {commit}` keeps it",
    ]
