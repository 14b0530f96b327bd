"""What goes with a guest in every form that it has: announced, in the backup or given up by name, or nothing goes."""

import itertools
import time
from dataclasses import replace
from typing import Any

import pytest

from lab.api.tasks import Task
from nixherd.errors import ApiError, FleetError, Refused, Usage
from nixherd.fleet.models import GuestType, Origin, Vm
from nixherd.fleet.settings import Device
from nixherd.proxmox.guest import apply, removal, tasks
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.hardware import SetOptions
from nixherd.proxmox.guest.identity import mark
from nixherd.proxmox.guest.snapshots import RemoveSnapshot, RollbackGuest
from nixherd.proxmox.steps import Destroy
from tests.lab.api_node import GIB, Node
from tests.nixherd.proxmox.fleets import DEV, FLEET
from tests.nixherd.proxmox.inprocess import WHO, InProcess, archives, images, state

DNS = Vm("dns", 210, Origin.MANAGED, readonly=False, host_id="dev", type=GuestType.LXC)
BOTH = replace(FLEET, vms={**FLEET.vms, "dns": DNS})
DISK = "nvmeprom:vm-110-disk-0"
SECOND = "nvmeprom:vm-110-disk-1"
FILE = "files:110/vm-110-disk-7.qcow2"
STATE = "nvmeprom:vm-110-state-clean"
CLOUD_INIT = "nvmeprom:vm-110-cloudinit"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(apply, "PAUSE", 0.01)
    monkeypatch.setattr(removal, "PAUSE", 0.01)


def guest(*volumes: str, about: dict[str, Any] | None = None, wide: bool = False, **config: Any) -> InProcess:
    """`dev`, off, with these volumes on the storages and these options; `about` is beside its configuration."""
    options = {
        **{"name": "dev", "description": mark(FLEET, DEV), "cores": 4, "memory": "8192", "boot": "order=scsi0"},
        **{"scsi0": f"{DISK},size=64G", "ide2": f"{CLOUD_INIT},media=cdrom,size=4M"},
        **{"net0": "virtio=BC:24:11:00:01:10,bridge=vmbr0", **config},
    }
    kept = {key: value for key, value in options.items() if value is not None}
    vms = {"110": {"type": "qemu", "node": "prom", "status": "stopped", "config": kept, **(about or {})}}
    every = {DISK: 64 * GIB, CLOUD_INIT: 4 << 20, **dict.fromkeys(volumes, 8 * GIB)}
    return InProcess(Node(state(vms, every, pool=(110,), wide=wide)), FLEET)


def container(*volumes: str, about: dict[str, Any] | None = None, **config: Any) -> InProcess:
    options = {
        **{"hostname": "dns", "description": mark(BOTH, DNS), "memory": 512, "arch": "amd64", "ostype": "debian"},
        **{"rootfs": "nvmeprom:vm-210-disk-0,size=4G", "net0": "name=eth0,hwaddr=BC:24:11:00:02:10,bridge=vmbr0"},
    }
    vms = {"210": {"type": "lxc", "node": "prom", "config": {**options, **config}, **(about or {})}}
    every = {"nvmeprom:vm-210-disk-0": 4 * GIB, **dict.fromkeys(volumes, 8 * GIB)}
    return InProcess(Node(state(vms, every, pool=(210,))), BOTH)


def destroy(api: InProcess, *discard: str, vm: Vm = DEV, **options: Any) -> Destroy:
    """Destroy the guest; the last step of it, which is the one that was planned but for the backup and what is left."""
    action = DestroyGuest(vm.name, vm.vmid, discard=discard, **options)
    planned = action.plan(api.client, BOTH, vm)[-1]
    done = action.run(api.client, BOTH, vm, timeout=20)[-1]
    assert isinstance(planned, Destroy)
    assert isinstance(done, Destroy)
    assert replace(planned, backup=done.backup, left=done.left, unseen=done.unseen) == done
    return done


def refused(api: InProcess, words: str, *discard: str, vm: Vm = DEV, **options: Any) -> None:
    """Refused with these words, in the plan and when it is done, and everything is as it was."""
    before = images(api.node)
    action = DestroyGuest(vm.name, vm.vmid, discard=discard, **options)
    for ask in (action.plan, action.run):
        with pytest.raises(Refused, match=words):
            ask(api.client, BOTH, vm)
    assert api.changes() == []
    assert images(api.node) == before
    assert vm.vmid in api.node.emulator.state.vms


LEFT_OUT: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "scsi1": ((SECOND,), {"scsi1": f"{SECOND},backup=0,size=8G"}, rf"scsi1 {SECOND} \(8G, backup=0\)"),
    "virtio3": ((FILE,), {"virtio3": f"{FILE},backup=no,size=8G"}, rf"virtio3 {FILE} \(8G, backup=0\)"),
    "unused0": ((SECOND,), {"unused0": SECOND}, rf"unused0 {SECOND} \(8G, unused\)"),
    "efidisk0": ((SECOND,), {"efidisk0": f"{SECOND},size=4M"}, rf"efidisk0 {SECOND} \(4M, without bios=ovmf\)"),
    "sata2": ((SECOND,), {"about": {"pending": {"sata2": f"{SECOND},size=8G"}}}, rf"sata2 {SECOND} \(8G, pending\)"),
    "snapshot:clean": (
        (STATE,),
        {"about": {"snapshots": {"clean": {"vmstate": 1, "config": {"scsi0": f"{DISK},size=64G", "vmstate": STATE}}}}},
        rf"snapshot:clean, snapshot:clean {STATE} \(8G, its memory\)",
    ),
    "snapshot:bare": (
        (),
        {"about": {"snapshots": {"bare": {"config": {"scsi0": f"{DISK},size=64G"}}}}},
        "snapshot:bare",
    ),
    "snapshot:old": (
        (SECOND,),
        {"about": {"snapshots": {"old": {"config": {"scsi1": f"{SECOND},size=8G"}}}}},
        rf"snapshot:old, snapshot:old {SECOND} \(8G, named by it alone\)",
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_a_backup_leaves_out_goes_only_by_name(name: str) -> None:
    volumes, options, words = LEFT_OUT[name]
    refused(
        guest(*volumes, **options),
        rf"a backup does not hold {words}; not destroyed: .*name what may go: --discard {name}$",
    )
    for wide in (True, False):
        api = guest(*volumes, wide=wide, **options)
        done = destroy(api, name)
        assert f"; given up: {name}; " in str(done)
        assert "; backup: local:backup/vzdump-qemu-110-" in str(done)
        assert set(volumes) <= done.belongings.volumes
        # a volume that nothing but a snapshot names is left where it is; rights of the pool have gone with the guest
        left = {SECOND} if name == "snapshot:old" else set()
        assert images(api.node) == left == set(done.left if wide else done.unseen)
        said = "left on the storage" if wide else "perhaps left on the storage, where this token no longer sees it"
        assert all(f"; {said}: {volume}" in str(done) for volume in left)


def test_what_a_backup_holds_needs_no_name() -> None:
    more: dict[str, Any] = {
        "efidisk0": f"{SECOND},size=4M",
        "bios": "ovmf",
        "tpmstate0": "nvmeprom:vm-110-disk-2,size=4M",
    }
    api = guest(SECOND, FILE, "nvmeprom:vm-110-disk-2", virtio1=f"{FILE},size=8G,backup=1", **more)
    done = destroy(api)
    assert images(api.node) == set()
    [archive] = archives(api.node).values()
    assert set(archive["disks"]) == {"scsi0", "virtio1", "efidisk0", "tpmstate0"}
    assert done.belongings.names == ("efidisk0", "ide2", "scsi0", "tpmstate0", "virtio1")
    assert "given up" not in str(done)


def test_the_request_says_that_what_nothing_names_stays() -> None:
    orphan, foreign = "nvmeprom:vm-110-disk-9", "nvmeprom:vm-104-disk-0"
    iso = "local:iso/debian.iso"
    more: dict[str, Any] = {
        "ide0": f"{iso},media=cdrom,size=600M",
        "scsi3": f"{foreign},size=8G",
        "scsi4": "/dev/sdx,backup=0",
    }
    api = guest(orphan, foreign, iso, FILE, sata0=f"{FILE},media=cdrom", **more)
    done = destroy(api)
    assert images(api.node) == {orphan, foreign, iso, FILE}
    assert (
        f"; stays: ide0 {iso} (no guest's), sata0 {FILE} (a CD-ROM), scsi3 {foreign} (of guest 104), "
        f"scsi4 /dev/sdx (a device or file of the node), {orphan} (in its name, and nothing names it); "
    ) in str(done)
    [request] = [each for each in api.sent if each.startswith("DELETE")]
    assert request == "DELETE /nodes/prom/qemu/110"
    assert api.params["DELETE /nodes/prom/qemu/110"] == {"destroy-unreferenced-disks": "0"}


def test_without_a_backup_all_is_given_up_and_listed() -> None:
    volumes, options, _ = LEFT_OUT["snapshot:clean"]
    api = guest(*volumes, SECOND, scsi1=f"{SECOND},backup=0,size=8G", **options)
    done = destroy(api, backup=False)
    assert images(api.node) == set()
    assert archives(api.node) == {}
    assert str(done).endswith("; no backup is made, all of it is given up")
    for volume in (DISK, SECOND, STATE, CLOUD_INIT):
        assert volume in str(done)


def test_a_name_that_is_not_there_is_an_error() -> None:
    api = guest(SECOND, unused0=SECOND)
    for wrong in ("net0", SECOND, ""):
        with pytest.raises(Usage, match=r"is not a disk that a VM can have"):
            DestroyGuest("dev", 110, discard=("unused0", wrong)).run(api.client, FLEET, DEV)
    assert api.sent == []
    for wrong in ("scsi1", "snapshot:unused0", "unused1"):
        with pytest.raises(
            Usage, match=rf"--discard {wrong}: vm 110 \(dev\) has no {wrong}; with it would go ide2, scsi0"
        ):
            DestroyGuest("dev", 110, discard=("unused0", wrong)).run(api.client, FLEET, DEV)
    assert api.changes() == []


def test_what_is_suspended_to_disk() -> None:
    """No backup of it can be made, and nobody can write into its notes; it cannot be changed meanwhile either."""
    options: dict[str, Any] = {"lock": "suspended", "vmstate": STATE}
    refused(guest(STATE, **options), "is suspended to disk, so that no backup can be made")
    refused(guest(STATE, **options), "is suspended to disk, so that no backup can be made", "vmstate")
    api = guest(STATE, **options)
    assert f"vmstate {STATE} (8G, saved memory)" in str(destroy(api, backup=False))
    assert images(api.node) == set()


def test_containers() -> None:
    saved, lost, unused = (f"nvmeprom:vm-210-disk-{number}" for number in (1, 2, 3))
    options: dict[str, Any] = {
        **{"mp0": f"{saved},mp=/data,backup=1,size=8G", "mp1": f"{lost},mp=/scratch,size=8G", "unused0": unused},
        **{"mp2": "/srv/media,mp=/media", "lxc": [["lxc.mount.entry", "/srv/x srv/x none bind 0 0"]]},
    }
    words = rf"ct 210 \(dns\) .*mp1 {lost} \(8G, without backup=1\), unused0 {unused} \(8G, unused\); not destroyed"
    refused(container(saved, lost, unused, **options), words, vm=DNS)
    refused(container(saved, lost, unused, **options), r"name what may go: --discard unused0$", "mp1", vm=DNS)
    api = container(saved, lost, unused, **options)
    done = destroy(api, "mp1", "unused0", vm=DNS)
    assert "; given up: mp1, unused0; stays: mp2 /srv/media (a directory of the node), lxc.mount.entry /srv/x" in str(
        done
    )
    assert images(api.node) == set()
    [archive] = archives(api.node).values()
    assert set(archive["disks"]) == {"rootfs", "mp0"}


@pytest.mark.parametrize("attribute", ["hwaddr", "macaddr"])
def test_a_container_with_another_card_than_the_declared_one_is_another_machine(attribute: str) -> None:
    card = Device("net0", {attribute: "BC:24:11:00:00:99"})
    other = replace(DNS, settings=replace(DNS.settings, networks=(card,)))
    refused(container(), "has net0 bc:24:11:00:02:10, managed.dns declares bc:24:11:00:00:99: it is another", vm=other)


def test_the_snapshots_of_a_container() -> None:
    about = {"snapshots": {"clean": {"config": {"rootfs": "nvmeprom:vm-210-disk-0,size=4G"}}}}
    refused(container(about=about), "--discard snapshot:clean", vm=DNS)
    destroy(container(about=about), "snapshot:clean", vm=DNS)


# Between looking and removing


def between(api: InProcess, method: str, part: str, *changes: Any) -> None:
    """Do this once, right before the first such request."""
    todo = list(changes)

    def hook(sent: str, path: str) -> None:
        if sent == method and part in path and todo:
            todo.pop(0)()

    api.before.append(hook)


def attach(api: InProcess, key: str = "scsi5", value: str = "nvmeprom:8") -> Any:
    return lambda: api.node.call("PUT", "/nodes/prom/qemu/110/config", {key: value})


@pytest.mark.parametrize("moment", [("POST", "/vzdump"), ("GET", "/vzdump/extractconfig"), ("PUT", "/config")])
@pytest.mark.parametrize("backup", [True, False])
def test_a_disk_that_appears_is_not_destroyed(moment: tuple[str, str], backup: bool) -> None:
    if not backup and moment[0] != "PUT":
        return
    api = guest()
    between(api, *moment, attach(api))
    with pytest.raises(
        Refused, match=r"changed since it was looked at; there is now scsi5 nvmeprom:vm-110-disk-1 \(8G\)"
    ):
        DestroyGuest("dev", 110, backup=backup).run(api.client, FLEET, DEV, timeout=20)
    assert images(api.node) == {DISK, CLOUD_INIT, "nvmeprom:vm-110-disk-1"}
    assert "nixherd destroys" not in api.node.config(110)["description"]


def test_a_snapshot_that_appears_is_not_destroyed() -> None:
    api = guest()
    between(api, "PUT", "/config", lambda: api.node.run("POST", "/nodes/prom/qemu/110/snapshot", snapname="mine"))
    with pytest.raises(Refused, match="there is now snapshot:mine; not destroyed"):
        DestroyGuest("dev", 110).run(api.client, FLEET, DEV, timeout=20)
    assert DISK in images(api.node)


def test_a_guest_that_ran_after_its_backup_is_not_destroyed() -> None:
    api = guest()

    def used() -> None:
        for verb in ("start", "stop"):
            assert api.node.run("POST", f"/nodes/prom/qemu/110/status/{verb}", WHO) == "OK"

    between(api, "PUT", "/config", used)
    with pytest.raises(Refused, match=r"nixherd@pve\!fleet did qmst\w+ since it was looked at"):
        DestroyGuest("dev", 110).run(api.client, FLEET, DEV, timeout=20)
    assert DISK in images(api.node)


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
