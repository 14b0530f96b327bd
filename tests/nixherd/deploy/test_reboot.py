"""Whether a machine is well, and reboots that are proven; answered by script."""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import DeadlineExceeded, FleetError, NotBegun, NotSent, Refused, Undecided, Unforeseen
from nixherd.base.process import Completed
from nixherd.deploy import health, reboot
from nixherd.deploy.machine import ANSWER_DEADLINE
from nixherd.deploy.protocol import Kind
from nixherd.fleet.health_checks import Check
from nixherd.fleet.models import Access
from tests.nixherd.deploy.scripted import BEFORE, FAILED, NEW, OLD, Sandbox, Scripted, rolled_out, system


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (health, reboot):
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)


WEB = Check("web", "http", "http://localhost:8080/x", timeout=1, status=204)
DB = Check("db", "tcp", "localhost:5432", timeout=1)
UNIT = Check("cron", "unit", "cron.service", timeout=1)
COMMAND = Check("own", "command", "test -e /run/ready", timeout=1)


@pytest.mark.parametrize(
    ("check", "services", "answer", "problem"),
    [
        (DB, {("localhost", 5432): b""}, "", None),
        (DB, {}, "", "no connection to localhost:5432"),
        (WEB, {("localhost", 8080): b"HTTP/1.1 204 No Content\r\n\r\n"}, "", None),
        (WEB, {("localhost", 8080): b"HTTP/1.1 500 No\r\n\r\n"}, "", "it answers 500, not 204"),
        (WEB, {("localhost", 8080): b"nonsense\r\n"}, "", "does not answer with HTTP"),
        (UNIT, {}, "check.0=\n", None),
        (UNIT, {}, "check.0=it says failed\n", "it says failed"),
        (UNIT, {}, "", "it says nothing"),
        (COMMAND, {}, Completed("", "sudo: a password is required\n", 1), "it says sudo: a password is required"),
        (COMMAND, {}, Completed("", "", 1), "it says nothing"),
        (COMMAND, {}, OSError("the connection broke"), "the connection broke"),
    ],
)
def test_a_check_passes_or_says_why_not(check: Check, services: Any, answer: Any, problem: str | None) -> None:
    machine = Scripted(services=services, answers={"": answer})
    result = health.failing(machine, (check,), time.monotonic() + 5, by_root=True)
    assert (result is None) == (problem is None)
    assert problem is None or (str(result).startswith(f"{check} does not pass: ") and problem in str(result))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("true", None),
        ("echo one; echo two; false", "it says two"),
        ("exit 3", "it says nothing"),
        ("sleep 5", "nothing"),
    ],
)
def test_a_command_is_tried_by_the_machines_shell(tmp_path: Path, text: str, problem: str | None) -> None:
    check = Check("x", "command", text, timeout=1)
    alone = health.failing(Sandbox(root=tmp_path / "a"), (check,), time.monotonic() + 1, by_root=True)
    with_all, _ = health.unwell(Sandbox(root=tmp_path / "b"), Kind.SYSTEM, BEFORE, (check,), OLD)
    for result in (alone, with_all):
        assert (result is None) == (problem is None), result
        assert problem is None or problem in str(result)


def test_a_check_has_all_of_its_time_and_is_asked_by_root_where_it_is_a_command() -> None:
    """One may take an hour, and a command on a machine is ended after two minutes otherwise."""
    slow = replace(COMMAND, timeout=600)
    for until, seconds in ((3600, 600), (300, 300)):
        machine = Scripted(answers={"": "check.0=\n"})
        assert health.failing(machine, (slow,), time.monotonic() + until, by_root=True) is None
        [command] = machine.commands
        assert (command.sudo, command.deadline) == (True, ANSWER_DEADLINE + seconds)
        assert f"timeout {seconds} sh -c" in command.script
    services = {("localhost", 5432): b""}
    for checks, is_root, deadline in (((slow, UNIT, DB), True, 601), ((UNIT, DB), False, 1)):
        machine = Scripted(services=services, answers={"": f"{system()}check.0=\ncheck.1=\n"})
        assert health.unwell(machine, Kind.SYSTEM, BEFORE, checks, OLD)[0] is None
        [command] = machine.commands
        assert (command.sudo, command.deadline) == (is_root, ANSWER_DEADLINE + deadline)


def test_a_machine_that_runs_it_is_well_or_says_why_not() -> None:
    well = f"{system()}check.0=\n"
    for answer, checks, problem in (
        ("", (), None),
        (well, (UNIT,), None),
        (system(), (UNIT,), "it says nothing"),
        (f"{system()}check.0=it says failed\n", (COMMAND,), "it says failed"),
        (f"{system(NEW)}check.0=\n", (UNIT,), f"it runs {NEW} now"),
        (f"{system(unwell='a.service')}check.0=\n", (UNIT,), "units fail there .*: a.service"),
        (f"{system(at_work='x.service')}check.0=\n", (UNIT, DB), "an activation is under way there"),
    ):
        result, _ = health.unwell(Scripted(answers={"": answer}), Kind.SYSTEM, BEFORE, checks, OLD)
        assert (result is None) == (problem is None), result
        assert problem is None or re.search(problem, str(result))
    gated = Scripted(access=Access.PUSH_CLOSURE)
    assert "cannot be asked" in str(health.unwell(gated, Kind.SYSTEM, BEFORE, (UNIT,), OLD)[0])
    with pytest.raises(FleetError, match="it did not say how it is: it is broken"):
        health.unwell(Scripted(answers={"": FAILED}), Kind.SYSTEM, BEFORE, (UNIT,), OLD)


def rebooted(*answers: Any, **options: Any) -> tuple[Scripted, Any, Any, Any]:
    machine = Scripted(answers={"systemctl reboot": "", "is-system-running": "running\n", "say sudo": [*answers]})
    return (machine, *rolled_out(machine, **options))


def test_a_reboot_is_proven_by_another_boot() -> None:
    after = system(boot_id="2", **{"part.kernel": "/a", "next.kernel": "/b"})
    machine, rollout, host_run, notes = rebooted(OSError("gone"), system(), after)
    reboot.reboot(rollout, host_run, BEFORE)
    assert notes.end == ("rebooted", None)
    assert notes.found["reboot_for"] == ("kernel",)
    assert (notes.found["current"], notes.stages) == (OLD, ["reboot", "prove"])
    assert machine.are_roots("systemctl reboot")
    assert machine.are_roots("is-system-running")
    assert not machine.are_roots("say sudo"), "what runs is asked as whoever logs in, so that it says what sudo wants"
    assert {each.deadline for each in machine.with_word("say sudo")} == {ANSWER_DEADLINE}
    assert all(each.deadline > reboot.SETTLE for each in machine.with_word("is-system-running"))
    assert machine.connections == 3


@pytest.mark.parametrize(
    ("answer", "error", "kind"),
    [
        (system(), "did not come back from its reboot: the same boot still answers", Undecided),
        (OSError("silence"), "did not come back from its reboot: silence", Undecided),
        (system(NEW, boot_id="2"), "it has rebooted into", FleetError),
        (system(boot_id="2", failed="a.service"), "units failed after the reboot: a.service", FleetError),
    ],
)
def test_a_reboot_that_is_not_proven_fails(answer: Any, error: str, kind: type[Exception]) -> None:
    machine, rollout, host_run, _ = rebooted(answer)
    machine.boot_deadline = 0
    with pytest.raises(kind, match=error):
        reboot.reboot(rollout, host_run, BEFORE)


def test_what_was_seen_before_a_machine_fell_silent_is_said_too() -> None:
    gone = DeadlineExceeded("dev: not within 300 s")
    machine, rollout, host_run, _ = rebooted(system(), FAILED)
    machine.unreachable = [None, None, gone]
    with pytest.raises(Undecided, match=r"not within 300 s; before that: .*it is broken.*; before that: the same"):
        reboot.reboot(rollout, host_run, BEFORE)


@pytest.mark.parametrize("check", [DB, WEB, COMMAND], ids=str)
def test_a_fault_of_ours_is_not_a_health_problem(check: Check) -> None:
    fault = Unforeseen("a mistake in nixherd")
    machine = Scripted(answers={"": fault})

    def tunnel(address: object, timeout: float) -> Any:
        raise fault

    machine.tunnel = tunnel  # type: ignore[method-assign]
    with pytest.raises(Unforeseen):
        health.failing(machine, (check,), time.monotonic() + 5, by_root=True)


def test_a_connection_that_ends_with_the_word_to_reboot_is_no_failure() -> None:
    machine, rollout, host_run, notes = rebooted(system(boot_id="2"))
    machine.answers["systemctl reboot"] = OSError("the connection broke")
    reboot.reboot(rollout, host_run, BEFORE)
    assert notes.end == ("rebooted", None)


def test_a_machine_that_could_not_be_told_is_not_waited_for() -> None:
    machine, rollout, host_run, _ = rebooted(system())
    machine.answers["systemctl reboot"] = NotSent("no route")
    with pytest.raises(NotBegun, match="dev: it was not told to reboot: no route"):
        reboot.reboot(rollout, host_run, BEFORE)
    assert machine.scripts == [reboot.REBOOT]


def test_a_machine_that_falls_silent_after_its_reboot_is_unknown() -> None:
    _, rollout, host_run, notes = rebooted(system(boot_id="2"), OSError("silence"))
    with pytest.raises(Undecided, match=f"it has rebooted into {OLD}, and does not say how it is: silence"):
        reboot.reboot(rollout, host_run, BEFORE)
    assert notes.end[0] == "unknown"


@pytest.mark.parametrize("state", ["starting", "maintenance", ""])
def test_a_machine_whose_units_do_not_settle_is_not_proven(state: str) -> None:
    """A unit that starts for minutes may fail yet, and the health checks may pass before."""
    machine, rollout, host_run, notes = rebooted(system(boot_id="2"))
    machine.answers["is-system-running"] = f"{state}\n"
    with pytest.raises(Undecided, match=f"and does not say how it is: .* says {state or 'nothing'} after 60 s"):
        reboot.reboot(rollout, host_run, BEFORE)
    assert notes.end[0] == "unknown"
    machine.answers["is-system-running"] = "degraded\n"
    assert reboot.reboot_and_prove(host_run, BEFORE, OLD, ()).boot_id == "2"


def test_what_is_not_ours_is_not_rebooted() -> None:
    machine, _, host_run, notes = rebooted()
    machine.is_local = True
    assert "is the machine that this runs on" in reboot.plan_reboot(host_run, BEFORE, force=True)
    assert notes.end[0] == "left to its owner"

    def refuse() -> None:
        raise Refused("vm 104 is readonly")

    host_run.require_permission = refuse
    assert reboot.why_not_rebootable(host_run) == "vm 104 is readonly"
    with pytest.raises(Refused):
        reboot.reboot_and_prove(host_run, BEFORE, OLD, ())
    assert machine.scripts == []


def test_a_home_is_not_rebooted() -> None:
    _, _, host_run, notes = rebooted()
    host_run.host = replace(host_run.host, configuration_file=None)
    assert reboot.plan_reboot(host_run, BEFORE, force=True) == "dev is a home"
    assert notes.end[0] == "unchanged"
