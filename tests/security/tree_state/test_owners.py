"""State: whose it is decides whether it is used."""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from nixherd.deploy.commit_policy import uncommitted
from nixherd.deploy.installation import configuration_path
from nixherd.fleet import tree as trees
from nixherd.fleet.changeset import changing, interrupted
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet
from nixherd.trust.enrol import render_overview
from nixherd.trust.templating import render_foreign
from tests.nixherd.trust.secrets.repositories import contents, git, repository
from tests.preloaded.programs import Programs
from tests.security.tree_state.conftest import PUBLISHED, TEMPORARIES, publish, refused

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


# State: whose it is


Killed = Callable[..., None]


@pytest.fixture
def killed(programs: Programs) -> Killed:
    """A run that is killed after it has replaced so many files."""

    def run(fleet: Path, after: int, *, identity: str | None = None) -> None:
        words = ["nixherd-python", "-c", KILLED.format(after=after, identity=identity, fleet=str(fleet))]
        env = programs(dict(os.environ))
        done = subprocess.run(
            words, cwd=CHECKOUT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == -9, done.stderr

    return run


KILLED = """
import os
from pathlib import Path
from nixherd.fleet import tree as trees
from nixherd.fleet.tree import Tree
from tests.security.tree_state.conftest import publish
left, move = {after}, Tree.move
def moved(self, temporary):
    global left
    if not left:
        os.kill(os.getpid(), 9)
    left -= 1
    move(self, temporary)
Tree.move = moved
identity = {identity!r}
if identity:
    trees.identity = lambda root: identity
publish(Path({fleet!r}))
"""


CHECKOUT = Path(__file__).parents[3]


def test_a_killed_run_is_finished_also_after_the_tree_was_moved(killed: Killed, fleet: Path, tmp_path: Path) -> None:
    killed(fleet, 1)
    assert interrupted(fleet)
    moved = fleet.rename(tmp_path / "moved")
    assert interrupted(moved)
    publish(moved, files={"other": "x"})
    assert git(moved, "log", "--format=%s").split("\n")[:2] == ["ours", "ours"]
    assert {path: (moved / path).read_text() for path in PUBLISHED} == PUBLISHED
    assert git(moved, "status", "--porcelain") == ""
    assert not list(moved.glob(TEMPORARIES))


def test_another_tree_never_gets_a_journal(killed: Killed, fleet: Path, tmp_path: Path) -> None:
    """A new clone at the path of the one in which a run was killed."""
    killed(fleet, 1)
    shutil.rmtree(fleet)
    git(tmp_path, "clone", "-q", str(repository(tmp_path / "origin")), "fleet")
    before = contents(fleet)
    assert not interrupted(fleet)
    with changing(fleet) as changes:
        assert changes.resume(print) is None
    assert contents(fleet) == before


def test_a_journal_of_which_nothing_has_happened_is_thrown_away(
    killed: Killed, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file system does not say when a directory was made, a clone at the same path might get the same inode."""
    monkeypatch.setattr(trees, "identity", lambda root: "the same")
    killed(fleet, 0, identity="the same")
    assert interrupted(fleet)
    shutil.rmtree(fleet)
    repository(fleet)
    with changing(fleet) as changes:
        assert changes.resume(print) is None
    assert git(fleet, "log", "--format=%s") == "the fleet\n"
    assert not interrupted(fleet)


def test_what_the_journal_does_not_know_is_never_put_in_place(killed: Killed, fleet: Path, tmp_path: Path) -> None:
    killed(fleet, 1)
    [staged] = (tmp_path / "state").glob("nixherd/.trees/*/staged")
    (staged / "vms" / "definitions.nix").write_text("# something else\n")
    before = git(fleet, "show", "HEAD:hosts.nix")
    refused(lambda: publish(fleet), r"vms/definitions\.nix: is damaged; every file was put back as it was")
    assert (fleet / "hosts.nix").read_text() == before
    assert git(fleet, "status", "--porcelain") == ""
    assert not list(fleet.glob(TEMPORARIES))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_is_left_without_a_journal_makes_nothing_dirty_and_goes(
    killed: Killed, fleet: Path, tmp_path: Path, after: int
) -> None:
    """In CI the state directory is gone with the job, and the tree may not be."""
    killed(fleet, after)
    left = [str(path.relative_to(fleet)) for path in fleet.glob(TEMPORARIES)]
    assert left
    shutil.rmtree(tmp_path / "state")
    changed = (
        sorted(PUBLISHED)[:0] if not after else [row[3:] for row in git(fleet, "status", "--porcelain").splitlines()]
    )
    assert len(changed) == after
    assert sorted(uncommitted(str(fleet))) == sorted(
        path for each in changed for path in ([each] if not each.endswith("/") else [f"{each}new.md"])
    )
    git(fleet, "checkout", "-q", ".")
    git(fleet, "clean", "-qfd", "docs")
    (fleet / ".git" / "info" / "exclude").write_text("")  # nor for us where git was not told
    assert uncommitted(str(fleet)) == []
    assert publish(fleet).commit
    assert not list(fleet.glob(TEMPORARIES))
    assert git(fleet, "status", "--porcelain") == ""


def test_what_git_tracks_is_never_taken_for_ours(fleet: Path, tmp_path: Path) -> None:
    """Nor what is not a file, nor what belongs to somebody else, nor what only looks like it."""
    name = ".nixherd-0123456789abcdef.tmp"
    (tmp_path / "target").write_text("dear")
    tracked = fleet / "hosts" / name
    tracked.write_text("dear")
    git(fleet, "add", "-f", str(tracked))
    git(fleet, "commit", "-qm", "theirs")
    (fleet / "vms" / name).symlink_to(tmp_path / "target")
    (fleet / name).mkdir()
    (fleet / name / "file").write_text("dear")
    (fleet / "secrets" / ".nixherd-mine.tmp").write_text("dear")
    ours = fleet / "secrets" / name
    ours.write_text("x")
    others = fleet / "secrets" / "sub" / name
    others.write_text("x")
    if os.geteuid() == 0:
        os.chown(others, 4242, 4242)
    with changing(fleet):
        pass
    assert tracked.read_text() == "dear"
    assert (tmp_path / "target").read_text() == "dear"
    assert (fleet / "vms" / name).is_symlink()
    assert (fleet / name / "file").read_text() == "dear"
    assert (fleet / "secrets" / ".nixherd-mine.tmp").exists()
    assert not ours.exists()
    assert others.exists() == (os.geteuid() == 0)
    (fleet / ".git").rename(tmp_path / "git")
    ours.write_text("x")
    with changing(fleet):
        assert not ours.exists(), "without a repository as well"


@pytest.mark.parametrize("link", ["info", "exclude"])
def test_gits_own_list_is_not_written_through_a_link(fleet: Path, tmp_path: Path, link: str) -> None:
    """`.git/info/exclude`, which has git overlook what a killed run leaves."""
    info = fleet / ".git" / "info"
    shutil.rmtree(info, ignore_errors=True)
    (tmp_path / "exclude").write_text("dear")
    if link == "info":
        info.symlink_to(tmp_path)
    else:
        info.mkdir()
        (info / "exclude").symlink_to(tmp_path / "exclude")
    assert publish(fleet).commit
    assert (tmp_path / "exclude").read_text() == "dear"


def test_gits_own_list_is_added_to_once(fleet: Path) -> None:
    path = fleet / ".git" / "info" / "exclude"
    path.parent.mkdir(exist_ok=True)
    path.write_text("*.mine")
    publish(fleet)
    publish(fleet, files={"docs/new.md": "newer\n"})
    assert path.read_text() == "*.mine\n# what a killed nixherd may leave\n.nixherd-*.tmp\n"


@pytest.mark.parametrize("below", ["", "vms"])
def test_the_state_directory_is_not_in_the_tree(fleet: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    """Whoever can push a commit could put a journal there."""
    monkeypatch.setenv("XDG_STATE_HOME", str(fleet / below / "state"))
    refused(lambda: publish(fleet), "is inside of .*; XDG_STATE_HOME has to be outside of the fleet")
    monkeypatch.setenv("XDG_STATE_HOME", "state")  # relative, which is none
    monkeypatch.chdir(fleet)
    assert publish(fleet).commit
    assert not (fleet / "state").exists()


def test_state_that_others_can_write_is_refused(fleet: Path, tmp_path: Path) -> None:
    publish(fleet)
    [place] = (tmp_path / "state").glob("nixherd/.trees/*")
    place.chmod(0o777)
    refused(lambda: publish(fleet), "is not a directory that only we can write")


def test_somebody_with_another_state_directory_is_kept_out(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with changing(fleet):
        monkeypatch.setenv("XDG_STATE_HOME", str(fleet.parent / "another"))
        refused(lambda: publish(fleet), "another run is changing this fleet's files")


def test_state_and_tree_may_be_on_different_file_systems(
    killed: Killed, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(tempfile.mkdtemp(dir="/dev/shm"))
    if place.stat().st_dev == fleet.stat().st_dev:
        pytest.skip("/dev/shm is not a file system of its own here")
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    try:
        (fleet / "hosts.nix").chmod(0o640)
        killed(fleet, 1)
        publish(fleet, files={"other": "x"})
        assert {path: (fleet / path).read_text() for path in PUBLISHED} == PUBLISHED
        assert (fleet / "hosts.nix").stat().st_mode & 0o777 == 0o640
        assert git(fleet, "status", "--porcelain") == ""
    finally:
        shutil.rmtree(place)


def test_hardware_is_not_written_through_a_link(fleet: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("dear")
    (fleet / "hosts" / "hardware-configuration.nix").symlink_to(tmp_path / "target")
    git(fleet, "add", "-A")
    loaded = load_fleet(fleet)
    for path in (True, "hosts/hardware-configuration.nix", "hosts/../hosts/hardware-configuration.nix"):
        refused(partial(configuration_path, loaded, "dev", path), "is a symbolic link")
    refused(lambda: configuration_path(loaded, "dev", ".git/config"), "belongs to git")


# Templates


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "is unsafe"),
        ("{{ guest.__globals__ }}", "is unsafe"),
        ("{{ hosts[0]|attr('__class__') }}", "is unsafe"),
        ("{{ '{0.__class__}'.format(endpoint) }}", "is unsafe"),
        ("{{ hosts[0].extra.update({'x': 1}) }}", "no attribute 'update'"),
        ("{% include '/etc/passwd' %}", "it cannot include /etc/passwd: there is nothing that it may read"),
        ("{% import '/etc/passwd' as x %}", "it cannot include /etc/passwd"),
        ("{% extends '../../etc/passwd' %}", "it cannot include"),
        ("{{ range(10 ** 9) | list }}", "Range too big"),
        ("{{ 'x' * 10 ** 10 }}", "MiB of memory"),
        ("{{ 'x' | center(10 ** 10) }}", "MiB of memory"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "it goes round in circles"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ hosts() }}", "'list' object is not callable"),
        ("{{ spec(guest, '__globals__') }}", "spec\\(\\) knows cores, memory and disk"),
        ("{% for %}", "line 1: "),
    ],
)
def test_templates_are_rendered_in_a_sandbox(fleet: Path, template: str, words: str) -> None:
    (fleet / "own.j2").write_text(template)
    refused(lambda: render_overview(load_fleet_once(fleet), "own.j2"), f"own\\.j2: .*{words}")


@functools.cache
def load_fleet_once(fleet: Path) -> Fleet:
    return load_fleet(fleet)


def test_a_template_that_never_ends_is_ended(fleet: Path) -> None:
    loop = "{% for each in range(99999) %}" * 3 + "{% endfor %}" * 3
    refused(lambda: render_foreign("commit_message", loop, dict), "commit_message: takes (more than|too long)")


@pytest.mark.parametrize("place", ["link.j2", "elsewhere/own.j2", ".git/description", "../own.j2"])
def test_a_template_is_a_file_of_the_fleet(fleet: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "own.j2").write_text("x")
    (fleet / "link.j2").symlink_to("/etc/passwd")
    (fleet / "elsewhere").symlink_to(tmp_path)
    refused(lambda: render_overview(load_fleet(fleet), place), "is a symbolic link|belongs to git|is not a path below")
