"""What came to an end that nobody knows says where the guest stands; a rollback is read back. All in this process."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nixherd.base.errors import ApiError, Exit, FleetError, StillRunning, TaskForgotten, Undecided, exit_of
from nixherd.proxmox.guest import aftermath, apply, removal, tasks
from nixherd.proxmox.guest.backups import BackupGuest
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.lifecycle import RebootGuest
from nixherd.proxmox.guest.snapshots import Action, RollbackGuest, TakeSnapshot
from nixherd.proxmox.steps import Change, Configure, DeleteSnapshot, MoveDisk, Outcome, Resize, Step
from nixherd.proxmox.template import create
from nixherd.proxmox.template.image import TemplateSpec
from tests.nixherd.proxmox.destroy_forms.conftest import BOTH, CLOUD_INIT, DISK, DNS, FILE, SECOND, container, guest
from tests.nixherd.proxmox.fleets import DEV, FLEET
from tests.nixherd.proxmox.inprocess import InProcess

THEN = {"name": "dev", "cores": 2, "memory": "8192", "boot": "order=scsi0", "scsi0": f"{DISK},size=64G"}
THEN |= {"ide2": f"{CLOUD_INIT},media=cdrom,size=4M", "net0": "virtio=BC:24:11:00:01:10,bridge=vmbr0"}
CLEAN = {"snapshots": {"clean": {"config": THEN}}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(apply, "PAUSE", 0.01)
    monkeypatch.setattr(removal, "PAUSE", 0.01)


def lost(api: InProcess, kind: str, *, works: bool) -> None:
    api.node.emulator.faults.switch("task-lost", True, {"type": kind, "works": works})


def unknown(api: InProcess, action: Action, *, timeout: float = 20) -> str:
    with pytest.raises(FleetError) as caught:
        action.run(api.client, FLEET, DEV, timeout=timeout)
    assert exit_of(caught.value, changed=True) is Exit.UNKNOWN, caught.value
    return str(caught.value)


FORGOTTEN: list[tuple[str, Callable[[], Action], dict[str, Any], bool, str]] = [
    (
        *("qmrollback", lambda: RollbackGuest("clean"), {"about": CLEAN}, True),
        r"now vm 110 \(dev\) on prom is off; its configuration is that of snapshot clean, which says nothing",
    ),
    (
        *("qmrollback", lambda: RollbackGuest("clean", by_person=True), {"about": CLEAN}, False),
        r"now vm 110 \(dev\) on prom is off; its configuration is not that of snapshot clean: cores$",
    ),
    ("vzdump", BackupGuest, {}, False, r"now vm 110 \(dev\) on prom is off; new on local: none$"),
    (
        *("qmdestroy", lambda: DestroyGuest("dev", 110, backup=False), {"wide": True}, False),
        r"; vm 110 \(dev\) is there on prom, not destroyed, and is off$",
    ),
    (
        *("qmreboot", lambda: RebootGuest(always=True), {"about": {"status": "running"}}, False),
        r"vm 110 is as it was started before, so it has not been rebooted yet; now vm 110 \(dev\) on prom runs, since",
    ),
]


@pytest.mark.parametrize(("kind", "action", "about", "works", "says"), FORGOTTEN, ids=range(len(FORGOTTEN)))
def test_a_task_that_was_forgotten_says_where_the_guest_stands(
    kind: str, action: Callable[[], Action], about: dict[str, Any], works: bool, says: str
) -> None:
    api = guest(**about)
    lost(api, kind, works=works)
    assert re.search(says, unknown(api, action()))


def test_a_removal_that_was_forgotten_and_whose_guest_is_gone_is_seen() -> None:
    api = guest(wide=True)
    lost(api, "qmdestroy", works=True)
    assert DestroyGuest("dev", 110, backup=False).run(api.client, FLEET, DEV, timeout=20)


def test_a_guest_that_cannot_be_looked_at_then_is_unknown() -> None:
    api = guest(about=CLEAN)
    lost(api, "qmrollback", works=True)

    def deaf(method: str, path: str) -> None:
        if "POST /nodes/prom/qemu/110/snapshot/clean/rollback" in api.sent and "/tasks/" not in path:
            raise ApiError(f"{method} {path}: 595 no route to host", 595)

    api.before.append(deaf)
    said = unknown(api, RollbackGuest("clean"))
    assert re.search(r"knows no task .*; how vm 110 \(dev\) stands now is not known \(GET .*595", said)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (DeleteSnapshot("prom", 110, "clean"), "; its snapshots: clean"),
        (Resize("prom", 110, "scsi0", 1, 2), f"; scsi0: {DISK},size=64G"),
        (MoveDisk("prom", 110, "scsi1", "files"), "; scsi1: none"),
        (Configure("prom", 110, (Change("cores", "4", "2", 2),)), "; cores: 4"),
        (None, " is off"),
    ],
)
def test_each_step_has_what_it_was_to_change_read_back(step: Step | None, says: str) -> None:
    api = guest(about=CLEAN)
    assert (
        aftermath.seen(api.client, FLEET, DEV, step) == f"now vm 110 (dev) on prom is off{says.removeprefix(' is off')}"
    )


def test_what_takes_too_long_says_where_the_guest_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any) -> None:
        raise StillRunning("task qmsnapshot 110 on prom is not done within 1 s", "UPID")

    api = guest(about=CLEAN)
    monkeypatch.setattr(tasks, "wait", late)
    assert re.search(
        r"not done .*; now vm 110 \(dev\) on prom is off; its snapshots: clean", unknown(api, TakeSnapshot("x1"))
    )


# What a rollback did


def rolled(api: InProcess, **rest: Any) -> Outcome:
    found = RollbackGuest("clean", **rest).run(api.client, FLEET, DEV, timeout=20)
    assert isinstance(found, Outcome)
    return found


def test_a_rollback_is_read_back() -> None:
    api = guest(SECOND, FILE, about=CLEAN, scsi1=f"{SECOND},size=8G", unused0=FILE)
    done = rolled(api)
    assert done.observed["snapshot"] == "clean"
    assert done.observed["as_snapshot"] is True
    assert done.observed["status"] == "stopped"
    assert done.observed["unnamed"] == []
    unused = done.observed["unused"]
    assert isinstance(unused, dict)
    assert set(unused.values()) == {FILE, SECOND}
    assert done.lines[:2] == ("its configuration is that of snapshot clean", "it is off")
    for name, volume in unused.items():
        assert f"{name} keeps {volume}, which is in no disk of it now" in done.lines


def test_a_volume_that_nothing_names_after_it_is_told() -> None:
    api = guest(SECOND, about={**CLEAN, "pending": {"sata2": f"{SECOND},size=8G"}})
    done = rolled(api)
    assert done.observed["unnamed"] == [SECOND]
    assert f"{SECOND} (in its name, and nothing names it)" in done.lines


def test_a_rollback_whose_configuration_is_not_the_snapshots_is_no_success() -> None:
    api = guest(SECOND, about=CLEAN, scsi1=f"{SECOND},size=8G")

    def another(method: str, path: str) -> None:
        config = api.node.emulator.state.vms[110].config
        if config.get("parent") == "clean" and "description" in config:
            config.update(cores=9, scsi5=f"{SECOND},size=8G")

    api.before.append(another)
    with pytest.raises(
        FleetError, match=r"configuration is not the snapshot's: cores 9 \(there: 2\), scsi5 .*none"
    ) as caught:
        rolled(api, by_person=True)
    assert exit_of(caught.value, changed=True) is Exit.FAILED


def test_a_rollback_that_cannot_be_read_back_is_unknown() -> None:
    api = guest(about=CLEAN)

    def deaf(method: str, path: str) -> None:
        config = api.node.emulator.state.vms[110].config
        if config.get("parent") == "clean" and path.endswith("/status/current") and config["cores"] == 2:
            raise ApiError("GET …: 596 timeout", 596)

    api.before.append(deaf)
    with pytest.raises((Undecided, ApiError)) as caught:
        rolled(api, by_person=True)
    assert "596 timeout" in str(caught.value)


def test_a_containers_rollback_is_read_back_too() -> None:
    then = {"hostname": "dns", "memory": 256, "arch": "amd64", "ostype": "debian"}
    then |= {"rootfs": "nvmeprom:vm-210-disk-0,size=4G", "net0": "name=eth0,hwaddr=BC:24:11:00:02:10,bridge=vmbr0"}
    api = container(
        "nvmeprom:vm-210-disk-1",
        about={"snapshots": {"clean": {"config": then}}},
        mp0="nvmeprom:vm-210-disk-1,mp=/data,size=8G",
    )
    done = RollbackGuest("clean").run(api.client, BOTH, DNS, timeout=20)
    assert isinstance(done, Outcome)
    assert (done.observed["as_snapshot"], done.observed["unused"]) == (True, {"unused0": "nvmeprom:vm-210-disk-1"})


# A template that is being made


def test_a_template_whose_end_is_not_known_says_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgotten(*given: Any, **_: Any) -> None:
        given[3].append(9999)  # the clone that tries it
        raise TaskForgotten("prom knows no task UPID:prom:… (any more)", 400)

    api, wanted = guest(), cast(TemplateSpec, SimpleNamespace(node="prom", vmid=110))
    monkeypatch.setattr(create, "_create", forgotten)
    with pytest.raises(
        TaskForgotten, match=r"now vm 110 \(dev\) is off, vm 9999 is not there now; run again to go on$"
    ):
        create.create(api.client, FLEET, wanted, timeout=1, boots=1, progress=lambda _: None)
