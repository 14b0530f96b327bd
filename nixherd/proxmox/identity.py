"""Whose a guest is. A guest is this fleet's by its VMID, its name and a mark in its notes that names the VMID."""

from nixherd.errors import FleetError, Refused
from nixherd.models import Fleet, GuestType, Vm
from nixherd.proxmox.models import VmConfig
from nixherd.proxmox.policy import DEFINITIONS


def label(vm: Vm) -> str:
    """The guest in messages: `vm 110 (dev)`, `ct 210 (dns)`."""
    return f"{'vm' if vm.type is GuestType.QEMU else 'ct'} {vm.vmid} ({vm.name})"


def mark(fleet: Fleet, vm: Vm) -> str:
    """The line in a guest's description that makes it ours. A copy of it carries the line too, but not its VMID."""
    return f"nixherd fleet={fleet.id} vmid={vm.vmid}"


def marked(fleet: Fleet, vm: Vm, text: str) -> str:
    """A description with our mark as its first line."""
    return f"{mark(fleet, vm)}\n{text.strip()}".strip()


def unmarked(fleet: Fleet, vm: Vm, description: str) -> str:
    """What a description says beside our mark."""
    return "\n".join(line for line in description.splitlines() if line.strip() != mark(fleet, vm)).strip()


def is_ours(fleet: Fleet, vm: Vm, config: VmConfig) -> bool:
    """Whether the guest under the VM's VMID is the one that this fleet made: VMID, name and mark."""
    lines = {line.strip() for line in config.description.splitlines()}
    return config.name == vm.name and mark(fleet, vm) in lines and not config.is_template


def not_ours(fleet: Fleet, vm: Vm, config: VmConfig, node: str = "") -> str:
    """Why a guest that is not `is_ours` is not, and what to do."""
    found = f"vm {vm.vmid} on {node or fleet.node_of(vm)} exists but is not this fleet's"
    if config.is_template:
        return f"{found}: it is a template; give {vm.attribute} another VMID in {DEFINITIONS}"
    if config.name != vm.name:
        return (
            f"{found}: its name is {config.name or 'empty'}, not {vm.name}; "
            f"give {vm.attribute} another VMID in {DEFINITIONS}"
        )
    return (
        f"{found}: its notes lack the line `{mark(fleet, vm)}`; give {vm.attribute} another VMID in {DEFINITIONS}, "
        "or add that line by hand to hand the VM over"
    )


def require_ours(fleet: Fleet, vm: Vm, config: VmConfig | None, node: str = "") -> VmConfig:
    """The configuration, when the guest is ours. Refused when it is somebody's, FleetError when there is none."""
    if config is None:
        raise FleetError(f"{label(vm)} does not exist on {node or fleet.node_of(vm)}; provision it first")
    if not is_ours(fleet, vm, config):
        raise Refused(not_ours(fleet, vm, config, node))
    return config


def require_may_change(vm: Vm, verb: str) -> None:
    """Refused, before anything is asked or sent, where the definitions do not let this guest be changed.

    A courtesy: the guard in the HTTP session says the same of every request.
    """
    if vm.readonly:
        why = f"{label(vm)} is readonly in {DEFINITIONS}"
    elif not vm.is_managed:
        why = f"{label(vm)} is {vm.attribute} in {DEFINITIONS}: documented, never changed"
    else:
        return
    raise Refused(f"{why}; refusing to {verb} it (edit the definitions if it may change)")
