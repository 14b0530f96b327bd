"""Where volumes are: storages that are away, what can be moved, and what can be snapshotted, over the emulator."""

from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import FleetError, Usage
from nixherd.base.names import parse_size
from nixherd.fleet.models import GuestType
from nixherd.proxmox.guest.backups import BackupGuest
from nixherd.proxmox.guest.disks import AttachDisk, RelocateDisk, ResizeDisk
from nixherd.proxmox.guest.hardware import SetOptions
from nixherd.proxmox.guest.identity import mark
from nixherd.proxmox.guest.lifecycle import CreateGuest, StopGuest
from nixherd.proxmox.guest.snapshots import Action, TakeSnapshot, reversible
from tests.nixherd.proxmox.conftest import GIB, Emulator, granted
from tests.nixherd.proxmox.dev import begin, config_of, do, twice
from tests.nixherd.proxmox.fleets import DEV, FLEET

pytestmark = [pytest.mark.xdist_group("emulator"), pytest.mark.usefixtures("no_long_pauses")]


def volume(form: str, size: int = GIB) -> dict[str, Any]:
    return {"content": "images", "format": form, "size": size, "used": 4096}


FILES = {
    **{"type": "dir", "path": "/srv/files", "content": "images,rootdir", "total": 90 * GIB, "avail": 90 * GIB},
    "volumes": {
        **{f"files:110/vm-110-disk-{n}.raw": volume("raw") for n in (1, 2, 3)},
        "files:110/vm-110-disk-4.qcow2": volume("qcow2"),
        "files:210/vm-210-disk-0.raw": volume("raw"),
    },
}
GONE = {"type": "dir", "path": "/mnt/gone", "content": "images,backup", "active": 0, "total": GIB, "avail": GIB}
SEEN = granted(("/storage", "PVEDatastoreUser"))  # of all of these
FAR = {"type": "nfs", "path": "/mnt/pve/far", "content": "images", "active": 0, "disable": "1"}


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (AttachDisk("scsi1", GIB, storage="gone"), "storage gone on prom is not active: not mounted, or its"),
        (AttachDisk("scsi1", GIB, storage="far"), "storage far on prom is disabled; `pvesm set far --disable 0`"),
        (RelocateDisk("scsi0", "gone"), "storage gone on prom is not active"),
        (BackupGuest(storage="gone"), "storage gone on prom is not active"),
        (BackupGuest(storage="tank"), "storage tank on prom takes no backup; allow `backup` there"),
        (RelocateDisk("scsi0", "local"), "storage local on prom takes no images; allow `images` there"),
        (
            AttachDisk("scsi1", GIB, storage="nosuch"),
            "prom has no storage nosuch; for images it has: far, gone,",
        ),
    ],
)
def test_nothing_is_put_where_it_cannot_be(emulator: Emulator, action: Action, said: str) -> None:
    begin(emulator, acl=SEEN, storages={"gone": GONE, "far": FAR})
    with pytest.raises(FleetError) as refused:
        action.plan(emulator.client(), FLEET, DEV)  # already the plan
    assert said in str(refused.value)
    with pytest.raises(FleetError):
        do(emulator, action)
    assert emulator.changes() == []


def test_a_guest_is_made_where_there_is_a_storage_for_it(emulator: Emulator) -> None:
    emulator.control("reset", patch={"acl": SEEN, "storages": {"gone": GONE}})
    vm = replace(DEV, storage="gone")
    for action in (CreateGuest(empty=True), CreateGuest()):
        with pytest.raises(FleetError, match="storage gone on prom is not active"):
            do(emulator, action, vm, replace(FLEET, vms={"dev": vm}))
    assert emulator.changes() == []


def test_a_storage_that_is_away_takes_no_backups(emulator: Emulator) -> None:
    begin(emulator, acl=SEEN, storages={"gone": GONE})
    assert do(emulator, BackupGuest()) == ["back vm 110 up to local"]
    begin(emulator, acl=SEEN, storages={"gone": GONE, "local": None})
    with pytest.raises(Usage, match=r"is not clear \(none does; .*; gone is not active: not mounted"):
        do(emulator, BackupGuest())


def test_efi_variables_the_tpm_and_what_is_unused_are_moved(emulator: Emulator) -> None:
    disks: dict[str, Any] = {"efidisk0": "files:110/vm-110-disk-1.raw,efitype=4m,size=1G"}
    disks |= {"tpmstate0": "files:110/vm-110-disk-2.raw,size=1G,version=v2.0", "unused0": "files:110/vm-110-disk-3.raw"}
    begin(emulator, acl=SEEN, storages={"files": FILES}, **disks)
    assert twice(emulator, RelocateDisk("efidisk0", "tank")) == [
        "move efidisk0 to tank; files:110/vm-110-disk-1.raw is deleted then"
    ]
    assert str(config_of(emulator).values["efidisk0"]).startswith("tank:")
    with pytest.raises(Usage, match="its TPM's state is moved while it is off alone: shut it down first"):
        do(emulator, RelocateDisk("tpmstate0", "tank"))
    with pytest.raises(Usage, match="efidisk0 has the size that its content has; it is not grown"):
        do(emulator, ResizeDisk(size=parse_size("2G"), disk="efidisk0"))
    do(emulator, StopGuest())
    assert twice(emulator, RelocateDisk("tpmstate0", "tank")) == [
        "move tpmstate0 to tank; files:110/vm-110-disk-2.raw is deleted then"
    ]
    assert str(config_of(emulator).values["tpmstate0"]).startswith("tank:")


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        ("ide2", "ide2 is the cloud-init drive, which no server moves; take it away"),
        ("efidisk0", "has no disk efidisk0; its disks: scsi0"),
    ],
)
def test_what_cannot_be_moved_says_why(dev: Emulator, disk: str, said: str) -> None:
    with pytest.raises(Usage, match=said):
        do(dev, RelocateDisk(disk, "tank"))
    assert dev.changes() == []


@pytest.mark.parametrize(
    ("disks", "said"),
    [
        (
            {"scsi1": "files:110/vm-110-disk-1.raw,size=1G"},
            "cannot be snapshotted: scsi1 (files:110/vm-110-disk-1.raw) is not a qcow2, which alone has snapshots on "
            "files (dir); move it to a storage that can, such as zfspool or lvmthin, or make it qcow2 "
            "(`qm disk move 110 …` on prom)",
        ),
        (
            {"tpmstate0": "files:110/vm-110-disk-2.raw,size=4M,version=v2.0", "scsi1": "files:110/vm-110-disk-4.qcow2"},
            "cannot be snapshotted: tpmstate0 (files:110/vm-110-disk-2.raw) is not a qcow2",
        ),
        ({"scsi1": "thick:vm-110-disk-1,size=1G"}, "scsi1 (thick:vm-110-disk-1) is on thick, and lvm has no snapshots"),
    ],
)
def test_a_snapshot_that_cannot_be_names_the_disk_before(emulator: Emulator, disks: dict[str, Any], said: str) -> None:
    thick = {"type": "lvm", "content": "images", "total": GIB, "volumes": {"thick:vm-110-disk-1": volume("raw")}}
    begin(emulator, acl=SEEN, storages={"files": FILES, "thick": thick}, **disks)
    for action in (TakeSnapshot("clean"), reversible(SetOptions({"cores": 2}), "keep")):
        with pytest.raises(Usage) as refused:
            action.plan(emulator.client(), FLEET, DEV)
        assert said in str(refused.value)
        with pytest.raises(Usage):
            do(emulator, action)
    assert emulator.changes() == []


def test_a_containers_volumes_are_judged_too(emulator: Emulator) -> None:
    vm = replace(DEV, name="dns", vmid=210, type=GuestType.LXC)
    fleet = replace(FLEET, vms={**FLEET.vms, "dns": vm})
    config = {"hostname": "dns", "rootfs": "files:210/vm-210-disk-0.raw,size=1G", "mp0": "/srv/shared,mp=/srv"}
    config["description"] = mark(FLEET, vm)
    ct = {"210": {"type": "lxc", "node": "prom", "status": "stopped", "config": config}}
    emulator.control(
        "reset",
        patch={
            "acl": granted(("/storage", "PVEDatastoreUser"), ("/vms/210", "Nixherd")),
            "storages": {"files": FILES},
            "vms": ct,
        },
    )
    with pytest.raises(Usage) as refused:
        do(emulator, TakeSnapshot("clean"), vm, fleet)
    assert "rootfs (files:210/vm-210-disk-0.raw) is not a qcow2" in str(refused.value)
    assert "mp0 (/srv/shared) is not a volume of a storage" in str(refused.value)
    assert "`pct move-volume 210 …` on prom" in str(refused.value)
    with pytest.raises(Usage, match="is a container; its volumes are not moved here: `pct move-volume 210 rootfs"):
        do(emulator, RelocateDisk("rootfs", "tank"), vm, fleet)
    assert emulator.changes() == []


def test_only_a_vm_that_runs_has_memory_to_keep(emulator: Emulator) -> None:
    begin(emulator)
    assert twice(emulator, TakeSnapshot("ram", with_memory=True)) == ["snapshot vm 110 as ram with its memory"]
    [row] = emulator.client().snapshots("prom", 110)
    assert row.with_memory
    do(emulator, StopGuest())
    with pytest.raises(Usage, match="does not run, so it has no memory to keep"):
        do(emulator, TakeSnapshot("off", with_memory=True))


def test_a_guest_may_be_called_by_a_dns_name(emulator: Emulator) -> None:
    vm = replace(DEV, name="dev.example.org", disk=parse_size("4G"))
    fleet = replace(FLEET, vms={vm.name: vm})
    assert twice(emulator, CreateGuest(), vm, fleet) == ["clone template 9002 to vm 110 (dev.example.org) on nvmeprom"]
    assert config_of(emulator).name == "dev.example.org"
    assert vm.attribute == 'managed."dev.example.org"'
