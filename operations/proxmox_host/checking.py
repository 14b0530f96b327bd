"""What a node and its guests are: whether it is the one that is meant, what is in effect, and what waits for a boot."""

from collections.abc import Mapping
from functools import partial

from pyinfra import host
from pyinfra.api.host import Host

from nixherd.base.errors import FleetError, Usage
from nixherd.facts.proxmox_host import Boot, Dkms, Modules, Pci
from nixherd.fleet.models import DEFINITIONS, GuestType, Vm
from nixherd.operations.proxmox_host.asking import ask, node_of_host, require_node, settings_of, source_version
from nixherd.operations.proxmox_host.changing import edited
from nixherd.proxmox.answers import PciMapping
from nixherd.proxmox.guest.observe import find
from nixherd.proxmox.node import passthrough, status
from nixherd.proxmox.node.kernel import loader_of, words_for
from nixherd.proxmox.node.mapping import Devices, Given, Line, compare, names_of, slots_of, slots_wanted_of
from nixherd.pyinfra_glue.hosts import context_of, executing
from nixherd.pyinfra_glue.operation import NoChange, operation


@operation(require=require_node)
def require() -> NoChange:
    """Refuse a machine that is not the Debian node that is meant, and a request that cannot be met there."""
    settings, node = settings_of(host), node_of_host()
    boot, pci = ask(Boot), ask(Pci)
    loader = loader_of(boot)
    devices = passthrough.named(settings, pci)
    passthrough.require_no_others(ask(Modules))
    words = words_for(node["vendor"], settings.words)
    for file in loader.files:
        edited(boot, file, words)
    if settings.source:
        source_version(settings.source)
        if not passthrough.cards(devices):
            raise Usage(f"vendor_reset: none of {', '.join(settings.devices)} is a card of AMD's, which it is for")
    system = f"Proxmox VE {node['pve']}" if node["pve"] else str(node["id"])
    names = ", ".join(f"{device['address']} is {device['id']}" for device in devices)
    return NoChange(f"{host.data.node}: {system}, kernel {node['kernel']}, booted by {loader.name}; {names}")


@operation(require=require_node)
def report() -> NoChange:
    """Say what is in effect and what waits for a boot, whom that stops, and what guests are given; changes nothing."""
    settings, node, boot = settings_of(host), node_of_host(), ask(Boot)
    pci, modules = ask(Pci), ask(Modules)
    seen = status.Seen(
        node, boot, modules, pci,
        ask(Dkms, source=settings.source) if settings.source else None,
        devices=passthrough.named(settings, pci),
        words=words_for(node["vendor"], settings.words),
        version=source_version(settings.source) if settings.source else None,
    )  # fmt: skip
    waiting = status.waiting(seen)
    for text in (status.read_back(seen), *map(str, waiting), *status.remarks(seen)):
        host.log(text)
    if any(not each.booted for each in waiting):
        host.log(f"a boot of {host.data.node} is due; nixherd never boots a node. {_guests_line(host)}")
    for line in _given_lines(host, Devices(host.data.node, pci["devices"], seen.devices), settings.guests):
        host.log(line.text)
        if line.command:
            host.log(f"  for a person, as root on {host.data.node}: {line.command}")
    if executing(host):
        failing = [*status.problems(seen), *(str(each) for each in waiting if each.booted)]
        if failing:
            raise FleetError(f"{host.data.node}: {'; '.join(failing)}")
    if not waiting:
        host.log("all of it is in effect")
    return NoChange("the node was looked at")


# The guests of the node, by GETs of the hypervisor's API alone


def _guests_line(host: Host) -> str:
    """Say whom a boot of the node stops, as far as the token may see."""
    try:
        client = context_of(host).hypervisor.client
        rows = [row for row in client.resources() if row.node == host.data.node and row.status == "running"]
        sees_all = client.permissions().allows("/vms", "VM.Audit")
    except FleetError as error:
        return f"Which guests it stops is unknown: {error}"
    kinds = {GuestType.QEMU: "VM", GuestType.LXC: "container"}
    names = ", ".join(f"{kinds[row.type]} {row.vmid} ({row.name or 'no name'})" for row in rows)
    unseen = "" if sees_all else "; others may run there that this token may not see (VM.Audit on /vms shows them)"
    return f"It stops {names or 'no guest that runs now'}{unseen}"


def _given_lines(host: Host, here: Devices, hostpci: Mapping[str, Mapping[str, str]]) -> list[Line]:
    """Say what the fleet's guests on this node are given of its devices, where that is not what `hostpci` sets, or is
    not what the node has."""
    fleet = context_of(host).fleet
    lines, unknown = [], dict[str, list[str]]()
    for key in hostpci:
        if not any(key in names_of(vm) for vm in fleet.vms.values()):
            lines.append(Line(f"hostpci: {key} is not a guest of {DEFINITIONS}: it is not looked at"))
    for vm in sorted(fleet.vms.values(), key=lambda vm: vm.vmid):
        if vm.type is not GuestType.QEMU:
            continue
        set_for_it = slots_wanted_of(vm, hostpci)
        given = _given(host, vm, is_named=bool(set_for_it))
        if given is not None and given.devices is None:
            unknown.setdefault(given.why, []).append(given.label)
        if given is None or given.devices is None or not (set_for_it or given.devices):
            continue
        lines += compare(given, set_for_it, here, partial(_mapping, host))
    for why, labels in unknown.items():
        lines.append(Line(f"what {', '.join(labels)} {'is' if len(labels) == 1 else 'are'} given is unknown: {why}"))
    return lines


def _given(host: Host, vm: Vm, *, is_named: bool) -> Given | None:
    """Return what a guest has; None for one that is on another node, or does not exist.

    One that cannot be read is unknown where it `is_named` in what the operator sets, or its definition is of this node.
    """
    hypervisor = context_of(host).hypervisor
    try:
        guest = find(hypervisor.client, hypervisor.fleet, vm)
    except FleetError as error:
        is_ours = is_named or hypervisor.fleet.node_of(vm) == host.data.node
        return Given(vm.vmid, vm.name, None, str(error)) if is_ours else None
    if guest is None or guest[0] != host.data.node:
        return None
    return Given(vm.vmid, vm.name, slots_of(guest[1].values))


def _mapping(host: Host, name: str) -> PciMapping | str | None:
    try:
        return context_of(host).hypervisor.client.pci_mapping(name)
    except FleetError as error:
        return f"{error} (Mapping.Audit on /mapping/pci/{name} shows it)"
