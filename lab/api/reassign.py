"""Reassignment of a disk to another VM on the same node."""

from dataclasses import replace
from typing import Any

from lab.api import drives, options
from lab.api.changes import Change
from lab.api.errors import ApiError, ParameterError
from lab.api.routes import Call
from lab.api.state import Vm
from lab.api.tasks import Task
from lab.api.volumes import parse_volid

STALE = "detected modified configuration - file changed by other user? Try again."


def reassign(call: Call, other: int) -> Any:
    """Rename the disk's volume for the other VM and add it to that configuration; the source must be off."""
    call.emulator.permissions.require(call.user, f"/vms/{other}", ["VM.Config.Disk"])
    if other == call.vmid:
        raise ParameterError({"target-vmid": "must be different than source VMID to reassign disk"})
    name = call.params["disk"]
    target_key = call.params.get("target-disk", name)
    _, _, drive = _checked(call, other, name, target_key)
    place = parse_volid(drive["file"]).storage
    call.emulator.permissions.require(call.user, f"/storage/{place}", ["Datastore.AllocateSpace"])

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid), call.emulator.locks.config(other):
            vm, target, drive = _checked(call, other, name, target_key)
            task.write(f"reassign disk '{name}' from VM '{vm.vmid}' as '{target_key}' to VM '{other}'")
            task.write(f"removing disk '{name}' from VM '{vm.vmid}' config")
            volumes = call.emulator.volumes
            storage = volumes.storage(parse_volid(drive["file"]).storage)
            volid = volumes.free_volid(storage, other, volumes.get(drive["file"]).format)
            volumes.rename(drive["file"], volid)
            del vm.config[name]
            order = drives.boot_order(vm.config.get("boot"))
            if name in order:
                vm.config["boot"] = drives.boot_text(device for device in order if device != name)
            text = volid if options.is_unused(target_key) else drives.write({**drive, "file": volid})
            task.write(f"update VM {other}: -{target_key} {text}")
            if options.is_unused(target_key):
                target.config[target_key] = text
            else:
                Change(replace(call, params={**call.params, "vmid": other}), target, task.write).set({target_key: text})

    return call.emulator.tasks.start("qmmove", f"{call.vmid}-{name}>{other}-{target_key}", call.user, work)


def _checked(call: Call, other: int, name: str, target_key: str) -> tuple[Vm, Vm, drives.Drive]:
    """Return both VMs, checked for digest and lock, and the disk to reassign."""
    vms = call.emulator.state.vms
    for vmid, word in ((call.vmid, "VM"), (other, "target VM")):
        if vmid not in vms or vms[vmid].type != "qemu":
            raise ApiError(f"could not find {word} {vmid}")
    vm, target = vms[call.vmid], vms[other]
    if vm.node != target.node:
        raise ApiError(f"Both VMs need to be on the same node ({vm.node} != {target.node})")
    for each in (vm, target):
        call.emulator.require_unlocked(each)
    if vm.is_template or target.is_template:
        raise ApiError("Can't move disks from or to template VMs")
    for each, digest in ((vm, call.params.get("digest")), (target, call.params.get("target-digest"))):
        if digest and digest != each.digest():
            raise ApiError(f"VM {each.vmid}: {STALE}")
    if name not in vm.config:
        raise ApiError(f"Disk '{name}' for VM '{vm.vmid}' does not exist")
    if target_key in target.config:
        raise ApiError(f"Target disk key '{target_key}' is already in use for VM '{other}'")
    drive = drives.parse(str(vm.config[name]))
    if drives.is_cdrom(drive):
        raise ApiError("CD drive contents can't be moved to another VM")
    if vm.running and not options.is_unused(name):
        raise ApiError("Cannot move disk to another VM while the source VM is running - detach first")
    return vm, target, drive
