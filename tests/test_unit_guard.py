"""What a unit test may start, and what is said where it starts something else."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import unit_guard


def program(directory: Path, name: str) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text("#!/bin/sh\n")
    (directory / name).chmod(0o755)
    return directory / name


@pytest.mark.parametrize(
    ("name", "mark"),
    [("nix", "nix"), ("nix-store", "nix"), ("ssh", "lab"), ("unshare", "lab"), ("nixherd", "process"), ("git", None)],
)
def test_a_program_says_which_mark_it_needs(
    name: str, mark: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = program(tmp_path / "bin", name)
    path = str(place.parent)
    assert unit_guard.needed(name, path) is None  # a stand-in, below the temporary directory
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/nonexistent")
    assert unit_guard.needed(name, path) == unit_guard.needed(str(place), "") == mark
    assert unit_guard.needed(name, "/nonexistent") is None


def test_a_unit_test_that_starts_one_fails_with_one_line() -> None:
    try:
        with pytest.raises(pytest.fail.Exception) as failure:
            subprocess.run([sys.executable, "-c", ""], check=False)
        assert unit_guard._refused == [failure.value.msg]
    finally:
        unit_guard._refused.clear()  # else this test fails, as one does that has caught it
    assert failure.value.msg == (
        f"a unit test started {sys.executable}: mark it `process` (tests/unit_guard.py), or stand in for it"
    )
    assert failure.value.pytrace is False


def test_what_needs_more_is_no_unit_test(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("unit")
    marked = [item for item in request.session.items if item.get_closest_marker("unit")]
    assert not [
        item.nodeid for item in marked if any(item.get_closest_marker(each) for each in ("slow", *unit_guard.NEEDS))
    ]


@pytest.mark.process
def test_what_a_shared_fixture_ends_is_not_the_last_tests(tmp_path: Path) -> None:
    """A unit test that comes last in its worker ends the fixtures of all: refused, machines would be left running."""
    (tmp_path / "conftest.py").write_text("from tests.unit_guard import *\nfrom tests.unit_guard import mark\n" + ITEMS)
    (tmp_path / "test_shared.py").write_text(SHARED)
    # with a place of its own for temporary files: else it removes at its end what earlier runs have left
    places = (f"--rootdir={tmp_path}", f"--basetemp={tmp_path / 'temporary'}", str(tmp_path))
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *places]
    done = subprocess.run(argv, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout
    assert (tmp_path / "ended").read_text() == "by the fixture"


ITEMS = """
def pytest_collection_modifyitems(items):
    mark(items)
"""
SHARED = """
import subprocess, sys
from pathlib import Path
import pytest

@pytest.fixture(scope="session")
def started():
    yield
    subprocess.run([sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write('by the fixture')",
                    Path(__file__).with_name("ended")], check=True)

def test_that_uses_it(started):
    pass

def test_of_its_own():
    pass
"""
