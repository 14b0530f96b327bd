"""Migration of virtual machines. Not recorded: this follows the schema and PVE::QemuMigrate."""

import re
from collections.abc import Callable
from typing import Any

from lab.api import drives, options
from lab.api.disks import moved
from lab.api.errors import ApiError, ParameterError
from lab.api.formats import split_list
from lab.api.routes import Call, route
from lab.api.state import Vm
from lab.api.tasks import Task
from lab.api.volumes import parse_volid

_PATH = "/nodes/{node}/qemu/{vmid}/migrate"


def _local_disks(call: Call, vm: Vm) -> list[tuple[str, drives.Drive]]:
    """List the disks that only this node can access."""
    volumes = call.emulator.volumes
    disks = [(name, drive) for name, drive in drives.of(vm.config) if ":" in drive["file"]]
    return [(name, drive) for name, drive in disks if not volumes.storage(parse_volid(drive["file"]).storage).shared]


def _local_resources(vm: Vm) -> list[str]:
    """List devices of the node itself, without mapped ones."""
    return [
        name
        for name, value in sorted(vm.config.items())
        if re.fullmatch(r"(hostpci|usb)\d+", name) and "mapping=" not in str(value) and str(value) != "spice"
    ]


def _mapped(vm: Vm) -> list[str]:
    names = (name for name, value in sorted(vm.config.items()) if options.is_mapped(name, value))
    return list(names)


def _reason(call: Call, vm: Vm, node: str) -> dict[str, Any]:
    """Return why the VM cannot migrate to a node; empty when it can."""
    storages = call.emulator.state.storages
    needed = {parse_volid(drive["file"]).storage for _, drive in drives.of(vm.config) if ":" in drive["file"]}
    missing = sorted(name for name in needed if node not in (storages[name].nodes or [node]))
    return {"unavailable_storages": missing} if missing else {}


@route("GET", _PATH)
def preconditions(call: Call) -> Any:
    """Return what prevents a migration."""
    state, vm = call.emulator.state, call.emulator.state.vm(call.vmid)
    others = [node for node in state.nodes if node != vm.node]
    refused = {node: why for node in others if (why := _reason(call, vm, node))}
    named = {volid: name for name, snapshot in vm.snapshots.items() for volid in _volids(snapshot.config)}
    disks = []
    for key in sorted(vm.config):
        if not drives.is_drive(key) and not options.is_unused(key):
            continue
        drive = drives.parse(str(vm.config[key]))
        volume = call.emulator.volumes.find(drive["file"])
        if volume is None or call.emulator.volumes.storage(parse_volid(drive["file"]).storage).shared:
            continue
        unused = options.is_unused(key)
        flags = {
            "is_cloudinit": drives.is_cloudinit(drive),
            "is_unused": unused,
            "cdrom": drives.is_cdrom(drive),
            "is_attached": not unused,
        }
        row: dict[str, Any] = {
            "volid": drive["file"],
            "shared": 0,
            "replicate": 1,
            "is_vmstate": 0,
            "is_tpmstate": int(key == "tpmstate0"),
        }
        row.update({flag: int(value) for flag, value in flags.items()})
        if not unused:
            row.update(drivename=key, size=volume.size)
        if drive["file"] in named:
            row["referenced_in_snapshot"] = {
                n: 1 for n, s in vm.snapshots.items() if drive["file"] in _volids(s.config)
            }
        disks.append(row)
    answer: dict[str, Any] = {
        "running": int(vm.running),
        "local_disks": disks,
        "local_resources": _local_resources(vm),
        "mapped-resources": _mapped(vm),
    }
    if call.emulator.state.version >= 9:
        answer["has-dbus-vmstate"] = 1
    allowed = [node for node in others if node not in refused]
    return {**answer, "mapped-resource-info": {}, "allowed_nodes": allowed, "not_allowed_nodes": refused}


def _volids(config: dict[str, Any]) -> set[str]:
    return {drive["file"] for _, drive in drives.of(config)}


@route("POST", _PATH)
def migrate(call: Call) -> Any:
    state, target = call.emulator.state, call.params["target"]
    if target == call.emulator.state.name_of(call.node):
        raise ParameterError({"target": "target is local node."})
    if target not in state.nodes:
        raise ApiError(f"no such cluster node '{target}'")
    if call.params.get("force") and not call.user.is_root:
        raise ParameterError({"force": "Only root may use this option."})
    for storage in _targets(call).values():
        call.emulator.permissions.require(call.user, f"/storage/{storage}", ["Datastore.AllocateSpace"])
        call.emulator.volumes.storage(storage)
    call.emulator.require_unlocked(state.vm(call.vmid))
    if state.vm(call.vmid).running and not call.params.get("online"):
        raise ApiError("can't migrate running VM without --online")
    return call.emulator.tasks.start("qmigrate", call.vmid, call.user, lambda task: _work(call, task))


def _targets(call: Call) -> dict[str, str]:
    """Return the target storage of each source storage; the key `*` stands for all others."""
    targets: dict[str, str] = {}
    for part in split_list(str(call.params.get("targetstorage", ""))):
        source, colon, target = part.partition(":")
        if colon:
            targets[source] = target
        elif part != "1":
            targets["*"] = part
    return targets


def _work(call: Call, task: Task) -> None:
    state, target = call.emulator.state, call.params["target"]
    with call.emulator.locks.config(call.vmid):
        vm = state.vm(call.vmid)
        call.emulator.require_unlocked(vm)
        address = state.nodes[target].get("ip", "127.0.0.1")
        task.write(f"starting migration of VM {vm.vmid} to node '{target}' ({address})")
        _require_movable(call, vm, target)
        vm.config["lock"] = "migrate"
        try:
            _move_disks(call, vm, task)
            if vm.running:
                task.write(f"starting online/live migration on unix:/run/qemu-server/{vm.vmid}.migrate")
                memory = int(str(vm.config.get("memory", 512)).removeprefix("current="))
                task.pace(lambda part: f"migration active, transferred {memory * part:.1f} MiB of {memory}.0 MiB")
            task.linger()
        except ApiError:
            del vm.config["lock"]
            task.write("migration aborted")
            raise
        del vm.config["lock"]
        vm.node = target
        task.write("migration finished successfully (duration 00:00:01)")


def _require_movable(call: Call, vm: Vm, target: str) -> None:
    resources = _local_resources(vm)
    if resources:
        raise ApiError(f"can't migrate VM which uses local devices: {', '.join(resources)}")
    if vm.running and _mapped(vm):
        raise ApiError(f"can't migrate running VM which uses following mapped devices: {', '.join(_mapped(vm))}")
    if vm.running and _local_disks(call, vm) and not call.params.get("with-local-disks"):
        names = ", ".join(name for name, _ in _local_disks(call, vm))
        raise ApiError(f"can't live migrate attached local disks without with-local-disks option ({names})")
    reason, mapped = _reason(call, vm, target), _targets(call)
    for storage in reason.get("unavailable_storages", []):
        if not (mapped.get(storage) or mapped.get("*")):
            raise ApiError(f"storage '{storage}' is not available on node '{target}'")


def _move_disks(call: Call, vm: Vm, task: Task) -> None:
    mapped = _targets(call)
    for name, drive in _local_disks(call, vm):
        volid = drive["file"]
        storage = parse_volid(volid).storage
        destination = mapped.get(storage) or mapped.get("*") or storage
        task.write(f"found local disk '{volid}' (attached)", f"copying local disk images to {destination}")
        total = call.emulator.volumes.get(volid).size
        if destination != storage and not drives.is_cdrom(drive):
            made = moved(call, vm, volid, destination, None, task)
            call.emulator.volumes.remove(volid)
            vm.config[name] = drives.write({**drive, "file": made})
        else:
            task.pace(_share(name, total))


def _share(name: str, total: int) -> Callable[[float], str]:
    return lambda part: f"{name}: transferred {int(total * part)} of {total} bytes ({part * 100:.2f}%)"
