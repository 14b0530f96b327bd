"""Snapshots."""

import copy
import uuid
from typing import Any

from lab.api import drives, options
from lab.api.agent import is_configured
from lab.api.errors import ApiError
from lab.api.routes import Call, route
from lab.api.state import Snapshot, Vm
from lab.api.tasks import Task
from lab.api.volumes import parse_volid
from lab.backend import AgentAbsent

_BASE = "/nodes/{node}/qemu/{vmid}/snapshot"
_RESERVED = ("current", "pending")
_ABLE = {"zfspool", "lvmthin", "rbd", "btrfs"}


def _disks(vm: Vm) -> list[tuple[str, drives.Drive]]:
    return [(name, drive) for name, drive in drives.of(vm.config) if not drives.is_cdrom(drive)]


def can_snapshot(call: Call, vm: Vm) -> bool:
    """Can every disk of the VM be snapshotted where it is?"""
    volumes = call.emulator.volumes
    for _, drive in _disks(vm):
        volume = volumes.find(drive["file"])
        storage = volumes.storage(parse_volid(drive["file"]).storage)
        if storage.type not in _ABLE and (volume is None or volume.format != "qcow2"):
            return False
    return True


def _get(vm: Vm, name: str) -> Snapshot:
    if name not in vm.snapshots:
        raise ApiError(f"snapshot '{name}' does not exist")
    return vm.snapshots[name]


@route("GET", _BASE)
def listing(call: Call) -> Any:
    vm = call.emulator.state.vm(call.vmid)
    rows: list[dict[str, Any]] = []
    for name, snapshot in vm.snapshots.items():
        row = {
            "name": name,
            "description": snapshot.description,
            "snaptime": snapshot.snaptime,
            "vmstate": snapshot.vmstate,
        }
        optional = {key: getattr(snapshot, key) for key in ("parent", "snapstate") if getattr(snapshot, key)}
        rows.append({**row, **optional})
    now = {"name": "current", "description": "You are here!", "digest": vm.digest(), "running": int(vm.running)}
    return [*rows, {**now, **({"parent": vm.config["parent"]} if "parent" in vm.config else {})}]


@route("POST", _BASE)
def create(call: Call) -> Any:
    name = call.params["snapname"]
    call.emulator.state.vm(call.vmid)
    if name in _RESERVED:
        raise ApiError(f"unable to use snapshot name '{name}' (reserved name)")

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.vm(call.vmid)
            if vm.is_template:
                raise ApiError("you can't take a snapshot if it's a template")
            call.emulator.require_unlocked(vm)
            if name in vm.snapshots:
                raise ApiError(f"snapshot name '{name}' already used")
            if not can_snapshot(call, vm):
                raise ApiError("snapshot feature is not available")
            _take(call, vm, name, task)

    return call.emulator.tasks.start("qmsnapshot", call.vmid, call.user, work)


def _take(call: Call, vm: Vm, name: str, task: Task) -> None:
    state = call.emulator.state
    config = {
        key: value
        for key, value in vm.config.items()
        if key not in ("lock", "description") and not options.is_unused(key)
    }
    if vm.running and is_configured(vm.config):
        _note_absent_agent(call, vm, task)
    for disk, drive in _disks(vm):
        task.write(f"snapshotting 'drive-{disk}' ({drive['file']})")
        if vm.running and state.version >= 9:
            task.write("internal qemu snapshot")
        call.emulator.backend.clone_volume(drive["file"], _copy_of(drive["file"], name), _size(call, drive["file"]))
    parent = config.pop("parent", None)
    description, vmstate = call.params.get("description", ""), int(bool(call.params.get("vmstate") and vm.running))
    vm.snapshots[name] = Snapshot(config, state.clock.seconds(), description, parent, vmstate)
    vm.config["parent"] = name


def _copy_of(volid: str, name: str) -> str:
    """The name under which the backend keeps what a snapshot holds of a volume."""
    return f"{volid}@{name}"


def _size(call: Call, volid: str) -> int:
    volume = call.emulator.volumes.find(volid)
    return volume.size if volume else 0


def _note_absent_agent(call: Call, vm: Vm, task: Task) -> None:
    """Without its agent the guest's file systems are not frozen."""
    try:
        call.emulator.backend.agent(vm.vmid, "ping", {})
    except AgentAbsent:
        if call.emulator.state.version >= 9:
            task.write("skipping guest filesystem freeze - agent configured but not running?")
        else:
            task.write(f"QEMU Guest Agent is not running - VM {vm.vmid} qmp command 'guest-ping' failed - got timeout")


@route("GET", f"{_BASE}/{{snapname}}/config")
def read_config(call: Call) -> Any:
    """The configuration in a snapshot, the password's hash with it, as the real server shows it."""
    snapshot = _get(call.emulator.state.vm(call.vmid), call.params["snapname"])
    optional = {key: getattr(snapshot, key) for key in ("parent", "snapstate", "description") if getattr(snapshot, key)}
    return {**snapshot.config, "snaptime": snapshot.snaptime, **optional}


@route("PUT", f"{_BASE}/{{snapname}}/config")
def update_config(call: Call) -> Any:
    with call.emulator.locks.config(call.vmid):
        vm = call.emulator.state.vm(call.vmid)
        call.emulator.require_unlocked(vm)
        snapshot = _get(vm, call.params["snapname"])
        snapshot.description = call.params.get("description", snapshot.description)


@route("POST", f"{_BASE}/{{snapname}}/rollback")
def rollback(call: Call) -> Any:
    """Configuration and disks as they were."""

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.vm(call.vmid)
            snapshot = _get(vm, call.params["snapname"])
            call.emulator.require_unlocked(vm)
            if vm.running:
                call.emulator.backend.stop(vm.vmid)
                vm.running = False
            description = {"description": vm.config["description"]} if "description" in vm.config else {}
            vm.config = {**copy.deepcopy(snapshot.config), **description, "parent": call.params["snapname"]}
            if "vmgenid" in vm.config:  # tells the guest that it has gone back in time
                vm.config["vmgenid"] = str(uuid.uuid4())
            vm.pending, vm.pending_delete = {}, set()
            for _, drive in _disks(vm):
                volume = call.emulator.volumes.find(drive["file"])
                if volume and "size" in drive:
                    volume.size = drives.to_bytes(drive["size"])
                    kept = _copy_of(drive["file"], call.params["snapname"])
                    call.emulator.backend.clone_volume(kept, drive["file"], volume.size)

    return call.emulator.tasks.start("qmrollback", call.vmid, call.user, work)


@route("DELETE", f"{_BASE}/{{snapname}}")
def delete(call: Call) -> Any:
    name = call.params["snapname"]

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.vm(call.vmid)
            gone = _get(vm, name)
            call.emulator.require_unlocked(vm)
            for snapshot in vm.snapshots.values():
                if snapshot.parent == name:
                    snapshot.parent = gone.parent
            if vm.config.get("parent") == name:
                vm.config.pop("parent")
                vm.config.update({"parent": gone.parent} if gone.parent else {})
            del vm.snapshots[name]
            for _, drive in drives.of(gone.config):
                call.emulator.backend.delete_volume(_copy_of(drive["file"], name))

    return call.emulator.tasks.start("qmdelsnapshot", call.vmid, call.user, work)
