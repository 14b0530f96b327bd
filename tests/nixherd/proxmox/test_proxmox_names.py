"""Names that no guest of a type can have are wrong input, found before anything is asked of the server."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from nixherd.base.errors import Usage
from nixherd.fleet.models import Device, GuestType, Origin, Vm
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest import names
from nixherd.proxmox.guest.backups import BackupGuest, RestoreGuest
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.disks import AttachDisk, RelocateDisk, ResizeDisk
from nixherd.proxmox.guest.hardware import AddCloudInitDrive, RegenerateCloudInit, SetDevice, SetOptions
from nixherd.proxmox.guest.lifecycle import MigrateGuest
from nixherd.proxmox.guest.snapshots import Action, RemoveSnapshot, RollbackGuest, TakeSnapshot
from tests.nixherd.proxmox.fleets import DEV, FLEET

CT = Vm("dns", 210, Origin.MANAGED, readonly=False, host_id="dev", type=GuestType.LXC)
BOTH = replace(FLEET, vms={**FLEET.vms, "dns": CT})
VM_BACKUP = "local:backup/vzdump-qemu-110-2026_01_01-00_00_00.vma.zst"
CT_BACKUP = "local:backup/vzdump-lxc-210-2026_01_01-00_00_00.tar.zst"


class Unasked:
    """A server that is not to be asked anything."""

    def __getattr__(self, name: str) -> None:
        raise AssertionError(f"the server was asked: {name}")


WRONG: list[tuple[Vm, Callable[[], Action]]] = [
    *(
        (DEV, lambda name=name: ResizeDisk(size=1 << 30, disk=name))
        for name in ("mp0", "rootfs", "scsi31", "unused0", "x")
    ),
    *(
        (CT, lambda name=name: ResizeDisk(size=1 << 30, disk=name))
        for name in ("scsi1", "mp256", "efidisk0", "mp01", "")
    ),
    *((DEV, lambda name=name: AttachDisk(name, 1 << 30)) for name in ("mp0", "scsi31", "ide4", "sata6", "virtio16")),
    (CT, lambda: AttachDisk("mp0", 1 << 30)),
    *((DEV, lambda name=name: RelocateDisk(name, "tank")) for name in ("mp0", "rootfs", "unused256", "net0", "scsi01")),
    *((CT, lambda name=name: RelocateDisk(name, "tank")) for name in ("scsi1", "rootfs")),
    *((DEV, lambda name=name: TakeSnapshot(name)) for name in ("current", "a b", "1st", "../x", "x" * 41, "")),
    *((DEV, lambda name=name: RemoveSnapshot(name)) for name in ("current", "a/b", "x")),
    *((DEV, lambda name=name: RollbackGuest(name)) for name in ("pending", "a/b", "ü1", "")),
    *(
        (DEV, lambda name=name: DestroyGuest("dev", 110, discard=(name,)))
        for name in ("mp0", "snapshot:", "snapshot:a b")
    ),
    *((CT, lambda name=name: DestroyGuest("dns", 210, discard=(name,))) for name in ("scsi1", "vmstate")),
    *((DEV, lambda name=name: RestoreGuest(VM_BACKUP, discard=(name,))) for name in ("mp0", "snapshot:current")),
    *((CT, lambda name=name: RestoreGuest(CT_BACKUP, discard=(name,))) for name in ("scsi1", "virtio0")),
    *(
        (DEV, make)
        for make in (
            lambda: AttachDisk("scsi1", 1 << 30, storage="a b"),
            lambda: RelocateDisk("scsi0", "local/x"),
            lambda: BackupGuest(storage="_x"),
            lambda: RestoreGuest(VM_BACKUP, storage="a:b"),
            lambda: MigrateGuest("no such node"),
            lambda: MigrateGuest("prom2", storage="ü"),
            lambda: DestroyGuest("dev", 110, storage="/srv"),
            lambda: AddCloudInitDrive("virtio0"),
            lambda: AddCloudInitDrive("ide4"),
            lambda: AddCloudInitDrive(storage="-"),
            lambda: SetOptions({"mp0": None}),
            lambda: SetOptions({"swap": 512}),
            lambda: SetOptions({"scsi31": None}),
        )
    ),
    (CT, lambda: AddCloudInitDrive()),
    (CT, lambda: RegenerateCloudInit()),
    (CT, lambda: SetOptions({"scsi1": None})),
    (CT, lambda: SetOptions({"bios": "ovmf"})),
    (CT, lambda: SetOptions({"hostpci0": None})),
    (CT, lambda: SetDevice(Device("hostpci0", {"mapping": "gpu"}))),
]


@pytest.mark.parametrize(("vm", "make"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_name_is_wrong_usage_before_any_request(vm: Vm, make: Callable[[], Action]) -> None:
    client = cast(Client, Unasked())
    for does in ("plan", "run"):
        with pytest.raises(Usage):
            getattr(make(), does)(client, BOTH, vm)


def test_names_that_can_be_are_let_through() -> None:
    for name in ("scsi30", "virtio15", "sata5", "ide3", "efidisk0", "tpmstate0"):
        names.require_disk(DEV, name)
    for name in ("rootfs", "mp0", "mp255"):
        names.require_disk(CT, name)
    for name in ("unused0", "snapshot:clean", "vmstate"):
        names.require_part(DEV, name)
    names.require_options(DEV, {"cores": 2, "usb0": None, "audio0": None, "unused3": None, "scsi1": None, "args": None})
    names.require_options(CT, {"swap": 0, "mp3": None, "unused0": None, "net0": "x", "description": ""})
    names.require_boot_order(["scsi0", "net1", "ide2"])
    names.require_storage("local-zfs")
    names.require_node("prom-2")
    with pytest.raises(Usage):
        names.require_boot_order(["mp0"])
    with pytest.raises(Usage):
        names.require_device("net", "net32")
