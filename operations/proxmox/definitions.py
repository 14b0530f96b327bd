"""Guests as their definitions want them: brought there, or only compared."""

from pyinfra import host

from nixherd.arguments import flag_of
from nixherd.fleet.models import Vm
from nixherd.proxmox.errors import NotVisible
from nixherd.proxmox.guest.apply import desired
from nixherd.proxmox.guest.identity import contradiction, is_ours, label
from nixherd.proxmox.guest.lifecycle import ApplyDefinition
from nixherd.proxmox.guest.observe import observe
from nixherd.proxmox.guest.plan import compared, plan_vm
from nixherd.proxmox.guest.plan import drift as drift_of
from nixherd.proxmox.guest.snapshots import reversible
from nixherd.proxmox.steps import Cannot, Row, Steps
from nixherd.pyinfra_glue.guests import deadline_of, guest_of, require_none, tell
from nixherd.pyinfra_glue.hosts import context_of, fleet_host, vm_of
from nixherd.pyinfra_glue.operation import Change, NoChange, Planned, operation


def steps_now() -> Steps:
    """What differs of the host's guest now; for a documented one its drift."""
    hypervisor, vm = context_of(host).hypervisor, guest_of()
    actual = observe(hypervisor.client, hypervisor.fleet, vm)
    if not vm.is_managed:
        return drift_of(vm, hypervisor.fleet.node_of(vm), actual)
    return plan_vm(desired(hypervisor.client, hypervisor.fleet, vm, fleet_host(host)), actual)


@operation()
def drift() -> Planned:
    """Say what differs of a guest that is left alone: documented ones, and managed ones that are readonly."""
    vm = vm_of(host)
    if vm is None or vm.may_change:
        return NoChange("nothing here is left alone" if vm else "no guest of the hypervisor")
    try:
        tell(f"left alone: {step}" for step in steps_now() if step.row is not Row.START)
    except NotVisible as error:  # nothing is to be done to it, so that nothing can be told of it fails nobody
        host.log(f"left alone: {error}")
    return NoChange(f"{label(vm)} is left alone")


@operation()
def apply(allow_reboot: bool = False, snapshot: str | None = None) -> Planned:
    """Bring the guest to its definition, but for whether it runs. It reboots only with `allow_reboot`.

    What cannot be done is said, and fails the host after everything else was done. A guest that may not be changed is
    left alone, and so is a host without one.
    """
    vm = vm_of(host)
    if vm is None or not vm.may_change:
        return NoChange(f"{label(vm)} is left alone" if vm else "no guest of the hypervisor")
    hypervisor, deadline = context_of(host).hypervisor, deadline_of()
    client, fleet = hypervisor.client, hypervisor.fleet
    action = reversible(ApplyDefinition(flag_of("allow_reboot", allow_reboot)), snapshot)
    _show_an_unmarked(vm)
    steps = action.plan(client, fleet, vm)
    left = action.left(client, fleet, vm) or ()
    tell(left)  # what cannot be done, the reboot that nobody allowed, and what should be known
    if not steps and not any(isinstance(step, Cannot) for step in left):
        return NoChange(f"{label(vm)} is as declared")

    def carry_out() -> None:
        if steps:
            action.run(client, fleet, vm, timeout=deadline, progress=host.log)
        now = action.left(client, fleet, vm) or ()
        require_none([str(step) for step in now if isinstance(step, Cannot)])

    return Change("; ".join(map(str, steps)) or "nothing that can be done here", carry_out, by_api=True)


def _show_an_unmarked(vm: Vm) -> None:
    """Say what differs of a guest that may be ours and lacks our mark, before it is refused."""
    hypervisor = context_of(host).hypervisor
    actual = observe(hypervisor.client, hypervisor.fleet, vm)
    if (
        actual is None
        or contradiction(hypervisor.fleet, vm, actual.config)
        or is_ours(hypervisor.fleet, vm, actual.config)
    ):
        return
    steps = compared(desired(hypervisor.client, hypervisor.fleet, vm, fleet_host(host)), actual)
    tell(f"differs: {step}" for step in steps if step.row is not Row.START)
