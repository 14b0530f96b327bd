"""Snapshots, with and without memory."""

import copy
import uuid
from typing import Any

from lab.api import drives, features, memory_state, options, unused
from lab.api.agent import is_configured
from lab.api.errors import ApiError
from lab.api.power import start_vm
from lab.api.routes import Call, route
from lab.api.state import Config, Snapshot, Vm
from lab.api.tasks import Task
from lab.backend import AgentAbsent

_BASE = "/nodes/{node}/qemu/{vmid}/snapshot"
_RESERVED = ("current", "pending")


def _disks(config: Config) -> list[tuple[str, drives.Drive]]:
    return [(name, drive) for name, drive in drives.of(config) if not drives.is_cdrom(drive)]


def can_snapshot(call: Call, config: Config) -> bool:
    """Return whether every disk in the configuration can be snapshotted."""
    return features.all_can_snapshot(call.emulator.volumes, (drive["file"] for _, drive in _disks(config)))


def snapshot_of(vm: Vm, name: str) -> Snapshot:
    if name not in vm.snapshots:
        raise ApiError(f"snapshot '{name}' does not exist")
    return vm.snapshots[name]


def config_of(snapshot: Snapshot) -> Config:
    """Return the snapshot's section of the configuration file."""
    optional = {key: getattr(snapshot, key) for key in ("parent", "snapstate", "description") if getattr(snapshot, key)}
    return {**snapshot.config, "snaptime": snapshot.snaptime, **optional}


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
            if not can_snapshot(call, vm.config):
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
    with_memory = bool(call.params.get("vmstate") and vm.running)
    agent = False
    if with_memory:  # the guest is paused during the save, so its file systems need no freeze
        agent = _agent_answers(call, vm)
        config.update(memory_state.save(call, vm, name, task.write))
    elif vm.running and is_configured(vm.config):
        _note_absent_agent(call, vm, task)
    for disk, drive in _disks(vm.config):
        task.write(f"snapshotting 'drive-{disk}' ({drive['file']})")
        if vm.running and state.version >= 9:
            task.write("internal qemu snapshot")
        call.emulator.backend.clone_volume(drive["file"], _copy_of(drive["file"], name), _size(call, drive["file"]))
    parent = config.pop("parent", None)
    vm.snapshots[name] = Snapshot(
        config,
        state.clock.seconds(),
        call.params.get("description", ""),
        parent,
        vmstate=int(with_memory),
        agent=agent,
    )
    vm.config["parent"] = name


def _copy_of(volid: str, name: str) -> str:
    """Return the name under which the backend keeps a snapshot's copy of a volume."""
    return f"{volid}@{name}"


def _size(call: Call, volid: str) -> int:
    volume = call.emulator.volumes.find(volid)
    return volume.size if volume else 0


def _agent_answers(call: Call, vm: Vm) -> bool:
    try:
        call.emulator.backend.agent(vm.vmid, "ping", {})
    except AgentAbsent:
        return False
    return True


def _note_absent_agent(call: Call, vm: Vm, task: Task) -> None:
    """Warn that the guest's file systems are not frozen because its agent does not answer."""
    if _agent_answers(call, vm):
        return
    if call.emulator.state.version >= 9:
        task.write("skipping guest filesystem freeze - agent configured but not running?")
    else:
        task.write(f"QEMU Guest Agent is not running - VM {vm.vmid} qmp command 'guest-ping' failed - got timeout")


@route("GET", f"{_BASE}/{{snapname}}/config")
def read_config(call: Call) -> Any:
    """Return the configuration in a snapshot, including the password's hash, like the real server."""
    return config_of(snapshot_of(call.emulator.state.vm(call.vmid), call.params["snapname"]))


@route("PUT", f"{_BASE}/{{snapname}}/config")
def update_config(call: Call) -> Any:
    with call.emulator.locks.config(call.vmid):
        vm = call.emulator.state.vm(call.vmid)
        call.emulator.require_unlocked(vm)
        snapshot = snapshot_of(vm, call.params["snapname"])
        snapshot.description = call.params.get("description", snapshot.description)


@route("POST", f"{_BASE}/{{snapname}}/rollback")
def rollback(call: Call) -> Any:
    """Restore configuration and disks; the VM runs again if the memory was saved, or with `start`."""

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.vm(call.vmid)
            _roll_back(call, vm, snapshot_of(vm, call.params["snapname"]), task)
        if call.params.get("start") and not vm.running:
            _start(call)

    return call.emulator.tasks.start("qmrollback", call.vmid, call.user, work)


def _start(call: Call) -> None:
    """Start the VM in a separate task and wait for it; its failure does not fail the rollback."""

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            start_vm(call, call.vmid, task)

    upid = call.emulator.tasks.start("qmstart", call.vmid, call.user, work)
    if thread := call.emulator.tasks.by_upid[upid].thread:
        thread.join()


def _roll_back(call: Call, vm: Vm, snapshot: Snapshot, task: Task) -> None:
    backend, volumes = call.emulator.backend, call.emulator.volumes
    call.emulator.require_unlocked(vm)
    if vm.running:
        backend.stop(vm.vmid)
        vm.running = vm.paused = False
        vm.pid = 0
    description = {"description": vm.config["description"]} if "description" in vm.config else {}
    config = unused.kept(vm, memory_state.without(copy.deepcopy(snapshot.config)))
    vm.config = {**config, **description, "parent": call.params["snapname"]}
    if "vmgenid" in vm.config:  # tells the guest about the rollback
        vm.config["vmgenid"] = str(uuid.uuid4())
    vm.pending, vm.pending_delete = {}, set()
    for _, drive in _disks(vm.config):
        volume = volumes.find(drive["file"])
        if volume and "size" in drive:
            volume.size = drives.to_bytes(drive["size"])
            backend.clone_volume(_copy_of(drive["file"], call.params["snapname"]), drive["file"], volume.size)
    if snapshot.vmstate:
        memory_state.load(snapshot.config, task.write)
        start_vm(call, vm.vmid, Task(task.upid))
        backend.resume_guest(vm.vmid, snapshot.agent)


@route("DELETE", f"{_BASE}/{{snapname}}")
def delete(call: Call) -> Any:
    name = call.params["snapname"]

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.vm(call.vmid)
            gone = snapshot_of(vm, name)
            call.emulator.require_unlocked(vm)
            for snapshot in vm.snapshots.values():
                if snapshot.parent == name:
                    snapshot.parent = gone.parent
            if vm.config.get("parent") == name:
                vm.config.pop("parent")
                vm.config.update({"parent": gone.parent} if gone.parent else {})
            del vm.snapshots[name]
            if "vmstate" in gone.config:
                call.emulator.volumes.remove(str(gone.config["vmstate"]))
            for volid in unused.used(gone.config):
                unused.add(vm.config, volid)
                call.emulator.backend.delete_volume(_copy_of(volid, name))

    return call.emulator.tasks.start("qmdelsnapshot", call.vmid, call.user, work)
