"""What is protected, absent or a container."""

from collections.abc import Callable
from dataclasses import replace
from unittest.mock import Mock

import pytest

from nixherd.base.errors import FleetError, Refused, Usage
from nixherd.base.names import parse_size
from nixherd.fleet.models import ContainerSettings, GuestType, Settings, Vm
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.backups import BackupGuest, RestoreGuest
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.disks import AttachDisk, RelocateDisk, ResizeDisk
from nixherd.proxmox.guest.hardware import RegenerateCloudInit, SetOptions
from nixherd.proxmox.guest.identity import ActualVm, mark
from nixherd.proxmox.guest.lifecycle import (
    ApplyDefinition,
    ConvertToTemplate,
    CreateGuest,
    MigrateGuest,
    RebootGuest,
    ResumeGuest,
    ShutdownGuest,
    StartGuest,
    StopGuest,
    SuspendGuest,
)
from nixherd.proxmox.guest.snapshots import Action, RemoveSnapshot, RollbackGuest, TakeSnapshot, reversible
from nixherd.proxmox.guest.verb import Guest
from tests.nixherd.proxmox.actions.conftest import ct
from tests.nixherd.proxmox.conftest import GIB, Emulator
from tests.nixherd.proxmox.dev import begin, config_of, do, twice
from tests.nixherd.proxmox.fleets import DEV, DOC1, FLEET, IGP, KEPT

pytestmark = [pytest.mark.xdist_group("emulator"), pytest.mark.usefixtures("no_long_pauses")]


# Refused and absent

EVERYTHING: list[Callable[[], Action]] = [
    StartGuest,
    StopGuest,
    ShutdownGuest,
    lambda: RebootGuest(always=True),
    SuspendGuest,
    ResumeGuest,
    lambda: ApplyDefinition(),
    lambda: CreateGuest(),
    lambda: SetOptions({"cores": 1}),
    lambda: ResizeDisk(size=1 << 40),
    lambda: AttachDisk("scsi5", GIB),
    lambda: RelocateDisk("scsi0", "tank"),
    RegenerateCloudInit,
    ConvertToTemplate,
    lambda: TakeSnapshot("clean"),
    lambda: RemoveSnapshot("clean"),
    lambda: RollbackGuest("clean"),
    BackupGuest,
    lambda: RestoreGuest("local:backup/vzdump-qemu-110-2026_01_01-00_00_00.vma.zst", overwrite=True),
    lambda: MigrateGuest("prom2"),
    lambda: reversible(SetOptions({"cores": 1}), "keep"),
]


@pytest.mark.parametrize("vm", [DOC1, IGP, KEPT], ids=lambda vm: vm.name)
@pytest.mark.parametrize("make", EVERYTHING)
def test_what_is_protected_is_refused_before_anything_is_sent(
    emulator: Emulator, make: Callable[[], Action], vm: Vm
) -> None:
    attempts: tuple[Callable[[], object], ...] = (
        lambda: make().plan(emulator.client(), FLEET, vm),
        lambda: make().run(emulator.client(), FLEET, vm),
        lambda: DestroyGuest(vm.name, vm.vmid, stop=True, backup=False).run(emulator.client(), FLEET, vm),
    )
    for attempt in attempts:
        with pytest.raises(Refused) as refusal:
            attempt()
        assert str(refusal.value).startswith(f"vm {vm.vmid} ({vm.name}) is ")
        assert "\n" not in str(refusal.value)
    assert emulator.requests() == []


@pytest.mark.parametrize("make", EVERYTHING)
def test_a_stranger_under_our_vmid_is_refused(emulator: Emulator, make: Callable[[], Action]) -> None:
    begin(emulator, name="theirs")
    with pytest.raises(Refused, match="exists but is not this fleet's: its name is theirs, not dev"):
        make().run(emulator.client(), FLEET, DEV)
    assert emulator.changes() == []


def test_what_does_not_exist_is_said(emulator: Emulator) -> None:
    with pytest.raises(FleetError, match=r"vm 110 \(dev\) does not exist on prom; provision it first"):
        do(emulator, ShutdownGuest())
    assert emulator.changes() == []


# Containers

ARCHIVE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
CT = replace(DEV, name="dns", vmid=210, type=GuestType.LXC, cores=1, memory=512, disk=parse_size("4G"))
CT = replace(CT, settings=Settings(pool="nixherd", container=ContainerSettings(archive=ARCHIVE, swap=0)))
WITH_CT = replace(FLEET, vms={**FLEET.vms, "dns": CT})


@pytest.fixture
def archive(emulator: Emulator) -> Emulator:
    """A storage with something to unpack, and room for backups."""
    about = {"content": "vztmpl", "format": "tzst", "size": 120 << 20}
    local = {"type": "dir", "path": "/var/lib/vz", "content": "backup,vztmpl", "total": 500 * GIB, "avail": 500 * GIB}
    emulator.control("reset", patch={"storages": {"local": {**local, "volumes": {ARCHIVE: about}}}})
    return emulator


def test_the_life_of_a_container(archive: Emulator) -> None:
    def once(action: Action) -> list[str]:
        return twice(archive, action, CT, WITH_CT)

    assert once(CreateGuest()) == [f"create ct 210 (dns) out of {ARCHIVE}"]
    config = ct(archive)
    assert (config.name, config.number("memory"), config.root and config.root.size) == ("dns", 512, parse_size("4G"))
    assert config.nets["net0"].mac is not None
    assert do(archive, ApplyDefinition(), CT, WITH_CT) == []
    assert once(StartGuest()) == ["start ct 210"]
    assert once(SetOptions({"memory": 1024})) == ["set memory 512 → 1024"]
    assert do(archive, ApplyDefinition(), CT, WITH_CT) == ["set memory 1024 → 512 MiB"]
    assert once(ResizeDisk(size=parse_size("5G"))) == ["grow rootfs 4G → 5G"]
    assert once(TakeSnapshot("clean")) == ["snapshot ct 210 as clean"]
    assert once(ShutdownGuest()) == ["shut ct 210 down within 180 s"]
    assert once(RollbackGuest("clean")) == ["roll ct 210 back to clean; what was done since is lost"]
    assert once(RemoveSnapshot("clean")) == ["delete snapshot clean of ct 210"]
    assert once(BackupGuest(newer_than=60)) == ["back ct 210 up to local"]
    [volume] = archive.client().volumes("prom", "local", content="backup", vmid=210)
    steps = do(archive, DestroyGuest("dns", 210, backup=False), CT, WITH_CT)
    assert steps[-1].startswith("destroy ct 210 (dns), net0 bc:24:11:")
    assert archive.client().config("prom", 210, GuestType.LXC) is None
    [made] = once(RestoreGuest(volume.volid))
    assert made.startswith(f"restore ct 210 (dns) from {volume.volid}")
    assert ct(archive).number("memory") == 512
    do(archive, StartGuest(), CT, WITH_CT)
    assert do(archive, RebootGuest(always=True), CT, WITH_CT) == ["reboot ct 210"]
    assert once(StopGuest()) == ["stop ct 210 at once"]


def test_a_container_needs_something_to_unpack(emulator: Emulator) -> None:
    with pytest.raises(FleetError, match="nothing to make the container from"):
        do(emulator, CreateGuest(), replace(CT, settings=Settings()), WITH_CT)
    assert emulator.changes() == []


def test_a_vm_from_its_definition_alone(emulator: Emulator) -> None:
    assert twice(emulator, CreateGuest(empty=True)) == ["create vm 110 (dev) from its definition"]
    config = config_of(emulator)
    assert (config.cores, config.memory, config.boot_disk and config.boot_disk.size) == (4, 8192, parse_size("64G"))
    assert do(emulator, ApplyDefinition()) == []


@pytest.mark.parametrize(
    ("disk", "size", "says"),
    [
        ("scsi3", "1500M", "scsi3: disks are made in whole GiB, 1500M is none; ask for 2G"),
        ("ide2", "4M", "ide2 is the cloud-init drive; choose another name"),
        ("mp0", "2G", "mp0 is not a name for a disk of a VM"),
    ],
)
def test_a_disk_that_cannot_be_made_so_is_refused_first(dev: Emulator, disk: str, size: str, says: str) -> None:
    before = dev.changes()
    action = AttachDisk(disk, parse_size(size))
    for ask in (action.plan, action.run):
        with pytest.raises(Usage, match=says):
            ask(dev.client(), FLEET, DEV)
    assert dev.changes() == before


def test_a_containers_mount_point_is_grown_and_not_added() -> None:
    dns = replace(DEV, name="dns", vmid=210, type=GuestType.LXC)
    values = {"hostname": "dns", "description": mark(FLEET, dns), "mp0": "tank:subvol-210-disk-1,mp=/data,size=2G"}
    actual = ActualVm(VmConfig(values), running=False, node="prom")
    with pytest.raises(Usage, match=r"is a container, whose volumes need a place .*`pct set 210 --mp0"):
        AttachDisk("mp1", 2 * GIB).look(Guest(Mock(), FLEET, dns, actual))
    [step] = ResizeDisk(size=3 * GIB, disk="mp0").look(Guest(Mock(), FLEET, dns, actual))
    assert str(step) == "grow mp0 2G → 3G"
