"""What a gate says, in a line that somebody reads in the morning."""

import json
from pathlib import Path

import pytest

from nixherd.errors import FleetError
from nixherd.lock.verdicts import TreeGate

pytestmark = pytest.mark.unit


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
    verdict = TreeGate("exec sleep 5", 0.2).judge(tmp_path)
    assert (verdict.passed, "not done after 0.2 s" in verdict.reason) == (False, True)
    for command in ("no-such-gate", "/dev/null"):
        with pytest.raises(FleetError, match="the gate cannot be run: "):
            TreeGate(command).judge(tmp_path)
