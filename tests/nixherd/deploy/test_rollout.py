"""How far a host of a rollout is, whose turn it is, and what is said when its journal or its run breaks."""

import getpass
import os
import re
from typing import Any

import pytest

from nixherd.base.errors import FleetError, NotBegun, Undecided, Usage
from nixherd.deploy.operators import operator
from nixherd.deploy.options import MaxFail
from nixherd.deploy.rollout import Built, Copied, Planned, Reached, Rollouts
from tests.nixherd.deploy.scripted import BEFORE, CONFIG, Scripted, rolled_out

REACHED = Reached("192.0.2.1", BEFORE)
PLANNED = Planned(REACHED, CONFIG)


@pytest.mark.parametrize(
    ("value", "row", "missing"),
    [
        (None, "reached", "reach"),
        (REACHED, "planned", "evaluate"),
        (REACHED, "built", "evaluate"),
        (None, "copied", "evaluate"),
    ],
)
def test_a_row_that_is_not_in_its_place_names_the_one_before(value: Any, row: str, missing: str) -> None:
    _, host_run, _ = rolled_out(Scripted())
    host_run.value = value
    with pytest.raises(Usage, match=f"dev: .* deployment.{missing}; put that row before it"):
        getattr(host_run, row)


def test_each_row_goes_on_with_what_the_one_before_made() -> None:
    _, host_run, _ = rolled_out(Scripted())
    host_run.value = REACHED
    assert host_run.reached is REACHED
    host_run.value = PLANNED
    assert (host_run.planned, host_run.built, host_run.copied) == (PLANNED, PLANNED, PLANNED)
    host_run.value = built = Built(PLANNED)
    assert (host_run.built, host_run.copied) == (built, built)
    host_run.value = copied = Copied(built)
    assert host_run.copied is copied
    assert (built.config, copied.config) == (CONFIG, CONFIG)
    assert PLANNED.revision_change == "old → 4f2c4f2c4f2c"


@pytest.mark.parametrize(
    ("stage", "following", "error", "kind"),
    [
        ("copy", "activate", "No space left.*activate was not begun: make room there", NotBegun),
        ("activate", "prove", "No space left.*its machine decides by itself", Undecided),
    ],
)
def test_a_stage_that_cannot_be_noted_is_not_begun(
    stage: str, following: str, error: str, kind: type[Exception]
) -> None:
    _, host_run, notes = rolled_out(Scripted())
    host_run.enter(stage)
    host_run.enter(stage)
    assert notes.stages == [stage]

    def full(*words: Any, **values: Any) -> None:
        raise OSError(28, "No space left on device", "journal.jsonl")

    host_run.journal.note = full  # type: ignore[method-assign]
    with pytest.raises(kind, match=error):
        host_run.enter(following)
    assert host_run.stage == stage


def test_what_nobody_foresaw_is_unknown_once_the_machine_may_have_changed() -> None:
    _, host_run, notes = rolled_out(Scripted())
    with pytest.raises(FleetError, match=r"dev: before it began: .*KeyError"), host_run.reporting():
        raise KeyError("x")
    assert not host_run.is_over
    host_run.enter("activate")
    with pytest.raises(Undecided, match=r"KeyError.*; see "), host_run.reporting():
        raise KeyError("x")
    assert notes.end[0] == "unknown"
    assert host_run.is_over


def test_a_failure_holds_those_that_come_after() -> None:
    rollout, host_run, notes = rolled_out(Scripted(), max_fail=MaxFail(number=0))
    with pytest.raises(FleetError, match="it broke"), rollout.turn(host_run):
        raise FleetError("it broke")
    assert rollout.failed == {"dev": host_run.options.wave}
    with pytest.raises(NotBegun, match=r"dev is held: 1 of 1 hosts failed \(dev\)"), rollout.turn(host_run):
        raise AssertionError("it was held")
    assert notes.end[0] == "held"


def test_an_operator_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    assert re.fullmatch(rf"[\w@.-]+-{os.getpid()}", operator())
    monkeypatch.setattr(getpass, "getuser", nameless)
    assert operator().startswith(f"uid-{os.getuid()}@")


def test_rollouts_are_counted() -> None:
    rollouts = Rollouts()
    assert [next(rollouts.numbers), next(rollouts.numbers)] == [1, 2]
