"""Guests out of backups: what is found before, what is said of a guest that is replaced, what a failure leaves."""

from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import FleetError, Refused, TaskFailed, TaskForgotten, Usage
from nixherd.base.names import parse_size
from nixherd.fleet.models import ContainerSettings, GuestType, Settings
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest import apply as apply_module
from nixherd.proxmox.guest.archive import read_back
from nixherd.proxmox.guest.backups import BackupGuest, RestoreGuest
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.hardware import SetOptions
from nixherd.proxmox.guest.lifecycle import CreateGuest, StartGuest, StopGuest, SuspendGuest
from nixherd.proxmox.guest.observe import observe
from nixherd.proxmox.steps import Backup, Outcome, Restore
from tests.nixherd.proxmox.conftest import GIB, Emulator, granted
from tests.nixherd.proxmox.dev import begin, config_of, do, twice
from tests.nixherd.proxmox.fleets import DEV, FLEET

pytestmark = [pytest.mark.xdist_group("emulator"), pytest.mark.usefixtures("no_long_pauses")]

NONE = "local:backup/vzdump-qemu-110-2020_01_01-00_00_00.vma.zst"


def backed_up(emulator: Emulator, **about: Any) -> str:
    """`dev`, off, with a disk that is in backups, one that is not, and an unused one; its backup."""
    # the role is on the VMID as well as on the pool: it goes when the guest is removed, and with it alone
    begin(emulator, status="stopped", acl=granted(("/vms/110", "Nixherd")), **about)
    client = emulator.client()
    client.set_config("prom", 110, {"scsi1": "tank:1,backup=0", "scsi2": "tank:2"})
    client.set_config("prom", 110, {"delete": "scsi2"})
    do(emulator, BackupGuest())
    [volume] = client.volumes("prom", "local", content="backup", vmid=110)
    return volume.volid


def asked(emulator: Emulator, archive: str, **rest: Any) -> Outcome:
    found = RestoreGuest(archive, by_person=True, **rest).run(emulator.client(), FLEET, DEV, timeout=20)
    assert isinstance(found, Outcome)
    return found


@pytest.fixture
def archive(emulator: Emulator) -> str:
    return backed_up(emulator)


def test_whoever_asks_is_told_what_to_add_and_operations_do_nothing(emulator: Emulator, archive: str) -> None:
    before = emulator.changes()
    with pytest.raises(Usage, match=r"vm 110 \(dev\) is on prom, nothing was done; to replace it .* add --overwrite"):
        asked(emulator, archive)
    found = RestoreGuest(archive).run(emulator.client(), FLEET, DEV)
    assert isinstance(found, Outcome)
    assert (tuple(found), found.why) == ((), "it is there on prom")
    assert emulator.changes() == before


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("local:backup/vzdump-qemu-111-2026_01_01-00_00_00.vma.zst", "is a backup of guest 111, not of vm 110"),
        ("local:backup/vzdump-lxc-110-2026_01_01-00_00_00.tar.zst", "is a backup of a container"),
        ("pbs:backup/ct/110/2026-01-01T00:00:00Z", "is a backup of a container"),
        ("local:iso/x.iso", "is not a backup; `nixherd vm backups dev` lists"),
        ("x", "is not a backup"),
        (NONE, "local:backup/vzdump-qemu-110-2020_01_01-00_00_00.vma.zst does not exist on prom"),
    ],
)
def test_a_wrong_backup_is_found_first(emulator: Emulator, archive: str, wrong: str, says: str) -> None:
    before = emulator.changes()
    for overwrite in (False, True):
        with pytest.raises(Usage, match=says):
            asked(emulator, wrong, overwrite=overwrite)
    with pytest.raises(Usage, match=says):
        RestoreGuest(wrong, overwrite=True, by_person=True).plan(emulator.client(), FLEET, DEV)
    assert emulator.changes() == before


def test_a_backup_that_cannot_be_read_is_found_first(emulator: Emulator, archive: str) -> None:
    emulator.control("fault", name="archive-damaged", part="header")
    before = emulator.changes()
    with pytest.raises(FleetError, match=r"cannot be read, nothing was done: .*Failed to extract config"):
        asked(emulator, archive, overwrite=True)
    assert emulator.changes() == before


def test_a_backup_of_another_guest_that_had_the_vmid_is_refused(emulator: Emulator) -> None:
    begin(emulator, status="stopped", name="older")
    client = emulator.client()
    upid = Backup("prom", 110, "local").begin(client)
    assert upid is not None
    while client.task_status(upid).running:
        pass
    emulator.by_hand("/nodes/prom/qemu/110", name="dev")
    [volume] = client.volumes("prom", "local", content="backup", vmid=110)
    with pytest.raises(Usage, match=r"holds a guest named older, not vm 110 \(dev\)"):
        asked(emulator, volume.volid, overwrite=True)


def test_what_the_backup_lacks_is_said_before_and_as_it_was_read_back(emulator: Emulator, archive: str) -> None:
    do(emulator, SetOptions({"cores": 2}))
    unused = str(config_of(emulator).values["unused0"])
    action = RestoreGuest(archive, overwrite=True, by_person=True)
    [step] = map(str, action.plan(emulator.client(), FLEET, DEV))
    assert step.startswith(
        f"restore vm 110 (dev) from {archive}, over the one that is there; not in it: scsi1 (becomes"
    )
    assert "stays as an unused disk: scsi1 tank:vm-110-disk-0 (1G, backup=0), unused0 tank:vm-110-disk-1" in step
    done = asked(emulator, archive, overwrite=True)
    assert [str(each) for each in done] == [step]
    config = config_of(emulator)
    kept = {str(config.values[name]) for name in ("unused0", "unused1")}
    assert kept == {unused, "tank:vm-110-disk-0"}
    assert done.observed["unused"] == {name: config.values[name] for name in ("unused0", "unused1")}
    assert done.observed["notes"] == ["scsi1: tank:vm-110-disk-0,backup=0,size=1G"]
    assert any(line.startswith("unused0 keeps tank:vm-110-disk-") for line in done.lines)
    assert config.cores == 4


def test_a_person_gets_it_again_and_an_operation_does_it_once(emulator: Emulator, archive: str) -> None:
    twice(emulator, RestoreGuest(archive, overwrite=True))
    assert len(asked(emulator, archive, overwrite=True)) == 1
    assert len(asked(emulator, archive, overwrite=True)) == 1


def test_what_was_just_restored_is_told_as_such_until_something_is_done_to_it(emulator: Emulator, archive: str) -> None:
    """A run that was killed right before its end: the next one says what is there, and does nothing."""
    asked(emulator, archive, overwrite=True)
    before = emulator.changes()
    found = asked(emulator, archive)
    assert tuple(found) == ()
    assert found.why.startswith(f"it was restored from {archive} by UPID:prom:")
    assert emulator.changes() == before
    do(emulator, StartGuest())
    with pytest.raises(Usage, match="add --overwrite"):
        asked(emulator, archive)
    do(emulator, StopGuest())
    with pytest.raises(Usage, match="add --overwrite"):
        asked(emulator, archive)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_restore_that_is_under_way_is_waited_for(emulator: Emulator, overwrite: bool) -> None:
    """A run before began it and was killed: another one of the same backup is not begun, nor is it taken for empty."""
    archive = backed_up(emulator, task_seconds={"qmrestore": 0.6})
    if not overwrite:
        do(emulator, DestroyGuest("dev", 110, backup=False))
    Restore("prom", 110, "dev", archive, None, None if overwrite else "nixherd", overwrite).begin(emulator.client())
    before = emulator.changes()
    done = asked(emulator, archive, overwrite=overwrite)
    assert [str(step) for step in done] == [f"wait for the restore of vm 110 (dev) from {archive} that is under way"]
    assert emulator.changes() == before
    assert config_of(emulator).name == "dev"


def test_a_restore_of_something_else_is_not_disturbed(emulator: Emulator) -> None:
    older = backed_up(emulator, task_seconds={"qmrestore": 0.6})
    do(emulator, BackupGuest())
    newer = max(volume.volid for volume in emulator.client().volumes("prom", "local", content="backup", vmid=110))
    Restore("prom", 110, "dev", older, overwrite=True).begin(emulator.client())
    with pytest.raises(FleetError, match=r"vm 110 \(dev\) is being restored by nixherd@pve!lab \(UPID:"):
        asked(emulator, newer, overwrite=True)


def test_a_guest_that_runs_or_is_protected_is_not_replaced(emulator: Emulator, archive: str) -> None:
    do(emulator, SetOptions({"protection": True}))
    with pytest.raises(Refused, match="is protected"):
        asked(emulator, archive, overwrite=True)
    do(emulator, SetOptions({"protection": None}))
    do(emulator, StartGuest())
    with pytest.raises(Usage, match="runs; shut it down before it is restored over"):
        asked(emulator, archive, overwrite=True)
    do(emulator, SuspendGuest(to_disk=True))
    with pytest.raises(Usage, match="is suspended to disk; resume it and shut it down"):
        asked(emulator, archive, overwrite=True)


# What a failure leaves


@pytest.fixture
def sees_110(emulator: Emulator) -> str:
    """A backup of a guest that is gone; the rights on its VMID did not go with it, as they do when it is removed."""
    archive = backed_up(emulator, ide2=None)
    emulator.control("outside", do="remove-config", vmid=110)
    return archive


def test_the_empty_guest_of_a_failed_restore_is_removed(emulator: Emulator, sees_110: str) -> None:
    emulator.control("fault", name="archive-damaged", part="data")
    with pytest.raises(TaskFailed, match=r"truncated.*; the empty guest 110 that it left was removed"):
        asked(emulator, sees_110)
    assert emulator.client().is_free(110)


def test_or_said_and_the_next_restore_takes_its_place(emulator: Emulator, sees_110: str) -> None:
    without_pool = replace(DEV, settings=Settings())
    fleet = replace(FLEET, vms={**FLEET.vms, "dev": without_pool})
    client = emulator.client(Policy.from_fleet(fleet))
    emulator.control("fault", name="archive-damaged", part="data")
    with pytest.raises(TaskFailed, match=r"truncated.*; it left an empty guest 110 on prom, whose place the next"):
        RestoreGuest(sees_110, by_person=True).run(client, fleet, without_pool, timeout=20)
    emulator.control("fault", name="archive-damaged", on=False)
    [step] = RestoreGuest(sees_110, by_person=True).run(client, fleet, without_pool, timeout=20)
    assert ", in the place of the empty one that a restore left" in str(step)
    assert config_of(emulator).name == "dev"


def test_an_empty_guest_that_is_in_no_pool_yet_hides(emulator: Emulator, archive: str) -> None:
    do(emulator, DestroyGuest("dev", 110, backup=False))
    emulator.control("fault", name="archive-damaged", part="data")
    with pytest.raises(TaskFailed, match=r"left an empty guest 110 that is in no pool yet.*`qm destroy 110` on prom"):
        asked(emulator, archive)
    before = emulator.changes()
    with pytest.raises(FleetError, match=r"vm 110 \(dev\) is not visible"):  # it might be anybody's
        asked(emulator, archive)
    assert emulator.changes() == before


def test_what_a_backup_lacks_is_not_known_while_nobody_may_look_into_it(emulator: Emulator, archive: str) -> None:
    do(emulator, DestroyGuest("dev", 110, backup=False))
    [step] = asked(emulator, archive)
    assert str(step) == (
        f"restore vm 110 (dev) from {archive}; not in it: not known, this token may not look into it while the guest "
        "is not there"
    )


def test_over_a_guest_a_failure_says_that_its_disks_are_gone(emulator: Emulator, archive: str) -> None:
    emulator.control("fault", name="archive-damaged", part="data")
    with pytest.raises(TaskFailed, match="an empty guest is left on prom, the disks that the backup holds are gone"):
        asked(emulator, archive, overwrite=True)
    emulator.control("fault", name="archive-damaged", on=False)
    done = asked(emulator, archive)
    assert len(done.observed["unused"]) == 2  # type: ignore[arg-type]


def test_over_a_guest_a_failure_before_anything_says_so(emulator: Emulator, archive: str) -> None:
    emulator.control("fault", name="task-fails", type="qmrestore", message="no such luck")
    with pytest.raises(TaskFailed, match=r"no such luck.*; the guest is as it was"):
        asked(emulator, archive, overwrite=True)


def test_a_restore_that_came_too_late_for_a_lock_is_tried_again(emulator: Emulator, archive: str) -> None:
    emulator.control("fault", name="task-fails", type="qmrestore", message="can't lock file 'x' - got timeout")
    assert len(asked(emulator, archive, overwrite=True)) == 1
    assert len([change for change in emulator.changes() if change.endswith("/qemu")]) == 2


# Containers

CT = replace(DEV, name="dns", vmid=210, type=GuestType.LXC, cores=1, memory=512, disk=parse_size("4G"))
TEMPLATE = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
CT = replace(CT, settings=Settings(pool="nixherd", container=ContainerSettings(archive=TEMPLATE, swap=0)))
WITH_CT = replace(FLEET, vms={**FLEET.vms, "dns": CT})


STRAY = "tank:subvol-210-disk-9"  # in its name, and nothing names it


def container(emulator: Emulator, mp0: str) -> tuple[Client, str]:
    """The container `dns` with this mount point, and its backup."""
    about = {"content": "vztmpl", "format": "tzst", "size": 120 << 20}
    local = {"type": "dir", "path": "/var/lib/vz", "content": "backup,vztmpl", "total": 500 * GIB, "avail": 500 * GIB}
    stray = {STRAY: {"content": "rootdir", "format": "subvol", "size": GIB}}
    tank = {"type": "zfspool", "content": "images,rootdir", "total": 500 * GIB, "avail": 500 * GIB, "volumes": stray}
    emulator.control("reset", patch={"storages": {"local": {**local, "volumes": {TEMPLATE: about}}, "tank": tank}})
    client = emulator.client(Policy.from_fleet(WITH_CT))
    do(emulator, CreateGuest(), CT, WITH_CT)
    emulator.by_hand("/nodes/prom/lxc/210", mp0=mp0)
    do(emulator, BackupGuest(), CT, WITH_CT)
    [volume] = client.volumes("prom", "local", content="backup", vmid=210)
    return client, volume.volid


def test_another_volume_under_the_name_of_one_in_the_backup_goes_and_is_named(emulator: Emulator) -> None:
    begin(emulator, status="stopped")
    client = emulator.client()
    client.set_config("prom", 110, {"scsi1": "tank:1"})
    do(emulator, BackupGuest())
    [archive] = client.volumes("prom", "local", content="backup", vmid=110)
    client.set_config("prom", 110, {"delete": "scsi1"})
    client.set_config("prom", 110, {"scsi1": "tank:3"})
    new, old = config_of(emulator).drives["scsi1"].volume, str(config_of(emulator).values["unused0"])
    done = asked(emulator, archive.volid, overwrite=True, discard=("scsi1",))
    assert f"goes: scsi1 {new} (3G, not the volume in the backup)" in str(done[0])
    assert "scsi0" not in str(done[0])
    assert f"stays as an unused disk: unused0 {old}" in str(done[0])
    assert old in {str(each) for each in done.observed["unused"].values()}  # type: ignore[attr-defined]


def test_a_containers_other_volume_under_such_a_name_has_to_be_named(emulator: Emulator) -> None:
    client, archive = container(emulator, "nvmeprom:1,mp=/data,backup=1")
    over = RestoreGuest(archive, overwrite=True, by_person=True)
    [first] = over.run(client, WITH_CT, CT, timeout=20)
    assert "goes" not in str(first)
    # all its volumes are others now, in the same places: that is not a reason to ask
    [second] = over.run(client, WITH_CT, CT, timeout=20)
    assert "goes: mp0 nvmeprom:vm-210-disk-" in str(second)
    client.set_config("prom", 210, {"delete": "mp0"}, GuestType.LXC)
    client.set_config("prom", 210, {"delete": "unused0"}, GuestType.LXC)
    emulator.by_hand("/nodes/prom/lxc/210", mp0="tank:3,mp=/other")
    before = emulator.changes()
    with pytest.raises(Usage, match=r"does not hold: mp0 tank:\S+ \(3G, not the volume in the backup\).*--discard mp0"):
        over.plan(client, WITH_CT, CT)
    assert emulator.changes() == before
    [third] = replace(over, discard=("mp0",)).run(client, WITH_CT, CT, timeout=20)
    assert "mp0 tank:" in str(third)
    assert {row.volid for row in client.volumes("prom", "tank", vmid=210)} == {STRAY}


def test_over_a_container_volumes_that_nothing_names_stay(emulator: Emulator) -> None:
    client, archive = container(emulator, "nvmeprom:1,mp=/data,backup=1")
    RestoreGuest(archive, overwrite=True, by_person=True).run(client, WITH_CT, CT, timeout=20)
    assert [row.volid for row in client.volumes("prom", "tank", vmid=210)] == [STRAY]


def test_an_unused_disk_that_is_not_there_is_not_said_to_be_kept(emulator: Emulator, archive: str) -> None:
    now = observe(emulator.client(), FLEET, DEV)
    assert now is not None
    config = VmConfig({**now.config.values, "unused7": "tank:vm-110-disk-77", "unused8": "gone:vm-110-disk-1"})
    _, lines = read_back(emulator.client(), DEV, replace(now, config=config))
    assert lines[1] == "unused7 names tank:vm-110-disk-77, which is not there (any more)"
    assert lines[2].startswith("unused8 names gone:vm-110-disk-1; whether that is there is not visible")


@pytest.mark.parametrize("works", [True, False])
def test_of_a_restore_whose_task_is_forgotten_nothing_is_claimed(emulator: Emulator, archive: str, works: bool) -> None:
    asked(emulator, archive, overwrite=True)
    emulator.control("fault", name="task-lost", type="qmrestore", works=works)
    with pytest.raises(TaskForgotten, match="whether as it was or as the backup has it is not known") as caught:
        asked(emulator, archive, overwrite=True)
    assert "the guest is as it was" not in str(caught.value)


def test_what_a_container_would_lose_has_to_be_named(emulator: Emulator) -> None:
    client, archive = container(emulator, "nvmeprom:1,mp=/data")
    before = emulator.changes()
    with pytest.raises(
        Usage, match=r"destroys what the backup does not hold: mp0 .*say --discard mp0; nothing was done"
    ):
        RestoreGuest(archive, overwrite=True, by_person=True).run(client, WITH_CT, CT, timeout=20)
    assert emulator.changes() == before
    action = RestoreGuest(archive, overwrite=True, by_person=True, discard=("mp0",))
    [step] = action.run(client, WITH_CT, CT, timeout=20)
    assert "not in it: mp0 (comes back empty); goes: mp0 nvmeprom:vm-210-disk-1 (1G, without backup=1)" in str(step)


# Backups


def test_a_backup_is_told_by_the_volume_that_it_made(emulator: Emulator) -> None:
    begin(emulator)
    done = BackupGuest().run(emulator.client(), FLEET, DEV, timeout=20)
    assert isinstance(done, Outcome)
    [volume] = emulator.client().volumes("prom", "local", content="backup", vmid=110)
    assert (done.observed["volume"], done.observed["size"]) == (volume.volid, volume.size)
    assert done.lines[0].startswith(f"made {volume.volid} (")
    again = BackupGuest(newer_than=3600).run(emulator.client(), FLEET, DEV)
    assert isinstance(again, Outcome)
    assert again.why.startswith(f"its backup {volume.volid} is ")


def test_the_reason_of_a_failed_backup_is_said(emulator: Emulator) -> None:
    begin(emulator)
    emulator.control("fault", name="storage-full", storage="local")
    with pytest.raises(TaskFailed, match=r"failed: Backup of VM 110 failed - unable to create image: .*No space left"):
        do(emulator, BackupGuest())


def test_a_backup_that_found_the_guest_locked_is_tried_again(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock came between our look and the job: it ends with `job errors`, its log says which lock."""
    begin(emulator)
    monkeypatch.setattr(apply_module, "_obstacle", lambda *_: "")
    emulator.control("fault", name="lock-held", vmid=110, lock="migrate", seconds=2)
    assert do(emulator, BackupGuest()) == ["back vm 110 up to local"]
    assert len([change for change in emulator.changes() if change.endswith("vzdump")]) > 1
    assert len(emulator.client().volumes("prom", "local", content="backup", vmid=110)) == 1
