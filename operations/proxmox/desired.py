"""Guests as their definitions want them: made, kept, shown, and removed."""

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import operation

from nixherd.errors import FleetError
from nixherd.models import Vm
from nixherd.proxmox.errors import NotVisible
from nixherd.proxmox.guest import actions
from nixherd.proxmox.guest.apply import desired
from nixherd.proxmox.guest.destroy import DestroyAction
from nixherd.proxmox.guest.identity import contradiction, is_ours, label
from nixherd.proxmox.guest.observe import observe
from nixherd.proxmox.guest.plan import compared, plan_vm
from nixherd.proxmox.guest.plan import drift as drift_of
from nixherd.proxmox.guest.undo import reversible
from nixherd.proxmox.steps import Cannot, Row, Step
from operations.arguments import flag_of, names_of, text_of, text_or_none, whole
from operations.proxmox.acting import act, deadline_of, guest_of
from operations.steps import Commands, decide, do, fleet_host, session_of, vm_of


@operation()
def create(full: bool = True, source: str | None = None, empty: bool = False) -> Commands:
    """Make the guest: a clone of the template (linked unless `full`), a container out of its archive.

    `source` names another managed guest to copy instead; `empty` makes a VM from its definition alone.
    """

    def action() -> actions.Action:
        if flag_of("empty", empty):
            return actions.create_empty(fleet_host(host))
        vms = session_of(host).fleet.vms
        if source is not None and source not in vms:
            raise FleetError(f"source={source} is no guest of vms/definitions.nix; there are {', '.join(sorted(vms))}")
        copied = None if source is None else vms[source]
        return actions.create(fleet_host(host), full=flag_of("full", full), source=copied)

    yield from act(host, action)


def steps_now() -> tuple[Step, ...]:
    """What differs of the host's guest now; for a documented one its drift."""
    session, vm = session_of(host), guest_of(host)
    actual = observe(session.client, session.fleet, vm)
    if not vm.is_managed:
        return drift_of(vm, session.fleet.node_of(vm), actual)
    return plan_vm(desired(session.client, session.fleet, vm, fleet_host(host)), actual)


@operation()
def drift() -> Commands:
    """Say what differs of a guest that is left alone: documented ones, and managed ones that are readonly."""
    yield from decide(host, _drift)


def _drift() -> Commands:
    vm = vm_of(host)
    if vm is None or vm.may_change:
        host.noop("nothing here is left alone" if vm else "no guest of the hypervisor")
        return
    try:
        steps = steps_now()
    except NotVisible as error:  # nothing is to be done to it, so that nothing can be told of it fails nobody
        host.log(f"left alone: {error}")
        steps = ()
    for step in steps:
        if step.row is not Row.START:
            host.log(f"left alone: {step}")
    host.noop(f"{label(vm)} is left alone")
    yield from ()


@operation()
def apply(allow_reboot: bool = False, snapshot: str | None = None) -> Commands:
    """Bring the guest to its definition, but for whether it runs. It reboots only with `allow_reboot`.

    What cannot be done is said, and fails the host after everything else was done. A guest that may not be changed is
    left alone, and so is a host that is none.
    """
    yield from decide(host, lambda: _apply(flag_of("allow_reboot", allow_reboot), snapshot))


def _apply(allow_reboot: bool, snapshot: str | None) -> Commands:
    vm = vm_of(host)
    if vm is None or not vm.may_change:
        host.noop(f"{label(vm)} is left alone" if vm else "no guest of the hypervisor")
        return
    session, deadline = session_of(host), deadline_of(host)
    action = reversible(actions.as_declared(fleet_host(host), allow_reboot=allow_reboot), snapshot)
    _show_an_unmarked(vm)
    steps = action.plan(session.client, session.fleet, vm)
    words = actions.left_by(action, session.client, session.fleet, vm) or ()
    for step in words:  # what cannot be done, the reboot that nobody allowed, and what should be known
        host.log(str(step))
    if not steps and not any(isinstance(step, Cannot) for step in words):
        host.noop(f"{label(vm)} is as declared")
        return

    def carry_out() -> None:
        if steps:
            action.run(session.client, session.fleet, vm, timeout=deadline, progress=host.log)
        left = actions.left_by(action, session.client, session.fleet, vm) or ()
        obstacles = [step for step in left if isinstance(step, Cannot)]
        if obstacles:
            raise FleetError("; ".join(f"not as declared: {step}" for step in obstacles))

    yield from do(host, "; ".join(map(str, steps)) or "nothing that can be done here", carry_out, by_api=True)


def _show_an_unmarked(vm: Vm) -> None:
    """Say what differs of a guest that may be ours and lacks our mark, before it is refused."""
    session = session_of(host)
    actual = observe(session.client, session.fleet, vm)
    if actual is None or contradiction(session.fleet, vm, actual.config) or is_ours(session.fleet, vm, actual.config):
        return
    for step in compared(desired(session.client, session.fleet, vm, fleet_host(host)), actual):
        if step.row is not Row.START:
            host.log(f"differs: {step}")


@operation()
def template() -> Commands:
    """Convert a stopped VM to a template, for good."""
    yield from act(host, actions.make_template)


@operation()
def destroy(
    vm: str,
    vmid: int,
    stop: bool = False,
    backup: bool = True,
    storage: str | None = None,
    purge: bool = False,
    discard: Sequence[str] | str | None = None,
) -> Commands:
    """Remove the guest with all that belongs to it. `vm`, its name, and its VMID are both asked for.

    One that runs is refused unless `stop`; a backup is made first, to `storage`, and seen there, unless `backup=False`:
    then all is given up. What the backup does not hold must be in `discard` (`scsi1`, `unused0`, `snapshot:clean`).
    """

    def action() -> actions.Action:
        return DestroyAction(
            name=text_of("vm", vm),
            vmid=whole("vmid", vmid, 100),
            stop=flag_of("stop", stop),
            backup=flag_of("backup", backup),
            storage=text_or_none("storage", storage),
            purge=flag_of("purge", purge),
            discard=() if discard is None else tuple(names_of("discard", discard)),
        )

    yield from act(host, action)
