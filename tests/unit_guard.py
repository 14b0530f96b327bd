"""Which mark a test has, and what a unit test may not start.

What a test needs is what its mark says: `nix`, `lab` or `process`, by the fixtures that it uses or given by hand.
`unit` is never given by hand: it is whatever has none of these and is not `slow`. While a unit test runs, an audit hook
sees each program that this process starts, and refuses what would need one of the marks.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# What a fixture needs is what a test needs that uses it, however deep.
FIXTURES = {
    "lab": ("running_lab", "lab_parts", "base_root"),
    "nix": ("flake", "make_fleet"),
    "process": ("started", "programs"),
}
NEEDS = tuple(FIXTURES)
# By the program's name. What stands below the temporary directory is a test's stand-in, and allowed.
PROGRAMS = {
    "nix": ("nix", "nix-build", "nix-env", "nix-instantiate", "nix-store", "nix-copy-closure", "nixos-rebuild"),
    "lab": ("ssh", "sshd", "ssh-keyscan", "unshare", "nsenter", "mount", "chroot", "debootstrap", "mmdebstrap"),
    "process": ("python", "python3", "pyinfra", "nixherd", Path(sys.executable).name),
}
SLOW = 10.0  # seconds

_running: list[str] = []
_refused: list[str] = []


def mark(items: list[pytest.Item]) -> None:
    """Give each test the marks that its fixtures say, and `unit` where nothing else is needed."""
    for item in items:
        names = set(getattr(item, "fixturenames", ()))
        for need, fixtures in FIXTURES.items():
            if names.intersection(fixtures):
                item.add_marker(need)
        if "integration" in item.path.parts:
            item.add_marker("lab")
        for node in item.listchain():
            node.own_markers[:] = [each for each in node.own_markers if each.name != "unit"]
        if not any(item.get_closest_marker(each) for each in (*NEEDS, "slow")):
            item.add_marker("unit")


def needed(program: str, path: str) -> str | None:
    """The mark that a test needs which starts this program; None where it may, or where the program does not exist."""
    place = shutil.which(program, path=path)
    if place is None or Path(place).is_relative_to(tempfile.gettempdir()):
        return None
    return next((need for need, names in PROGRAMS.items() if Path(place).name in names), None)


def _audit(event: str, details: tuple[Any, ...]) -> None:
    if not _running:
        return
    if event == "tests.needs":
        _refuse(str(details[0]), "needs what set-up makes")
    if event == "subprocess.Popen":
        executable, _, _, environment = details
        program = os.fsdecode(executable)
        path = (os.environ if environment is None else environment).get("PATH", os.defpath)
        if (need := needed(program, os.fsdecode(path))) is not None:
            _refuse(need, f"started {program}")


def _refuse(need: str, did: str) -> None:
    _refused.append(f"a unit test {did}: mark it `{need}` (tests/unit_guard.py), or stand in for it")
    pytest.fail(_refused[-1], pytrace=False)


sys.addaudithook(_audit)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if item.get_closest_marker("unit"):
        _running.append(item.nodeid)
    try:
        return (yield)
    finally:
        _running.clear()
        _refused.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Fail also where the refusal was caught by what is tested, or met a thread."""
    result = yield
    if _refused:
        pytest.fail(_refused[0], pytrace=False)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """What the last user of a shared fixture ends is not its own: another test may have needed it."""
    _running.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what should be marked `slow` and is not; a busy machine should not fail a run."""
    for report in terminalreporter.getreports("passed"):
        if report.when == "call" and report.duration > SLOW and "slow" not in report.keywords:
            terminalreporter.write_line(f"{report.nodeid} took {report.duration:.0f} s and is not marked slow")
