"""Drives in a VM's configuration (`scsi0: local:100/vm-100-disk-0.qcow2,size=1G`) and sizes as written there."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lab.api.errors import ApiError
from lab.api.schema import INDEXED

_BUSES = ("ide", "scsi", "virtio", "sata")
NAMES = tuple(f"{bus}{n}" for bus in _BUSES for n in range(INDEXED[bus])) + ("efidisk0", "tpmstate0")
_NAMES = frozenset(NAMES)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)")
# A new volume: STORAGE:SIZE_IN_GiB or STORAGE:cloudinit.
NEW = re.compile(r"(?P<storage>[A-Za-z][A-Za-z0-9\-_.]*):(?:(?P<size>\d+(?:\.\d+)?)|(?P<cloudinit>cloudinit))")

Drive = dict[str, str]


def is_drive(key: str) -> bool:
    """Return whether an option of that name holds a drive."""
    return key in _NAMES


def parse(text: str) -> Drive:
    """Return the drive's properties; the volume is under `file`."""
    drive: Drive = {}
    for part in text.split(","):
        key, separator, value = part.partition("=")
        drive["file" if not separator or key == "volume" else key] = value if separator else part
    return drive


def write(drive: Mapping[str, str]) -> str:
    """Return the drive's text: volume first, the rest sorted."""
    return ",".join([drive["file"], *(f"{key}={drive[key]}" for key in sorted(drive) if key != "file")])


def is_cdrom(drive: Mapping[str, str]) -> bool:
    return drive.get("media") == "cdrom"


def is_cloudinit(drive: Mapping[str, str]) -> bool:
    """Return whether a drive is the cloud-init drive, from its volume's name."""
    return re.search(r"(?:^|[-:])cloudinit(?:\.\w+)?$", drive["file"]) is not None


def of(config: Mapping[str, Any]) -> Iterator[tuple[str, Drive]]:
    """Return the drives of a configuration, sorted by name."""
    for key in sorted(config):
        if key in _NAMES:
            yield key, parse(str(config[key]))


def cloudinit_of(config: Mapping[str, Any]) -> tuple[str, Drive] | None:
    return next(((key, drive) for key, drive in of(config) if is_cloudinit(drive)), None)


def to_bytes(text: str) -> int:
    """Return the bytes of a size such as `3584M` or `2.5G`; without a unit it is in bytes."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ApiError(f"invalid size '{text}'")
    return int(float(match[1]) * _UNITS[match[2]])


def to_text(size: int) -> str:
    """Return the size with the largest unit that divides it."""
    for unit in ("T", "G", "M", "K"):
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def boot_disk_size(config: Mapping[str, Any]) -> int:
    """Return the bytes of the first bootable disk, which lists show as maxdisk."""
    for key in boot_order(config.get("boot")):
        if key in _NAMES and key in config:
            drive = parse(str(config[key]))
            if not is_cdrom(drive):
                return to_bytes(drive.get("size", "0"))
    return 0


def boot_order(boot: Any) -> list[str]:
    """Return the devices of a `boot` option in order; empty for the legacy syntax or no value."""
    match = re.fullmatch(r"order=(.*)", str(boot or ""))
    return [name for name in match[1].split(";") if name] if match else []


def boot_text(order: Iterable[str]) -> str:
    """Return the `boot` option for these devices; a blank if there are none."""
    names = ";".join(order)
    return f"order={names}" if names else " "


def add_unused(config: dict[str, Any], volid: str) -> str:
    """Keep a volume in the VM's configuration as `unusedN`; return that name."""
    existing = next(
        (name for name, value in config.items() if re.fullmatch(r"unused\d+", name) and value == volid), None
    )
    free = existing or next(f"unused{n}" for n in range(INDEXED["unused"]) if f"unused{n}" not in config)
    config[free] = volid
    return free


def default_boot(config: Mapping[str, Any]) -> str:
    """Return the boot order of a new VM: first disk, first CD-ROM, first network card."""
    disks = [key for key, drive in of(config) if not is_cdrom(drive) and key not in ("efidisk0", "tpmstate0")]
    cdroms = [key for key, drive in of(config) if is_cdrom(drive)]
    cards = sorted((key for key in config if re.fullmatch(r"net\d+", key)), key=lambda key: int(key[3:]))
    return boot_text([*disks[:1], *cdroms[:1], *cards[:1]])
