"""A guest as it was observed: whose it is, what of its options waits, its address; and VMIDs that are free. Pure.

A guest is this fleet's by its VMID, its name and a mark in its notes that names the VMID.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nixherd.base.errors import FleetError, Refused, Usage
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Vm, VmidRange
from nixherd.fleet.schema import VMIDS
from nixherd.fleet.validate import ONLY_FOR
from nixherd.proxmox.answers import Interface, Pending, Resource, Upid
from nixherd.proxmox.config import VmConfig, hotplug_features, properties

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client
    from nixherd.proxmox.steps import Change

_MARK = re.compile(r"nixherd fleet=(?P<fleet>\S+) vmid=(?P<vmid>[0-9]+)", re.ASCII)


def label(vm: Vm) -> str:
    """Return the guest in messages: `vm 110 (dev)`, `ct 210 (dns)`."""
    return f"{'vm' if vm.type is GuestType.QEMU else 'ct'} {vm.vmid} ({vm.name})"


def mark(fleet: Fleet, vm: Vm) -> str:
    """Return the line in a guest's description that makes it ours; a copy of the guest has another VMID."""
    return f"nixherd fleet={fleet.id} vmid={vm.vmid}"


def marked(fleet: Fleet, vm: Vm, text: str) -> str:
    """Return a description with our mark as its first line."""
    return f"{mark(fleet, vm)}\n{text.strip()}".strip()


def unmarked(fleet: Fleet, vm: Vm, description: str) -> str:
    """Return what a description says apart from our mark."""
    return "\n".join(line for line in description.splitlines() if line.strip() != mark(fleet, vm)).strip()


def is_ours(fleet: Fleet, vm: Vm, config: VmConfig) -> bool:
    """Tell whether the guest under the VM's VMID is the one that this fleet made: VMID, name and mark."""
    lines = {line.strip() for line in config.description.splitlines()}
    return config.name == vm.name and mark(fleet, vm) in lines and not config.is_template


def declared_mac(vm: Vm) -> str | None:
    """Return the MAC that the definitions give net0, in lower case; None where they leave it to the server.

    As Proxmox VE writes them, a VM's is called `macaddr` and a container's `hwaddr`.
    """
    card = next((card.values for card in vm.settings.networks if card.name == "net0"), {})
    mac = card.get("macaddr") or card.get("hwaddr")
    return mac.lower() if mac else None


def mac_of(config: VmConfig) -> str | None:
    """Return the MAC of net0, in lower case."""
    card = config.nets.get("net0")
    return card.mac if card else None


def another_machine(vm: Vm, config: VmConfig, node: str) -> str | None:
    """Say why a guest whose net0 has another MAC than the declared one is another machine; None where it may be it."""
    declared, mac = declared_mac(vm), mac_of(config)
    if declared is None or declared == mac:
        return None
    has = mac or "without a MAC"
    return f"{label(vm)} on {node} has net0 {has}, {vm.attribute} declares {declared}: it is another machine"


def of_another_kind(vm: Vm, row: Resource) -> str | None:
    """Say why the guest that has the VM's VMID is another one: a container in place of a VM, or the reverse."""
    if row.type is vm.type:
        return None
    kind = "a VM" if row.type is GuestType.QEMU else "a container"
    return (
        f"VMID {vm.vmid} is taken by {kind} ({row.name or 'without a name'}) on {row.node}; give {vm.attribute} "
        f"another one in {DEFINITIONS}"
    )


def contradiction(fleet: Fleet, vm: Vm, config: VmConfig, node: str = "") -> str | None:
    """Say why the guest under the VM's VMID is another one, whatever its notes say; None when it may be it.

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
    """Say why the guest may not be treated as this fleet's, and what to do; None when it may.

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
    """Return the line by which another fleet claims this very guest, None without one.

    A line with another VMID came with a copy of another guest, and claims nothing.
    """
    for line in map(str.strip, config.description.splitlines()):
        match = _MARK.fullmatch(line)
        if match and int(match["vmid"]) == vm.vmid and match["fleet"] != fleet.id:
            return line
    return None


def _found(fleet: Fleet, vm: Vm, node: str) -> str:
    kind = "vm" if vm.type is GuestType.QEMU else "ct"
    return f"{kind} {vm.vmid} on {node or fleet.node_of(vm)} exists but is not this fleet's"


def require_ours(fleet: Fleet, vm: Vm, config: VmConfig | None, node: str = "") -> VmConfig:
    """Return the configuration of a guest that is ours.

    Raise Refused when it is somebody's, FleetError when it does not exist.
    """
    if config is None:
        raise FleetError(f"{label(vm)} does not exist on {node or fleet.node_of(vm)}; provision it first")
    if why := why_not_ours(fleet, vm, config, node):
        raise Refused(why)
    return config


def require_may_change(vm: Vm, verb: str) -> None:
    """Refuse, before anything is sent, a guest that the definitions do not let be changed.

    A courtesy: the guard in the HTTP session says the same of every request.
    """
    if vm.readonly:
        why = f"{label(vm)} is readonly in {DEFINITIONS}"
    elif not vm.is_managed:
        why = f"{label(vm)} is {vm.attribute} in {DEFINITIONS}: documented, never changed"
    else:
        return
    raise Refused(f"{why}; refusing to {verb} it (edit the definitions if it may change)")


@dataclass(frozen=True, slots=True)
class ActualVm:
    """A guest as it was observed. `clone_task` is our clone of it while that still runs.

    `node` is where it was found; `pending` what waits for its next start. `unused` has the sizes in bytes of the
    volumes that are attached nowhere, by their names, None where they are not known.
    """

    config: VmConfig
    running: bool
    clone_task: Upid | None = None
    node: str = ""
    paused: bool = False
    pending: tuple[Pending, ...] = ()
    unused: Mapping[str, int | None] = field(default_factory=dict)

    def waiting(self, key: str) -> Pending | None:
        """Return what of this option waits for the next start."""
        return next((each for each in self.pending if each.key == key), None)

    def in_force(self, key: str) -> str | None:
        """Return the option as the guest has it now, whatever waits."""
        row = self.waiting(key)
        return self.config.text(key) if row is None else row.before


# Options that a running VM takes over at once; network cards and SCSI or virtio disks are plugged in and out.
_AT_ONCE = frozenset(("affinity", "cpulimit", "cpuunits", "description", "hookscript", "name", "onboot")) | frozenset(
    ("protection", "shares", "startup", "tags", "vmstatestorage")
)
_PLUGGED = {re.compile(r"net\d+", re.ASCII): "network", re.compile(r"(scsi|virtio)\d+", re.ASCII): "disk"}


def _plugged_as(key: str) -> str | None:
    """Return the feature of `hotplug` that plugs the option in."""
    return next((kind for pattern, kind in _PLUGGED.items() if pattern.fullmatch(key)), None)


def waits(actual: ActualVm, key: str, value: object) -> bool:
    """Tell whether a running VM takes this value (None: its removal) up at its next start only."""
    if not actual.running or key in _AT_ONCE:
        return False
    if key == "balloon":  # the device itself is neither plugged in nor out
        return (actual.in_force(key) == "0") != (str(value) == "0")
    if actual.in_force(key) == sent_text(value):
        return False
    kind = _plugged_as(key)
    return kind is None or kind not in hotplug_features(actual.in_force("hotplug"))


def sent_text(value: object) -> str | None:
    """Write an option's value as the API does: booleans as 1 and 0."""
    return None if value is None else str(int(value) if isinstance(value, bool) else value)


def volume_of(drive: str | None) -> str | None:
    """Return the volume in the text of a drive."""
    return None if drive is None else properties(drive, "file").get("file")


def is_stuck(actual: ActualVm, row: Pending) -> bool:
    """Tell whether what waits should have been plugged in or out of the running VM, and failed to."""
    kind = _plugged_as(row.key)
    if not actual.running or kind not in hotplug_features(actual.in_force("hotplug")):
        return False
    return kind == "network" or volume_of(row.before) != volume_of(row.after)


def of_change(actual: ActualVm, change: "Change") -> bool:
    return waits(actual, change.key, change.value)


def is_elsewhere(actual: ActualVm, disk: str) -> bool:
    """Tell whether the VM has another disk now than its configuration shows: that one waits, or goes."""
    row = actual.waiting(disk)
    return row is not None and volume_of(row.before) != volume_of(row.after)


_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")


def address_of(config: VmConfig, interfaces: Iterable[Interface]) -> str | None:
    """Return the guest's address on net0, IPv4 before IPv6; None while others cannot reach it."""
    card = config.nets.get("net0")
    if card is None or card.mac is None:
        return None
    addresses = [address for interface in interfaces if interface.mac == card.mac for address in interface.addresses]
    reachable = [address for address in map(usable_address, addresses) if address is not None]
    return str(min(reachable, key=lambda address: address.version)) if reachable else None


def plain_address(text: str) -> str | None:
    """Write an address in its one normal form, without a zone; None when the text is not an address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0].partition("/")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def usable_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an address, with or without a prefix, that a machine can have on a network; None for any other.

    Loopback, link-local, multicast, reserved and unspecified addresses are not usable.
    """
    written = plain_address(text)
    if written is None:
        return None
    address = ipaddress.ip_address(written)
    nobodys = address.is_link_local or address.is_loopback or address.is_unspecified or address.is_multicast
    if isinstance(address, ipaddress.IPv4Address):
        nobodys = nobodys or address.is_reserved or address in _THIS_NETWORK
    return None if nobodys else address


_SPAN = re.compile(r"(\d{1,10})-(\d{1,10})", re.ASCII)


def range_of(fleet: Fleet, name: str) -> VmidRange:
    """Return the declared range of this name, or the one between two VMIDs (`150-199`). Raise Usage for neither."""
    if match := _SPAN.fullmatch(name):
        start, end = int(match[1]), int(match[2])
        if start not in VMIDS or end not in VMIDS:
            raise Usage(f"{name} is not a range of VMIDs, which are {VMIDS[0]} to {VMIDS[-1]}")
        if start > end:
            raise Usage(f"{name} ends before it starts; write {end}-{start}")
        return VmidRange(name, start, end)
    span = next((each for each in fleet.ranges if each.name == name), None)
    if span is None:
        known = ", ".join(each.name for each in fleet.ranges) or "none"
        raise Usage(f"{DEFINITIONS}: vmidRanges has no {name}; it has {known} (or name two VMIDs: 150 199)")
    return span


def usual_range(fleet: Fleet, kind: GuestType) -> str | None:
    """Return the range for guests of this kind: the one for them alone, else the first for any; None without any."""
    names = [each.name for each in fleet.ranges]
    reserved = [name for name in names if ONLY_FOR.get(name) is kind]
    return next(iter([*reserved, *(name for name in names if name not in ONLY_FOR)]), None)


def next_vmid(client: "Client", fleet: Fleet, name: str) -> int:
    """Return the lowest VMID of a range that is neither declared nor taken. Raise Usage when all of them are."""
    return next_free(fleet, client, name)[0]


def next_free(fleet: Fleet, client: "Client | None", name: str) -> tuple[int, bool | None]:
    """Return the lowest VMID of a range that nobody has, and whether the hypervisor says so (None: not asked).

    Raise Usage when all of them are taken.
    """
    span = range_of(fleet, name)
    taken = {vm.vmid for vm in fleet.vms.values()} | ({fleet.template.vmid} if fleet.template else set())
    if client is not None:
        taken |= {row.vmid for row in client.resources()}
    for vmid in range(span.start, span.end + 1):
        # a guest that the token may not see is taken all the same
        if vmid not in taken and (client is None or client.is_free(vmid)):
            return vmid, None if client is None else True
    state = "undeclared" if client is None else "free"
    raise Usage(f"no VMID of {name} ({span.start} to {span.end}) is {state}; widen the range, or name another one")


def require_free(client: "Client | None", vmid: int) -> bool | None:
    """Tell whether nobody has this VMID, None if the hypervisor was not asked. Raise Usage when somebody has it."""
    if client is None:
        return None
    remedy = "has it; take another one (nixherd vm next-id)"
    row = next((row for row in client.resources() if row.vmid == vmid), None)
    if row is not None:
        raise Usage(f"--vmid {vmid}: {row.name or 'a guest'} on {row.node} {remedy}")
    if not client.is_free(vmid):
        raise Usage(f"--vmid {vmid}: a guest that this token may not see {remedy}")
    return True
