"""What the engine asks of machines beside activating: health, reboots, copies, builds, plans; answered by script."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.deploy import build, changes, commit_policy, copy, health, plan, pull, reboot, rebuild, running, signing
from nixherd.deploy import job as jobs
from nixherd.deploy.goal import Goal
from nixherd.deploy.machine import output_of, restart
from nixherd.deploy.options import Engine, Options
from nixherd.deploy.program import note_alone
from nixherd.deploy.protocol import Kind
from nixherd.deploy.running import Running
from nixherd.deploy.values import Built, Copied, Planned, PlannedToPull, Reached, ReachedToPull
from nixherd.errors import DeadlineExceeded, FleetError, NotBegun, NotWell, ProcessFailed, Refused, Undecided, Usage
from nixherd.fleet.health_checks import Check
from nixherd.fleet.models import Access
from nixherd.nix import commands
from nixherd.nix.builder import Builder
from nixherd.nix.evaluator import Evaluator
from nixherd.nix.nixos_rebuild import Flavour
from nixherd.process import Completed
from nixherd.ssh.sudo import Sudo
from nixherd.ssh.transient_unit import Job
from tests.nixherd.deploy.scripted import NEW, OLD, REVISION, Scripted, rolled_out
from tests.nixherd.proxmox.fleets import FLEET, HOST
from tests.runs import DESCRIBED
from tests.shared import Shared

BEFORE = Running(OLD, OLD, "dev", "1", revision="old")
CONFIG = replace(DESCRIBED, toplevel=NEW, toplevel_drv=f"{NEW}.drv", revision=REVISION)
FAILED = Completed("", "sorry\nit is broken\n", 1)
SHARED = Shared(replace(FLEET, hosts={"dev": replace(HOST, id="dev"), "far": replace(HOST, id="far")}), Path("token"))


def system(current: str = OLD, **values: str) -> str:
    usual = {"current": current, "profile": current, "hostname": "dev", "boot_id": "1", "sudo": "root", **values}
    return "".join(f"{name}={value}\n" for name, value in usual.items())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (health, reboot, jobs):
        monkeypatch.setattr(module.time, "sleep", lambda seconds: None)


# The machine


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


# Health

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
        (UNIT, {}, "", None),
        (UNIT, {}, Completed("failed\n", "", 1), "it says failed"),
        (COMMAND, {}, Completed("", "", 1), "it says nothing"),
        (COMMAND, {}, OSError("the connection broke"), "the connection broke"),
    ],
)
def test_a_check_passes_or_says_why_not(check: Check, services: Any, answer: Any, problem: str | None) -> None:
    machine = Scripted(services=services, answers={"": answer})
    result = health.failing(machine, (check,), time.monotonic() + 5, by_root=True)
    assert (result is None) == (problem is None)
    assert problem is None or (str(result).startswith(f"{check} does not pass: ") and problem in str(result))


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


# Reboots


def rebooted(*answers: Any, **options: Any) -> tuple[Scripted, Any, Any, Any]:
    machine = Scripted(answers={"systemctl reboot": "", "is-system-running": "", "say sudo": [*answers]})
    return (machine, *rolled_out(machine, **options))


def test_a_reboot_is_proven_by_another_boot() -> None:
    machine, rollout, host_run, notes = rebooted(OSError("gone"), system(), system(boot_id="2"))
    reboot.reboot(rollout, host_run, BEFORE)
    assert notes.end == ("rebooted", None)
    assert (notes.found["current"], notes.stages) == (OLD, ["reboot", "prove"])
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


# Plans


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


# Pulling and noting


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
            pull.trigger(rollout, host_run, value)
    else:
        pull.trigger(rollout, host_run, value)
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


# Copying, signing and building


def test_a_copy_is_held_made_and_made_again_without_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Scripted()
    _, host_run, _ = rolled_out(machine)
    host_run.value = Built(Planned(Reached("x", BEFORE), CONFIG))
    seen: list[bool] = []

    def run(argv: Any, **arguments: Any) -> Completed:
        seen.append("--substitute-on-destination" in argv or "-s" in argv)
        if len(seen) < 2:
            raise ProcessFailed("copy: no cache", 1, "no cache")
        return Completed("", "", 0)

    monkeypatch.setattr(copy, "run", run)
    copy.copy(host_run)
    assert isinstance(host_run.value, Copied)
    assert "ln -sfn" in machine.scripts[0]
    assert any("copying again, without the machine's own caches" in line for line in machine.narration)
    host_run.value = Planned(Reached("x", BEFORE), CONFIG)
    with pytest.raises(NotBegun, match="it was not built"):
        copy.copy(host_run)


def test_a_copy_that_fails_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _, host_run, _ = rolled_out(Scripted())
    host_run.value = Built(Planned(Reached("x", BEFORE), CONFIG))

    def run(argv: Any, **arguments: Any) -> Completed:
        raise ProcessFailed("x", 1, "error: cannot add path because it lacks a signature by a trusted key")

    monkeypatch.setattr(copy, "run", run)
    with pytest.raises(NotBegun, match="it cannot be copied: dev: its store takes what a key"):
        copy.copy(host_run)


def test_through_whom_a_store_takes_what_is_not_signed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("fleet-1:secret")
    key.chmod(0o600)
    public = Completed("fleet-1:public\n", "", 0)
    monkeypatch.setattr(signing, "run", lambda argv, **arguments: public)
    settings = json.dumps({"trusted-public-keys": {"value": ["fleet-1:public"]}})
    plain: dict[str, Any] = {"user": "me"}
    access = signing.store_access
    assert access(Scripted(), [NEW], None, is_nixos=True) is None
    assert access(Scripted(**plain, answers={"config": settings}), [NEW], str(key), is_nixos=True) is None
    assert access(Scripted(**plain), [NEW], None, is_nixos=True) == Sudo()
    asks = {"sudo -n": Completed("", "", 1)}
    sudo = access(Scripted(**plain, answers=asks, has_password=True), [NEW], None, is_nixos=True)
    assert sudo == Sudo("secret")
    with pytest.raises(FleetError, match="sudo does not let it be root: it asks for a password"):
        access(Scripted(**plain, answers=asks), [NEW], None, is_nixos=True)
    with pytest.raises(FleetError, match="sudo does not let it be root: it is broken"):
        access(Scripted(**plain, answers={**asks, "true": FAILED}, has_password=True), [NEW], None, is_nixos=True)
    with pytest.raises(FleetError, match="expected JSON from nix"):
        access(Scripted(**plain, answers={"config": "no"}), [NEW], str(key), is_nixos=True)
    with pytest.raises(Usage, match="no such file"):
        access(Scripted(), [NEW], str(tmp_path / "none"), is_nixos=True)
    monkeypatch.setattr(commands, "parse_signatures", lambda text: [])
    with pytest.raises(FleetError, match="its store takes what a key"):
        access(Scripted(access=Access.PUSH_CLOSURE), [NEW], None, is_nixos=True)


def test_who_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, far = Scripted(), Scripted(id="far")

    def machines(host_id: str) -> Any:
        return far

    assert build.builder_of(SHARED.fleet, machine, "local", machines) is None
    assert build.builder_of(SHARED.fleet, machine, "target", machines) is machine
    assert build.builder_of(SHARED.fleet, machine, "far", machines) is far
    with pytest.raises(Usage, match="build_on=none is neither local, target nor a host of the fleet"):
        build.builder_of(SHARED.fleet, machine, "none", machines)
    far.access = Access.TRIGGER
    with pytest.raises(Usage, match="far takes forced commands alone and builds for nobody"):
        build.builder_of(SHARED.fleet, machine, "far", machines)


def test_a_build_here_there_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, far = Scripted(), Scripted(id="far")
    rollout, host_run, _ = rolled_out(machine)
    value = Planned(Reached("x", BEFORE), CONFIG)
    made: list[Any] = []

    def realise(self: Any, derivations: Any, host_id: str, tell: Any, fetch: Any = None) -> None:
        made.append(dict(derivations))
        if fetch:
            fetch([f"{NEW}.drv^*"])

    fails = False

    def run_towards(machine: Any, command: Any, timeout: float, tell: Any) -> None:
        if fails:
            raise ProcessFailed("x", 1, "error: builder failed")
        made.append(machine.id)

    monkeypatch.setattr(Builder, "realise", realise)
    monkeypatch.setattr(build, "run_towards", run_towards)
    assert build.build(SHARED.builder, rollout, host_run, value, None, [CONFIG]) == Built(value)
    assert build.build(SHARED.builder, rollout, host_run, value, far, []) == Built(value)
    assert build.build(SHARED.builder, rollout, host_run, value, machine, []).is_there
    assert made == [{"dev": [f"{NEW}.drv"]}, {"dev": [f"{NEW}.drv"]}, "far", "dev"]
    fails = True
    for builder, error in ((far, "building on far failed"), (machine, "dev: building on it failed")):
        with pytest.raises(FleetError, match=error):
            build.build(SHARED.builder, rollout, host_run, value, builder, [])


def test_what_changes_is_said_of_what_was_built_there() -> None:
    closure = f"{OLD} 100\n"
    answers = {"path-info": closure, "readlink": "kernel /b\n", "switch-inhibitors": '{"systemd": "2"}', "init-": ""}
    rollout, host_run, notes = rolled_out(Scripted(answers=answers))
    before = replace(BEFORE, parts={"kernel": "/a"}, inhibitors='{"systemd": "1"}')
    built = Built(Planned(Reached("x", before), CONFIG), is_there=True)
    shown = changes.show(rollout, host_run, built, [])
    assert shown.changes.reboot_for == ("kernel",)
    assert shown.changes.inhibitors == ("systemd: 1 → 2",)
    assert notes.found["size_before"] == 100


# Jobs, and nixos-rebuild


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
            jobs.run_job(machine, task)
    else:
        jobs.run_job(machine, task)


def test_a_job_past_its_deadline_is_said_to_be_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "GRACE", -10)
    machine = Scripted(answers={"systemd-run": "", "is-active": "running\n"})
    with pytest.raises(DeadlineExceeded, match="try not done within 5 s; last: no output"):
        jobs.run_job(machine, Job("try", "key", "true", 5))


def test_nixos_rebuild_is_judged_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "_flavour", lambda: Flavour("--sudo", "--no-reexec"))
    value = Planned(Reached("x", BEFORE), replace(CONFIG, revision=None))
    for answer, status, error in ((system(NEW), 0, None), (system(), 1, "runs and boots what it did before")):
        rollout, host_run, _ = rolled_out(Scripted(answers={"say sudo": answer}), engine=Engine.NIXOS_REBUILD)

        def run(argv: Any, status: int = status, **arguments: Any) -> Completed:
            if status:
                raise ProcessFailed("nixos-rebuild: status 1", 1)
            return Completed("", "", 0)

        monkeypatch.setattr(copy, "run", run)
        request = rebuild.Rebuild("switch")
        if error:
            with pytest.raises(NotBegun, match=error):
                rebuild.rebuild_in_turn(SHARED.evaluator, rollout, host_run, value, request)
        else:
            rebuild.rebuild_in_turn(SHARED.evaluator, rollout, host_run, Copied(Built(value)), request)
            assert host_run.outcome == "deployed"
    rollout, host_run, _ = rolled_out(Scripted(answers={"say sudo": OSError("silence")}))
    with pytest.raises(Undecided, match="it cannot be asked what it runs now: silence"):
        rebuild.rebuild(SHARED.evaluator, rollout, host_run, value, request)
