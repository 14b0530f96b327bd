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
