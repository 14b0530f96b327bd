"""Reboots: which machine needs one and why, and the proof that it took place and what runs after it."""

import time

from nixherd.base.errors import FAILURES, DeadlineExceeded, FleetError, Refused, Undecided
from nixherd.base.terminal import foreseen
from nixherd.base.waiting import Backoff, poll
from nixherd.deploy.health import failing
from nixherd.deploy.machine import output_of, restart
from nixherd.deploy.protocol import Kind
from nixherd.deploy.report import Outcome
from nixherd.deploy.rollout import HostRun, Rollout
from nixherd.deploy.running import NOT_NOW, PENDING, Running, ask_running, require_root, try_running
from nixherd.fleet.health_checks import Check

REBOOT = "sync; setsid sh -c 'sleep 0.2; systemctl reboot' >/dev/null 2>&1 </dev/null &"
SETTLE = 60  # seconds for units to settle after a boot
SETTLED = ("running", "degraded")  # what systemd says once it starts nothing any more


def plan_reboot(host_run: HostRun, running: Running, *, force: bool) -> str:
    """Say whether the machine needs a reboot, and why; those that need none, or are not ours to reboot, end here."""
    if host_run.kind is Kind.HOME:
        host_run.end(Outcome.UNCHANGED, "a home is not rebooted")
        return f"{host_run.id} is a home"
    host_run.note(reboot_for=running.reboot_for, new=running.profile)
    if not (running.reboot_for or force):
        host_run.end(Outcome.UNCHANGED, "needs no reboot")
        return f"{host_run.id} needs no reboot"
    why = _why(running) if running.reboot_for else "because it was asked for"
    host_run.machine.say(f"needs a reboot {why}")
    try:
        require_rebootable(host_run)
    except Refused as error:
        host_run.end(Outcome.LISTED, str(error))
        return str(error)
    return f"{host_run.id} is to be rebooted {why}"


def _why(running: Running) -> str:
    if PENDING not in running.reboot_for:
        return f"for {', '.join(running.reboot_for)}"
    parts = [part for part in running.reboot_for if part != PENDING]
    also = f", with another {', '.join(parts)}" if parts else ""
    return f"into {running.profile}, which was left to the next boot{also}"


def reboot(rollout: Rollout, host_run: HostRun, running: Running) -> None:
    """Reboot the machine into what its profile leads to, in its turn, and prove it."""
    with rollout.turn(host_run, is_alone=True):
        if running.hold:
            raise host_run.held(NOT_NOW.format(running.hold))
        require_root(host_run.machine, running)
        reboot_and_prove(host_run, running, running.profile, host_run.host.health_checks)
        host_run.end(Outcome.REBOOTED)


def reboot_and_prove(host_run: HostRun, before: Running, system: str | None, checks: tuple[Check, ...]) -> Running:
    """Reboot the machine into `system`, and return what runs then.

    Refused where that is not ours to do; NotBegun when it could not be told, Undecided when it does not come back.
    """
    require_rebootable(host_run)
    host_run.enter("reboot")
    machine, began = host_run.machine, time.monotonic()
    restart(machine, REBOOT, sudo=True)
    try:
        running = _back(host_run, before.boot_id, machine.boot_deadline)
    except FAILURES as error:
        foreseen(error, f"{host_run.id}: waiting for it to come back")
        why = f"it did not come back from its reboot: {error}"
        host_run.end(Outcome.UNKNOWN, why)
        raise Undecided(f"{host_run.id}: {why}") from error
    seconds_down = round(time.monotonic() - began, 1)
    host_run.note(current=running.current, seconds_down=seconds_down, reboot_for=running.reboot_for)
    host_run.enter("prove")
    if running.current != system:
        raise FleetError(f"{host_run.id}: it has rebooted into {running.current}, not {system}")
    try:
        broken = _settled(host_run, set(before.failed))
    except FAILURES as error:
        foreseen(error, f"{host_run.id}: asking how it is after its reboot")
        why = f"it has rebooted into {running.current}, and does not say how it is: {error}"
        host_run.end(Outcome.UNKNOWN, why)
        raise Undecided(f"{host_run.id}: {why}") from error
    if broken:
        raise FleetError(f"{host_run.id}: units failed after the reboot: {', '.join(broken)}")
    until = time.monotonic() + host_run.options.confirm_deadline
    if problem := failing(machine, checks, until, by_root=True):
        raise FleetError(f"{host_run.id}: after the reboot, {problem}")
    return running


def require_rebootable(host_run: HostRun) -> None:
    """Refused where a reboot is not ours to do."""
    if why := why_not_rebootable(host_run):
        raise Refused(why)


def why_not_rebootable(host_run: HostRun) -> str | None:
    """Why the machine is not ours to reboot, by the definitions as they are at this moment; None where it is.

    Nor is the machine that we run on: nobody would see it coming back.
    """
    try:
        host_run.require_permission()
    except Refused as error:
        return str(error)
    if host_run.machine.is_local:
        return f"{host_run.id} is the machine that this runs on: `systemctl reboot` when it suits you"
    return None


def _back(host_run: HostRun, boot_id: str, seconds: float) -> Running:
    """Return what the machine says of itself in another boot than this. FleetError when `seconds` pass without one."""
    reasons = list[str]()  # earlier ones often say more than the last, which only follows from them
    for _ in (waits := poll(seconds, Backoff(0.3, 1.0))):
        try:
            host_run.machine.reconnect(max(1.0, waits.left), absent_ok=True)
        except DeadlineExceeded as error:
            reasons.append(str(error))
            break
        running = try_running(host_run.machine, host_run.kind)  # it may be on its way down
        if isinstance(running, Running) and running.boot_id != boot_id:
            return running
        reasons.append(str(running) if isinstance(running, FleetError) else "the same boot still answers")
    raise FleetError("; before that: ".join([*dict.fromkeys(reversed(reasons))][:3]))


def _settled(host_run: HostRun, before: set[str]) -> list[str]:
    """Units that failed and had not failed before, once nothing is being started any more. FleetError before that."""
    ask = "systemctl is-system-running"
    script = f"timeout {SETTLE} {ask} --wait >/dev/null 2>&1; {ask}; true"
    state = output_of(host_run.machine, script, what="waiting for the units", sudo=True).strip()
    running = ask_running(host_run.machine, host_run.kind)
    failed = sorted(set(running.failed) - set(running.aside) - before)
    if not failed and state not in SETTLED:
        raise FleetError(f"`{ask}` says {state or 'nothing'} after {SETTLE} s; see `systemctl list-jobs` there")
    return failed
