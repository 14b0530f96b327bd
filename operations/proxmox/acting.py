"""How an operation carries out an action on its host's guest."""

from collections.abc import Callable

from pyinfra.api.host import Host

from nixherd.errors import FleetError, Usage
from nixherd.models import Vm
from nixherd.proxmox.guest.actions import TASK_SECONDS, Action, left_by
from nixherd.proxmox.guest.identity import label, require_may_change
from nixherd.proxmox.steps import Outcome, why_nothing
from nixherd.seconds import parse_seconds
from operations.steps import Commands, decide, do, fleet_host, session_of, vm_of


def guest_of(host: Host) -> Vm:
    """The guest that the host runs in. FleetError when it is none of the definitions'."""
    vm = vm_of(host)
    if vm is None:
        raise FleetError(f"{fleet_host(host).id} is no guest of vms/definitions.nix; nothing can be done for it here")
    return vm


def deadline_of(host: Host, default: float = TASK_SECONDS) -> float:
    """Seconds for a task of the hypervisor, and for whoever holds its locks: data `task_deadline`, or the default."""
    given = host.data.get("task_deadline")
    try:
        return default if given is None else parse_seconds(given)
    except ValueError as error:
        raise Usage(f"task_deadline={error}") from None


def act(host: Host, make: Callable[[], Action]) -> Commands:
    """Plan the action at Prepare, and carry it out at Execute; nothing where nothing is left to do."""
    yield from decide(host, lambda: _act(host, make))


def _act(host: Host, make: Callable[[], Action]) -> Commands:
    session, vm = session_of(host), guest_of(host)
    action, deadline = make(), deadline_of(host)
    require_may_change(vm, action.verb)  # before a client is made: nothing at all is sent
    steps = action.plan(session.client, session.fleet, vm)
    if not steps:
        why = why_nothing(steps)
        host.noop(f"{label(vm)}: nothing is left to do to {action.verb} it{f': {why}' if why else ''}")
        return

    def carry_out() -> None:
        done = action.run(session.client, session.fleet, vm, timeout=deadline, progress=host.log)
        for step in done:
            if str(step) not in planned:
                host.log(str(step))
        for line in done.lines if isinstance(done, Outcome) else ():
            host.log(line)
        for step in left_by(action, session.client, session.fleet, vm) or ():
            host.log(str(step))  # what waits for its next start

    planned = "; ".join(map(str, steps))
    yield from do(host, planned, carry_out, by_api=True)
