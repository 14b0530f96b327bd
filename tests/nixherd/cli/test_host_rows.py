"""What `exec`, `gc` and their like say became of a host: only what its journal has seen."""

from pathlib import Path
from typing import Any

import pytest

from nixherd.base.process import Completed
from nixherd.cli.host_rows import rows_of
from nixherd.cli.machines import _told
from nixherd.cli.run_pyinfra import Ended

RUN = {"event": "run", "hosts": ["a"]}


def entry(event: str, **values: Any) -> dict[str, Any]:
    return {"event": event, "host": "a", **values}


STEP, PLANNED = entry("step", text="run x", planned=False), entry("step", text="run x", planned=True)
MADE, NOTHING = entry("made", text="run x"), entry("nothing", text="it is there")
FAILED = entry("end", outcome="failed", why="a: sorry", exit=1)
UNREACHABLE = entry("end", outcome="unreachable", why="a: no answer", exit=4)


def row(*entries: dict[str, Any], dry: bool = False, stderr: str = "") -> dict[str, Any]:
    ended = Ended(Path("/nonexistent"), Completed("", stderr, 0), False, [RUN, *entries])
    [each] = rows_of(ended, dry=dry)
    return each


@pytest.mark.parametrize(
    ("entries", "outcome", "status"),
    [
        ((STEP, MADE), "done", 0),
        ((NOTHING,), "unchanged", 0),
        ((STEP, FAILED), "failed", 1),
        ((UNREACHABLE,), "unreachable", 4),
        ((STEP,), "unknown", 5),
        ((), "unknown", 5),
        ((STEP, MADE, STEP), "unknown", 5),
        ((STEP, NOTHING), "unknown", 5),
    ],
)
def test_done_is_what_was_seen_to_be_made(entries: tuple[dict[str, Any], ...], outcome: str, status: int) -> None:
    assert (row(*entries)["outcome"], row(*entries)["exit"]) == (outcome, status)


def test_a_plan_has_steps_and_makes_none() -> None:
    assert row(PLANNED, dry=True)["outcome"] == "planned"
    assert row(PLANNED, dry=True)["steps"] == ["run x"]
    assert row(PLANNED)["outcome"] == "unknown"


def test_the_run_that_ended_says_why() -> None:
    assert row(stderr="--> pyinfra error: it broke\n")["why"] == "pyinfra: it broke"
    assert rows_of(Ended(Path("/nonexistent"), Completed("", "", 1), False, []), dry=False) == []


def test_a_host_of_which_one_fact_is_not_known_has_not_done() -> None:
    """Of a fact that fails on every host pyinfra says nothing at all."""
    ended = Ended(Path("/nonexistent"), Completed("", "", 1), False, [RUN])
    one: dict[str, dict[str, Any]] = {"nixherd.facts.nixos.Running": {"a": {}}}
    assert [each["outcome"] for each in _told(ended, one, 2)] == ["unknown"]
    assert [each["outcome"] for each in _told(ended, one, 1)] == ["done"]
