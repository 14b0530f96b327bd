"""An activation from its beginning to its judged end, on a machine that runs the real machine.sh in a directory."""

import socket
from pathlib import Path

import pytest

from nixherd.deploy import activate as module
from nixherd.deploy.activate import activate
from nixherd.deploy.goal import Goal
from nixherd.deploy.protocol import Kind
from nixherd.deploy.report import Outcome
from nixherd.deploy.running import PENDING, Running, ask_running
from nixherd.deploy.values import Built, Changes, Planned, Reached, Target
from nixherd.errors import FleetError, NeedsBoot, NotBegun, Undecided
from nixherd.fleet.health_checks import Check
from tests.nixherd.deploy.scripted import NEW, OLD, REVISION, THIRD, Sandbox, Scripted, rolled_out
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


def test_a_system_that_fails_goes_back_with_its_words(machine: Sandbox) -> None:
    machine.system(THIRD, activate="echo no disk is left; exit 3")
    rollout, host_run, notes = rolled_out(machine)
    with pytest.raises(FleetError, match=r"ended with status 3.*no disk is left"):
        activate(rollout, host_run, Target(THIRD), running(machine))
    assert (machine.current, machine.profile) == (OLD, OLD)
    assert notes.end[0] == "rolled back"


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
    assert "not reached: the connection broke" in machine.narration


def test_what_never_began_is_said_to_be_that(machine: Sandbox) -> None:
    rollout, host_run, _ = rolled_out(machine)
    before = running(machine)
    machine.broken = [OSError("gone")]
    with pytest.raises(NotBegun, match="did not answer, and did not begin; deploy it again"):
        activate(rollout, host_run, TARGET, before)


def test_a_machine_that_is_not_heard_of_again_is_unknown(machine: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REVERT", -13)
    rollout, host_run, notes = rolled_out(machine)
    with pytest.raises(Undecided, match="it was not heard of for 13 s"):
        activate(rollout, host_run, TARGET, running(machine))
    assert notes.end[0] == "unknown"


def test_what_inhibits_a_switch_needs_a_boot(machine: Sandbox) -> None:
    rollout, host_run, notes = rolled_out(machine)
    before = running(machine)
    built = Built(Planned(Reached("x", before), DESCRIBED), changes=Changes(inhibitors=("systemd: 1 → 2",)))
    with pytest.raises(NeedsBoot, match="systemd: 1 → 2; nothing was changed: deploy it with --reboot"):
        activate(rollout, host_run, TARGET, before, built=built)
    assert (machine.current, notes.end[0]) == (OLD, "needs a boot")


ANSWER = "protocol=3\nid=20261130T050000-1\nwho=me\nhostname=dev\ncurrent={}\nprofile={}\nold=" + OLD + "\n"


def answers(*states: str, current: str = NEW, profile: str = NEW, more: str = "") -> list[str]:
    return [f"{ANSWER.format(current, profile)}state={state}\n{more}" for state in states]


@pytest.mark.parametrize(
    ("last", "error", "kind"),
    [
        (answers("lost"), "its process is gone", Undecided),
        (answers("stuck", more="why=no room\nstuck=/run is full\n"), "it is stuck on .*`ssh dev sudo", Undecided),
        (answers("kept", profile=OLD), "its profile leads to", Undecided),
        (answers("kept", current=OLD), "it runs", Undecided),
        (answers("reverted", more=f"why=told to\nwas={THIRD}\n"), "told to; it went back to", FleetError),
        (answers("refused", more="why=no\n"), "no; nothing was changed", NotBegun),
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
