"""Which disk of a VM a device's name may mean in its guest. Pure.

The kernel's letters, and the links that udev makes: by-id from what QEMU and Proxmox VE give a disk (a SCSI disk's
device_id is `drive-scsiN`, a virtio disk has none but its `serial`), by-path from where its controller is. What cannot
be judged is unknown, and so is everything that a passed-through device might bring along.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from nixherd.proxmox.config import VmConfig, properties
from nixherd.proxmox.steps import AddDisk, Step

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
    """The disks that the VM has, and those that the steps give it."""
    there = {
        name: properties(str(config.values[name]), "file") for name, each in config.drives.items() if not each.cdrom
    }
    made = {step.disk: properties(step.volume_options, "file") for step in steps if isinstance(step, AddDisk)}
    return {**there, **made}


def has_others(config: VmConfig) -> bool:
    """Whether devices of the node are passed through, which may bring disks along."""
    return any(re.fullmatch(r"(hostpci|usb)\d+", name) for name in config.values)


def kernel_names(disk: str, disks: Disks) -> list[str]:
    """What the guest's kernel may call the disk. The letter is certain only while it is the bus' first disk."""
    peers = [name for name in disks if _prefix(name) == _prefix(disk)]
    return [f"/dev/{_prefix(disk)}{letter}" for letter in _LETTERS[: max(1, len(peers))]]


def meant(device: str, disks: Disks, *, others: bool = False) -> Named:
    """The disks that the device may be; `others`: the VM may have more than these."""
    found = _meant(device, disks)
    return None if others and not found else found


def crowded(meant: Mapping[str, frozenset[str]]) -> tuple[list[str], list[str]] | None:
    """Devices that cannot each be another disk, and the disks that they may be, which are fewer; None while they can.

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
    found = frozenset(_by_id(by["link"], disks))
    renamed = any(values.keys() & {"vendor", "product"} for values in disks.values())  # what SCSI disks are called then
    if not by["link"].startswith(_OF_HARDWARE) or (renamed and not found and by["link"].startswith("scsi-")):
        return None
    return found


def _prefix(disk: str) -> str:
    """The letters before the kernel's letter: IDE and SATA disks are SCSI's to it."""
    return "vd" if disk.startswith("virtio") else "sd"


def _by_id(link: str, disks: Disks) -> Iterator[str]:
    for name, values in disks.items():
        numbered = name.startswith(("sata", "ide")) and _ATA_NUMBER.fullmatch(link)  # which number is QEMU's affair
        if numbered or link in _links(name, values):
            yield name


def _links(name: str, values: Mapping[str, str]) -> Iterator[str]:
    """What udev may call the disk in by-id."""
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
    """By where the controller is: its address is not known here, so any disk of that bus may be meant."""
    match = _PCI.fullmatch(link)
    if match is None:
        return frozenset() if link.startswith(("platform-", "acpi-", "ccw-", "fc-", "ip-")) else None
    buses = _BUSES.get(match["bus"] or "", ())
    return frozenset(name for name in disks if name.startswith(buses))
