"""Operations on guests of the hypervisor, on the controller, through the guarded API: each acts for its host's guest.

`pyinfra inventory.py --limit dev operations.proxmox.shutdown` calls one by hand. Each looks at the guest and does
nothing where nothing is left to do; a guest that the definitions do not let be changed is refused before anything is
sent. Most are made from the verbs of `nixherd.proxmox.guest`, whose parameters and docstrings they have: `shutdown`,
`resize`, `snapshot`, …; those that are more than one verb are written out here.
"""

from typing import TYPE_CHECKING, Any

from pyinfra import host

from nixherd.base.errors import FleetInvalid, NotVisible
from nixherd.base.names import flag_of
from nixherd.base.waiting import ahead
from nixherd.fleet.models import Vm
from nixherd.locate.reach import Epoch
from nixherd.proxmox.guest.apply import desired
from nixherd.proxmox.guest.identity import contradiction, is_ours, label
from nixherd.proxmox.guest.lifecycle import ApplyDefinition
from nixherd.proxmox.guest.observe import observe
from nixherd.proxmox.guest.plan import compared, plan_vm
from nixherd.proxmox.guest.plan import drift as drift_of
from nixherd.proxmox.guest.snapshots import reversible
from nixherd.proxmox.guest.verbs import VERBS
from nixherd.proxmox.preflight import host_facts, preflight, survey
from nixherd.proxmox.steps import Cannot, Row, Steps
from nixherd.pyinfra_glue.guests import deadline_of, guest_of, managed_vm, operation_of, require_none, row, tell
from nixherd.pyinfra_glue.hosts import connector_of, context_of, evaluated, executing, fleet_host, selection, vm_of
from nixherd.pyinfra_glue.installing import findings as obstacles_of
from nixherd.pyinfra_glue.installing import image_for
from nixherd.pyinfra_glue.operation import Change, NoChange, Planned, operation
from nixherd.pyinfra_glue.secrets_place import require_place_for_secrets


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
    fleet = hypervisor.fleet
    actual = observe(hypervisor.client, fleet, vm)
    if actual is None or contradiction(fleet, vm, actual.config) or is_ours(fleet, vm, actual.config):
        return
    steps = compared(desired(hypervisor.client, fleet, vm, fleet_host(host)), actual)
    tell(f"differs: {step}" for step in steps if step.row is not Row.START)


CLONE_DEADLINE = 3600.0


@operation()
def validate() -> Planned:
    """Refuse what cannot end well, before anything is changed: every reason at once, for this host alone."""
    vm, chosen, builder = managed_vm(), selection(host), context_of(host).builder
    config = evaluated(host)
    require_place_for_secrets(host, config.declared)
    seen = survey(context_of(host).hypervisor, vm)
    findings = [*preflight(context_of(host).fleet, vm, fleet_host(host), host_facts(config), seen)]
    if seen.actual is None:
        findings += obstacles_of(host)
    if findings:
        raise FleetInvalid(findings)
    if seen.actual is None and executing(host):
        image = image_for(host)
        # Needed after the first boot: made while the hypervisor clones and boots. `host` is unknown to those threads.
        ahead(lambda: builder.build(chosen, config.host_id), lambda: builder.kexec_tarball(image))
    return NoChange(f"{vm.name} may be provisioned")


@operation()
def clone() -> Planned:
    """Clone the template, whole, with our mark on the copy from its first moment; the host key is made before."""

    def host_key() -> None:
        context_of(host).keys.to_install(fleet_host(host).id)  # before anything boots

    return row(Row.CLONE, CLONE_DEADLINE, host_key)


@operation()
def address() -> Planned:
    """Wait for the machine, read its host key through the authenticated agent, pin it, and connect."""
    vm, connector = managed_vm(), connector_of(host)
    connector.installs = True
    if connector.connected and connector.place is not None:
        return NoChange(f"vm {vm.vmid} ({vm.name}) answers at {connector.place.address}")

    def reach() -> None:
        place = connector.reach()
        what = {Epoch.CLONE: "the fresh clone", Epoch.INSTALLER: "the installer", Epoch.FINAL: "the installed system"}
        host.log(f"{what[place.epoch]} answers at {place.address}")

    return Change(f"find the address of vm {vm.vmid} ({vm.name}) and pin its host key", reach, changes=False)


@operation()
def wait_for_ssh(timeout: float | None = None) -> Planned:
    """Wait until the machine answers by SSH with the host key that is pinned for it, `timeout` seconds at most."""
    connector, host_id = connector_of(host), fleet_host(host).id
    if connector.connected:
        return NoChange(f"{host_id} answers")
    return Change(
        f"wait for {host_id} to answer by SSH", lambda: connector.reach(timeout, absent_ok=True), changes=False
    )


_WRITTEN = ("address", "apply", "clone", "drift", "validate", "wait_for_ssh")
globals().update({name: operation_of(verb) for name, verb in VERBS.items() if name not in _WRITTEN})
__all__ = sorted({*VERBS, *_WRITTEN})

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
