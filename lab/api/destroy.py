"""Removing virtual machines."""

from typing import Any

from lab.api import drives, options
from lab.api.errors import ApiError, ParameterError
from lab.api.routes import Call, route
from lab.api.state import Vm
from lab.api.tasks import Task
from lab.api.volumes import parse_volid


def _owned(vm: Vm) -> list[str]:
    """Volumes of the VM itself that its configuration or its snapshots name."""
    found: dict[str, None] = {}
    for config in [vm.config, *(snapshot.config for snapshot in vm.snapshots.values())]:
        found.update(dict.fromkeys(drive["file"] for _, drive in drives.of(config)))
        found.update(dict.fromkeys(str(value) for name, value in sorted(config.items()) if options.is_unused(name)))
    return [volid for volid in found if ":" in volid and parse_volid(volid).vmid == vm.vmid]


@route("DELETE", "/nodes/{node}/qemu/{vmid}")
def destroy(call: Call) -> Any:
    state, vmid = call.emulator.state, call.vmid
    if call.params.get("skiplock") and not call.user.is_root:
        raise ParameterError({"skiplock": "Only root may use this option."})

    def checked() -> Vm:
        vm = state.vm(vmid)
        if vm.config.get("protection"):
            raise ApiError(f"can't remove VM {vmid} - protection mode enabled")
        if vm.running:
            raise ApiError(f"VM {vmid} is running - destroy failed")
        return vm

    def work(task: Task) -> None:
        with call.emulator.locks.config(vmid):
            vm = checked()
            if not call.params.get("skiplock"):
                call.emulator.require_unlocked(vm)
            _remove(call, vm, task)

    checked()
    return call.emulator.tasks.start("qmdestroy", vmid, call.user, work)


def _remove(call: Call, vm: Vm, task: Task) -> None:
    state, volumes = call.emulator.state, call.emulator.volumes
    owned = _owned(vm)
    for volid in owned:
        if volid.partition(":")[0] in state.storages and volumes.is_in_use(volid):
            raise ApiError(f"base volume '{volid}' is still in use by linked cloned")
    for volid in owned + (volumes.of_vm(vm.vmid) if call.params.get("destroy-unreferenced-disks") else []):
        try:
            volumes.remove(volid)
        except ApiError as error:
            task.warn(f"Could not remove disk '{volid}', check manually: {error.message}")
    if call.params.get("purge"):
        task.write(f"purging VM {vm.vmid} from related configurations..")
    state.acl[:] = [row for row in state.acl if row["path"] != f"/vms/{vm.vmid}"]
    for about in state.pools.values():
        about["members"] = [member for member in about.get("members", []) if int(member) != vm.vmid]
    task.linger()
    del state.vms[vm.vmid]
