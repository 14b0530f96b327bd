"""Containers: how one is made out of an archive, and in what one differs from its definition."""

from collections.abc import Iterator

from nixherd.errors import FleetError
from nixherd.fleet.models import Fleet, Host, Vm
from nixherd.fleet.settings import Device
from nixherd.proxmox import differences
from nixherd.proxmox.creation import volume, whole_gib
from nixherd.proxmox.identity import marked
from nixherd.proxmox.models import VmConfig, properties, tags_of
from nixherd.proxmox.policy import DEFINITIONS
from nixherd.proxmox.steps import Change, Configure, Create, Step

_CARD = {"name": "eth0", "bridge": "vmbr0", "ip": "dhcp"}


def creation(fleet: Fleet, vm: Vm, host: Host) -> Create:
    """The container's making. FleetError when its definition names no archive to unpack."""
    declared = vm.settings
    if declared.container.archive is None:
        raise FleetError(
            f"{vm.attribute}: nothing to make the container from; declare `archive`, such as "
            f'"local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", in {DEFINITIONS}'
        )
    assert vm.disk is not None
    networks = declared.networks or (Device("net0", _CARD),)
    values: dict[str, object] = {
        "ostemplate": declared.container.archive,
        "hostname": vm.name,
        "description": marked(fleet, vm, declared.description or ""),
        "rootfs": f"{fleet.storage_of(vm)}:{whole_gib(vm.disk)}",
        "cores": vm.cores,
        "memory": vm.memory,
        "swap": declared.container.swap,
        "unprivileged": declared.container.unprivileged is not False,
        "features": declared.container.features,
        "ssh-public-keys": "\n".join(host.authorized_keys) or None,
        "tags": ";".join(tags_of(";".join(vm.tags))) or None,
        "onboot": declared.onboot,
        "protection": declared.protection,
        "startup": declared.startup,
        "pool": declared.pool,
        **{card.name: _text(card) for card in networks},
        **{disk.name: volume(disk, fleet.storage_of(vm)) for disk in declared.disks},
    }
    kept = {key: value for key, value in values.items() if value is not None}
    return Create(fleet.node_of(vm), vm.vmid, vm.name, kept, type=vm.type)


def _text(device: Device) -> str:
    values = {**({"name": f"eth{device.name[3:]}"} if "name" not in device.values else {}), **device.values}
    if "macaddr" in values:
        values["hwaddr"] = values.pop("macaddr")
    return ",".join(f"{key}={value}" for key, value in values.items())


def container_steps(fleet: Fleet, vm: Vm, node: str, config: VmConfig) -> Iterator[Step]:
    """The steps that make a container as declared. A running one takes all of its options over at once."""
    changes = tuple(_changes(fleet, vm, config))
    if changes:
        yield Configure(node, vm.vmid, changes, config.digest, type=vm.type)
    root = config.root
    if vm.disk is not None and root is not None and root.size is not None:
        where = f"{vm.attribute}.disk"
        yield from differences.grown(vm, node, "rootfs", root.size, vm.disk, config, where)


def _changes(fleet: Fleet, vm: Vm, config: VmConfig) -> Iterator[Change]:
    declared = vm.settings
    if vm.cores is not None and config.number("cores") != vm.cores:
        yield Change("cores", config.text("cores") or "all", str(vm.cores), vm.cores)
    if vm.memory is not None and (config.number("memory") or 512) != vm.memory:
        yield Change("memory", config.text("memory") or "512", f"{vm.memory} MiB", vm.memory)
    swap = declared.container.swap
    if swap is not None and (512 if config.number("swap") is None else config.number("swap")) != swap:
        yield Change("swap", config.text("swap") or "512", f"{swap} MiB", swap)
    features = declared.container.features
    if features is not None and properties(features, "") != properties(config.text("features") or "", ""):
        yield Change("features", config.text("features") or "none", features, features)
    yield from differences.tags(vm, config)
    yield from differences.flags(vm, config, None)
    yield from differences.startup(vm, config)
    yield from differences.description(fleet, vm, config)
    for card in declared.networks:
        yield from card_changes(card, config)


def card_changes(card: Device, config: VmConfig) -> Iterator[Change]:
    """A container's card with the declared properties, what is not declared as it was."""
    found = config.text(card.name)
    values, wanted = properties(found or "", "name"), properties(_text(card), "name")
    if all(values.get(key, "").lower() == value.lower() for key, value in wanted.items()):
        return
    merged = {"type": "veth", **values, **wanted} if found else wanted
    before = "none" if found is None else ",".join(f"{key}={values.get(key, 'unset')}" for key in wanted)
    text = ",".join(f"{key}={value}" for key, value in merged.items())
    yield Change(card.name, before, ",".join(f"{key}={value}" for key, value in wanted.items()), text)
