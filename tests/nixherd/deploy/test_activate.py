"""An activation from its beginning to its judged end, on a machine that runs the real machine.sh in a directory."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError, NeedsBoot, NotBegun, Refused, Undecided
from nixherd.base.process import Completed
from nixherd.deploy import activate as module
from nixherd.deploy.activate import activate
from nixherd.deploy.options import Goal
from nixherd.deploy.program import ask_program
from nixherd.deploy.protocol import LOOK, PARTS, Kind, part
from nixherd.deploy.report import Outcome
from nixherd.deploy.rollout import Built, Changes, Planned, Reached, Target
from nixherd.deploy.running import PENDING, Running, ask_running
from nixherd.facts.nixos import NeedsReboot
from nixherd.fleet.health_checks import Check
from tests.nixherd.deploy.scripted import NEW, OLD, REVISION, THIRD, Sandbox, Scripted, answers, rolled_out
from tests.runs import DESCRIBED

TARGET = Target(NEW, socket.gethostname(), REVISION)


@pytest.fixture
def machine(tmp_path: Path) -> Sandbox:
    made = Sandbox(root=tmp_path / "machine")
    made.system(NEW)
    return made


def running(machine: Sandbox) -> Running:
    return ask_running(machine, Kind.SYSTEM)


def test_a_proven_system_is_kept_and_its_revision_read_back(machine: Sandbox) -> None:
    rollout, host_run, notes = rolled_out(machine)
    activate(rollout, host_run, TARGET, running(machine))
    assert (machine.current, machine.profile) == (NEW, NEW)
    assert notes.end == ("deployed", None)
    assert notes.stages == ["activate", "prove", "keep"]
    assert (notes.found["current"], notes.found["noted"]) == (NEW, REVISION)
    assert all(machine.are_roots(word) for word in (" begin ", " look ", f" say {rollout.id} keep"))
    assert not machine.are_roots("say sudo"), "what runs is asked as whoever logs in"
    [begun] = machine.with_word(" begin ")
    assert begun.stdin == "".join(part(name) for name in PARTS), "it brings its program with it"
    assert all(each.deadline > LOOK for each in machine.with_word(" look ")), "a look waits there for so long"


@pytest.mark.parametrize(("kind", "is_root"), [(Kind.SYSTEM, True), (Kind.HOME, False)])
def test_a_machines_program_is_roots_and_a_homes_is_its_users(kind: Kind, is_root: bool) -> None:
    asks = Completed("", "sudo: a password is required\n", 1)
    machine = Scripted(answers={"": [asks, "protocol=3\nstate=none\n"]}, has_password=True)
    if not is_root:
        machine.answers[""].pop(0)
    ask_program(machine, kind, "look", stdin="program", what="looking")
    assert {(each.sudo, each.stdin) for each in machine.commands} == {(is_root, "program")}
    assert (len(machine.commands), machine.password) == ((2, "secret") if is_root else (1, None))


def test_a_system_that_fails_goes_back_with_its_words(machine: Sandbox) -> None:
    machine.system(THIRD, activate="echo error: no disk is left; exit 3")
    rollout, host_run, notes = rolled_out(machine)
    with pytest.raises(FleetError, match=r"ended with status 3 \(no disk is left\); it went back to"):
        activate(rollout, host_run, Target(THIRD), running(machine))
    assert (machine.current, machine.profile) == (OLD, OLD)
    assert notes.end[0] == "rolled back"


def test_who_says_not_now_is_held_until_that_is_taken_away(machine: Sandbox) -> None:
    hold = machine.root / "run" / "nixherd" / "hold"
    hold.parent.mkdir(parents=True, exist_ok=True)
    hold.write_text("the nightly backup\nruns\n")
    rollout, host_run, notes = rolled_out(machine)
    before = running(machine)
    assert before.hold is not None
    assert before.hold.endswith("hold is there: the nightly backup")
    with pytest.raises(NotBegun, match=r"is held: .*the nightly backup; nothing is changed while that is so there"):
        activate(rollout, host_run, TARGET, before)
    assert (machine.current, machine.profile, notes.end[0]) == (OLD, OLD, "held")
    hold.unlink()
    rollout, host_run, notes = rolled_out(machine)
    activate(rollout, host_run, TARGET, running(machine))
    assert (machine.current, notes.end[0]) == (NEW, "deployed")


def test_a_check_that_does_not_pass_brings_the_old_system_back(machine: Sandbox) -> None:
    rollout, host_run, notes = rolled_out(machine)
    config = DESCRIBED
    before = running(machine)
    checks = (Check("web", "tcp", "localhost:81", timeout=1),)
    built = Built(Planned(Reached("x", before), config, checks))
    with pytest.raises(FleetError, match=r"web \(tcp localhost:81\) does not pass: no connection to localhost:81"):
        activate(rollout, host_run, TARGET, before, built=built)
    assert (machine.current, machine.profile) == (OLD, OLD)
    assert (notes.end[0], notes.stages[-1]) == ("rolled back", "roll back")


def test_another_hostname_than_the_configurations_is_no_proof(machine: Sandbox) -> None:
    rollout, host_run, notes = rolled_out(machine)
    with pytest.raises(FleetError, match=r"hostname is .*, not another"):
        activate(rollout, host_run, Target(NEW, "another"), running(machine))
    assert machine.current == OLD
    assert "another" in str(notes.end[1])


def test_goal_boot_leaves_the_running_system_and_says_that_a_reboot_is_pending(machine: Sandbox) -> None:
    rollout, host_run, notes = rolled_out(machine, goal=Goal.BOOT)
    activate(rollout, host_run, Target(NEW), running(machine))
    assert (machine.current, machine.profile) == (OLD, NEW)
    assert notes.end[0] == Outcome.PENDING_REBOOT
    assert running(machine).reboot_for == (PENDING,)


def test_a_system_that_only_runs_for_a_test_waits_for_no_reboot(machine: Sandbox) -> None:
    rollout, host_run, notes = rolled_out(machine, goal=Goal.TEST)
    activate(rollout, host_run, Target(NEW), running(machine))
    assert (machine.current, machine.profile, notes.end[0]) == (NEW, OLD, "deployed")
    assert running(machine).reboot_for == ()


def test_one_activation_after_the_other_goes_by_what_runs_then(machine: Sandbox) -> None:
    """§2.2: activated(NEW), then activated(OLD), each with what was read before it."""
    for system in (NEW, OLD):
        rollout, host_run, _ = rolled_out(machine)
        rollout.id = f"{rollout.id}.{system[11]}"
        activate(rollout, host_run, Target(system), running(machine))
        assert (machine.current, machine.profile) == (system, system)
        machine.reap()


def test_a_damaged_target_is_refused_before_anything_changes(machine: Sandbox) -> None:
    rollout, host_run, _ = rolled_out(machine)
    with pytest.raises(NotBegun, match=r"has no bin/switch-to-configuration: .*; nothing was changed"):
        activate(rollout, host_run, Target(THIRD), running(machine))
    assert machine.current == OLD


def test_a_lost_answer_to_the_beginning_is_asked_for_again(machine: Sandbox) -> None:
    rollout, host_run, notes = rolled_out(machine)
    before = running(machine)
    begin = machine.run

    def cut_off(script: str, **arguments: object) -> object:
        begin(script, **arguments)  # type: ignore[arg-type]
        machine.run = begin  # type: ignore[method-assign]
        raise OSError("the connection broke")

    machine.run = cut_off  # type: ignore[method-assign, assignment]
    activate(rollout, host_run, TARGET, before)
    assert (machine.current, notes.end[0]) == (NEW, "deployed")
    assert "no answer: the connection broke" in machine.narration


def test_what_inhibits_a_switch_needs_a_boot(machine: Sandbox) -> None:
    rollout, host_run, notes = rolled_out(machine)
    before = running(machine)
    built = Built(Planned(Reached("x", before), DESCRIBED), changes=Changes(inhibitors=("systemd: 1 → 2",)))
    with pytest.raises(NeedsBoot, match="systemd: 1 → 2; nothing was changed: deploy it with --reboot"):
        activate(rollout, host_run, TARGET, before, built=built)
    assert (machine.current, notes.end[0]) == (OLD, "needs a boot")


NO_SPACE = "Failed to reload daemon: Refusing to reload, not enough space available on /run/systemd"
NOISE = "/usr/lib/tmpfiles.d/man-db.conf:1: Failed to resolve user 'man': No such process"


@pytest.mark.parametrize(
    ("last", "error", "kind"),
    [
        (answers("lost"), "its process is gone", Undecided),
        (answers("stuck", more="why=no room\nstuck=/run is full\n"), "it is stuck on .*`ssh dev sudo", Undecided),
        (
            answers("stuck", more=f"why=no\nstuck={NOISE}; /run has 9 KiB left\nlog={NO_SPACE}\nlog={NOISE}\n"),
            rf"going back fails \({NO_SPACE}; {NOISE}; /run has 9 KiB left\)",
            Undecided,
        ),
        (answers("kept", profile=OLD), "its profile leads to", Undecided),
        (answers("kept", current=OLD), "it runs", Undecided),
        (answers("reverted", current=OLD, more=f"why=told to\nwas={THIRD}\n"), "told to; it went back to", FleetError),
        (answers("refused", current=OLD, more="why=no\n"), "no; nothing was changed", NotBegun),
        (answers("reverted", more="why=told to\n"), f"it says reverted, and runs {NEW}, not {OLD}", Undecided),
        (answers("refused", more="why=no\n"), f"it says refused, and runs {NEW}, not {OLD}", Undecided),
        (answers("lost", current=OLD), f"its process is gone; it runs {OLD}, and ran {OLD} before", Undecided),
        (["protocol=3\nstate=none\n"], "no notes of this deployment any more", Undecided),
    ],
)
def test_every_end_is_judged_by_what_is_read_back(last: list[str], error: str, kind: type[Exception]) -> None:
    before = Running(OLD, OLD, "dev", "1")
    machine = Scripted(answers={"begin": answers("keeping"), "look": last, "boot_id": ""})
    rollout, host_run, _ = rolled_out(machine)
    with pytest.raises(kind, match=error):
        activate(rollout, host_run, Target(NEW), before)


def test_somebody_else_at_work_is_left_alone() -> None:
    machine = Scripted(answers={"begin": f"{answers('activating')[0]}busy=root@x\n"})
    rollout, host_run, _ = rolled_out(machine)
    with pytest.raises(NotBegun, match=r"root@x is deploying to it \(it is activating\)"):
        activate(rollout, host_run, Target(NEW), Running(OLD, OLD, "dev", "1"))


def test_a_copied_system_is_activated_in_its_turn(machine: Sandbox) -> None:
    rollout, host_run, notes = rolled_out(machine, soak=1)
    config = replace(DESCRIBED, toplevel=NEW, hostname="", revision=REVISION)
    built = Built(Planned(Reached("x", running(machine)), config))
    activate(rollout, host_run, Target.of(config), built.planned.reached.running, built=built)
    assert (machine.current, notes.end[0]) == (NEW, "deployed")


BEFORE = Running(OLD, OLD, "dev", "1")
STATE = f"current={NEW}\nprofile={NEW}\nhostname=dev\nboot_id=2\nsudo=root\n"


def test_what_cannot_be_switched_to_boots_where_that_is_allowed() -> None:
    machine = Scripted(
        answers={
            **{"begin": answers("kept", current=OLD), "systemctl reboot": "", "say sudo": STATE},
            "is-system-running": "running\n",
        }
    )
    rollout, host_run, notes = rolled_out(machine, reboot=True)
    built = Built(Planned(Reached("x", BEFORE), DESCRIBED), changes=Changes(inhibitors=("init: 1 → 2",)))
    activate(rollout, host_run, Target(NEW), BEFORE, built=built)
    assert notes.end == ("deployed", None)
    assert notes.stages == ["activate", "reboot", "prove"]
    assert any(f"{rollout.id}-boot" in script for script in machine.scripts)


def test_a_machine_that_is_not_ours_to_reboot_is_left_pending() -> None:
    machine = Scripted(answers={"begin": answers("kept", current=OLD)})
    rollout, host_run, notes = rolled_out(machine, reboot=True, goal=Goal.BOOT)

    def refuse() -> None:
        raise Refused("vm 104 is readonly")

    host_run.require_permission = refuse
    activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.end == ("pending reboot", "vm 104 is readonly")


def test_what_others_do_to_the_profile_and_fails_aside_is_said() -> None:
    more = f"was={THIRD}\nmoved={THIRD}\naside=a.service, b.service\nwaits=x.service\n"
    machine = Scripted(answers={"begin": answers("keeping", more=more), "look": answers("kept", more=more)})
    rollout, host_run, notes = rolled_out(machine)
    activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.found["aside"] == ["a.service", "b.service"]
    words = "\n".join(machine.narration)
    assert f"its profile was moved from {OLD} to {THIRD} before this began" in words
    assert f"its profile was moved to {THIRD} by somebody else meanwhile" in words
    assert "waits for x.service" in words


def test_what_a_killed_run_of_ours_began_is_ended_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_of", lambda run, fleet: True)
    busy = f"{answers('proving')[0]}busy=me@x\n"
    ends = [*answers("reverting"), *answers("reverted")]
    machine = Scripted(answers={" begin ": [busy, *answers("kept")], " say ": ends, "look": answers("reverted")})
    rollout, host_run, notes = rolled_out(machine)
    activate(rollout, host_run, Target(NEW), BEFORE)
    assert notes.end[0] == "deployed"
    assert any("an earlier run was killed while it deployed here" in line for line in machine.narration)


def test_the_fact_says_what_was_left_to_the_next_boot(machine: Sandbox) -> None:
    """§2.7: `--goal boot`, and then whoever asks whether a reboot is needed."""
    fact = NeedsReboot()
    assert fact.process(machine.run(fact.command()).stdout.splitlines()) == []
    rollout, host_run, _ = rolled_out(machine, goal=Goal.BOOT)
    activate(rollout, host_run, Target(NEW), running(machine))
    assert fact.process(machine.run(fact.command()).stdout.splitlines()) == [PENDING]
