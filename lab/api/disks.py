"""Moving a disk: to another storage, or to another VM."""

from typing import Any

from lab.api import drives
from lab.api.errors import ApiError, ParameterError
from lab.api.routes import Call, route
from lab.api.state import Vm
from lab.api.tasks import Task
from lab.api.volumes import parse_volid


@route("POST", "/nodes/{node}/qemu/{vmid}/move_disk")
def move_disk(call: Call) -> Any:
    if call.params.get("target-vmid") is not None and call.params["target-vmid"] != call.vmid:
        return _reassign(call)
    if "storage" not in call.params:
        raise ParameterError({"storage": "missing storage or target-vmid"})
    name, storage = call.params["disk"], call.emulator.volumes.storage(call.params["storage"])
    call.emulator.permissions.require(call.user, f"/storage/{storage.name}", ["Datastore.AllocateSpace"])
    form = call.params.get("format")

    def checked() -> tuple[Vm, drives.Drive]:
        vm, drive = _disk(call, call.vmid, name)
        same = parse_volid(drive["file"]).storage == storage.name
        volume = call.emulator.volumes.get(drive["file"])
        if same and form in (None, volume.format):
            raise ApiError("you can't move to the same storage with same format")
        if call.params.get("delete") and _in_a_snapshot(vm, drive["file"]):
            raise ApiError("you can't move a disk with snapshots and delete the source")
        return vm, drive

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm, drive = checked()
            task.write("create full clone of drive " + f"{name} ({drive['file']})")
            volid = moved(call, vm, drive["file"], storage.name, form, task)
            vm.config[name] = drives.write({**drive, "file": volid})
            if not call.params.get("delete"):
                free = next(f"unused{n}" for n in range(256) if f"unused{n}" not in vm.config)
                vm.config[free] = drive["file"]
            else:
                call.emulator.volumes.remove(drive["file"])

    with call.emulator.locks.config(call.vmid):
        checked()
    return call.emulator.tasks.start("qmmove", call.vmid, call.user, work)


def _disk(call: Call, vmid: int, name: str) -> tuple[Vm, drives.Drive]:
    """The VM, as the caller knows it and not locked, and its disk of that name."""
    vm = call.emulator.state.vm(vmid)
    digest = call.params.get("digest")
    if digest and digest != vm.digest():
        raise ApiError("checksum mismatch (file change by other user?)")
    call.emulator.require_unlocked(vm)
    if name not in vm.config or not drives.is_drive(name):
        raise ApiError(f"disk '{name}' does not exist")
    drive = drives.parse(str(vm.config[name]))
    if drives.is_cdrom(drive):
        raise ApiError("you can't move a cdrom")
    return vm, drive


def _in_a_snapshot(vm: Vm, volid: str) -> bool:
    configs = (snapshot.config for snapshot in vm.snapshots.values())
    values = (str(value) for config in configs for name, value in config.items() if drives.is_drive(name))
    return any(drives.parse(value)["file"] == volid for value in values)


def moved(call: Call, vm: Vm, volid: str, storage: str, form: str | None, task: Task) -> str:
    """The volume's content under a new name on a storage, a running machine going on there; the old one stays.

    The machine keeps the image that it has open: what is left behind under the old name is the copy.
    """
    volumes = call.emulator.volumes
    made = volumes.copy(volid, volumes.storage(storage), vm.vmid, form, task.write, task)
    if vm.running:
        volumes.swap(volid, made)
    return made


def _reassign(call: Call) -> Any:
    """Give the disk to another VM of the same node; both are off."""
    other = int(call.params["target-vmid"])
    call.emulator.permissions.require(call.user, f"/vms/{other}", ["VM.Config.Disk"])
    name = call.params["disk"]
    target_name = call.params.get("target-disk", name)

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid), call.emulator.locks.config(other):
            vm, drive = _disk(call, call.vmid, name)
            target = call.emulator.state.vm(other)
            if vm.running or target.running:
                raise ApiError("cannot reassign a disk of a running VM")
            if target_name in target.config:
                raise ApiError(f"Target disk key '{target_name}' is already in use for VM '{other}'")
            storage = call.emulator.volumes.storage(parse_volid(drive["file"]).storage)
            volid = call.emulator.volumes.free_volid(storage, other, call.emulator.volumes.get(drive["file"]).format)
            call.emulator.volumes.rename(drive["file"], volid)
            task.write(f"moving disk '{name}' from VM '{vm.vmid}' to '{other}'")
            del vm.config[name]
            target.config[target_name] = drives.write({**drive, "file": volid})

    return call.emulator.tasks.start("qmmove", call.vmid, call.user, work)
