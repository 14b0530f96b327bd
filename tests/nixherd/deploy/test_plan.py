"""What is to be done on each machine, what that changes, and what a machine that pulls says; answered by script."""

import shlex
from dataclasses import replace
from typing import Any

import pytest

from nixherd.deploy import commit_policy, plan, program
from nixherd.deploy.options import Goal, Options
from nixherd.deploy.program import note_alone
from nixherd.deploy.run import Built, Copied, Planned, PlannedToPull, Reached, ReachedToPull
from nixherd.errors import FleetError, NotWell
from nixherd.fleet.models import Access
from nixherd.nix import commands as nix
from nixherd.nix.evaluator import Evaluator
from tests.nixherd.deploy.scripted import (
    BEFORE,
    CONFIG,
    FAILED,
    NEW,
    OLD,
    REVISION,
    SHARED,
    Scripted,
    rolled_out,
    system,
)


def planned(machine: Scripted, monkeypatch: pytest.MonkeyPatch, config: Any = CONFIG, **options: Any) -> Any:
    monkeypatch.setattr(Evaluator, "evaluate", lambda self, hosts, host_id: config)
    monkeypatch.setattr(commit_policy, "uncommitted", lambda path: [])
    rollout, host_run, notes = rolled_out(machine, **options)
    host_run.value = plan.reach(host_run)
    return plan.plan(SHARED.evaluator, rollout, host_run, host_run.reached, ("dev",)), rollout, host_run, notes


def test_another_system_is_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    value, rollout, host_run, notes = planned(Scripted(answers={"": system()}), monkeypatch)
    assert isinstance(value, Planned)
    assert (value.reached.running.current, value.config.toplevel, value.revision_only) == (OLD, NEW, False)
    assert (notes.found["old"], notes.found["new"], host_run.outcome) == (OLD, NEW, None)
    host_run.value = value
    assert plan.to_come(SHARED.evaluator, rollout, ("dev",)) == [CONFIG]
    assert plan.running_of(host_run) is value.reached.running
    host_run.value = Copied(Built(value))
    assert plan.planned_of(host_run) is value


def test_what_it_has_already_is_not_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, revision=None)
    _, _, host_run, _ = planned(Scripted(answers={"": system(NEW)}), monkeypatch, config)
    assert host_run.outcome == "unchanged"
    value, _, host_run, notes = planned(Scripted(answers={"": system(NEW)}), monkeypatch)
    assert (value.revision_only, host_run.outcome, notes.found["revision_only"]) == (True, None, True)
    assert value.revision_change == "unknown → 4f2c4f2c4f2c"
    with pytest.raises(NotWell, match="units fail there"):
        planned(Scripted(answers={"": system(NEW, unwell="a.service")}), monkeypatch)


def test_a_machine_that_pulls_is_planned_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    value, _, host_run, _ = planned(Scripted(access=Access.TRIGGER), monkeypatch)
    assert isinstance(value, PlannedToPull)
    assert isinstance(host_run.value, ReachedToPull)
    assert "pulls its configuration itself" in str(plan.why_unknown(host_run, value))


@pytest.mark.parametrize(
    ("options", "current", "profile", "done"),
    [
        (Options(), NEW, NEW, True),
        (Options(), NEW, OLD, False),
        (Options(goal=Goal.TEST), NEW, OLD, True),
        (Options(goal=Goal.BOOT), OLD, NEW, True),
        (Options(goal=Goal.DRY_ACTIVATE), NEW, NEW, False),
        (Options(specialisation="x"), f"{NEW}/specialisation/x", NEW, True),
    ],
)
def test_what_has_come_to_its_goal(options: Options, current: str, profile: str, done: bool) -> None:
    assert plan.is_done(options, replace(BEFORE, current=current, profile=profile), NEW) == done


def test_what_changes_is_said_of_what_was_built_there() -> None:
    closure = f"{OLD} 100\n"
    answers = {"path-info": closure, "readlink": "kernel /b\n", "switch-inhibitors": '{"systemd": "2"}', "init-": ""}
    machine = Scripted(answers=answers)
    rollout, host_run, notes = rolled_out(machine)
    before = replace(BEFORE, parts={"kernel": "/a"}, inhibitors='{"systemd": "1"}')
    built = Built(Planned(Reached("x", before), CONFIG), is_there=True)
    shown = plan.show_changes(rollout, host_run, built, [])
    assert shown.changes.reboot_for == ("kernel",)
    assert shown.changes.inhibitors == ("systemd: 1 → 2",)
    assert notes.found["size_before"] == 100
    listed = [shlex.split(script.partition("|| ")[2]) for script in machine.scripts if "path-info" in script]
    assert listed == [nix.closure_sizes(OLD), nix.closure_sizes(NEW)]


@pytest.mark.parametrize(
    ("answer", "outcome", "error"),
    [
        (f"was={OLD} x\nnoted=\n{NEW}\n", "deployed", None),
        (f"was={NEW} {REVISION} 2026-11-29T21:03:27Z me r\nnoted={NEW} {REVISION} 2026-11-29T21:03:27Z me r\n{NEW}\n",
         "unchanged", None),
        (f"was={NEW}\nnoted={NEW} {REVISION} 2026-11-29T21:03:27Z me r\n{NEW}\n", "revision only", None),
        (f"{OLD}\n", None, "it ran its command, and runs .*, not"),
        ("nothing\n", None, "runs what it does not say"),
        (FAILED, None, "its command failed: it is broken"),
    ],
)  # fmt: skip
def test_a_machine_that_pulls_says_what_runs_then(answer: Any, outcome: str | None, error: str | None) -> None:
    rollout, host_run, _ = rolled_out(Scripted(access=Access.TRIGGER, answers={"trigger": answer}))
    value = PlannedToPull(ReachedToPull("x"), CONFIG)
    if error:
        with pytest.raises(FleetError, match=error):
            program.trigger(rollout, host_run, value)
    else:
        program.trigger(rollout, host_run, value)
    assert host_run.outcome == outcome


NOTED = f"protocol=3\nstate=none\nnew={NEW}\nkept_as={NEW} {REVISION} 2026-11-29T21:03:27Z me r\ncurrent={NEW}\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (NOTED, None),
        (f"{NOTED}busy=me@x\n", "me@x is deploying to it"),
        ("protocol=3\nrefused=full\n", "full"),
        ("protocol=3\nstate=none\n", "was told to note revision .*, and notes None"),
        (FAILED, "noting the revision failed: it is broken"),
    ],
)
def test_a_revision_alone_is_noted_and_read_back(answer: Any, error: str | None) -> None:
    rollout, host_run, notes = rolled_out(Scripted(answers={"": answer}))
    value = Planned(Reached("x", BEFORE), CONFIG, revision_only=True)
    if error:
        with pytest.raises(FleetError, match=error):
            note_alone(rollout, host_run, value)
        return
    note_alone(rollout, host_run, value)
    assert notes.end == ("revision only", "old → 4f2c4f2c4f2c")


def test_a_program_of_the_version_before_notes_none() -> None:
    rollout, host_run, notes = rolled_out(Scripted(access=Access.PUSH_CLOSURE))
    note_alone(rollout, host_run, Planned(Reached("x", replace(BEFORE, protocol=2)), CONFIG))
    assert notes.end[0] == "unchanged"
