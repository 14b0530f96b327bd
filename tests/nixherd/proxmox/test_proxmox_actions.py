"""Everything that may be asked of a guest, over the emulator: planned, done, the second time nothing, refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from nixherd.errors import FleetError, Refused, Usage
from nixherd.fleet.models import GuestType, Template, Vm
from nixherd.fleet.settings import ContainerSettings, Settings
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.actual import ActualVm
from nixherd.proxmox.guest.backups import BackupGuest, RestoreGuest
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.disks import AttachDisk, RelocateDisk, ResizeDisk
from nixherd.proxmox.guest.hardware import RegenerateCloudInit, SetOptions
from nixherd.proxmox.guest.identity import mark
from nixherd.proxmox.guest.making import ApplyDefinition, ConvertToTemplate, CreateGuest, MigrateGuest
from nixherd.proxmox.guest.power import RebootGuest, ResumeGuest, ShutdownGuest, StartGuest, StopGuest, SuspendGuest
from nixherd.proxmox.guest.snapshots import RemoveSnapshot, RollbackGuest, TakeSnapshot
from nixherd.proxmox.guest.undo import reversible
from nixherd.proxmox.guest.verb import Action, Guest
from nixherd.sizes import parse_size
from tests.nixherd.proxmox.conftest import GIB, Emulator, granted, state
from tests.nixherd.proxmox.conftest import running as another
from tests.nixherd.proxmox.dev import MAC, begin, config_of, do, running, twice
from tests.nixherd.proxmox.fleets import DEV, DOC1, FLEET, IGP, KEPT

pytestmark = [pytest.mark.xdist_group("emulator"), pytest.mark.usefixtures("no_long_pauses")]

TWIN = replace(DEV, name="twin", vmid=112)
WITH_TWIN = replace(FLEET, vms={**FLEET.vms, "twin": TWIN})


# Power


def test_shutdown_and_start(dev: Emulator) -> None:
    assert twice(dev, ShutdownGuest()) == ["shut vm 110 down within 180 s"]
    assert not running(dev)
    assert twice(dev, StartGuest()) == ["start vm 110"]
    assert running(dev)


def test_a_guest_that_does_not_shut_down_is_stopped_only_where_asked(dev: Emulator) -> None:
    dev.control("fault", name="agent-silent", vmid=110)
    assert twice(dev, ShutdownGuest(timeout=1, force=True)) == ["shut vm 110 down within 1 s, pull the plug then"]
    assert not running(dev)


def test_stop(dev: Emulator) -> None:
    assert twice(dev, StopGuest()) == ["stop vm 110 at once"]
    assert not running(dev)


def test_suspend_and_resume(dev: Emulator) -> None:
    assert twice(dev, SuspendGuest()) == ["suspend vm 110"]
    assert twice(dev, ResumeGuest()) == ["resume vm 110"]
    do(dev, SuspendGuest())
    with pytest.raises(Usage, match="is paused and cannot shut down; resume it first, or stop it"):
        do(dev, ShutdownGuest())
    assert twice(dev, StartGuest()) == ["resume vm 110"]


def test_a_reboot_applies_what_waits_and_then_nothing_waits(dev: Emulator) -> None:
    do(dev, SetOptions({"cores": 2}))
    assert twice(dev, RebootGuest(timeout=30)) == ["reboot vm 110 so that cores take effect"]
    assert dev.client().pending("prom", 110) == ()
    assert config_of(dev).cores == 2


def test_a_reboot_that_is_wanted_always_happens_once_each(dev: Emulator) -> None:
    assert do(dev, RebootGuest()) == []
    assert do(dev, RebootGuest(always=True)) == ["reboot vm 110"]
    assert [change for change in dev.changes() if "reboot" in change] == ["POST /nodes/prom/qemu/110/status/reboot"]


@pytest.mark.parametrize("action", [SuspendGuest(), ResumeGuest(), RebootGuest(always=True)])
def test_what_does_not_run_cannot_be_paused_or_rebooted(emulator: Emulator, action: Action) -> None:
    begin(emulator, status="stopped")
    with pytest.raises(Usage, match=r"vm 110 \(dev\) does not run"):
        do(emulator, action)
    assert emulator.changes() == []


# Configuration and disks


def test_options_are_set_and_taken_away(dev: Emulator) -> None:
    assert twice(dev, SetOptions({"cores": 2, "onboot": True, "ciuser": None})) == [
        "set cores 4 → 2, onboot none → True, ciuser abl030 → none"
    ]
    config = config_of(dev)
    assert (config.cores, config.flag("onboot"), config.text("ciuser")) == (2, True, None)


def test_a_changed_configuration_is_looked_at_again(dev: Emulator) -> None:
    """The digest that it was decided on does not fit any more: planned anew, and then set."""
    client, real = dev.client(), Emulator.client
    changed: list[str] = []

    def change(*args: Any, **kwargs: Any) -> Any:
        if not changed:
            changed.append("once")
            real(dev).set_config("prom", 110, {"tags": "theirs"})
        return original(*args, **kwargs)

    original = client.change
    client.change = change  # type: ignore[method-assign]
    done = SetOptions({"cores": 2}).run(client, FLEET, DEV, timeout=20)
    assert [str(step) for step in done] == ["set cores 4 → 2"]
    config = config_of(dev)
    assert (config.cores, config.tags) == (2, ("theirs",))


def test_disks_only_grow(dev: Emulator) -> None:
    assert twice(dev, ResizeDisk(size=parse_size("65G"))) == ["grow scsi0 64G → 65G"]
    with pytest.raises(Usage, match="scsi0 has 65G, more than 1G; disks only grow"):
        do(dev, ResizeDisk(size=parse_size("1G")))
    with pytest.raises(Usage, match="has no disk scsi7; its disks: scsi0"):
        do(dev, ResizeDisk(size=parse_size("99G"), disk="scsi7"))
    with pytest.raises(Usage, match="has no disk ide2"):
        do(dev, ResizeDisk(size=parse_size("99G"), disk="ide2"))


def test_a_further_disk(dev: Emulator) -> None:
    assert twice(dev, AttachDisk("scsi1", parse_size("10G"), storage="tank")) == ["add scsi1, 10G on tank"]
    disk = config_of(dev).drives["scsi1"]
    assert (disk.size, disk.storage) == (parse_size("10G"), "tank")
    with pytest.raises(Usage, match="has a disk scsi1 already, of 10G"):
        do(dev, AttachDisk("scsi1", parse_size("11G")))
    with pytest.raises(Usage, match="hda is not a name for a disk"):
        do(dev, AttachDisk("hda", parse_size("11G")))


def test_a_disk_moves(dev: Emulator) -> None:
    assert twice(dev, RelocateDisk("scsi0", "tank")) == ["move scsi0 to tank; nvmeprom:vm-110-disk-0 is deleted then"]
    assert config_of(dev).drives["scsi0"].storage == "tank"
    assert [volume.volid for volume in dev.client().volumes("prom", "nvmeprom", vmid=110)] == [
        "nvmeprom:vm-110-cloudinit"
    ]


def test_the_cloud_init_drive_is_written_anew_when_it_differs(dev: Emulator) -> None:
    assert do(dev, RegenerateCloudInit()) == []
    dev.client().set_config("prom", 110, {"ciuser": "ops"})
    assert twice(dev, RegenerateCloudInit()) == ["write the cloud-init drive of vm 110 anew"]


def test_a_stopped_vm_becomes_a_template(emulator: Emulator) -> None:
    begin(emulator, status="stopped")
    assert twice(emulator, ConvertToTemplate()) == ["convert vm 110 to a template, for good"]
    assert config_of(emulator).is_template


def test_a_running_vm_becomes_none(dev: Emulator) -> None:
    with pytest.raises(Usage, match="runs; shut it down before it becomes a template"):
        do(dev, ConvertToTemplate())


# Making


@pytest.mark.parametrize(
    ("full", "words"),
    [(True, "clone template 9002 to vm 110 (dev) on nvmeprom"), (False, "link-clone template 9002 to vm 110 (dev)")],
)
def test_a_clone_of_the_template(emulator: Emulator, full: bool, words: str) -> None:
    assert twice(emulator, CreateGuest(full=full)) == [words]
    assert config_of(emulator).name == "dev"


def test_a_clone_of_a_guest_of_ours(dev: Emulator) -> None:
    action = CreateGuest(source="dev")
    assert twice(dev, action, TWIN, WITH_TWIN) == ["clone vm 110 to vm 112 (twin) on nvmeprom"]
    assert mark(WITH_TWIN, TWIN) in config_of(dev, 112).description
    with pytest.raises(Refused, match=r"vm 104 \(doc1\) is readonly .* refusing to clone it"):
        CreateGuest(source="doc1").plan(dev.client(), WITH_TWIN, TWIN)


@pytest.mark.parametrize("template", [FLEET.template, None], ids=["not visible", "not declared"])
def test_a_copy_of_a_guest_needs_that_guest_and_no_template(emulator: Emulator, template: Template | None) -> None:
    hidden = [row for row in granted(("/vms/110", "Nixherd"), ("/vms/112", "Nixherd")) if row["path"] != "/vms/9002"]
    begin(emulator, acl=hidden)
    fleet = replace(WITH_TWIN, template=template)
    copied = ["clone vm 110 to vm 112 (twin) on nvmeprom"]
    assert twice(emulator, CreateGuest(source="dev"), TWIN, fleet) == copied
    assert not [row for row in emulator.requests() if "/9002" in row["path"]]


def test_a_container_is_no_copy_and_none_is_made_of_one() -> None:
    ct = replace(TWIN, type=GuestType.LXC)
    fleet = replace(WITH_TWIN, vms={**WITH_TWIN.vms, "twin": ct})
    for vm, source in ((ct, "dev"), (DEV, "twin"), (DEV, "dev")):
        with pytest.raises(Usage, match="cannot be a copy of"):
            CreateGuest(source=source).plan(Mock(), fleet, vm)


def test_everything_that_is_declared_and_no_reboot_unless_allowed(dev: Emulator) -> None:
    vm = replace(DEV, cores=2, tags=("web",))
    fleet = replace(FLEET, vms={**FLEET.vms, "dev": vm})
    done = do(dev, ApplyDefinition(), vm, fleet)
    assert "set cores 4 → 2, tags none → web (from its next start on)" in done
    assert not any("reboot" in step for step in done)
    assert do(dev, ApplyDefinition(), vm, fleet) == []
    assert do(dev, ApplyDefinition(allow_reboot=True), vm, fleet) == ["reboot vm 110 so that cores take effect"]
    assert do(dev, ApplyDefinition(allow_reboot=True), vm, fleet) == []


# Snapshots


def test_snapshots_are_taken_rolled_back_and_deleted(dev: Emulator) -> None:
    assert twice(dev, TakeSnapshot("clean", description="before")) == ["snapshot vm 110 as clean"]
    [row] = dev.client().snapshots("prom", 110)
    assert (row.name, row.description) == ("clean", "before")
    do(dev, SetOptions({"onboot": True}))
    assert twice(dev, RollbackGuest("clean")) == ["roll vm 110 back to clean; what was done since is lost"]
    assert not config_of(dev).flag("onboot")
    do(dev, StartGuest())
    assert len(do(dev, RollbackGuest("clean"))) == 1  # something was done since
    assert twice(dev, RemoveSnapshot("clean")) == ["delete snapshot clean of vm 110"]
    assert dev.client().snapshots("prom", 110) == ()


@pytest.mark.parametrize("name", ["x", "current", "pending", "-a", "a b", "a" * 41, "ünder"])
def test_names_that_snapshots_cannot_have(name: str) -> None:
    with pytest.raises(Usage, match="is not a name for a snapshot"):
        TakeSnapshot(name)


def test_there_is_no_way_back_to_what_was_not_taken(dev: Emulator) -> None:
    with pytest.raises(Usage, match=r"vm 110 \(dev\) has no snapshot clean; it has none"):
        do(dev, RollbackGuest("clean"))


# Backups


def test_a_backup_and_none_while_it_is_new_enough(dev: Emulator) -> None:
    assert twice(dev, BackupGuest(newer_than=3600)) == ["back vm 110 up to local"]
    [volume] = dev.client().volumes("prom", "local", content="backup", vmid=110)
    assert volume.size > 0
    assert len(do(dev, BackupGuest())) == 1
    assert len(dev.client().volumes("prom", "local", content="backup", vmid=110)) == 2


def test_where_backups_go_must_be_clear(dev: Emulator) -> None:
    dev.control("reset", patch={"storages": {"local": {"type": "dir", "content": "iso"}}, "vms": {"110": None}})
    begin(dev)
    with pytest.raises(Usage, match="mode=slow: write snapshot, suspend or stop"):
        do(dev, BackupGuest(mode="slow"))


def test_a_guest_comes_back_from_its_backup(dev: Emulator) -> None:
    do(dev, BackupGuest())
    [volume] = dev.client().volumes("prom", "local", content="backup", vmid=110)
    do(dev, StopGuest())
    do(dev, DestroyGuest("dev", 110, backup=False))
    assert dev.client().config("prom", 110) is None
    [made] = twice(dev, RestoreGuest(volume.volid))
    assert made.startswith(f"restore vm 110 (dev) from {volume.volid}")
    config = config_of(dev)
    assert (config.name, config.nets["net0"].mac) == ("dev", MAC.lower())
    do(dev, SetOptions({"cores": 1}))
    assert do(dev, RestoreGuest(volume.volid)) == []
    over = RestoreGuest(volume.volid, overwrite=True)
    assert twice(dev, over) == [f"restore vm 110 (dev) from {volume.volid}, over the one that is there"]
    assert config_of(dev).cores == 4
    do(dev, StartGuest())
    with pytest.raises(Usage, match="runs; shut it down before it is restored over"):
        do(dev, over)


# Destroying


# 8.4


@pytest.mark.process
def test_the_same_on_8(tmp_path: Path) -> None:
    older = {"version": 8, "release": {"version": "8.4.1", "release": "8.4", "repoid": "0" * 16}}
    with another(tmp_path, state() | older) as found:
        begin(found)
        for action in (
            SetOptions({"cores": 2, "tags": "B;a"}),
            RebootGuest(),
            TakeSnapshot("clean"),
            AttachDisk("scsi1", GIB, storage="tank"),
            RelocateDisk("scsi1", "nvmeprom"),
            BackupGuest(newer_than=60),
            StopGuest(),
            RollbackGuest("clean"),
        ):
            twice(found, action)
        done = do(found, DestroyGuest("dev", 110, discard=("snapshot:clean", "unused0")))
        assert done[-1].startswith("destroy vm 110 (dev)")


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


def ct(emulator: Emulator) -> VmConfig:
    config = emulator.client().config("prom", 210, GuestType.LXC)
    assert config is not None
    return config


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
