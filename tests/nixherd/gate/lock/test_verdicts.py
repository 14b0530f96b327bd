"""What a gate says, in a line that somebody reads in the morning."""

import contextlib
import json
import time
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.gate.lock.combine import TreeGate


def judged(command: str, directory: Path) -> tuple[bool, tuple[str, ...]]:
    verdict = TreeGate(command, 10).judge(directory)
    return verdict.passed, verdict.reasons


def found(**document: object) -> str:
    return f"echo '{json.dumps(document)}'; exit 1"


@pytest.mark.parametrize(
    ("command", "reasons"),
    [
        ("echo one; echo two; exit 1", ("two",)),
        ("echo one; echo two >&2; exit 1", ("two",)),
        ("printf 'error: first\\n  at x\\nerror: last\\n' >&2; exit 1", ("last",)),
        ("printf 'a\\033[2Jb' >&2; exit 1", ("a\\x1b[2Jb",)),
        ("exit 3", ("status 3",)),
        ("kill -9 $$", ("status -9",)),
        (
            found(
                findings=[
                    {"severity": "warning", "file": "a.nix", "line": None, "what": "is odd"},
                    {"severity": "error", "file": "b.nix", "line": 4, "what": "is wrong"},
                ]
            ),
            ("b.nix:4: is wrong", "a.nix: is odd"),
        ),
        (
            found(findings=[], tools=[{"name": "flake", "reason": None}, {"name": "statix", "reason": "not on PATH"}]),
            ("statix: not on PATH",),
        ),
        (found(findings=[{"what": str(number)} for number in range(10)]), (*"01234567", "(and 2 more)")),
        (found(findings=[1]), ('{"findings": [1]}',)),
    ],
)
def test_why_a_tree_is_stopped(tmp_path: Path, command: str, reasons: tuple[str, ...]) -> None:
    assert judged(command, tmp_path) == (False, reasons)


def test_a_gate_that_ends_with_nothing_or_not_at_all(tmp_path: Path) -> None:
    assert judged("echo words; echo more >&2", tmp_path) == (True, ())
    for gate, left in ((TreeGate("exec sleep 5", 0.2), 9), (TreeGate("exec sleep 5"), 0.2)):
        verdict = gate.judge(tmp_path, left)
        assert (verdict.passed, verdict.answered) == (False, False)
        assert "not done after 0.2 s" in verdict.reason
    with pytest.raises(FleetError, match="the gate cannot be run: "):
        TreeGate("true").judge(tmp_path / "gone")


@pytest.mark.parametrize(
    ("command", "answered"),
    [
        ("exit 1", True),
        ("exit 2", True),  # make's
        ("exit 100", True),  # nix-build's
        ("exit 4", False),
        ("exit 5", False),
        ("timeout 0.1 sleep 5", False),
        ("no-such-gate", False),
        ("/dev/null", False),
        ("kill -9 $$", False),
        ("sh -c 'kill -9 $$'; exit $?", False),
        (found(findings=[], tools=[{"name": "builds", "reason": "nobody can tell"}]), False),
        (found(findings=[{"what": "x"}], tools=[{"name": "builds", "reason": "nobody can tell"}]), True),
        (found(findings=[], tools=[]), True),
        ("echo \"error: unable to download 'https://x': Could not resolve host: x\" >&2; exit 1", False),
        ("echo \"error: unable to download 'https://x': HTTP error 404\" >&2; exit 1", True),
        (found(findings=[{"what": "writing to file: No space left on device"}]), False),
        (found(findings=[{"what": "HTTP error 429"}, {"what": "attribute 'x' missing"}]), True),
        ("printf '%100000s' | tr ' ' '['; exit 1", True),
    ],
)
def test_a_gate_that_could_not_work_has_not_judged_the_tree(tmp_path: Path, command: str, answered: bool) -> None:
    verdict = TreeGate(command, 10).judge(tmp_path)
    assert (verdict.passed, verdict.answered) == (False, answered)
    assert verdict.reason


def test_of_our_own_gate_only_one_status_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").touch()
    program = tmp_path / "nixherd"
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    for status in (1, 2, 3, 4, 5):
        program.write_text(f"#!/bin/sh\nexit {status}\n")
        program.chmod(0o755)
        assert TreeGate().judge(tmp_path).answered == (status == 1)


def test_what_a_gate_leaves_in_the_background_does_not_go_on(tmp_path: Path) -> None:
    assert judged(f"sleep 60 >/dev/null 2>&1 & echo $! >{tmp_path}/pid; sleep 0.2", tmp_path)[0]
    status = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/status")
    until = time.monotonic() + 10
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while "zombie" not in status.read_text():
            assert time.monotonic() < until, "it goes on"
            time.sleep(0.01)
