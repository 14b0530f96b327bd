"""A restore over a guest: what goes that the backup does not hold goes by name, or nothing is done. In this process."""

from typing import Any

import pytest

from nixherd.base.errors import TaskFailed, Usage
from nixherd.fleet.models import GuestType, Vm
from nixherd.proxmox.guest import apply, tasks
from nixherd.proxmox.guest.backups import BackupGuest, RestoreGuest
from nixherd.proxmox.guest.snapshots import TakeSnapshot
from nixherd.proxmox.steps import Outcome, Restore
from tests.nixherd.proxmox.destroy_forms.conftest import (
    BOTH,
    DNS,
    FILE,
    SECOND,
    STATE,
    container,
    guest,
)
from tests.nixherd.proxmox.fleets import DEV
from tests.nixherd.proxmox.inprocess import InProcess, archives, images

THIRD = "nvmeprom:vm-110-disk-2"
ROOT, DATA, MORE = "nvmeprom:vm-210-disk-0", "nvmeprom:vm-210-disk-1", "nvmeprom:vm-210-disk-2"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(apply, "PAUSE", 0.01)


def backed_up(api: InProcess, vm: Vm = DEV) -> str:
    BackupGuest().run(api.client, BOTH, vm, timeout=20)
    return max(archives(api.node))


def changed(api: InProcess, vm: Vm = DEV, **config: Any) -> None:
    """Somebody else's work on the guest: options set, or (None) taken away with all that they name."""
    guest = api.node.emulator.state.vms[vm.vmid].config
    for key, value in config.items():
        guest.pop(key, None)
        if value is not None:
            guest[key] = value


def snapshotted(api: InProcess, vm: Vm, name: str) -> None:
    TakeSnapshot(name).run(api.client, BOTH, vm, timeout=20)


def over(archive: str, *discard: str) -> RestoreGuest:
    return RestoreGuest(archive, overwrite=True, by_person=True, discard=discard)


def refused(api: InProcess, archive: str, words: str, *discard: str, vm: Vm = DEV) -> None:
    before, sent = images(api.node), api.changes()
    for does in ("plan", "run"):
        with pytest.raises(Usage, match=words):
            getattr(over(archive, *discard), does)(api.client, BOTH, vm)
    assert (images(api.node), api.changes()) == (before, sent)


def restored(api: InProcess, archive: str, *discard: str, vm: Vm = DEV) -> tuple[Restore, Outcome]:
    done = over(archive, *discard).run(api.client, BOTH, vm, timeout=20)
    assert isinstance(done, Outcome)
    [step] = done
    assert isinstance(step, Restore)
    return step, done


def test_another_volume_under_the_name_of_one_in_the_backup_goes_by_name_alone() -> None:
    api = guest(SECOND, THIRD, scsi1=f"{SECOND},size=8G")
    archive = backed_up(api)
    changed(api, scsi1=f"{THIRD},size=3G", unused0=SECOND)
    words = (
        rf"destroys what the backup does not hold: scsi1 {THIRD} \(3G, not the volume in the backup\);.*--discard scsi1"
    )
    refused(api, archive, words)
    step, done = restored(api, archive, "scsi1")
    assert step.goes == (f"scsi1 {THIRD} (3G, not the volume in the backup)",)
    assert step.stays == (f"unused0 {SECOND} (8G, unused)",)
    assert SECOND in images(api.node)
    assert SECOND in done.observed["unused"].values()  # type: ignore[attr-defined]


def test_a_disk_that_is_in_the_backup_under_another_name_is_saved() -> None:
    api = guest(SECOND, THIRD, scsi1=f"{SECOND},size=8G", scsi2=f"{THIRD},size=8G")
    archive = backed_up(api)
    changed(api, scsi1=f"{THIRD},size=8G", scsi2=f"{SECOND},size=8G")
    step, _ = restored(api, archive)
    assert len(step.goes) == 2


def test_snapshots_go_by_name_alone_and_their_memory_with_them() -> None:
    api = guest(STATE)
    archive = backed_up(api)
    snapshotted(api, DEV, "clean")
    api.node.emulator.state.vms[110].snapshots["clean"].config["vmstate"] = STATE
    refused(api, archive, rf"does not hold: snapshot:clean, snapshot:clean {STATE} .*; .*say --discard snapshot:clean;")
    step, _ = restored(api, archive, "snapshot:clean")
    assert step.goes == ("snapshot:clean", f"snapshot:clean {STATE} (8G, its memory)")
    assert STATE not in images(api.node)


def test_what_a_snapshot_alone_names_stays_as_an_unused_disk_of_a_vm() -> None:
    about = {"snapshots": {"old": {"config": {"scsi5": f"{SECOND},size=8G"}}}}
    api = guest(SECOND, about=about)
    archive = backed_up(api)
    step, done = restored(api, archive, "snapshot:old")
    assert step.stays == (f"snapshot:old {SECOND} (8G, named by it alone)",)
    assert SECOND in images(api.node)
    assert done.observed["unused"] == {"unused0": SECOND}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("scsi1", "keeps what a backup lacks, as unused disks; leave it out"),
        ("scsi0", r"would not lose scsi0; with a restore over it would go nothing"),
        ("scsi9", "has no scsi9; with a restore over it would go nothing"),
        ("snapshot:x1", "has no snapshot:x1"),
    ],
)
def test_only_what_goes_can_be_discarded(name: str, says: str) -> None:
    api = guest(SECOND, scsi1=f"{SECOND},size=8G,backup=0")
    refused(api, backed_up(api), says, name)


def test_nothing_is_asked_for_where_the_backup_has_it_all() -> None:
    api = guest(SECOND, FILE, scsi1=f"{SECOND},size=8G", scsi2=f"{FILE},size=8G,backup=0")
    archive = backed_up(api)
    for _ in range(2):
        step, _ = restored(api, archive)
        assert step.goes == ()
    assert FILE in images(api.node)


def test_a_run_that_was_killed_at_its_end_can_be_done_again_word_by_word() -> None:
    api = guest(SECOND, THIRD, scsi1=f"{SECOND},size=8G")
    archive = backed_up(api)
    snapshotted(api, DEV, "clean")
    changed(api, scsi1=f"{THIRD},size=3G", unused0=SECOND)
    for _ in range(2):
        restored(api, archive, "snapshot:clean", "scsi1")


# Containers


def test_an_unused_volume_and_a_snapshot_of_a_container_go_by_name_alone() -> None:
    api = container(DATA, MORE, unused0=DATA)
    archive = backed_up(api, DNS)
    snapshotted(api, DNS, "clean")
    refused(
        api,
        archive,
        rf"unused0 {DATA} \(8G, unused\), snapshot:clean; .*--discard unused0 --discard snapshot:clean",
        vm=DNS,
    )
    refused(api, archive, "snapshot:clean", "unused0", vm=DNS)
    restored(api, archive, "unused0", "snapshot:clean", vm=DNS)
    assert DATA not in images(api.node)


def test_a_mount_point_that_no_backup_holds_goes_by_name_alone() -> None:
    api = container(DATA, mp0=f"{DATA},mp=/data,size=8G,backup=0")
    archive = backed_up(api, DNS)
    refused(api, archive, rf"does not hold: mp0 {DATA} \(8G, without backup=1\)", vm=DNS)
    step, _ = restored(api, archive, "mp0", vm=DNS)
    assert step.lacks == ("mp0 (comes back empty)",)


def test_what_a_snapshot_alone_names_stays_and_nothing_names_it_then() -> None:
    about = {"snapshots": {"old": {"config": {"mp3": f"{DATA},mp=/old,size=8G"}}}}
    api = container(DATA, about=about)
    archive = backed_up(api, DNS)
    step, done = restored(api, archive, "snapshot:old", vm=DNS)
    assert step.strays == (f"snapshot:old {DATA} (8G, named by it alone)",)
    assert "stays on its storage, named by nothing: snapshot:old" in str(step)
    assert DATA in images(api.node)
    assert done.observed["unnamed"] == [DATA]
    assert f"{DATA} (in its name, and nothing names it)" in done.lines


def test_directories_of_the_node_are_restored_for_root_alone() -> None:
    api = container(mp0="/srv/data,mp=/data")
    archive = backed_up(api, DNS)
    refused(
        api, archive, r"with mp0 \(/srv/data\) of the node, which no token restores; on prom: `pct restore 210", vm=DNS
    )
    # the server's own word, before it has changed anything
    before = images(api.node)
    upid = Restore("prom", 210, "dns", archive, "nvmeprom", overwrite=True, type=GuestType.LXC).begin(api.client)
    assert upid is not None
    with pytest.raises(TaskFailed, match="restoring 'mp0' to bind mount is only possible for root"):
        tasks.wait(api.client, upid, 10)
    assert images(api.node) == before
    assert "lock" not in api.node.emulator.state.vms[210].config
