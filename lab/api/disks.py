"""Moving a disk to another storage."""

from typing import Any

from lab.api import drives, options
from lab.api.errors import ApiError, ParameterError
from lab.api.reassign import STALE, reassign
from lab.api.routes import Call, route
from lab.api.state import Vm
from lab.api.tasks import Task
from lab.api.volumes import parse_volid


@route("POST", "/nodes/{node}/qemu/{vmid}/move_disk")
def move_disk(call: Call) -> Any:
    other, place = call.params.get("target-vmid"), call.params.get("storage")
    if other is None and place is None:
        why = "both 'storage' and 'target-vmid' missing, either needs to be set"
        raise ParameterError({"storage": why, "target-vmid": why})
    if other is not None and place is not None:
        why = "either set 'storage' or 'target-vmid', but not both"
        raise ParameterError({"storage": why, "target-vmid": why})
    return reassign(call, int(other)) if other is not None else _move(call, str(place))


def _move(call: Call, place: str) -> str:
    name, storage = call.params["disk"], call.emulator.volumes.storage(place)
    call.emulator.permissions.require(call.user, f"/storage/{storage.name}", ["Datastore.AllocateSpace"])
    if "images" not in storage.content.split(","):
        raise ParameterError({"storage": f"storage '{storage.name}' does not support vm images"})
    form = call.params.get("format")

    def checked() -> tuple[Vm, drives.Drive]:
        vm, drive = _disk(call, name)
        parsed, source_storage = (
            parse_volid(drive["file"]),
            call.emulator.volumes.storage(parse_volid(drive["file"]).storage),
        )
        known = call.emulator.volumes.get(drive["file"]).format if source_storage.on_files else None
        if parsed.storage == storage.name and (not form or not known or form == known):
            raise ApiError("you can't move to the same storage with same format")
        if call.params.get("delete") and _in_a_snapshot(vm, drive["file"]):
            raise ApiError("you can't move a disk with snapshots and delete the source")
        return vm, drive

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm, drive = checked()
            source = drive["file"]
            here = parse_volid(source).storage
            task.write(f"copying volume '{source}' from current storage '{here}' to target storage '{storage.name}'")
            if vm.running and name == "tpmstate0":
                raise ApiError("cannot move TPM state while VM is running")
            task.write(f"create full clone of drive {name} ({source})")
            live = name if vm.running and not options.is_unused(name) else None
            try:
                volid = moved(call, vm, source, storage.name, form, task, live=live)
            except ApiError as error:
                raise ApiError(f"storage migration failed: {error}") from error
            drive["file"] = volid
            vm.config[name] = volid if options.is_unused(name) else drives.write(drive)
            if not call.params.get("delete"):
                kept = drives.add_unused(vm.config, source)
                task.write(f"adding source volume '{source}' as '{kept}' to config")
            else:
                task.write(f"removing source volume '{source}' after successful copy")
                call.emulator.volumes.remove(source)

    with call.emulator.locks.config(call.vmid):
        checked()
    return call.emulator.tasks.start("qmmove", call.vmid, call.user, work)


def _disk(call: Call, name: str) -> tuple[Vm, drives.Drive]:
    """Return the VM, checked for digest and lock, and its disk of that name, used or unused."""
    vm = call.emulator.state.vm(call.vmid)
    call.emulator.require_unlocked(vm)
    digest = call.params.get("digest")
    if digest and digest != vm.digest():
        raise ApiError(STALE)
    if name not in vm.config or not (drives.is_drive(name) or options.is_unused(name)):
        raise ApiError(f"disk '{name}' does not exist")
    drive = drives.parse(str(vm.config[name]))
    if drives.is_cdrom(drive):
        raise ApiError("you can't move a cdrom")
    return vm, drive


def _in_a_snapshot(vm: Vm, volid: str) -> bool:
    configs = (snapshot.config for snapshot in vm.snapshots.values())
    values = (str(value) for config in configs for name, value in config.items() if drives.is_drive(name))
    return any(drives.parse(value)["file"] == volid for value in values)


def moved(
    call: Call, vm: Vm, volid: str, storage: str, form: str | None, task: Task, *, live: str | None = None
) -> str:
    """Copy the volume to a storage under a new name, to which a running machine switches; the old one stays.

    `live` is the drive's name in the log when a machine runs on it. The machine keeps its open image: the copy is what
    remains under the old name.
    """
    volumes = call.emulator.volumes
    made = volumes.copy(volid, volumes.storage(storage), vm.vmid, form, task.write, task, mirror=live)
    if vm.running:
        volumes.swap(volid, made)
    return made
