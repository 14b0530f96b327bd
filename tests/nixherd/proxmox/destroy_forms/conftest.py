"""Guests in the emulator in this process, with disks of every form, and how one is destroyed."""

from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import Refused
from nixherd.fleet.models import GuestType, Origin, Vm
from nixherd.proxmox.guest import apply, removal, tasks
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.identity import mark
from nixherd.proxmox.steps import Destroy
from tests.lab.api_node import GIB, Node
from tests.nixherd.proxmox.fleets import DEV, FLEET
from tests.nixherd.proxmox.inprocess import InProcess, images, state

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


# Between looking and removing


def between(api: InProcess, method: str, part: str, *changes: Any) -> None:
    """Do this once, right before the first such request."""
    todo = list(changes)

    def hook(sent: str, path: str) -> None:
        if sent == method and part in path and todo:
            todo.pop(0)()

    api.before.append(hook)
