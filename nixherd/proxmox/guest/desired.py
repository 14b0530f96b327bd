"""What a definition wants of a guest: how one is made from it, and in what one differs."""

from collections.abc import Iterator, Mapping

from nixherd.base.errors import FleetError
from nixherd.base.names import format_size
from nixherd.fleet.models import DEFINITIONS, Device, Fleet, Host, Vm
from nixherd.proxmox.config import VmConfig, encode_ssh_keys, is_true, net_values, properties, tags_of, written
from nixherd.proxmox.guest.identity import label, marked, unmarked
from nixherd.proxmox.steps import Cannot, Change, Configure, Create, Resize, Row, Step, sent, whole_gib

ADDRESSING = "ip=dhcp"


def options(fleet: Fleet, vm: Vm, config: VmConfig, template: VmConfig | None) -> Iterator[Change]:
    """Return changes of plain options and of devices that are no disks."""
    declared = vm.settings
    if vm.cores is not None and config.cores != vm.cores:
        yield Change("cores", str(config.cores), str(vm.cores), vm.cores)
    sockets = declared.sockets if declared.sockets is not None else 1 if vm.cores is not None else None
    if sockets is not None and config.sockets != sockets:
        yield Change("sockets", str(config.sockets), str(sockets), sockets)
    yield from _memory(vm, config)
    if declared.agent is not False and not config.agent_enabled:
        yield Change("agent", "off", "on", "enabled=1")
    elif declared.agent is False and config.agent_enabled:
        yield Change("agent", "on", "off", "enabled=0")
    for key, first in (("cpu", "cputype"), ("machine", "type")):
        yield from _typed(key, first, getattr(declared, key), config)
    if declared.boot is not None and config.boot_order != declared.boot:
        before, after = (";".join(order) or "default" for order in (config.boot_order, declared.boot))
        yield Change("boot", before, after, f"order={after}")
    yield from tags(vm, config)
    yield from flags(vm, config, template)
    yield from _typed("startup", "order", declared.startup, config, "any")
    yield from description(fleet, vm, config)
    for device in (*declared.networks, *declared.pci):
        yield from device_changes(device, config)


def _memory(vm: Vm, config: VmConfig) -> Iterator[Change]:
    if vm.memory is not None and config.memory != vm.memory:
        before = "?" if config.memory is None else str(config.memory)
        yield Change("memory", before, f"{vm.memory} MiB", str(vm.memory))
    balloon = vm.settings.balloon
    if balloon is not None and config.number("balloon") != balloon:
        before = config.text("balloon") or "as memory"
        yield Change("balloon", before, f"{balloon} MiB" if balloon else "off", balloon)


def _typed(key: str, first: str, target: str | None, config: VmConfig, otherwise: str = "default") -> Iterator[Change]:
    """Compare an option with properties, the first with or without its name; `otherwise` is in force without any."""
    actual = config.text(key)
    if target is not None and properties(target, first) != properties(actual or "", first):
        yield Change(key, actual or otherwise, target, target)


def tags(vm: Vm, config: VmConfig) -> Iterator[Change]:
    missing = {tag.lower() for tag in vm.tags} - set(config.tags)
    if missing:
        target = sorted(missing | set(config.tags))
        yield Change("tags", ",".join(config.tags) or "none", ",".join(target), ";".join(target))


_FLAGS = ("onboot", "protection")


def inheritable(vm: Vm, config: VmConfig) -> list[str]:
    """Return which of the flags below the guest has, and nobody declared: the template may have left them there."""
    return [key for key in _FLAGS if getattr(vm.settings, key) is None and config.flag(key)]


def flags(vm: Vm, config: VmConfig, template: VmConfig | None) -> Iterator[Change]:
    """Compare `onboot` and `protection`; where nothing is declared, what the template left is taken away."""
    for key in _FLAGS:
        declared: bool | None = getattr(vm.settings, key)
        if declared is None and not (template and template.flag(key)):
            continue
        target = bool(declared)
        if config.flag(key) != target:
            yield Change(key, "off" if target else "on", "on" if target else "off", target)


def description(fleet: Fleet, vm: Vm, config: VmConfig) -> Iterator[Change]:
    target = vm.settings.description
    if target is None:
        return
    actual = unmarked(fleet, vm, config.description)
    if actual != target.strip():
        yield Change("description", short(actual), short(target), marked(fleet, vm, target))


_SHORT = 40


def short(value: object) -> str:
    """Shorten a value for a plan: the beginning of a long text, or of one with several lines."""
    first, _, rest = ("" if value is None else str(value)).strip().partition("\n")
    if not rest and len(first) <= 2 * _SHORT:
        return first or "none"
    return f"“{first[:_SHORT]}…”"


def device_changes(device: Device, config: VmConfig) -> Iterator[Change]:
    """Give a card or passed-through device the declared properties; the others stay."""
    is_net = device.name.startswith("net")
    actual = config.text(device.name)
    values = {} if actual is None else net_values(actual) if is_net else properties(actual, "host")
    target = dict(device.values)
    if is_net and actual is None:
        target = {"model": "virtio", **target}
    if all(_same(values.get(key), value) for key, value in target.items()) and actual is not None:
        return
    merged = {key: value for key, value in {**values, **target}.items() if key != "host" or "mapping" not in target}
    before = "none" if actual is None else written({key: values.get(key, "unset") for key in target})
    yield Change(device.name, before, written(target), written(_headed(merged) if is_net else merged))


def _headed(values: Mapping[str, str]) -> dict[str, str]:
    """Write a card's properties as the server does: `virtio=MAC,bridge=…`, or `model=virtio,…` without a MAC."""
    rest = {key: value for key, value in values.items() if key not in ("model", "macaddr")}
    model, mac = values["model"], values.get("macaddr")
    return {model: mac, **rest} if mac else {"model": model, **rest}


def _same(actual: str | None, target: str) -> bool:
    if actual is None:
        return False
    return actual.lower() == target.lower() or (target in ("0", "1") and is_true(actual) == is_true(target))


# Disks


def grown(
    vm: Vm, node: str, disk: str, actual: int, target: int, config: VmConfig, where: str, *, of_template: bool = False
) -> Iterator[Step]:
    """Grow a disk to the declared size; Cannot where it is larger."""
    if actual > target:
        whose = "its template's " if of_template else ""
        why = f"{whose}{disk} has {format_size(actual)}, {DEFINITIONS} wants {format_size(target)}"
        remedy = f"disks are never shrunk, correct {where}"
        yield Cannot(node, vm.vmid, label(vm), why, remedy, type=vm.type, of_row=Row.RESIZE)
    elif actual < target:
        yield Resize(node, vm.vmid, disk, actual, target, config.digest, type=vm.type)


def impossible(vm: Vm, node: str, config: VmConfig) -> Iterator[Step]:
    """Return what cannot be changed on a machine that exists."""
    bios = vm.settings.bios
    if bios is not None and config.bios != bios:
        why = f"{label(vm)} has {config.bios}, {vm.attribute}.bios says {bios}; its boot loader would not start"
        remedy = "clone a template with that firmware and install anew, or correct the definitions"
        yield Cannot(node, vm.vmid, "bios", why, remedy)
    disk = config.boot_disk
    if vm.storage is not None and disk is not None and config.digest is not None and disk.storage != vm.storage:
        why = f"{disk.name} of {label(vm)} is on {disk.storage}, {vm.attribute}.storage says {vm.storage}"
        remedy = f"move it (operations.proxmox.move_disk disk={disk.name} storage={vm.storage}) or correct that"
        yield Cannot(node, vm.vmid, "storage", why, remedy)


# Cloud-init


def cloud_init(vm: Vm, host: Host, config: VmConfig) -> Iterator[Change]:
    """Compare who may log in to a clone, and how it gets its address; nothing without a cloud-init drive."""
    declared = vm.settings.cloud_init
    user, wanted_user = config.text("ciuser"), declared.user or host.user
    if not config.has_cloudinit_drive:
        return
    if user != wanted_user:
        yield Change("user", user or "none", wanted_user, wanted_user)
    keys = tuple(key.strip() for key in (host.authorized_keys if declared.keys is None else declared.keys))
    if keys and config.ssh_keys != keys:
        yield Change("keys", str(len(config.ssh_keys)), f"{len(keys)} of {host.id}", encode_ssh_keys(keys))
    for name, addressing in {"ipconfig0": ADDRESSING, **declared.addresses}.items():
        actual = config.text(name)
        if properties(actual or "", "ip") != properties(addressing, "ip"):
            yield Change("network" if name == "ipconfig0" else name, actual or "none", addressing, addressing)
    for key, text in (("nameserver", declared.nameserver), ("search domain", declared.search_domain)):
        actual = config.text(key.replace(" ", ""))
        if text is not None and actual != text:
            yield Change(key, actual or "none", text, text)
    upgrade = is_true(config.values.get("ciupgrade", 1))
    if upgrade != bool(declared.upgrade):  # off: minutes of the first boot, for a system that is replaced
        yield Change("upgrade", "on" if upgrade else "off", "off" if upgrade else "on", not upgrade)


BOOT_DISK = "scsi0"
_CARD = Device("net0", {"model": "virtio", "bridge": "vmbr0"})


def empty_vm(fleet: Fleet, vm: Vm, host: Host) -> Create:
    """Return the step that makes a VM from its definition. Raise FleetError when that lacks its size or place.

    Its options are those in which a VM without any would differ: the same comparison that keeps it as declared.
    """
    storage = fleet.storage_of(vm)
    if vm.disk is None or storage is None:
        raise FleetError(f"{vm.attribute} in {DEFINITIONS} declares no {'storage' if vm.disk else 'disk'}; add it")
    cards = () if any(card.name == "net0" for card in vm.settings.networks) else (_CARD,)
    changes = list(options(fleet, vm, VmConfig(), None))
    changes += [change for card in cards for change in device_changes(card, VmConfig())]
    values: dict[str, object] = {
        "name": vm.name,
        "description": marked(fleet, vm, vm.settings.description or ""),
        "ostype": "l26",
        "scsihw": "virtio-scsi-single",
        BOOT_DISK: f"{storage}:{whole_gib(vm.disk)}",
        "ide2": f"{storage}:cloudinit",
        "boot": f"order={BOOT_DISK};net0",
        "pool": vm.settings.pool,
        **_firmware(vm, storage),
        **{disk.name: volume(disk, storage) for disk in vm.settings.disks},
        **sent(changes),
        **sent(cloud_init(vm, host, VmConfig({"ide2": f"{storage}:cloudinit,media=cdrom"}))),
    }
    return Create(fleet.node_of(vm), vm.vmid, vm.name, {key: each for key, each in values.items() if each is not None})


def volume(disk: Device, storage: str | None) -> str:
    """Return a new, empty volume as the API takes it: `tank:100,ssd=1`."""
    assert disk.size is not None
    rest = "".join(f",{key}={value}" for key, value in disk.values.items())
    return f"{disk.storage or storage}:{whole_gib(disk.size)}{rest}"


def _firmware(vm: Vm, storage: str) -> dict[str, object]:
    """Return the disk for OVMF's variables, without Secure Boot's keys, which would stop an unsigned boot loader."""
    if vm.settings.bios != "ovmf":
        return {"bios": vm.settings.bios}
    return {"bios": "ovmf", "efidisk0": f"{storage}:1,efitype=4m,pre-enrolled-keys=0"}


_CONTAINER_CARD = {"name": "eth0", "bridge": "vmbr0", "ip": "dhcp"}


def creation(fleet: Fleet, vm: Vm, host: Host) -> Create:
    """Return the step that makes a container. Raise FleetError when its definition names no archive to unpack."""
    declared = vm.settings
    if declared.container.archive is None:
        raise FleetError(
            f"{vm.attribute}: nothing to make the container from; declare `archive`, such as "
            f'"local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", in {DEFINITIONS}'
        )
    assert vm.disk is not None
    networks = declared.networks or (Device("net0", _CONTAINER_CARD),)
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
    return written(values)


def container_steps(fleet: Fleet, vm: Vm, node: str, config: VmConfig) -> Iterator[Step]:
    """Return the steps that make a container as declared. A running one takes all of its options over at once."""
    changes = tuple(_changes(fleet, vm, config))
    if changes:
        yield Configure(node, vm.vmid, changes, config.digest, type=vm.type)
    root = config.root
    if vm.disk is not None and root is not None and root.size is not None:
        where = f"{vm.attribute}.disk"
        yield from grown(vm, node, "rootfs", root.size, vm.disk, config, where)


def _changes(fleet: Fleet, vm: Vm, config: VmConfig) -> Iterator[Change]:
    declared = vm.settings
    if vm.cores is not None and config.number("cores") != vm.cores:
        yield Change("cores", config.text("cores") or "all", str(vm.cores), vm.cores)
    if vm.memory is not None and (config.number("memory") or 512) != vm.memory:
        yield Change("memory", config.text("memory") or "512", f"{vm.memory} MiB", vm.memory)
    swap = declared.container.swap
    if swap is not None and (512 if config.number("swap") is None else config.number("swap")) != swap:
        yield Change("swap", config.text("swap") or "512", f"{swap} MiB", swap)
    yield from _typed("features", "", declared.container.features, config, "none")
    yield from tags(vm, config)
    yield from flags(vm, config, None)
    yield from _typed("startup", "order", declared.startup, config, "any")
    yield from description(fleet, vm, config)
    for card in declared.networks:
        yield from card_changes(card, config)


def card_changes(card: Device, config: VmConfig) -> Iterator[Change]:
    """Give a container's card the declared properties; the others stay."""
    actual = config.text(card.name)
    values, target = properties(actual or "", "name"), properties(_text(card), "name")
    if all(values.get(key, "").lower() == value.lower() for key, value in target.items()):
        return
    merged = {"type": "veth", **values, **target} if actual else target
    before = "none" if actual is None else written({key: values.get(key, "unset") for key in target})
    yield Change(card.name, before, written(target), written(merged))
