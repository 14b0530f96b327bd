"""Removing guests: deletes the guest's own volumes that its configuration names and leaves all others.

After `destroy_vm` of PVE::QemuServer and `destroy_lxc_container` of PVE::LXC: pending changes count as well, and from
snapshots only the memory. A volume that only a snapshot names is not deleted.
"""

import re
from collections.abc import Iterator
from typing import Any

from lab.api import drives, options
from lab.api.containers import BASE as CONTAINER
from lab.api.containers import container
from lab.api.errors import ApiError, ParameterError
from lab.api.routes import Call, route
from lab.api.state import Config, Vm
from lab.api.tasks import Task
from lab.api.volumes import parse_volid

_MOUNT = re.compile(r"rootfs|mp\d+")


def _named(vm: Vm) -> Iterator[str]:
    """List what is deleted with the guest, whoever owns it, once for each mention."""
    for config in (vm.config, vm.pending):
        yield from _in_config(config) if vm.type == "qemu" else _in_container(config)
    for snapshot in vm.snapshots.values() if vm.type == "qemu" else ():
        if "vmstate" in snapshot.config:
            yield str(snapshot.config["vmstate"])


def _in_config(config: Config) -> Iterator[str]:
    """List disks, unused disks, the cloud-init drive and the saved memory; other CD-ROMs are skipped."""
    for _, drive in drives.of(config):
        if not drives.is_cdrom(drive) or drives.is_cloudinit(drive):
            yield drive["file"]
    yield from (str(config[name]).split(",")[0] for name in sorted(config) if options.is_unused(name))
    if "vmstate" in config:
        yield str(config["vmstate"])


def _in_container(config: Config) -> Iterator[str]:
    for name in sorted(config):
        if _MOUNT.fullmatch(name) or options.is_unused(name):
            yield drives.parse(str(config[name]))["file"]


def owned(vm: Vm) -> list[str]:
    """List the guest's own volumes that are deleted with it. Paths on the node and other guests' volumes stay."""
    volids = dict.fromkeys(volid for volid in _named(vm) if ":" in volid and not volid.startswith("/"))
    return [volid for volid in volids if parse_volid(volid).vmid == vm.vmid]


@route("DELETE", "/nodes/{node}/qemu/{vmid}")
def destroy(call: Call) -> Any:
    vmid = call.vmid
    if call.params.get("skiplock") and not call.user.is_root:
        raise ParameterError({"skiplock": "Only root may use this option."})

    def checked() -> Vm:
        vm = call.emulator.state.vm(vmid)
        if vm.config.get("protection"):
            raise ApiError(f"can't remove VM {vmid} - protection mode enabled")
        if vm.running:
            raise ApiError(f"VM {vmid} is running - destroy failed")
        return vm

    def work(task: Task) -> None:
        with call.emulator.locks.config(vmid):
            vm = checked()
            if not call.params.get("skiplock") and call.emulator.lock_of(vm) != "suspended":
                call.emulator.require_unlocked(vm)
            _remove(call, vm, task)

    checked()
    return call.emulator.tasks.start("qmdestroy", vmid, call.user, work)


@route("DELETE", CONTAINER)
def destroy_container(call: Call) -> Any:
    def checked() -> Vm:
        vm = container(call)
        if vm.config.get("protection"):
            raise ApiError(f"can't remove CT {vm.vmid} - protection mode enabled")
        if lock := call.emulator.lock_of(vm):
            raise ApiError(f"CT is locked ({lock})")
        if vm.running and not call.params.get("force"):
            raise ApiError(f"CT {vm.vmid} is running - destroy failed")
        return vm

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            _remove(call, checked(), task)

    checked()
    return call.emulator.tasks.start("vzdestroy", call.vmid, call.user, work)


def _remove(call: Call, vm: Vm, task: Task) -> None:
    state, volumes = call.emulator.state, call.emulator.volumes
    mine = owned(vm)
    for volid in mine:
        if vm.is_template and volid.partition(":")[0] in state.storages and volumes.is_in_use(volid):
            raise ApiError(f"base volume '{volid}' is still in use by linked cloned")
    for volid in mine:
        if volid.partition(":")[0] not in state.storages:
            why = f"storage '{volid.partition(':')[0]}' does not exist"
            task.warn(f"failed to get path and owner of volume '{volid}': {why}")
            continue
        _free(call, task, volid, f"Could not remove disk '{volid}', check manually: ")
        for name in vm.snapshots:
            call.emulator.backend.delete_volume(f"{volid}@{name}")
    for volid in volumes.of_vm(vm.vmid) if call.params.get("destroy-unreferenced-disks") else []:
        _free(call, task, volid)
    task.linger()
    # until everything else is done, a configuration with only this lock remains, without the guest's rights
    vm.config, vm.pending, vm.pending_delete, vm.snapshots = {"lock": "destroyed"}, {}, set(), {}
    state.acl[:] = [row for row in state.acl if row["path"] != f"/vms/{vm.vmid}"]
    if call.params.get("purge"):
        task.write(f"purging {'VM' if vm.type == 'qemu' else 'CT'} {vm.vmid} from related configurations..")
    for pool in state.pools.values():
        pool["members"] = [member for member in pool.get("members", []) if int(member) != vm.vmid]
    del state.vms[vm.vmid]


def _free(call: Call, task: Task, volid: str, what: str = "") -> None:
    try:
        call.emulator.volumes.remove(volid)
    except ApiError as error:
        task.warn(f"{what}{error.message}")
