"""What the hypervisor's API says of a node's guests: who runs there, and which devices they are given. Only GETs."""

from collections.abc import Mapping, Sequence

from pyinfra.api.host import Host

from nixherd.errors import FleetError
from nixherd.fleet.models import GuestType, Vm
from nixherd.proxmox.answers import PciMapping
from nixherd.proxmox.guest.observe import find
from nixherd.proxmox.node.mapping import Given, Line, compare, names_of, properties, slots_of, slots_wanted_of
from nixherd.proxmox.node.states import PciDevice
from operations.steps import session_of


def guests_line(host: Host) -> str:
    """Whom a boot of the node stops, as far as the token may see."""
    try:
        client = session_of(host).client
        rows = [row for row in client.resources() if row.node == host.data.node and row.status == "running"]
        sees_all = client.permissions().allows("/vms", "VM.Audit")
    except FleetError as error:
        return f"Which guests it stops is unknown: {error}"
    kinds = {GuestType.QEMU: "VM", GuestType.LXC: "container"}
    names = ", ".join(f"{kinds[row.type]} {row.vmid} ({row.name or 'no name'})" for row in rows)
    unseen = "" if sees_all else "; others may run there that this token may not see (VM.Audit on /vms shows them)"
    return f"It stops {names or 'no guest that runs now'}{unseen}"


def given_lines(
    host: Host,
    devices: Sequence[PciDevice],
    passed: Sequence[PciDevice],
    said: Mapping[str, Mapping[str, str]],
) -> list[Line]:
    """What the fleet's guests on this node are given of its devices, where it is not as wanted, or as the node is."""
    fleet = session_of(host).fleet
    lines, unknown = [], dict[str, list[str]]()
    for key in said:
        if not any(key in names_of(vm) for vm in fleet.vms.values()):
            lines.append(Line(f"hostpci: {key} is no guest of vms/definitions.nix: it is not looked at"))
    for vm in sorted(fleet.vms.values(), key=lambda vm: vm.vmid):
        if vm.type is not GuestType.QEMU:
            continue
        wanted = slots_wanted_of(vm, said)
        given = _given(host, vm, asked=bool(wanted))
        if given is not None and given.devices is None:
            unknown.setdefault(given.why, []).append(given.label)
        if given is None or given.devices is None or not (wanted or given.devices):
            continue
        named = (given.devices, wanted)
        names = {name for texts in named for text in texts.values() if (name := properties(text).get("mapping"))}
        mappings = {name: _mapping(host, name) for name in names}
        lines += compare(given, wanted, node=host.data.node, devices=devices, passed=passed, mappings=mappings)
    for why, labels in unknown.items():
        lines.append(Line(f"what {', '.join(labels)} {'is' if len(labels) == 1 else 'are'} given is unknown: {why}"))
    return lines


def _given(host: Host, vm: Vm, *, asked: bool) -> Given | None:
    """What a guest has; None for one that is elsewhere, or not there. One that cannot be read is unknown, if `asked`
    for or on this node by its definition."""
    session = session_of(host)
    try:
        found = find(session.client, session.fleet, vm)
    except FleetError as error:
        there = asked or session.fleet.node_of(vm) == host.data.node
        return Given(vm.vmid, vm.name, None, str(error)) if there else None
    if found is None or found[0] != host.data.node:
        return None
    return Given(vm.vmid, vm.name, slots_of(found[1].values))


def _mapping(host: Host, name: str) -> PciMapping | str | None:
    try:
        return session_of(host).client.pci_mapping(name)
    except FleetError as error:
        return f"{error} (Mapping.Audit on /mapping/pci/{name} shows it)"
