"""Each host is in exactly one update mode; what is in none, or in several, is named."""

from itertools import product

import pytest

from nixherd.fleet.models import Access
from nixherd.overview.document import Mode
from nixherd.overview.updates import PULL, UPGRADE, Means, update_of

NOTHING = {"pulls": False, "pullsByTimer": False, "updates": False, "upgrades": False}


def configured(*names: str) -> dict[str, bool]:
    return NOTHING | dict.fromkeys(names, True)


@pytest.mark.parametrize(
    ("means", "mode"),
    [
        (Means(configured=NOTHING), Mode.PUSHED),
        (Means(), Mode.PUSHED),
        (Means(timers={UPGRADE: False, PULL: False}), Mode.PUSHED),
        (Means(configured=configured("pulls", "pullsByTimer")), Mode.PULLED),
        (Means(configured=configured("pulls", "updates")), Mode.SCHEDULED),
        (Means(configured=configured("upgrades")), Mode.SCHEDULED),
        # a machine that pulls on request alone, and may be pushed to
        (Means(configured=configured("pulls")), Mode.PUSHED),
        (Means(Access.TRIGGER, configured=configured("pulls")), Mode.PULLED),
        (Means(timers={UPGRADE: True, PULL: False}), Mode.SCHEDULED),
        (Means(timers={UPGRADE: False, PULL: True}), Mode.PULLED),
        # it needs no key of ours to update itself
        (Means(is_pinned=False, configured=configured("upgrades")), Mode.SCHEDULED),
    ],
)
def test_one_mode(means: Means, mode: Mode) -> None:
    update = update_of(means)
    assert (update.mode, update.modes, update.hole) == (mode, (mode,), None)


@pytest.mark.parametrize(
    ("means", "mode", "hole"),
    [
        (Means(configured=configured("upgrades", "pulls", "pullsByTimer")), None, "in 2 ways"),
        (Means(timers={UPGRADE: True, PULL: True}), None, "in 2 ways"),
        (Means(Access.TRIGGER, configured=NOTHING), None, "nothing to pull from"),
        (Means(is_pinned=False, configured=NOTHING), None, "nobody updates it"),
        (Means(configured=configured("upgrades"), timers={UPGRADE: False, PULL: False}), Mode.SCHEDULED, UPGRADE),
        (Means(configured=configured("pulls", "pullsByTimer"), timers={UPGRADE: True}), Mode.PULLED, PULL),
        (Means(configured=NOTHING, timers={UPGRADE: True}), Mode.PUSHED, "still updates itself"),
    ],
)
def test_a_hole_is_named(means: Means, mode: Mode | None, hole: str) -> None:
    update = update_of(means)
    assert update.mode is mode
    assert hole in (update.hole or "")


def test_whatever_is_there_a_host_is_in_one_mode_or_a_hole_is_named() -> None:
    flags = [dict(zip(NOTHING, values, strict=True)) for values in product((False, True), repeat=4)]
    timers = [None, *({UPGRADE: one, PULL: other} for one, other in product((False, True), repeat=2))]
    for access, pinned, known, seen in product(Access, (False, True), [None, *flags], timers):
        update = update_of(Means(access, pinned, known, seen))
        assert update.mode is not None or update.hole
        assert update.mode is None or update.modes == (update.mode,)
