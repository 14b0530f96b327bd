"""Which names a guest's disks, devices and options, storages, nodes and snapshots can have at all. Pure.

What can be no such name is wrong input, found before anything is asked of a server: Usage. How many there are of each
is `$MAX_*` of PVE::QemuServer and its Drive, Network and PCI modules, and of PVE::LXC::Config.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from nixherd.base.errors import Usage
from nixherd.base.names import NODE, SNAPSHOT, STORAGE, is_a
from nixherd.fleet.models import GuestType, Vm
from nixherd.proxmox.config import VmConfig, properties
from nixherd.proxmox.guest.identity import label
from nixherd.proxmox.steps import AddDisk, Step
from nixherd.proxmox.steps.hardware import CONFIG

_DRIVES: Mapping[str, int] = {"ide": 4, "sata": 6, "scsi": 31, "virtio": 16}
_STATES: Mapping[str, int] = {"efidisk": 1, "tpmstate": 1}
_MOUNTS: Mapping[str, int] = {"mp": 256}
_UNUSED: Mapping[str, int] = {"unused": 256}
_BOOTED: Mapping[str, int] = {**_DRIVES, "net": 32, "hostpci": 16, "usb": 14}
_RESERVED = ("current", "pending")


def is_one_of(families: Mapping[str, int], name: str) -> bool:
    """Tell whether a name belongs to a family and its number is below the bound: `scsi30`."""
    match = re.fullmatch(r"([a-z]+)(0|[1-9]\d{0,2})", name, re.ASCII)
    return match is not None and int(match[2]) < families.get(match[1], 0)


def _kind(vm: Vm) -> str:
    return "VM" if vm.type is GuestType.QEMU else "container"


def _is_disk(vm: Vm, name: str) -> bool:
    if vm.type is GuestType.QEMU:
        return is_one_of({**_DRIVES, **_STATES}, name)
    return name == "rootfs" or is_one_of(_MOUNTS, name)


def require_disk(vm: Vm, name: str, *, unused: bool = False) -> None:
    """Require that a guest of this type can have a disk of that name; `unused`: or an unused one."""
    if _is_disk(vm, name) or (unused and is_one_of(_UNUSED, name)):
        return
    such = "scsi1" if vm.type is GuestType.QEMU else "rootfs or mp0"
    raise Usage(f"{label(vm)}: {name} is not a disk that a {_kind(vm)} can have; name one such as {such}")


def require_new_disk(name: str) -> None:
    """Require that a VM can be given a disk of that name."""
    if not is_one_of(_DRIVES, name):
        raise Usage(f"{name} is not a name for a disk of a VM; use one such as scsi1")


def require_drive(name: str) -> None:
    """Require that a VM's cloud-init drive can have that name."""
    if not is_one_of(_DRIVES, name) or name.startswith("virtio"):
        raise Usage(f"{name} is not a name for a drive of a VM; use another one such as ide2")


def require_part(vm: Vm, name: str) -> None:
    """Require that a part of a guest can have that name: a disk, an unused one, `snapshot:NAME`, `vmstate`."""
    kind, _, rest = name.partition(":")
    if kind == "snapshot" and rest:
        require_snapshot(rest)
    elif not (vm.type is GuestType.QEMU and name == "vmstate"):
        require_disk(vm, name, unused=True)


def require_snapshot(name: str) -> None:
    if not is_a(SNAPSHOT, name) or name in _RESERVED:
        raise Usage(
            f"{name} is not a name for a snapshot; use 2 to 40 letters, digits, '-' and '_', a letter first, and "
            f"neither {' nor '.join(_RESERVED)}"
        )


def require_storage(name: str | None) -> None:
    """Require that a storage can have this name; None stands for no storage."""
    if name is not None and not is_a(STORAGE, name):
        raise Usage(f"{name or '“”'} is not a name of a storage; use letters, digits, '-', '_' and '.', a letter first")


def require_node(name: str) -> None:
    if not is_a(NODE, name):
        raise Usage(f"{name or '“”'} is not a name of a node; use letters, digits and '-'")


def require_device(family: str, name: str) -> None:
    """Require that a guest can have a device of that name: `net0` of the family `net`."""
    if not is_device(family, name):
        raise Usage(f"device={name} is not a device of this kind; use one such as {family}0")


def is_device(family: str, name: str) -> bool:
    return name.startswith(family) and is_one_of({**_BOOTED, "ipconfig": 32}, name)


def require_boot_order(names: Iterable[str]) -> None:
    for name in names:
        if not is_one_of(_BOOTED, name):
            raise Usage(f"boot: {name} is nothing that a VM boots from; name disks and cards such as scsi0 and net0")


# What guests of the other type have, beside what is set from here.
_OTHERS: Mapping[GuestType, str] = {
    GuestType.QEMU: "hostname",
    GuestType.LXC: "acpi citype hotplug kvm localtime name numa scsihw shares tablet vcpus vga",
}


def require_options(vm: Vm, values: Mapping[str, object]) -> None:
    """Refuse (Usage) an option that guests of this type do not have; any other may be taken away (None)."""
    for name, value in values.items():
        allowed, elsewhere = (CONFIG[type].kind_of(name) is not None for type in (vm.type, _OTHER[vm.type]))
        elsewhere = elsewhere or name in _OTHERS[vm.type].split()
        wrong = not allowed if value is not None else elsewhere and not allowed
        if wrong or (_is_numbered_disk(name) and not _is_disk(vm, name)):
            raise Usage(f"{label(vm)}: {name} is not an option that a {_kind(vm)} has and that is changed from here")


_OTHER = {GuestType.QEMU: GuestType.LXC, GuestType.LXC: GuestType.QEMU}


def _is_numbered_disk(name: str) -> bool:
    return re.fullmatch(rf"({'|'.join((*_DRIVES, *_STATES, *_MOUNTS))})\d+", name, re.ASCII) is not None


Disks = Mapping[str, Mapping[str, str]]  # by name, with each one's properties
Named = frozenset[str] | None  # the disks that may be meant: none of them, or unknown

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_KERNEL = re.compile(r"/dev/(?P<prefix>sd|vd|hd|xvd)(?P<letter>[a-z])")
_NEVER = re.compile(r"/dev/(nvme\d+n\d+|mmcblk\d+|hd[a-z]|xvd[a-z])")
_BY = re.compile(r"/dev/disk/by-(?P<kind>id|path)/(?P<link>.+?)(-part\d+)?")
_ATA_NUMBER = re.compile(r"ata-QEMU_HARDDISK_QM\d{5}")
_PCI = re.compile(r"(?P<virtio>virtio-)?pci-[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7](-(?P<bus>[a-z]+)(-.+)?)?")
# What stands behind a controller's address in by-path, and the disks that are called so. A VM has no NVMe or USB disk.
_BUSES: Mapping[str, tuple[str, ...]] = {"": ("virtio",), "scsi": ("scsi",), "ata": ("sata", "ide")}
_OF_HARDWARE = ("nvme-", "usb-", "mmc-", "scsi-", "ata-", "wwn-", "virtio-")
_SERIAL_LENGTH = 20  # what QEMU keeps of a virtio disk's serial


def disks_of(config: VmConfig, steps: Iterable[Step]) -> dict[str, Mapping[str, str]]:
    """Return the disks that the VM has, and those that the steps give it."""
    present = {
        name: properties(str(config.values[name]), "file") for name, each in config.drives.items() if not each.cdrom
    }
    made = {step.disk: properties(step.volume_options, "file") for step in steps if isinstance(step, AddDisk)}
    return {**present, **made}


def has_others(config: VmConfig) -> bool:
    """Tell whether devices of the node are passed through, which may bring disks along."""
    return any(re.fullmatch(r"(hostpci|usb)\d+", name) for name in config.values)


def kernel_names(disk: str, disks: Disks) -> list[str]:
    """Return what the guest's kernel may call the disk. The letter is certain only while it is the bus' first disk."""
    peers = [name for name in disks if _prefix(name) == _prefix(disk)]
    return [f"/dev/{_prefix(disk)}{letter}" for letter in _LETTERS[: max(1, len(peers))]]


def meant(device: str, disks: Disks, *, others: bool = False) -> Named:
    """Return the disks that the device may be; `others`: the VM may have more than these."""
    candidates = _meant(device, disks)
    return None if others and not candidates else candidates


def crowded(meant: Mapping[str, frozenset[str]]) -> tuple[list[str], list[str]] | None:
    """Return devices that share too few disks, and these disks; None while each can be another disk.

    `meant` has the disks that each device may be, none of them unknown.
    """
    taken: dict[str, str] = {}

    def place(device: str, tried: dict[str, None]) -> bool:
        """Give the device a disk, for which another may have to move to the next; `tried` are those looked at."""
        for disk in sorted(meant[device] - tried.keys()):
            tried[disk] = None
            if disk not in taken or place(taken[disk], tried):
                taken[disk] = device
                return True
        return False

    for device in meant:
        tried: dict[str, None] = {}
        if not place(device, tried):
            within = {taken[disk] for disk in tried} | {device}
            return [each for each in meant if each in within], sorted(tried)
    return None


def _meant(device: str, disks: Disks) -> Named:
    if match := _KERNEL.fullmatch(device):
        peers = [name for name in disks if _prefix(name) == match["prefix"]]
        return frozenset(peers if _LETTERS.index(match["letter"]) < len(peers) else ())
    if _NEVER.fullmatch(device):
        return frozenset()
    by = _BY.fullmatch(device)
    if by is None:
        return None
    if by["kind"] == "path":
        return _by_path(by["link"], disks)
    linked = frozenset(_by_id(by["link"], disks))
    renamed = any(values.keys() & {"vendor", "product"} for values in disks.values())  # what SCSI disks are called then
    if not by["link"].startswith(_OF_HARDWARE) or (renamed and not linked and by["link"].startswith("scsi-")):
        return None
    return linked


def _prefix(disk: str) -> str:
    """Return the letters before the kernel's letter: IDE and SATA disks are SCSI's to it."""
    return "vd" if disk.startswith("virtio") else "sd"


def _by_id(link: str, disks: Disks) -> Iterator[str]:
    for name, values in disks.items():
        numbered = name.startswith(("sata", "ide")) and _ATA_NUMBER.fullmatch(link)  # which number is QEMU's affair
        if numbered or link in _links(name, values):
            yield name


def _links(name: str, values: Mapping[str, str]) -> Iterator[str]:
    """Return what udev may call the disk in by-id."""
    serial = values.get("serial")
    if name.startswith("scsi"):
        for each in (f"drive-{name}", serial):
            yield from (f"scsi-{page}QEMU_QEMU_HARDDISK_{each}" for page in "0S")
    elif serial and name.startswith("virtio"):
        yield from (f"virtio-{serial}", f"virtio-{serial[:_SERIAL_LENGTH]}")
    elif serial:
        yield f"ata-QEMU_HARDDISK_{serial}"
    if wwn := values.get("wwn", "").lower():
        yield from (f"wwn-{wwn}", f"scsi-3{wwn.removeprefix('0x')}")


def _by_path(link: str, disks: Disks) -> Named:
    """Return any disk of the controller's bus: its address is not known here."""
    match = _PCI.fullmatch(link)
    if match is None:
        return frozenset() if link.startswith(("platform-", "acpi-", "ccw-", "fc-", "ip-")) else None
    buses = _BUSES.get(match["bus"] or "", ())
    return frozenset(name for name in disks if name.startswith(buses))
