"""What the archive says decides what was saved, and what else takes something away."""

import itertools
import time
from dataclasses import replace
from typing import Any

import pytest

from lab.api.tasks import Task
from nixherd.base.errors import ApiError, FleetError, Refused
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.hardware import SetOptions
from nixherd.proxmox.guest.snapshots import RemoveSnapshot, RollbackGuest
from tests.nixherd.proxmox.destroy_forms.conftest import (
    CLOUD_INIT,
    DISK,
    FILE,
    LEFT_OUT,
    SECOND,
    STATE,
    between,
    destroy,
    guest,
    refused,
)
from tests.nixherd.proxmox.fleets import DEV, FLEET
from tests.nixherd.proxmox.inprocess import WHO, InProcess, archives, images

# What the archive says


def losing(api: InProcess, disk: str) -> Any:
    """The archive that was just made lacks a disk."""
    return lambda: next(iter(archives(api.node).values()))["disks"].pop(disk)


def test_an_archive_that_lacks_a_disk_is_not_relied_on() -> None:
    api = guest(SECOND, scsi1=f"{SECOND},size=8G")
    between(api, "GET", "/vzdump/extractconfig", losing(api, "scsi1"))
    words = (
        r"it is not known whether local:backup/\S+ holds scsi1 .*\(its log and the archive do not say the same of scsi1"
    )
    with pytest.raises(Refused, match=words):
        DestroyGuest("dev", 110).run(api.client, FLEET, DEV, timeout=20)
    assert images(api.node) == {DISK, SECOND, CLOUD_INIT}
    assert len(archives(api.node)) == 1


@pytest.mark.parametrize("what", ["/log", "/vzdump/extractconfig"])
def test_what_cannot_be_read_is_not_known(what: str) -> None:
    def unreadable(method: str, path: str) -> None:
        if path.endswith(what) and ("vzdump" in path):
            raise ApiError(f"{method} {path}: 403 Permission check failed", 403)

    api = guest()
    api.before.append(unreadable)
    words = r"it is not known whether local:backup/\S+ holds scsi0 .*cannot be read.*--discard scsi0$"
    with pytest.raises(Refused, match=words):
        DestroyGuest("dev", 110).run(api.client, FLEET, DEV, timeout=20)
    assert images(api.node) == {DISK, CLOUD_INIT}
    destroy(api, "scsi0")
    assert images(api.node) == set()


def killed_before_removal(api: InProcess, *discard: str) -> None:
    def dies(method: str, path: str) -> None:
        if method == "DELETE":
            raise KeyboardInterrupt

    api.before.append(dies)
    with pytest.raises(KeyboardInterrupt):
        DestroyGuest("dev", 110, discard=discard).run(api.client, FLEET, DEV, timeout=20)
    api.before.remove(dies)


def test_a_killed_run_is_gone_on_with_after_the_same_check() -> None:
    api = guest(SECOND, scsi1=f"{SECOND},size=8G")
    killed_before_removal(api)
    steps = DestroyGuest("dev", 110).run(api.client, FLEET, DEV, timeout=20)
    assert [str(step).split()[0] for step in steps] == ["destroy"]
    assert len(archives(api.node)) == 1

    api = guest(SECOND, scsi1=f"{SECOND},size=8G")
    killed_before_removal(api)
    losing(api, "scsi1")()
    steps = DestroyGuest("dev", 110).run(api.client, FLEET, DEV, timeout=20)
    assert [str(step).split()[0] for step in steps] == ["back", "destroy"]
    assert len(archives(api.node)) == 2


def test_a_removal_that_is_under_way_is_waited_for() -> None:
    api = guest()
    api.node.emulator.state.task_seconds["qmdestroy"] = 0.3
    between(api, "GET", "/qemu/110/status/current")
    action = DestroyGuest("dev", 110, backup=False)

    def dies(method: str, path: str) -> None:
        if "qmdestroy" in path:
            raise KeyboardInterrupt

    api.before.append(dies)
    with pytest.raises(KeyboardInterrupt):
        action.run(api.client, FLEET, DEV, timeout=20)
    api.before.remove(dies)
    steps = action.run(api.client, FLEET, DEV, timeout=20)
    assert [str(step) for step in steps] == ["wait for the removal of vm 110 that is under way"]
    assert images(api.node) == set()
    assert sum(each.startswith("DELETE") for each in api.sent) == 1


def dying(api: InProcess, number: int) -> bool:
    """Destroy the guest, killed instead of making that request; whether it came so far."""
    count = itertools.count()

    def dies(method: str, path: str) -> None:
        if next(count) == number:
            raise KeyboardInterrupt

    api.before.append(dies)
    try:
        DestroyGuest("dev", 110, discard=("unused0",)).run(api.client, FLEET, DEV, timeout=20)
    except KeyboardInterrupt:
        return True
    finally:
        api.before.remove(dies)
    return False


def test_killed_around_any_change_the_next_run_finishes_it() -> None:
    """Right before a changing request, and right after it, when its task is at work."""
    whole = guest(SECOND, unused0=SECOND)
    assert not dying(whole, -1)
    changes = [number for number, sent in enumerate(whole.sent) if not sent.startswith("GET")]
    assert len(changes) == 3, whole.changes()
    for number in (at for change in changes for at in (change, change + 1)):
        api = guest(SECOND, unused0=SECOND)
        api.node.emulator.state.task_seconds.update(vzdump=0.1, qmdestroy=0.1)
        assert dying(api, number), whole.sent[number]
        DestroyGuest("dev", 110, discard=("unused0",)).run(api.client, FLEET, DEV, timeout=20)
        assert images(api.node) == set()
        assert all(set(archive["disks"]) == {"scsi0"} for archive in archives(api.node).values())
        assert len(archives(api.node)) in (1, 2)


def test_a_removal_that_has_taken_the_rights_away_is_waited_for() -> None:
    """The pool is left before the configuration goes: for that moment the guest is there and not visible."""
    api = guest()
    state = api.node.emulator.state

    def removed(task: Task) -> None:
        time.sleep(0.2)
        state.vms.pop(110)

    task = api.node.emulator.tasks.start("qmdestroy", 110, WHO, removed)
    state.pools["nixherd"]["members"] = []
    state.vms[110].config = {"lock": "destroyed"}
    [step] = DestroyGuest("dev", 110).run(api.client, FLEET, DEV, timeout=20)
    assert str(step) == "wait for the removal of vm 110 that is under way"
    assert api.node.get(f"/nodes/prom/tasks/{task}/status")["status"] == "stopped"


@pytest.mark.parametrize(("pool", "words"), [("nixherd", "pool nixherd"), (None, "a pool if it is in one")])
def test_the_pool_is_named_where_it_is_known(pool: str | None, words: str) -> None:
    """The token may not look at pools; of one that it knows by name it is told the members."""
    declared = replace(DEV, settings=replace(DEV.settings, pool=pool))
    assert f"and its membership of {words}; backup: " in str(destroy(guest(), vm=declared))


def test_a_removal_that_began_and_is_nobodys() -> None:
    api = guest(name=None, description=None, lock="destroyed")
    with pytest.raises(FleetError, match=r"its removal has begun .*`qm destroy 110 --skiplock`"):
        DestroyGuest("dev", 110).run(api.client, FLEET, DEV, timeout=20)


def test_a_volume_that_the_server_could_not_remove_is_told() -> None:
    api = guest(SECOND, scsi1=f"{SECOND},size=8G")
    between(api, "DELETE", "/qemu/110", lambda: api.node.emulator.state.storages.pop("nvmeprom"))
    with pytest.raises(
        FleetError, match=r"is destroyed, but not all of it is gone: .*; remove that on prom: `pvesm free"
    ):
        DestroyGuest("dev", 110).run(api.client, FLEET, DEV, timeout=20)


# What else takes something away


def test_a_rollback_says_which_disks_the_snapshot_lacks() -> None:
    about = {"snapshots": {"clean": {"config": {"name": "dev", "scsi0": f"{DISK},size=64G"}}}}
    api = guest(SECOND, FILE, about=about, scsi1=f"{SECOND},size=8G", unused0=FILE)
    [step] = RollbackGuest("clean").run(api.client, FLEET, DEV, timeout=20)
    assert str(step).endswith(f"what was done since is lost; stays as an unused disk: scsi1 {SECOND}")
    config = api.node.config(110)
    assert {config["unused0"], config["unused1"]} == {FILE, SECOND}
    assert images(api.node) == {DISK, SECOND, FILE, CLOUD_INIT}


def test_an_option_that_is_taken_away_says_what_becomes_of_its_volume() -> None:
    api = guest(SECOND, FILE, scsi1=f"{SECOND},size=8G", unused0=FILE)
    [step] = SetOptions({"unused0": None, "ciuser": None}).run(api.client, FLEET, DEV, timeout=20)
    assert str(step) == f"set unused0 {FILE} → none ({FILE} is destroyed)"
    [step] = SetOptions({"scsi1": None}).run(api.client, FLEET, DEV, timeout=20)
    assert str(step).endswith(f"→ none ({SECOND} stays as an unused disk)")
    assert images(api.node) == {DISK, SECOND, CLOUD_INIT}


def test_deleting_a_snapshot_says_that_its_memory_goes() -> None:
    volumes, options, _ = LEFT_OUT["snapshot:clean"]
    api = guest(*volumes, **options)
    [step] = RemoveSnapshot("clean").run(api.client, FLEET, DEV, timeout=20)
    assert str(step) == f"delete snapshot clean of vm 110 with its memory {STATE}"
    assert images(api.node) == {DISK, CLOUD_INIT}


@pytest.mark.parametrize(
    ("pending", "why"),
    [
        ({"delete": "sata1"}, "taken away at its next start"),
        ({"sata1": f"{SECOND},backup=0,size=8G"}, "backup=0 from its next start"),
        ({"sata1": "nvmeprom:vm-110-disk-2,size=8G"}, "replaced at its next start"),
    ],
)
def test_what_no_backup_will_hold_once_it_is_in_force_is_found_before_anything_is_done(
    pending: dict[str, str], why: str
) -> None:
    def api(status: str) -> InProcess:
        about = {"pending": pending, "status": status}
        return guest(SECOND, "nvmeprom:vm-110-disk-2", about=about, sata1=f"{SECOND},size=8G")

    refused(api("running"), rf"does not hold sata1 {SECOND} \(8G, {why}\).*--discard sata1", stop=True)
    done = api("stopped")
    destroy(done, "sata1")
    assert SECOND not in images(done.node)
