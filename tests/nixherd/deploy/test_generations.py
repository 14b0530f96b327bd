"""Which generation of a profile is meant, and whether a machine has it."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from nixherd.base.errors import FleetError, Usage
from nixherd.deploy.options import Goal
from nixherd.deploy.running import Generation, chosen, expired, has_it, require_store_path
from tests.nixherd.deploy.scripted import BEFORE, NEW, OLD


def generation(number: int, *, current: bool = False) -> Generation:
    return Generation(number=number, path=OLD, built="2026-11-30T05:00:00Z", current=current)


GENERATIONS = [generation(3), generation(5), generation(7, current=True), generation(8)]


@pytest.mark.parametrize(
    ("generations", "number", "expected"),
    [
        (GENERATIONS, None, 5),  # the one before the current, though there is a later one
        (GENERATIONS, 8, 8),
        (GENERATIONS, 4, "generation 4 does not exist; there are 3, 5, 7, 8"),
        (GENERATIONS[2:], None, "no generation precedes the current one, 7"),
        ([], 1, "the machine names no generation: it keeps none, or was not asked"),
    ],
    ids=["before", "named", "missing", "first", "none"],
)
def test_which_one_is_meant(generations: list[Generation], number: int | None, expected: int | str) -> None:
    if isinstance(expected, int):
        assert chosen(generations, number)["number"] == expected
    else:
        with pytest.raises(FleetError, match=expected):
            chosen(generations, number)


@pytest.mark.parametrize(
    ("days", "current", "gone"),
    [(30, 4, []), (20, 4, []), (9, 4, [1]), (5, 4, [1, 2]), (1, 4, [1, 2, 3]), (1, 2, [1, 3]), (1, None, [1, 2, 3])],
)
def test_what_a_garbage_collection_deletes_of_a_profile(days: int, current: int | None, gone: list[int]) -> None:
    """Not what the profile led to so many days ago: on 2026-11-10 that is 1, on the 21st 2, on the 25th 3."""
    built = {1: "2026-11-05T05:00:00+00:00", 2: "2026-11-15T13:00:00+08:00", 3: "2026-11-22T05:00:00+00:00"}
    built[4] = "2026-11-28T05:00:00+00:00"
    found = [
        Generation(number=number, path=OLD, built=built[number], current=number == current) for number in (4, 2, 3, 1)
    ]
    now = datetime(2026, 11, 30, 5, tzinfo=UTC)
    assert [each["number"] for each in expired(found, days, now)] == gone


@pytest.mark.parametrize(
    ("goal", "current", "profile", "expected"),
    [
        (Goal.SWITCH, NEW, NEW, True),
        (Goal.SWITCH, NEW, OLD, False),
        (Goal.SWITCH, OLD, NEW, False),
        (Goal.TEST, NEW, OLD, True),
        (Goal.BOOT, OLD, NEW, True),
        (Goal.BOOT, NEW, OLD, False),
        (Goal.DRY_ACTIVATE, NEW, NEW, False),
    ],
)
def test_whether_a_machine_has_it_goes_by_the_goal(goal: Goal, current: str, profile: str, expected: bool) -> None:
    assert has_it(replace(BEFORE, current=current, profile=profile), NEW, goal) is expected


def test_a_system_is_named_by_its_store_path() -> None:
    assert require_store_path("system", NEW) == NEW
    for value in ("/run/current-system", None, 5):
        with pytest.raises(Usage, match=r"system=.* is not a store path"):
            require_store_path("system", value)
