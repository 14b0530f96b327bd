"""Which names a guest's disks, devices and options, storages, nodes and snapshots can have at all. Pure.

What can be no such name is wrong input, found before anything is asked of a server: Usage. How many there are of each
is `$MAX_*` of PVE::QemuServer and its Drive, Network and PCI modules, and of PVE::LXC::Config.
"""

import re
from collections.abc import Iterable, Mapping

from nixherd.errors import Usage
from nixherd.fleet.models import GuestType, Vm
from nixherd.names import NODE, SNAPSHOT, STORAGE, is_a
from nixherd.proxmox.guest.identity import label
from nixherd.proxmox.steps.hardware import CONFIG

_DRIVES: Mapping[str, int] = {"ide": 4, "sata": 6, "scsi": 31, "virtio": 16}
_STATES: Mapping[str, int] = {"efidisk": 1, "tpmstate": 1}
_MOUNTS: Mapping[str, int] = {"mp": 256}
_UNUSED: Mapping[str, int] = {"unused": 256}
_BOOTED: Mapping[str, int] = {**_DRIVES, "net": 32, "hostpci": 16, "usb": 14}
_RESERVED = ("current", "pending")


def is_one_of(families: Mapping[str, int], name: str) -> bool:
    """Whether a name is a family's with a number below its bound: `scsi30`."""
    match = re.fullmatch(r"([a-z]+)(0|[1-9]\d{0,2})", name, re.ASCII)
    return match is not None and int(match[2]) < families.get(match[1], 0)


def _kind(vm: Vm) -> str:
    return "VM" if vm.type is GuestType.QEMU else "container"


def _is_disk(vm: Vm, name: str) -> bool:
    if vm.type is GuestType.QEMU:
        return is_one_of({**_DRIVES, **_STATES}, name)
    return name == "rootfs" or is_one_of(_MOUNTS, name)


def require_disk(vm: Vm, name: str, *, unused: bool = False) -> None:
    """Usage unless a guest of this type can have a disk of that name; `unused`: or an unused one."""
    if _is_disk(vm, name) or (unused and is_one_of(_UNUSED, name)):
        return
    such = "scsi1" if vm.type is GuestType.QEMU else "rootfs or mp0"
    raise Usage(f"{label(vm)}: {name} is not a disk that a {_kind(vm)} can have; name one such as {such}")


def require_new_disk(name: str) -> None:
    """Usage unless a VM can be given a disk of that name."""
    if not is_one_of(_DRIVES, name):
        raise Usage(f"{name} is not a name for a disk of a VM; use one such as scsi1")


def require_drive(name: str) -> None:
    """Usage unless a VM's cloud-init drive can have that name."""
    if not is_one_of(_DRIVES, name) or name.startswith("virtio"):
        raise Usage(f"{name} is not a name for a drive of a VM; use another one such as ide2")


def require_part(vm: Vm, name: str) -> None:
    """Usage unless what goes with a guest can be called so: a disk, an unused one, `snapshot:NAME`, `vmstate`."""
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
    """Usage unless a storage can be called so; None is none."""
    if name is not None and not is_a(STORAGE, name):
        raise Usage(f"{name or '“”'} is not a name of a storage; use letters, digits, '-', '_' and '.', a letter first")


def require_node(name: str) -> None:
    if not is_a(NODE, name):
        raise Usage(f"{name or '“”'} is not a name of a node; use letters, digits and '-'")


def require_device(family: str, name: str) -> None:
    """Usage unless a guest can have a device of that name: `net0` of the family `net`."""
    if not is_device(family, name):
        raise Usage(f"device={name} is not a device of this kind; use one such as {family}0")


def is_device(family: str, name: str) -> bool:
    return name.startswith(family) and is_one_of({**_BOOTED, "ipconfig": 32}, name)


def require_boot_order(names: Iterable[str]) -> None:
    for name in names:
        if not is_one_of(_BOOTED, name):
            raise Usage(f"boot: {name} is nothing that a VM boots from; name disks and cards such as scsi0 and net0")


def require_options(vm: Vm, values: Mapping[str, object]) -> None:
    """Usage for an option that guests of this type do not have. One that is only taken away (None) may be any other."""
    for name, value in values.items():
        here, there = (CONFIG[type].kind_of(name) is not None for type in (vm.type, _OTHER[vm.type]))
        wrong = not here if value is not None else there and not here
        if wrong or (_is_numbered_disk(name) and not _is_disk(vm, name)):
            raise Usage(f"{label(vm)}: {name} is not an option that a {_kind(vm)} has and that is changed from here")


_OTHER = {GuestType.QEMU: GuestType.LXC, GuestType.LXC: GuestType.QEMU}


def _is_numbered_disk(name: str) -> bool:
    return re.fullmatch(rf"({'|'.join((*_DRIVES, *_STATES, *_MOUNTS))})\d+", name, re.ASCII) is not None
