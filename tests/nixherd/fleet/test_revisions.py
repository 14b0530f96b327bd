"""Of which revision something is: what a tree says, and what a machine notes, by `revisions.sh` as it is run there."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from nixherd.deploy import protocol as activation
from nixherd.fleet import revisions
from nixherd.fleet.revisions import Note, Tree

PATHS = [f"/nix/store/{char * 32}-nixos-system-dev-26.05" for char in "abc"]
FIRST, SECOND = "4f2c0d9b7e6a000000000000000000000000c0de", "9ab1" * 16
DIRTY = f"{FIRST}-dirty"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def sh(home: Path, script: str, *, check: bool = True) -> str:
    """What a script prints in which the functions of a home are there; the system's differ in the file alone."""
    text = f"set -u; kind=home; {activation.part('revisions.sh')}\n{script}"
    done = subprocess.run(
        ["sh", "-c", text], env={"HOME": str(home), "PATH": os.environ["PATH"]}, capture_output=True, text=True
    )
    assert (done.returncode == 0) is check, done.stderr
    return done.stdout + done.stderr


def file_of(home: Path) -> Path:
    return home / ".local/state/nixherd/revisions"


def lines(home: Path) -> list[Note]:
    found = [Note.parse(line) for line in file_of(home).read_text().splitlines()]
    assert None not in found
    return [note for note in found if note]


def test_what_is_noted_is_read_back_by_its_path(home: Path) -> None:
    assert sh(home, f'noted_of {PATHS[0]}; echo "<$noted>"') == "<>\n"
    sh(home, f"umask 077; note_revision {FIRST} me@laptop-1 20261129T210300-1 {PATHS[0]}")
    sh(home, f"note_revision {DIRTY} you@doc1 pull-1 {PATHS[1]} {PATHS[2]}")
    assert [(note.path, note.revision, note.who, note.run) for note in lines(home)] == [
        (PATHS[0], FIRST, "me@laptop-1", "20261129T210300-1"),
        (PATHS[1], DIRTY, "you@doc1", "pull-1"),
        (PATHS[2], DIRTY, "you@doc1", "pull-1"),
    ]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", lines(home)[0].when)
    assert file_of(home).stat().st_mode & 0o777 == 0o644
    said = sh(home, f'noted_of {PATHS[1]}; echo "$noted"').strip()
    assert revisions.noted_of(PATHS[1], said) == DIRTY
    assert revisions.noted_of(PATHS[0], said) is None


def test_one_line_a_path_the_newest_last_and_what_nobody_says_stays(home: Path) -> None:
    for revision, path in ((FIRST, PATHS[0]), (SECOND, PATHS[1]), ("-", PATHS[0]), ("-", PATHS[2])):
        sh(home, f"note_revision {revision} me x {path}")
    assert [(note.path, note.revision) for note in lines(home)] == [
        (PATHS[1], SECOND),
        (PATHS[0], FIRST),  # gone back to: it is what it was
        (PATHS[2], None),
    ]
    sh(home, f"note_revision {SECOND} me x {PATHS[0]}")
    assert {note.path: note.revision for note in lines(home)}[PATHS[0]] == SECOND


def test_the_file_is_bounded_and_what_is_no_line_goes(home: Path) -> None:
    file_of(home).parent.mkdir(parents=True)
    old = [f"/nix/store/{number:032d}-x {FIRST} when who run" for number in range(100)]
    file_of(home).write_text("\n".join(["# somebody's", "torn /nix/st", *old]) + "\ntorn")
    sh(home, f"note_revision {FIRST} me x {PATHS[0]}")
    found = file_of(home).read_text().splitlines()
    assert found[:-1] == old[-63:]
    assert found[-1].startswith(f"{PATHS[0]} {FIRST} ")


def test_the_last_deployments_are_kept_also_of_one_path_twice(home: Path) -> None:
    for number, path in enumerate((0, 1, 0)):
        sh(home, f"note_revision {FIRST} me run{number} {PATHS[path]}")
    deployments = file_of(home).with_name("deployments")
    found = [Note.parse(line) for line in deployments.read_text().splitlines()]
    assert [(note.path, note.run) for note in found if note] == [
        (PATHS[0], "run0"), (PATHS[1], "run1"), (PATHS[0], "run2")
    ]  # fmt: skip
    deployments.write_text(deployments.read_text() * 40 + "torn /nix/st")
    sh(home, f"note_revision - me again {PATHS[1]} {PATHS[2]}")
    kept = deployments.read_text().splitlines()
    assert len(kept) == 41
    assert [Note.parse(line) for line in kept].count(None) == 0
    assert kept[-2].split()[:2] == [PATHS[1], FIRST]


def test_what_was_noted_is_noted_where_the_deployments_cannot_be(home: Path) -> None:
    file_of(home).with_name("deployments").mkdir(parents=True)
    (file_of(home).with_name("deployments") / "x").touch()
    assert sh(home, f"note_revision {FIRST} me x {PATHS[0]}") == ""
    assert [note.run for note in lines(home)] == ["x"]
    assert not file_of(home).with_name("deployments.new").exists()


@pytest.mark.parametrize(
    ("word", "good"),
    [(FIRST, True), (DIRTY, True), (SECOND, True), (f"{SECOND}-dirty", True), ("-", True)]
    + [(word, False) for word in ("", "-dirty", "--dirty", "v1", FIRST[:39], FIRST.upper(), f"{FIRST}-dirty-dirty")]
    + [(f"{FIRST}0", False), ("$(reboot)", False), (f"{FIRST[:39]}'", False)],
)
def test_what_is_a_revision_is_the_same_here_and_there(home: Path, word: str, good: bool) -> None:
    home.mkdir()
    sh(home, f"is_revision {shlex.quote(word)}", check=good)
    assert (revisions.is_revision(word) or word == "-") is good


@pytest.mark.lab
@pytest.mark.skipif(os.geteuid() != 0, reason="it mounts a file system of a few pages")
def test_a_full_disk_is_said_and_takes_nothing_away(home: Path) -> None:
    place = file_of(home).parent
    place.mkdir(parents=True)
    body = f"""
        mount -t tmpfs -o size=8k tmpfs {place}
        note_revision {FIRST} me x {PATHS[0]} || exit 9
        cat /dev/zero >{place}/filler 2>/dev/null
        note_revision {SECOND} me x {PATHS[1]} && exit 8
        cat {place}/revisions
        [ ! -e {place}/revisions.new ]
    """
    text = f"set -u; kind=home; {activation.part('revisions.sh')}\n{body}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", text],
        env={"HOME": str(home), "PATH": os.environ["PATH"]}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done
    [note] = [Note.parse(line) for line in done.stdout.splitlines()]
    assert note
    assert (note.path, note.revision) == (PATHS[0], FIRST)
    assert "No space left on device" in done.stderr


def test_a_place_that_cannot_be_written_is_said(home: Path) -> None:
    (home / ".local/state").mkdir(parents=True)
    (home / ".local/state/nixherd").write_text("a file")
    said = sh(home, f"note_revision {FIRST} me x {PATHS[0]}", check=False)
    assert "nixherd" in said


# Here


@pytest.mark.parametrize(
    "line",
    ["", "x", f"{PATHS[0]} {FIRST}", f"{PATHS[0]} {FIRST} a b c d", f"/tmp/x {FIRST} a b c", f"{PATHS[0]} v1 a b c"],
)
def test_what_is_no_note_says_nothing(line: str) -> None:
    assert Note.parse(line) is None


def test_what_runs_is_known_by_its_note_or_by_its_own_word_or_not_at_all() -> None:
    note, own = f"{PATHS[0]} {FIRST} when who run", '{"configurationRevision": "v1"}'
    assert revisions.of_running(PATHS[0], note, own) == FIRST
    assert revisions.of_running(PATHS[1], note, own) == "v1"
    assert revisions.of_running(PATHS[1], note, "{}") is None
    assert revisions.of_running(None, None, "") is None
    assert str(Note.parse(note)) == note


def test_for_people() -> None:
    assert [revisions.shown(each) for each in (None, FIRST, DIRTY, SECOND, "v1.2")] == [
        *("unknown", "4f2c0d9b7e6a", "4f2c0d9b7e6a-dirty", "9ab19ab19ab1", "v1.2")
    ]


def git(directory: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *who, *words], cwd=directory, check=True, capture_output=True, text=True).stdout


def test_a_tree_is_its_commit_unless_something_is_not_committed(tmp_path: Path) -> None:
    fleet = tmp_path / "repository/fleet"
    fleet.mkdir(parents=True)
    assert revisions.Tree(str(fleet)).revision is None
    git(tmp_path / "repository", "init", "-q")
    assert revisions.Tree(str(fleet)).revision is None  # no commit yet
    (fleet / "flake.nix").write_text("{ }")
    git(fleet, "add", ".")
    git(fleet, "commit", "-q", "-m", "x")
    head = git(fleet, "rev-parse", "HEAD").strip()
    assert revisions.Tree(str(fleet)).revision == head
    (fleet / "flake.nix").write_text("{  }")
    assert revisions.Tree(str(fleet)).revision == f"{head}-dirty"
    (tmp_path / "repository/.git/HEAD").write_text("nonsense")
    assert revisions.Tree(str(fleet)).revision is None


def test_a_fleet_by_a_link_is_a_flake_all_the_same(tmp_path: Path) -> None:
    """Nix says of a link that it is not a flake; what broke by a change would then have been broken before."""
    (tmp_path / "link").symlink_to(tmp_path / "fleet")
    assert Tree(str(tmp_path / "link")).url == str(tmp_path / "fleet")
