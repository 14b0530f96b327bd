"""New virtual machines, and their conversion to templates."""

import uuid
from typing import Any

from lab.api import drives, options
from lab.api.changes import make_drive, prepared, require_storages
from lab.api.errors import ApiError, PermissionDenied
from lab.api.power import start_vm
from lab.api.routes import Call, route
from lab.api.state import Vm
from lab.api.tasks import Killed, Task

_META = {
    *("node", "vmid", "pool", "storage", "start", "archive", "force", "unique", "bwlimit", "live-restore"),
    *("ha-managed", "import-working-storage", "acpi-hack"),
}


def require_allocate(call: Call, vmid: int, pool: str | None) -> None:
    """Require the right to create this VM, directly or through the pool."""
    permissions = call.emulator.permissions
    if pool is not None:
        permissions.require_pool(pool)
    if permissions.allowed(call.user, f"/vms/{vmid}", ["VM.Allocate"]):
        return
    if pool is None or not permissions.allowed(call.user, f"/pool/{pool}", ["VM.Allocate"]):
        raise PermissionDenied


def join_pool(call: Call, vmid: int, pool: str | None) -> None:
    if pool is not None:
        call.emulator.state.pools[pool].setdefault("members", []).append(vmid)


@route("POST", "/nodes/{node}/qemu")
def create(call: Call) -> Any:
    state, vmid, pool = call.emulator.state, call.vmid, call.params.get("pool")
    values = {name: value for name, value in call.params.items() if name not in _META}
    if "archive" in call.params:
        from lab.api.restore import restore  # which imports this module

        return restore(call, call.params["archive"])
    require_allocate(call, vmid, pool)
    if values.get("sshkeys"):
        options.require_ssh_keys(values["sshkeys"])
    if vmid in state.vms:
        raise ApiError(f"unable to create VM {vmid} - VM {vmid} already exists on node '{state.vms[vmid].node}'")
    options.require_privileges(call, vmid, values, pool)
    options.require_devices(call, values)
    require_storages(call, vmid, values)

    def work(task: Task) -> None:
        with call.emulator.locks.config(vmid, 1):
            vm = _reserve(call, vmid)
            try:
                _fill(call, vm, values, task)
            except Killed:
                raise  # a killed worker leaves its lock behind
            except BaseException as error:
                del state.vms[vmid]
                if isinstance(error, ApiError):
                    raise ApiError(f"unable to create VM {vmid} - {error.message}") from error
                raise
            join_pool(call, vmid, pool)
        if call.params.get("start"):
            with call.emulator.locks.config(vmid):
                start_vm(call, vmid, task)

    return call.emulator.tasks.start("qmcreate", vmid, call.user, work)


def _reserve(call: Call, vmid: int) -> Vm:
    """Reserve the VMID with a configuration that contains only the lock."""
    state = call.emulator.state
    with call.emulator.mutex:
        if vmid in state.vms:
            raise ApiError(f"unable to create VM {vmid}: config file already exists")
        state.vms[vmid] = Vm(vmid, "qemu", state.name_of(call.node), {"lock": "create"})
        return state.vms[vmid]


def _fill(call: Call, vm: Vm, values: dict[str, Any], task: Task) -> None:
    state, made = call.emulator.state, []
    try:
        config = prepared(call, values, creating=True)
        for name in sorted(filter(drives.is_drive, config)):
            config[name], volid = make_drive(call, vm.vmid, name, config[name], task.write)
            made += [volid] if volid else []
            task.checkpoint()
    except Killed:
        raise
    except BaseException:
        for volid in made:
            call.emulator.volumes.remove(volid)
        raise
    config.setdefault("smbios1", options.new_smbios())
    config.setdefault("vmgenid", str(uuid.uuid4()))
    config["meta"] = f"creation-qemu={state.qemu},ctime={state.clock.seconds()}"
    config.setdefault("boot", drives.default_boot(config))
    task.linger()
    vm.config = config


@route("POST", "/nodes/{node}/qemu/{vmid}/template")
def to_template(call: Call) -> Any:
    """Convert the VM to a template: its disks become bases that linked clones share."""
    chosen = call.params.get("disk")

    def checked() -> Vm:
        vm = call.emulator.state.vm(call.vmid)
        call.emulator.require_unlocked(vm)
        if vm.snapshots:
            raise ApiError("unable to create template, because VM contains snapshots")
        if vm.is_template and not chosen:
            raise ApiError("you can't convert a template to a template")
        if vm.running:
            raise ApiError(f"unable to create template, because VM {call.vmid} is running")
        return vm

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = checked()
            vm.config["template"] = 1
            for name, drive in list(drives.of(vm.config)):
                if not drives.is_cdrom(drive) and chosen in (None, name):
                    drive["file"] = call.emulator.volumes.to_base(drive["file"])
                    vm.config[name] = drives.write(drive)

    with call.emulator.locks.config(call.vmid):
        checked()
    return call.emulator.tasks.start("qmtemplate", call.vmid, call.user, work)
