"""Growing disks."""

from typing import Any

from lab.api import drives
from lab.api.errors import ApiError, ParameterError
from lab.api.routes import Call, route
from lab.api.tasks import Task
from lab.api.volumes import parse_volid


@route("PUT", "/nodes/{node}/qemu/{vmid}/resize")
def resize(call: Call) -> Any:
    if call.params.get("skiplock") and not call.user.is_root:
        raise ParameterError({"skiplock": "Only root may use this option."})

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            _resize(call, task)

    return call.emulator.tasks.start("resize", call.vmid, call.user, work)


def _resize(call: Call, task: Task) -> None:
    vm, name, requested = call.emulator.state.vm(call.vmid), call.params["disk"], call.params["size"]
    digest = call.params.get("digest")
    if digest and digest != vm.digest():
        raise ApiError("checksum mismatch (file change by other user?)")
    if not call.params.get("skiplock"):
        call.emulator.require_unlocked(vm)
    if name not in vm.config:
        raise ApiError(f"disk '{name}' does not exist")
    drive = drives.parse(str(vm.config[name]))
    if drives.is_cdrom(drive):
        raise ApiError("you can't resize a cdrom")
    volid = drive["file"]
    volume = call.emulator.volumes.get(volid)
    size = drives.to_bytes(requested.removeprefix("+")) + (volume.size if requested.startswith("+") else 0)
    size += -size % 1024
    if size < volume.size:
        raise ApiError("shrinking disks is not supported")
    if size == volume.size:
        return
    storage = call.emulator.volumes.storage(parse_volid(volid).storage)
    if storage.on_files and parse_volid(volid).is_base:
        image = call.emulator.volumes.path(volid)
        preallocation = "'--preallocation=metadata' " if volume.format == "qcow2" else ""
        task.write(f"qemu-img: Could not open '{image}': Could not open '{image}': Operation not permitted")
        raise ApiError(
            f"command '/usr/bin/qemu-img resize {preallocation}-f {volume.format} {image} {size}' failed: exit code 1"
        )
    call.emulator.volumes.resize(volid, size)
    if storage.on_files and not vm.running:
        task.write("Image resized.")
    vm.config[name] = drives.write({**drive, "size": drives.to_text(size)})
