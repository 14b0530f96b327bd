"""State: what lies in the tree is not ours."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import FleetError
from nixherd.fleet.changeset import changing, interrupted
from nixherd.fleet.load import load_fleet
from nixherd.fleet.tree import Temporary, Tree, opened
from nixherd.trust.enrol import Wanted, documented
from nixherd.trust.secrets.store import Secrets
from tests.nixherd.trust.secrets.repositories import contents, git
from tests.properties import examples
from tests.security.tree_state.conftest import TEMPORARIES, commit, publish, refused

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


def test_a_tracked_link_in_the_place_of_state_empties_nothing(fleet: Path, tmp_path: Path) -> None:
    """And a committed journal makes no commit, a committed lock that is a link truncates nothing."""
    precious = tmp_path / "precious"
    (precious / "sub").mkdir(parents=True)
    for name in ("one", "sub/two", "lock", ".gitignore"):
        (precious / name).write_text("dear")
    (fleet / ".nixherd").symlink_to(precious)
    commit(fleet)
    assert publish(fleet).commit
    assert {path.name: path.read_text() for path in precious.rglob("*") if path.is_file()} == dict.fromkeys(
        ("one", "two", "lock", ".gitignore"), "dear"
    )
    assert (fleet / ".nixherd").is_symlink()


def test_a_committed_journal_is_no_journal(fleet: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("dear")
    place = fleet / ".nixherd"
    (place / "staged").mkdir(parents=True)
    (place / "staged" / "hosts.nix").write_text("{ }\n")
    (place / "lock").symlink_to(tmp_path / "target")
    swap = ["hosts.nix", sum_of(fleet / "hosts.nix"), sum_of(place / "staged" / "hosts.nix")]
    journal = {"message": "theirs", "commit": True, "began": 0, "files": [swap]}
    (place / "journal.json").write_text(json.dumps(journal))
    git(fleet, "add", "-Af")
    git(fleet, "commit", "-qm", "state")
    before = contents(fleet)
    assert not interrupted(fleet)
    with changing(fleet) as changes:
        assert changes.resume(print) is None
    assert contents(fleet) == before
    assert (tmp_path / "target").read_text() == "dear"
    assert git(fleet, "log", "--format=%s").split() == ["state", "the", "fleet"]


def sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hosts_is_a_link(fleet: Path, elsewhere: Path) -> None:
    (fleet / "hosts.nix").rename(elsewhere / "hosts.nix")
    (fleet / "hosts.nix").symlink_to(elsewhere / "hosts.nix")


def hosts_is_a_link_inside(fleet: Path, elsewhere: Path) -> None:
    (fleet / "hosts.nix").rename(fleet / "real.nix")
    (fleet / "hosts.nix").symlink_to("real.nix")


def a_directory_is_a_link(fleet: Path, elsewhere: Path) -> None:
    shutil.copytree(fleet / "vms", elsewhere / "vms")
    shutil.rmtree(fleet / "vms")
    (fleet / "vms").symlink_to(elsewhere / "vms")


def a_directory_to_be_is_a_link(fleet: Path, elsewhere: Path) -> None:
    (fleet / "docs").symlink_to(elsewhere)


def a_link_to_nowhere(fleet: Path, elsewhere: Path) -> None:
    (fleet / "docs").mkdir()
    (fleet / "docs" / "new.md").symlink_to(elsewhere / "new.md")


def a_pipe(fleet: Path, elsewhere: Path) -> None:
    (fleet / "docs").mkdir()
    os.mkfifo(fleet / "docs" / "new.md")


@pytest.mark.parametrize(
    "kind",
    [
        hosts_is_a_link,
        hosts_is_a_link_inside,
        a_directory_is_a_link,
        a_directory_to_be_is_a_link,
        a_link_to_nowhere,
        a_pipe,
    ],
)
def test_no_link_is_followed(fleet: Path, tmp_path: Path, kind: Callable[[Path, Path], None]) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kind(fleet, elsewhere)
    commit(fleet, "--allow-empty")
    before, there, head = contents(fleet, pipes=False), contents(elsewhere), git(fleet, "rev-parse", "HEAD")
    refused(lambda: publish(fleet), r"(hosts\.nix|vms|docs|docs/new\.md): is (a symbolic link; only files|not a file)")
    assert (contents(fleet, pipes=False), contents(elsewhere), git(fleet, "rev-parse", "HEAD")) == (before, there, head)
    assert git(fleet, "status", "--porcelain").strip() in ("", "?? docs/")


def test_a_link_that_is_put_there_meanwhile_leads_nowhere(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the last moment: after every check, right before the first file is replaced."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(fleet / "vms", elsewhere)
    before = contents(elsewhere)
    move = Tree.move

    def swapped(self: Tree, temporary: Temporary) -> None:
        if not (fleet / "vms").is_symlink():
            (fleet / "vms").rename(fleet / "was")
            (fleet / "vms").symlink_to(elsewhere)
        move(self, temporary)

    monkeypatch.setattr(Tree, "move", swapped)
    refused(lambda: publish(fleet), "vms: is a symbolic link")
    assert contents(elsewhere) == before


@pytest.mark.parametrize(
    "path",
    [
        ".git/hooks/post-commit",
        ".git/config",
        ".GIT/config",
        ".Git /x",
        "sub/.git/config",
        ".g\u200cit/config",
        "git~1/config",
        "../elsewhere",
        "/etc/nixherd",
        "docs/../../x",
        "",
        "a\0b",
    ],
)
def test_nothing_outside_or_of_gits_is_written(fleet: Path, path: str) -> None:
    before = contents(fleet / ".git")
    refused(lambda: publish(fleet, files={path: "x"}), "belongs to git|is not a path below")
    assert contents(fleet / ".git") == before


NAMES = ["a", "b", "file", "link", "pipe", "inner", ".git", ".GIT", "..", ".", "", "~", ".nixherd", "x\n", "-x"]


@examples(60)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5))
def test_whatever_the_path_is_nothing_elsewhere_changes(parts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        outside, root = Path(name, "outside"), Path(name, "root")
        for place in (outside / "a" / "b", root / "a" / "b", root / ".git" / "a", root / "a" / "inner" / ".git" / "a"):
            place.mkdir(parents=True)
            (place / "file").write_text("dear")
        for place, target in (
            (root / "link", outside),
            (root / "a" / "link", root / ".git"),
            (root / "b", outside / "a"),
        ):
            place.symlink_to(target)
        (root / "a" / "file").symlink_to(outside / "a" / "b" / "file")
        os.mkfifo(root / "a" / "pipe")
        guarded = [outside, root / ".git", root / "a" / "inner" / ".git"]

        def seen() -> object:
            return [contents(each) for each in guarded], sorted(Path(name).iterdir())

        before = seen()
        path = "/".join(parts)
        with opened(root) as tree:
            for act in (
                tree.read,
                tree.stat,
                tree.require_writable,
                lambda each: tree.replace(each, b"x"),
                tree.remove,
            ):
                with contextlib.suppress(FleetError, OSError):
                    act(path)
        assert seen() == before
        assert not list(root.glob(TEMPORARIES))


def test_an_enrolment_does_not_write_where_git_is(fleet: Path) -> None:
    request = Wanted(load_fleet(fleet), Secrets(fleet))
    refused(lambda: documented(request, ".git/hooks/post-commit"), "belongs to git")
    (fleet / "docs").mkdir()
    (fleet / "docs" / "machines.md").symlink_to("/etc/hostname")
    refused(lambda: documented(request, "docs/machines.md"), r"docs/machines\.md: is a symbolic link")
