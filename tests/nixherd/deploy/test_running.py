"""What a machine says of itself, and the jobs that it is given; answered by script."""

from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from nixherd.base.becoming_root import Become
from nixherd.base.errors import DeadlineExceeded, EndUnknown, FleetError, NotBegun, NotSent, Unforeseen
from nixherd.base.process import Completed
from nixherd.deploy import machine as machines
from nixherd.deploy import reboot, running
from nixherd.deploy.machine import output_of, restart
from nixherd.deploy.protocol import Kind
from nixherd.fleet.models import Access
from nixherd.ssh.login_shell import Job
from tests.nixherd.deploy.scripted import BEFORE, FAILED, NEW, OLD, Scripted, rolled_out, system


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (machines,):
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)


def test_a_command_that_fails_says_its_last_words() -> None:
    machine = Scripted(answers={"x": FAILED})
    with pytest.raises(FleetError, match="dev: trying failed: it is broken"):
        output_of(machine, "x", what="trying")
    with pytest.raises(FleetError, match="the reboot failed: it is broken"):
        restart(machine, "x")
    restart(Scripted(answers={"x": Completed("", "", 1)}), "x")


@pytest.mark.parametrize(
    ("access", "answer", "error"),
    [
        (Access.TRIGGER, "", "can be triggered, not asked"),
        (Access.PUSH_CLOSURE, FAILED, "it is broken"),
        (Access.PUSH_CLOSURE, "protocol=3\nstate=none\n", "did not say what runs there"),
        (Access.SHELL, "", "it did not say what runs on it; look at it"),
        (Access.SHELL, FAILED, r"it did not say what runs on it \(it is broken\)"),
        (Access.SHELL, "current=x\n", "no hostname, boot_id, sudo in what the machine says"),
    ],
)
def test_what_a_machine_does_not_say_is_an_error(access: Access, answer: Any, error: str) -> None:
    with pytest.raises(FleetError, match=error):
        running.ask_running(Scripted(access=access, answers={"": answer}), Kind.SYSTEM)


def test_what_runs_behind_forced_commands_and_in_a_home() -> None:
    gated = "protocol=3\nstate=none\ncurrent={0}\nprofile={0}\nhostname=dev\nboot_id=1\nunwell=a.service, b.service\n"
    answer = running.ask_running(Scripted(access=Access.PUSH_CLOSURE, answers={"": gated.format(OLD)}), Kind.SYSTEM)
    assert (answer.current, answer.unwell) == (OLD, ("a.service", "b.service"))
    home = f"current={OLD}\nrevision=\nuser=me\nhostname=dev\nboot_id=1\n"
    assert running.ask_running(Scripted(answers={"": home}), Kind.HOME).profile == OLD
    with pytest.raises(FleetError, match="no hostname"):
        running.parse_home(["current=", "revision=", "user=me", "boot_id=1"])


def test_root_needs_a_password_that_somebody_gave() -> None:
    asks = replace(BEFORE, sudo="asks")
    running.require_root(Scripted(has_password=True), asks)
    with pytest.raises(NotBegun, match="sudo asks for a password there"):
        running.require_root(Scripted(), asks)
    with pytest.raises(NotBegun, match="doas does not let me be root without a password"):
        running.require_root(Scripted(user="me", become=Become.DOAS), asks)
    with pytest.raises(NotBegun, match='doas is not there; write become = "sudo" for it'):
        running.require_root(Scripted(become=Become.DOAS, has_password=True), replace(BEFORE, sudo="none"))


@pytest.mark.parametrize(
    ("values", "reasons"),
    [
        ({}, ()),
        ({"profile": NEW, "kept": "1"}, ("system",)),
        ({"profile": NEW, "kept": "0"}, ()),  # it only runs for a test
        ({"part.kernel": "/a", "next.kernel": "/b"}, ("kernel",)),
        ({"part.kernel": "/a", "next.kernel": "/b", "profile": NEW, "kept": "2"}, ("kernel", "system")),
    ],
)
def test_why_a_machine_needs_a_reboot(values: dict[str, str], reasons: tuple[str, ...]) -> None:
    """§2.7: what was left to the next boot is a reason, also where kernel and initrd stay."""
    answer = running.parse_system(system(**values).splitlines())
    assert answer.reboot_for == reasons
    _, host_run, _ = rolled_out(Scripted())
    said = reboot.plan_reboot(host_run, answer, force=False)
    assert ("needs no reboot" in said) == (not reasons)
    assert ("left to the next boot" in said) == ("system" in reasons)


@pytest.mark.parametrize(
    ("looks", "error"),
    [
        ([OSError("gone"), "running\nabc\n", "key 0\n"], None),
        (["other 0\n", "key 0\n"], None),
        (["key 3\nno room\n"], "try failed with status 3: no room"),
        (["none\nlast\n"], "try was ended .*: last"),
        (["other 0\n", "other 0\n"], "try was ended"),
    ],
)
def test_a_job_is_followed_to_its_end(looks: list[Any], error: str | None) -> None:
    machine = Scripted(answers={"systemd-run": "", "is-active": looks})
    task = Job("try", "key", "true", 5)
    if error:
        with pytest.raises(FleetError, match=error):
            machines.run_job(machine, task)
    else:
        machines.run_job(machine, task)


def test_a_job_whose_start_got_no_answer_is_looked_for() -> None:
    for looks in (["running\n", "key 0\n"], ["key 0\n"]):
        machine = Scripted(answers={"systemd-run": [OSError("gone"), ""], "is-active": looks})
        machines.run_job(machine, Job("try", "key", "true", 5))
        assert sum("systemd-run" in script for script in machine.scripts) == 1
    for error, kind in ((NotSent("no route"), NotBegun), (Unforeseen("a fault"), Unforeseen)):
        with pytest.raises(kind, match=str(error)):
            machines.run_job(Scripted(answers={"systemd-run": error}), Job("try", "key", "true", 5))


def test_a_machine_that_could_not_be_told_to_go_down_is_as_it_was() -> None:
    with pytest.raises(NotBegun, match="dev: it was not told to reboot: no route"):
        restart(Scripted(answers={"": NotSent("no route")}), "x")
    with pytest.raises(Unforeseen):
        restart(Scripted(answers={"": Unforeseen("a fault")}), "x")


@pytest.mark.parametrize(("answer", "there"), [(f"{OLD}\n", OLD), ("", None)])
def test_which_system_a_specialisation_is(answer: str, there: str | None) -> None:
    machine = Scripted(answers={f"{NEW}/specialisation/dark": answer})
    assert running.specialised(machine, NEW, "dark") == there


def test_a_machine_that_cannot_say_which_system_a_specialisation_is_is_not_said_to_have_none() -> None:
    with pytest.raises(FleetError, match="dev: looking for its specialisation dark failed: it is broken"):
        running.specialised(Scripted(answers={"": FAILED}), NEW, "dark")


@pytest.mark.parametrize(
    ("start", "looks"),
    [(OSError("gone"), ["none\n"]), (OSError("gone"), ["other 0\n"]), ("", [OSError("gone"), "other 0\n"])],
)
def test_a_job_is_never_begun_on_another_connection(start: Any, looks: list[Any]) -> None:
    """The caller has proven on its own one that this is the machine to be wiped."""
    machine = Scripted(answers={"systemd-run": [start, ""], "is-active": looks})
    with pytest.raises(FleetError, match=r"try is not under way, and the connection was lost meanwhile \(gone\); run"):
        machines.run_job(machine, Job("try", "key", "true", 5))
    assert sum("systemd-run" in script for script in machine.scripts) == 1


def test_a_job_past_its_deadline_is_said_to_be_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "GRACE", -10)
    machine = Scripted(answers={"systemd-run": "", "is-active": "running\n"})
    with pytest.raises(DeadlineExceeded, match="try not done within 5 s; last: no output"):
        machines.run_job(machine, Job("try", "key", "true", 5))


@pytest.mark.parametrize(
    ("look", "why"),
    [
        (NotSent("it takes forced commands alone"), "it takes forced commands alone"),
        (OSError("the connection broke"), "the connection broke"),
        (TimeoutError(), "no answer"),
        (Completed("", "sudo: a password is required\n", 1), "sudo: a password is required"),
    ],
)
def test_a_job_that_cannot_be_looked_at_is_not_looked_at_for_hours(
    monkeypatch: pytest.MonkeyPatch, look: Any, why: str
) -> None:
    clock = count(0.0, 10.0)
    monkeypatch.setattr(machines, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: None))
    machine = Scripted(answers={"systemd-run": "", "is-active": look})
    with pytest.raises(
        EndUnknown, match=f"how try ends is not known, .* no look at it is answered: {why}; run this again"
    ):
        machines.run_job(machine, Job("try", "key", "true", 4 * 3600))
    assert next(clock) < 600
    assert machine.narration == [], "nobody knows whether it prints anything"
    assert machine.connections > 2


def test_a_job_that_is_looked_at_again_in_time_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in which nobody answered counts from the last answer on."""
    clock = count(0.0, 10.0)
    monkeypatch.setattr(machines, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: None))
    looks = [OSError("gone"), OSError("gone"), "running\n"] * 20
    machine = Scripted(answers={"systemd-run": "", "is-active": [*looks, "key 0\n"]})
    machines.run_job(machine, Job("try", "key", "true", 4 * 3600))


@pytest.mark.parametrize(("start", "looks"), [(OSError("broke"), []), ("", [OSError("broke")])])
def test_why_a_job_was_lost_is_said_where_nobody_answers_any_more(start: Any, looks: list[Any]) -> None:
    """Its end is not known then: it goes on without us."""
    gone = DeadlineExceeded("dev: waiting for final: not within 300 s; last: no route")
    machine = Scripted(answers={"systemd-run": start, "is-active": looks}, unreachable=[gone])
    with pytest.raises(EndUnknown, match=r"dev: how try ends is not known, .*: broke; waiting for final: .*no route"):
        machines.run_job(machine, Job("try", "key", "true", 5))
