"""What a hypervisor does at night: no duplicate, no false success, and the right status in the end."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Exit, FleetError, Refused, exit_of
from nixherd.fleet.models import Fleet, Vm
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest import apply as apply_module
from nixherd.proxmox.guest.backups import BackupGuest
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.disks import RelocateDisk, ResizeDisk
from nixherd.proxmox.guest.hardware import SetOptions
from nixherd.proxmox.guest.identity import mark
from nixherd.proxmox.guest.lifecycle import CreateGuest, MigrateGuest, ShutdownGuest, StartGuest
from nixherd.proxmox.guest.observe import find
from nixherd.proxmox.guest.snapshots import Action, TakeSnapshot
from nixherd.proxmox.guest.verb import Verb
from nixherd.proxmox.steps import Backup
from tests.nixherd.proxmox.conftest import GIB, Emulator, running, state
from tests.nixherd.proxmox.dev import begin
from tests.nixherd.proxmox.fleets import DEV, FLEET

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("emulator")]


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply_module, "PAUSE", 0.05)
    monkeypatch.setattr(apply_module, "UNKNOWN_PATIENCE", 1.0)


def outcome(emulator: Emulator, action: Action, *, vm: Vm = DEV, fleet: Fleet = FLEET, timeout: float = 20) -> Any:
    """The steps that were done, or the status and the words of the error."""
    client = emulator.client(Policy.from_fleet(fleet))
    try:
        return [str(step) for step in action.run(client, fleet, vm, timeout=timeout)]
    except FleetError as error:
        return exit_of(error, changed=client.accepted_changes > 0), str(error)


def sent(emulator: Emulator, tail: str) -> int:
    return len([change for change in emulator.changes() if change.endswith(tail)])


# Locks


def test_a_lock_that_is_held_for_a_while_is_waited_for(emulator: Emulator) -> None:
    begin(emulator, status="stopped")
    emulator.control("fault", name="lock-held", vmid=110, lock="backup", seconds=1.5)
    began = time.monotonic()
    assert outcome(emulator, SetOptions({"cores": 2})) == ["set cores 4 → 2"]
    assert time.monotonic() - began > 1
    assert sent(emulator, "/config") == 1


def test_a_lock_that_is_held_for_ever_is_named_in_the_end(emulator: Emulator) -> None:
    begin(emulator, status="stopped")
    emulator.control("fault", name="lock-held", vmid=110, lock="backup")
    status, words = outcome(emulator, StartGuest(), timeout=0.5)
    assert status is Exit.REMOTE
    assert "vm 110 (dev) is locked (backup) and no task that this token may see works on it" in words
    assert "`qm unlock 110` on prom" in words
    assert emulator.changes() == []


def test_a_lock_names_the_task_that_holds_it(emulator: Emulator) -> None:
    begin(emulator)
    begin(emulator, task_seconds={"vzdump": 3})
    client = emulator.client()
    upid = Backup("prom", 110, "local").begin(client)
    until(lambda: (config := client.config("prom", 110)) is not None and config.lock == "backup")
    status, words = outcome(emulator, SetOptions({"cores": 2}), timeout=0.5)
    assert status is Exit.REMOTE
    assert f"is locked (backup) by task vzdump of {client.token_id}: {upid}" in words


def until(happens: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_lock_that_a_killed_clone_left_is_for_people_to_clear(emulator: Emulator) -> None:
    emulator.control("fault", name="task-killed", type="qmclone")
    outcome(emulator, CreateGuest())
    status, words = outcome(emulator, CreateGuest())
    assert status is Exit.REMOTE
    assert "`qm unlock 110 && qm destroy 110`" in words
    assert sent(emulator, "/clone") == 1


# Clones


def test_eight_clones_at_once_are_eight_machines(emulator: Emulator) -> None:
    vms = {f"dev{n}": replace(DEV, name=f"dev{n}", vmid=120 + n) for n in range(8)}
    fleet = replace(FLEET, vms={**FLEET.vms, **vms})
    emulator.control("reset", patch={"task_seconds": {"qmclone": 1.2}})  # longer than a clone waits for the source
    ended: dict[str, Any] = {}

    def one(vm: Vm) -> None:
        ended[vm.name] = outcome(emulator, CreateGuest(), vm=vm, fleet=fleet, timeout=60)

    threads = [threading.Thread(target=one, args=(vm,)) for vm in vms.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == {name: [f"clone template 9002 to vm {vm.vmid} ({name}) on nvmeprom"] for name, vm in vms.items()}
    client = emulator.client(Policy.from_fleet(fleet))
    disks = [volume for volume in client.volumes("prom", "nvmeprom") if (volume.vmid or 0) in range(120, 128)]
    assert len({volume.volid for volume in disks if "disk" in volume.volid}) == 8
    for vm in vms.values():
        config = client.config("prom", vm.vmid)
        assert config is not None
        assert config.lock is None
        assert mark(fleet, vm) in config.description


def test_a_vmid_that_a_stranger_takes_between_look_and_clone_is_theirs(emulator: Emulator) -> None:
    emulator.control("fault", name="vmid-taken", vmid=110)
    status, words = outcome(emulator, CreateGuest())
    assert status is Exit.REFUSED
    assert "vm 110 on prom exists but is not this fleet's" in words
    assert sent(emulator, "/clone") == 1
    config = emulator.client().config("prom", 110)
    assert config is not None
    assert mark(FLEET, DEV) not in config.description


def test_a_full_storage_is_said_and_leaves_nothing(emulator: Emulator) -> None:
    emulator.control("fault", name="storage-full", storage="nvmeprom")
    status, words = outcome(emulator, CreateGuest())
    assert status is Exit.FAILED
    assert "qmclone 9002" in words
    assert "pvenode task log UPID:" in words
    assert emulator.client().is_free(110)
    emulator.control("fault", name="storage-full", on=False)
    assert len(outcome(emulator, CreateGuest())) == 1


# Answers that do not come


@pytest.mark.parametrize("fault", ["timed-out", "drop-connection"])
@pytest.mark.parametrize(
    ("action", "method", "path"),
    [
        (CreateGuest(), "POST", "/clone"),
        (StartGuest(), "POST", "/status/start"),
        (TakeSnapshot("clean"), "POST", "/snapshot"),
        (ResizeDisk(size=65 * GIB), "PUT", "/resize"),
        (SetOptions({"cores": 2}), "PUT", "/config"),
        (RelocateDisk("scsi0", "tank"), "POST", "/move_disk"),
        (BackupGuest(), "POST", "/vzdump"),
        (CreateGuest(by_person=True), "POST", "/clone"),
        (TakeSnapshot("clean", by_person=True), "POST", "/snapshot"),
        (DestroyGuest("dev", 110, backup=False), "DELETE", "/qemu/110"),
    ],
)
def test_what_went_through_without_an_answer_is_not_done_twice(
    emulator: Emulator, fault: str, action: Action, method: str, path: str
) -> None:
    if path != "/clone":
        begin(emulator, status="stopped")
    emulator.control("fault", name=fault, method=method, path=path, count=1)
    ended = outcome(emulator, action)
    assert isinstance(ended, list), ended
    assert ended, "what this run made counts as made, answered or not"
    if path == "/vzdump":
        assert len(emulator.client().volumes("prom", "local", content="backup", vmid=110)) == 1
    assert sent(emulator, path) == 1 or path == "/config"
    if isinstance(action, Verb) and action.by_person:
        assert outcome(emulator, replace(action, by_person=False)) == []


def test_what_was_surely_not_done_is_sent_again(emulator: Emulator) -> None:
    begin(emulator, status="stopped")
    emulator.control("fault", name="refused", method="POST", path="/status/start", count=2)
    assert outcome(emulator, StartGuest()) == ["start vm 110"]
    assert sent(emulator, "/status/start") == 3


# Tasks that do not end as they should


def test_a_task_that_failed_is_judged_by_the_guest(emulator: Emulator) -> None:
    """One that was killed may have done its work. Of one that has not, where the guest stands is said."""
    begin(emulator)
    emulator.control("fault", name="task-fails", type="qmshutdown", message="received interrupt")
    status, words = outcome(emulator, ShutdownGuest())
    assert status is Exit.FAILED
    assert "failed: received interrupt" in words
    assert re.search(r"; vm 110 \(dev\) runs, since \d+ s$", words)
    emulator.control("fault", name="task-killed", type="qmshutdown")
    assert outcome(emulator, ShutdownGuest()) == ["shut vm 110 down within 180 s"]
    assert sent(emulator, "/shutdown") == 2


@pytest.mark.parametrize("works", [True, False])
def test_a_task_that_was_forgotten_is_judged_by_the_guest(emulator: Emulator, works: bool) -> None:
    begin(emulator, status="stopped")
    emulator.control("fault", name="task-lost", type="qmstart", works=works)
    ended = outcome(emulator, StartGuest(), timeout=1)
    power = emulator.client().status("prom", 110)
    assert power is not None
    assert power.running
    # observed, not believed: what was done is not done again, what was not is; this run made it either way
    assert ended == ["start vm 110"]
    assert sent(emulator, "/status/start") == (1 if works else 2)


def test_a_backup_whose_task_was_forgotten_is_unknown(emulator: Emulator) -> None:
    begin(emulator)
    emulator.control("fault", name="task-lost", type="vzdump", works=False)
    status, words = outcome(emulator, BackupGuest())
    assert status is Exit.UNKNOWN
    assert "how it ended is not known" in words


# Several nodes


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Emulator]:
    """Two nodes; dev runs on the other one than the definitions say, on shared storage."""
    document = state()
    document["nodes"]["prom2"] = {"ip": "127.0.0.1", "cpus": 2, "memory": 8 * GIB, "bridges": {"vmbr0": {}}}
    ceph = {"type": "rbd", "content": "images,rootdir", "shared": 1, "total": 900 * GIB, "avail": 900 * GIB}
    volume = {"content": "images", "format": "raw", "size": 64 * GIB, "used": GIB}
    document["storages"]["ceph"] = {**ceph, "volumes": {"ceph:vm-110-disk-0": volume}}
    config = {"name": "dev", "description": mark(FLEET, DEV), "cores": 4, "memory": "8192", "agent": "1"}
    config |= {
        "boot": "order=scsi0",
        "scsi0": "ceph:vm-110-disk-0,size=64G",
        "net0": "virtio=BC:24:11:00:01:10,bridge=vmbr0",
    }
    document["vms"]["110"] = {"type": "qemu", "node": "prom2", "status": "stopped", "config": config}
    with running(tmp_path, document) as emulator:
        yield emulator


def test_a_guest_is_found_wherever_it_runs(cluster: Emulator) -> None:
    found = find(cluster.client(), FLEET, DEV)
    assert found is not None
    assert found[0] == "prom2"
    assert outcome(cluster, StartGuest()) == ["start vm 110"]
    assert cluster.changes() == ["POST /nodes/prom2/qemu/110/status/start"]


def test_a_guest_moves_and_then_is_where_it_should_be(cluster: Emulator) -> None:
    assert outcome(cluster, MigrateGuest("prom")) == ["migrate vm 110 from prom2 to prom"]
    assert outcome(cluster, MigrateGuest("prom")) == []
    assert outcome(cluster, StartGuest()) == ["start vm 110"]
    assert outcome(cluster, MigrateGuest("prom2")) == ["migrate vm 110 from prom to prom2 online"]
    status, words = outcome(cluster, MigrateGuest("prom9"))
    assert status is Exit.USAGE
    assert words == "node prom9 does not exist; the cluster has prom, prom2"


def test_a_node_that_cannot_be_reached_is_no_success(cluster: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nixherd.proxmox.client.REFUSED_PAUSES", (0.01, 0.01))
    cluster.control("fault", name="node-down", node="prom2")
    status, words = outcome(cluster, StartGuest())
    assert status is Exit.REMOTE
    assert "No route to host" in words
    # and it is not taken for gone: nothing is made in its place
    status, _ = outcome(cluster, CreateGuest())
    assert status is Exit.REMOTE
    assert sent(cluster, "/clone") == 0


def test_lists_that_lag_decide_nothing(cluster: Emulator) -> None:
    cluster.control("fault", name="stale-resources")
    assert outcome(cluster, StartGuest()) == ["start vm 110"]
    assert outcome(cluster, StartGuest()) == []
    assert outcome(cluster, MigrateGuest("prom")) == ["migrate vm 110 from prom2 to prom online"]
    assert outcome(cluster, StartGuest()) == []


def test_a_vmid_that_somebody_else_has_elsewhere_is_refused(cluster: Emulator) -> None:
    cluster.control("reset", patch={"vms": {"110": {"type": "lxc", "config": {"hostname": "theirs"}}}})
    client = cluster.client()
    with pytest.raises(Refused, match="VMID 110 is taken by a container"):
        find(client, FLEET, DEV)
