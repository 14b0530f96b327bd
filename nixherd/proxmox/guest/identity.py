"""Whose a guest is. A guest is this fleet's by its VMID, its name and a mark in its notes that names the VMID."""

import re

from nixherd.errors import FleetError, Refused
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Vm
from nixherd.proxmox.config import VmConfig

_MARK = re.compile(r"nixherd fleet=(?P<fleet>\S+) vmid=(?P<vmid>[0-9]+)", re.ASCII)


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


def declared_mac(vm: Vm) -> str | None:
    """The MAC that the definitions give net0, in lower case; None where they leave it to the server.

    As Proxmox VE writes them, a VM's is called `macaddr` and a container's `hwaddr`.
    """
    card = next((card.values for card in vm.settings.networks if card.name == "net0"), {})
    found = card.get("macaddr") or card.get("hwaddr")
    return found.lower() if found else None


def mac_of(config: VmConfig) -> str | None:
    """The MAC of net0, in lower case."""
    card = config.nets.get("net0")
    return card.mac if card else None


def another_machine(vm: Vm, config: VmConfig, node: str) -> str | None:
    """Why a guest whose net0 has another MAC than the declared one is another machine; None where it may be it."""
    declared, mac = declared_mac(vm), mac_of(config)
    if declared is None or declared == mac:
        return None
    has = mac or "without a MAC"
    return f"{label(vm)} on {node} has net0 {has}, {vm.attribute} declares {declared}: it is another machine"


def contradiction(fleet: Fleet, vm: Vm, config: VmConfig, node: str = "") -> str | None:
    """Why the guest under the VM's VMID is another one, whatever its notes say, and what to do; None when it may be it.

    A declared MAC is not looked at: what is ours may be given another card.
    """
    if config.is_template:
        why = "it is a template"
    elif config.name != vm.name:
        why = f"its name is {config.name or 'empty'}, not {vm.name}"
    else:
        return None
    return f"{_found(fleet, vm, node)}: {why}; give {vm.attribute} another VMID in {DEFINITIONS}"


def why_not_ours(fleet: Fleet, vm: Vm, config: VmConfig, node: str = "") -> str | None:
    """Why the guest may not be treated as this fleet's, and what to do; None when it may.

    A guest that the definitions do not let be changed needs no mark: nothing would be done to it.
    """
    if (why := contradiction(fleet, vm, config, node)) or not vm.may_change or is_ours(fleet, vm, config):
        return why
    lacks = f"{_found(fleet, vm, node)}: its notes lack the line `{mark(fleet, vm)}`"
    if other := others_mark(fleet, vm, config):
        return (
            f"{lacks} and have another fleet's, `{other}`; give {vm.attribute} another VMID in {DEFINITIONS}, or, once "
            "that fleet has given it up, take its line out of the notes by hand"
        )
    return (
        f"{lacks}; `nixherd vm adopt {vm.name} {vm.vmid}` shows how it differs from its definition and puts that line "
        f"there, or give {vm.attribute} another VMID in {DEFINITIONS}"
    )


def others_mark(fleet: Fleet, vm: Vm, config: VmConfig) -> str | None:
    """The line by which another fleet holds this very guest, None where there is none.

    One with another VMID came with a copy of another guest, and holds nothing.
    """
    for line in map(str.strip, config.description.splitlines()):
        found = _MARK.fullmatch(line)
        if found and int(found["vmid"]) == vm.vmid and found["fleet"] != fleet.id:
            return line
    return None


def _found(fleet: Fleet, vm: Vm, node: str) -> str:
    kind = "vm" if vm.type is GuestType.QEMU else "ct"
    return f"{kind} {vm.vmid} on {node or fleet.node_of(vm)} exists but is not this fleet's"


def require_ours(fleet: Fleet, vm: Vm, config: VmConfig | None, node: str = "") -> VmConfig:
    """The configuration, when the guest is ours. Refused when it is somebody's, FleetError when there is none."""
    if config is None:
        raise FleetError(f"{label(vm)} does not exist on {node or fleet.node_of(vm)}; provision it first")
    if why := why_not_ours(fleet, vm, config, node):
        raise Refused(why)
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
