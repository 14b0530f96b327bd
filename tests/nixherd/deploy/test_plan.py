"""What is to be done on each machine, what that changes, and what a machine that pulls says; answered by script."""

import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nixherd.base.errors import FleetError, NotSent, NotWell, Undecided, Usage
from nixherd.base.process import Completed
from nixherd.deploy import plan, program
from nixherd.deploy.options import Goal, Options
from nixherd.deploy.program import note_alone
from nixherd.deploy.rollout import Built, Copied, Planned, PlannedToPull, Reached, ReachedToPull
from nixherd.fleet.git import Repository
from nixherd.fleet.models import Access
from nixherd.nix import commands
from nixherd.nix.evaluator import Evaluator
from tests.nixherd.deploy.scripted import (
    BEFORE,
    CONFIG,
    FAILED,
    NEW,
    OLD,
    REVISION,
    SHARED,
    THIRD,
    Scripted,
    rolled_out,
    system,
)


def planned(machine: Scripted, monkeypatch: pytest.MonkeyPatch, config: Any = CONFIG, **options: Any) -> Any:
    monkeypatch.setattr(Evaluator, "evaluate", lambda self, hosts, host_id: config)
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


def test_what_runs_is_asked_again_where_the_connection_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = OSError("No route to host")
    machine = Scripted(answers={"": [lost, system()]})
    assert planned(machine, monkeypatch)[0].reached.running.current == OLD
    assert (len(machine.commands), machine.connections) == (2, 1)
    for error, asked in ((lost, 2), (NotSent("not connected"), 1)):
        machine = Scripted(answers={"": error})
        with pytest.raises(OSError, match=str(error)):
            planned(machine, monkeypatch)
        assert len(machine.commands) == asked


def test_what_it_has_already_is_not_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, revision=None)
    _, _, host_run, _ = planned(Scripted(answers={"": system(NEW)}), monkeypatch, config)
    assert host_run.outcome == "unchanged"
    value, _, host_run, notes = planned(Scripted(answers={"": system(NEW)}), monkeypatch)
    assert (value.revision_only, host_run.outcome, notes.found["revision_only"]) == (True, None, True)
    assert value.revision_change == "unknown → 4f2c4f2c4f2c"
    with pytest.raises(NotWell, match="units fail there"):
        planned(Scripted(answers={"": system(NEW, unwell="a.service")}), monkeypatch)


@pytest.mark.parametrize(("leads", "end"), [(THIRD, "unchanged"), (OLD, None), ("", None)])
def test_only_the_machine_knows_where_its_specialisation_leads(
    leads: str, end: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its system was built there, or by another controller: it is not in the store here."""
    machine = Scripted(answers={"specialisation/travel": f"{leads}\n" if leads else "", "say sudo": system(THIRD)})
    rollout, host_run, _ = rolled_out(machine, specialisation="travel")
    monkeypatch.setattr(Evaluator, "evaluate", lambda self, hosts, host_id: replace(CONFIG, revision=None))
    runs = replace(BEFORE, current=THIRD, profile=NEW)
    plan.plan(SHARED.evaluator, rollout, host_run, Reached("192.0.2.1", runs), ("dev",))
    assert host_run.outcome == end


@pytest.mark.parametrize(
    ("specialisation", "name"), [(None, "base"), ("travel", "special"), ("broken", "base"), ("nosuch", "base")]
)
def test_a_specialisation_has_its_own_health_checks(specialisation: str | None, name: str) -> None:
    """One that cannot be evaluated cannot be built either."""
    _, host_run, _ = rolled_out(Scripted())
    config = replace(
        CONFIG,
        health={"base": {"unit": "a.service"}},
        health_of={"travel": {"special": {"unit": "b.service"}}, "broken": None},
    )
    assert [each.name for each in plan.checks_of(host_run, config, specialisation)] == [name]


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
        (Options(specialisation="x"), NEW, NEW, False),
        (Options(specialisation="x"), None, NEW, False),  # and the store here does not have it, either
    ],
)
def test_what_has_come_to_its_goal(options: Options, current: str | None, profile: str, done: bool) -> None:
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
    assert {(each.sudo, each.deadline) for each in machine.with_word("path-info")} == {(False, plan.LISTING_DEADLINE)}
    listing = [shlex.split(script.partition(" || ")[2]) for script in machine.scripts if "path-info" in script]
    assert listing == [commands.closure_sizes(OLD), commands.closure_sizes(NEW)], "its shell sees the same words"


def store(tmp_path: Path, name: str, **files: str) -> str:
    """A system in a store here, whose files say these things; `kernel` is a link to such a file."""
    root = tmp_path / f"{name * 32}-system"
    root.mkdir()
    for file, text in files.items():
        (root / file.replace("_", "-")).write_text(text)
    return str(root)


@pytest.mark.parametrize("access", list(Access)[:2])
def test_what_changes_is_said_of_what_was_built_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, access: Access
) -> None:
    """The old system is listed here, there, or not at all, which is not a size of 0."""
    inhibitors = {"switch_inhibitors": '{"systemd": "2", "dbus": "broker"}', "init_interface_version": "systemd 2"}
    new = store(tmp_path, "b", kernel="linux", **inhibitors)
    graph = {new: (30, (f"{new}-a",)), f"{new}-a": (12, (new,))}
    monkeypatch.setattr(commands, "parse_path_info", lambda text: graph)
    monkeypatch.setattr(plan, "run", lambda argv, **arguments: Completed("", "", 0))
    old = replace(BEFORE, parts={"kernel": "/a"}, inhibitors='{"systemd": "1", "x": "y"}', init="systemd 1")
    machine = Scripted(access=access, answers={"path-info": f"{OLD} 100\n"})
    rollout, host_run, notes = rolled_out(machine)
    config = replace(CONFIG, toplevel=new)
    built = Built(Planned(Reached("x", old), config))
    changes = plan.show_changes(rollout, host_run, built, [config]).changes
    assert changes.reboot_for == ("kernel",)
    assert changes.inhibitors == ("systemd: 1 → 2", "init: systemd 1 → systemd 2")
    assert notes.found["reboot_for"] == ("kernel",)
    asked = any("path-info" in script for script in machine.scripts)
    assert asked == (access is Access.SHELL)
    assert (notes.found.get("size_before"), notes.found.get("size_after")) == ((100, 42) if asked else (None, None))
    assert "needs a reboot for: kernel" in machine.narration


def test_an_old_system_that_is_here_is_compared_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    new, old = store(tmp_path, "b"), store(tmp_path, "a")
    monkeypatch.setattr(commands, "parse_path_info", lambda text: {new: (30, ()), old: (10, ())})
    monkeypatch.setattr(plan, "run", lambda argv, **arguments: Completed("", "", 0))
    for current, before in ((old, 10), (None, 0)):
        machine = Scripted()
        rollout, host_run, notes = rolled_out(machine)
        config = replace(CONFIG, toplevel=new)
        host_run.value = built = Built(Planned(Reached("x", replace(BEFORE, current=current)), config))
        plan.show_changes(rollout, host_run, built, [])
        assert (notes.found["size_before"], notes.found["size_after"], machine.scripts) == (before, 30, [])


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", None])
def test_inhibitors_that_cannot_be_read_are_none(text: str | None) -> None:
    coming = {plan.INHIBITORS: '{"systemd": "2"}', plan.INIT: None}
    assert plan.inhibitors_between({plan.INHIBITORS: text, plan.INIT: "systemd 1"}, coming) == ()


def test_what_is_not_committed_is_not_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    def planned_from(dirty: list[str], source: Any = None, **options: Any) -> Any:
        repository = SimpleNamespace(changed=lambda paths: dirty)
        monkeypatch.setattr(Repository, "around", lambda path: repository)
        monkeypatch.setattr(SHARED.evaluator, "source", source)
        rollout, host_run, notes = rolled_out(Scripted(answers={"": system()}), **options)
        plan.require_committed(SHARED.evaluator.source, rollout, host_run)
        assert notes.stages == ["evaluate"]
        return [values for event, _, values in notes.entries if event == "run"]

    with pytest.raises(FleetError, match=r"flake\.nix"):
        planned_from(["flake.nix"], allow_dirty=False)
    assert planned_from(["flake.nix"], allow_dirty=True) == [{"dirty": ["flake.nix"]}]
    with pytest.raises(Usage, match="dev: require_signed holds for the whole fleet"):
        planned_from([], require_signed=True)


def test_why_a_plan_does_not_show_what_changes() -> None:
    _, host_run, _ = rolled_out(Scripted(), build_on="target")
    value = Planned(Reached("x", BEFORE), CONFIG)
    assert plan.why_unknown(host_run, value) == "built on target, so what changes is not known yet"
    assert plan.why_unknown(host_run, Built(value)) is None


def test_a_system_that_differs_by_its_revision_alone_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def as_of(self: Any, hosts: Any, revision: str) -> dict[str, str]:
        asked.append((tuple(hosts), revision))
        return {"dev": OLD}

    monkeypatch.setattr(Evaluator, "as_of", as_of)
    config = replace(CONFIG, configuration_revision="new")
    for current, was, noted in ((OLD, "old", True), (NEW, "old", None), (OLD, None, None), (OLD, "new", None)):
        rollout, host_run, notes = rolled_out(Scripted())
        value = Planned(Reached("x", replace(BEFORE, current=current, configuration_revision=was)), config)
        host_run.value = value
        plan.note_if_revision_only(SHARED.evaluator, rollout, host_run, value)
        assert notes.found.get("revision_only") == noted
    assert asked == [(("dev",), "old")] * 2


@pytest.mark.parametrize(
    ("answer", "outcome", "error"),
    [
        (f"was={OLD} x\nnoted=\n{NEW}\n", "deployed", None),
        (f"was={NEW} {REVISION} 2026-11-29T21:03:27Z me r\nnoted={NEW} {REVISION} 2026-11-29T21:03:27Z me r\n{NEW}\n",
         "unchanged", None),
        (f"was={NEW}\nnoted={NEW} {REVISION} 2026-11-29T21:03:27Z me r\n{NEW}\n", "revision only", None),
        (f"{OLD}\n", None, "it ran its command, and runs .*, not"),
        ("nothing\n", "unknown", "it ran its command, which does not say what runs"),
        (OSError("the connection broke"), "unknown", "what it did is not known: the connection broke"),
        (NotSent("no route"), None, "it was not told to pull: no route"),
        (FAILED, None, "its command failed: it is broken"),
    ],
)  # fmt: skip
def test_a_machine_that_pulls_says_what_runs_then(answer: Any, outcome: str | None, error: str | None) -> None:
    rollout, host_run, _ = rolled_out(Scripted(access=Access.TRIGGER, answers={"trigger": answer}))
    value = PlannedToPull(ReachedToPull("x"), CONFIG)
    if error:
        with pytest.raises(FleetError, match=error) as raised:
            program.trigger(rollout, host_run, value)
        assert isinstance(raised.value, Undecided) == (outcome == "unknown")
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
        (FAILED, "whether it has noted .* is not known: noting the revision failed: it is broken"),
        (OSError("gone"), f"whether it has noted revision {REVISION} is not known: gone"),
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


def test_a_dry_activation_says_what_the_system_says() -> None:
    machine = Scripted(answers={"dry-activate": "would restart a.service\n"})
    _, host_run, notes = rolled_out(machine)
    built = Built(Planned(Reached("x", BEFORE), CONFIG))
    plan.dry_activate(host_run, Copied(built))
    assert machine.narration == notes.found["services"] == ["would restart a.service"]
    assert machine.are_roots("dry-activate")
    assert notes.end[0] == "planned"
