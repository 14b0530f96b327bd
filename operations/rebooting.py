"""Reboots as a plan of their own: who needs one and why, and the proof that it took place and what runs after it."""

import time
from typing import Any

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.host import Host

from facts.nixos import Running, SystemState
from nixherd.arguments import flag_of
from nixherd.deploy.protocol import Kind
from nixherd.deploy.report import Outcome
from nixherd.deploy.run import HostRun
from nixherd.deploy.waves import label
from nixherd.errors import FAILURES, FleetError, Refused, Undecided
from nixherd.faults import foreseen
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet
from nixherd.install.permission import require_rebootable
from nixherd.locate.reach import Epoch
from operations.deploy_run import acting, looking, require_root, run_of
from operations.health import failing
from operations.steps import Commands, as_root, connector_of, do, executing, fleet_host, leave, session_of

LEAVE = "sync; setsid sh -c 'sleep 0.2; systemctl reboot' >/dev/null 2>&1 </dev/null &"
SETTLE = 60  # seconds for units to settle after a boot


@operation()
def plan(force: bool = False) -> Commands:
    """Say who needs a reboot and why; the others are done.

    Args:
        force: also those that need none.
    """
    yield from looking(lambda own: _plan(own, force=flag_of("force", force)))


def _plan(own: HostRun, *, force: bool) -> str:
    state = own.state
    if own.kind is Kind.HOME or state is None:
        own.end(Outcome.UNCHANGED, "a home is not rebooted")
        return f"{own.id} is a home"
    own.checks = fleet_host(host).health_checks
    own.found(reboot_for=state["reboot_for"], new=state["profile"])
    if not (state["reboot_for"] or force):
        own.end(Outcome.UNCHANGED, "needs no reboot")
        return f"{own.id} needs no reboot"
    why = f"for {', '.join(state['reboot_for'])}" if state["reboot_for"] else "because it was asked for"
    host.log(f"needs a reboot {why}")
    try:
        _require_rebootable(host, session_of(host).fleet, own.id)
    except Refused as error:
        own.end(Outcome.LISTED, str(error))
        return str(error)
    return f"{own.id} is to be rebooted {why}"


@operation()
def reboot(wave: int) -> Commands:
    """Reboot the machine, and prove that it did, what runs then, and that no unit fails that did not fail before.

    Args:
        wave: only hosts of this wave; those of one role, or of none, go one after the other.
    """
    yield from acting(lambda own: _reboot(own, wave))


def _reboot(own: HostRun, wave: int) -> Commands:
    asked, options = run_of(host), own.options
    if options.wave != wave:
        host.noop(f"{own.id} goes in {label(options.wave)}")
        return
    if not executing(host):
        own.end(Outcome.PLANNED)
        yield from do(host, f"reboot {own.id}", lambda: None)
        return

    def act() -> None:
        with asked.turn(own, options.role or ""):
            assert own.state is not None
            require_root(own)
            reboot_and_prove(host, own, own.state["profile"])
            own.end(Outcome.REBOOTED)

    yield from do(host, f"reboot {own.id}", act)


def reboot_and_prove(host: Host, own: HostRun, system: str | None) -> None:
    """Reboot the machine into `system`. Refused where that is not ours to do; Undecided when it does not come back."""
    _require_rebootable(host, load_fleet(session_of(host).fleet.path), own.id)
    before = own.state
    assert before is not None
    own.enter("reboot")
    connector, began = connector_of(host), time.monotonic()
    leave(host, LEAVE, sudo=True)
    try:
        now = _back(host, own, before["boot_id"], began + connector.deadline)
    except FAILURES as error:
        foreseen(error, f"{own.id}: waiting for it to come back")
        raise _undecided(own, f"it did not come back from its reboot: {error}") from error
    own.found(current=now["current"], seconds_down=round(time.monotonic() - began, 1), reboot_for=[])
    own.enter("prove")
    if now["current"] != system:
        raise FleetError(f"{own.id}: it has rebooted into {now['current']}, not {system}")
    if broken := _settled(host, set(before["failed"])):
        raise FleetError(f"{own.id}: units failed after the reboot: {', '.join(broken)}")
    if problem := failing(host, own.checks, time.monotonic() + own.options.confirm_deadline, by_root=True):
        raise FleetError(f"{own.id}: after the reboot, {problem}")


def may_reboot(host: Host) -> str | None:
    """Why the machine is not ours to reboot, as the definitions are at this moment; None where it is."""
    try:
        _require_rebootable(host, load_fleet(session_of(host).fleet.path), host.data.host_id)
    except Refused as error:
        return str(error)
    return None


def _require_rebootable(host: Host, fleet: Fleet, host_id: str) -> None:
    """Refused where it is not ours to do, and for the machine that we run on, which nobody would see coming back."""
    require_rebootable(fleet, host_id)
    if connector_of(host).here:
        raise Refused(f"{host_id} is the machine that this runs on: `systemctl reboot` when it suits you")


def _back(host: Host, own: HostRun, boot_id: str, until: float) -> SystemState:
    """What the machine says of itself in another boot than this."""
    connector = connector_of(host)
    while True:
        connector.drop()
        connector.reach(max(1.0, until - time.monotonic()), epochs=(Epoch.FINAL,), absent_ok=True)
        state: SystemState | None = host.get_fact(Running, _ignore_errors=True)
        if state is not None and state["boot_id"] != boot_id:
            return state
        if time.monotonic() > until:
            raise FleetError("the same boot still answers")
        time.sleep(0.3)


def _settled(host: Host, before: set[str]) -> list[str]:
    """Units that failed and had not failed before, once nothing is being started any more."""
    script = f"timeout {SETTLE} systemctl is-system-running --wait >/dev/null; true"
    as_root(host, script, what="waiting for the units")
    state: Any = host.get_fact(Running, _ignore_errors=True)
    return sorted(set(state["failed"]) - set(state["aside"]) - before) if state else []


def _undecided(own: HostRun, why: str) -> Undecided:
    own.end(Outcome.UNKNOWN, why)
    return Undecided(f"{own.id}: {why}")
