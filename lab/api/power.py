"""Power: start, stop, shutdown, reboot, reset, pause."""

import re
import time
from typing import Any

from lab.api import cloudinit, drives, memory_state, options
from lab.api.agent import is_configured
from lab.api.changes import Change
from lab.api.errors import ApiError, ParameterError
from lab.api.routes import Call, route
from lab.api.state import Vm
from lab.api.tasks import Task
from lab.api.volumes import parse_volid
from lab.backend import AgentAbsent

_STATUS = "/nodes/{node}/qemu/{vmid}/status"
SHUTDOWN_SECONDS = 60
PING_SECONDS = 3.0
_QUIT_FAILED = "VM quit/powerdown failed - got timeout"
_TERMINATED = "VM still running - terminating now with SIGTERM"
_OF_A_MIGRATION = ("migratedfrom", "migration_type", "migration_network", "targetstorage")


def _require_root_for(call: Call, *options: str) -> None:
    """Raise ParameterError for options of root alone; a token is not root."""
    for name in options:
        if call.params.get(name) and not call.user.is_root:
            raise ParameterError({name: "Only root may use this option."})


def _require_running(call: Call) -> Vm:
    vm = call.emulator.state.find_vm(call.vmid)
    if not vm.running:
        raise ApiError(f"VM {call.vmid} not running")
    return vm


def _require_unlocked(call: Call, vm: Vm) -> None:
    if not call.params.get("skiplock"):
        call.emulator.require_unlocked(vm)


def start_vm(call: Call, vmid: int, task: Task) -> None:
    """Start the VM with its pending changes, while its lock is held. A VM suspended to disk resumes."""
    vm = call.emulator.state.vm(vmid)
    if vm.is_template:
        raise ApiError("you can't start a vm if it's a template")
    suspended = vm.config.get("lock") == "suspended"
    if suspended:
        task.write("Resuming suspended VM")
    else:
        _require_unlocked(call, vm)
    if vm.running:
        raise ApiError(f"VM {vmid} already running")
    Change(call, vm, task.write).apply_pending()
    bridges = call.emulator.state.nodes[vm.node].get("bridges")
    for _, drive in drives.of(vm.config):
        if ":" in drive["file"]:
            call.emulator.volumes.activated(parse_volid(drive["file"]).storage)
            call.emulator.volumes.get(drive["file"])
    files = None
    if drives.cloudinit_of(vm.config):
        task.write(*cloudinit.warnings(vm.config), "generating cloud-init ISO")
        files = cloudinit.files(call.emulator.state, vm)
    for name in filter(options.is_network, sorted(vm.config)):
        bridge = options.network(call, name, str(vm.config[name])).get("bridge")
        if bridge and bridges is not None and bridge not in bridges:
            raise ApiError(f"bridge '{bridge}' does not exist")
    _require_machine(call, vm)
    vm.on_drive.clear()
    call.emulator.backend.start(vmid, dict(vm.config), files)
    vm.running, vm.paused = True, False
    vm.started, vm.pid = call.emulator.state.clock.now(), call.emulator.tasks.next_pid()
    if suspended:
        _use_up(call, vm, task)


def switched_off(call: Call, vm: Vm, task: Task) -> None:
    """Record that the VM's QEMU has ended, while its lock is held; pending changes apply where they can."""
    call.emulator.switched_off(vm)
    try:
        Change(call, vm, task.write).apply_pending()
    except ApiError as error:
        task.write(error.message)


def _require_machine(call: Call, vm: Vm) -> None:
    """Raise ApiError for a machine type newer than the node's QEMU."""
    machine = str(call.params.get("machine") or vm.config.get("machine") or "").split(",")[0].removeprefix("type=")
    version, qemu = re.search(r"-(\d+)\.(\d+)", machine), call.emulator.state.qemu
    if version and (int(version[1]), int(version[2])) > tuple(map(int, qemu.split(".")[:2])):
        why = f"Installed QEMU version '{qemu}' is too old to run machine type '{machine}'"
        raise ApiError(f"{why}, please upgrade node '{vm.node}'")


def _use_up(call: Call, vm: Vm, task: Task) -> None:
    """Delete the saved memory after it has been read."""
    memory_state.load(vm.config, task.write)
    volid = str(vm.config["vmstate"])
    task.write(f"activating and using '{volid}' as vmstate", "Resumed VM, removing state")
    vm.config = memory_state.without({key: value for key, value in vm.config.items() if key != "lock"})
    call.emulator.volumes.remove(volid)


@route("POST", f"{_STATUS}/start")
def start(call: Call) -> Any:
    _require_root_for(call, *_OF_A_MIGRATION, "stateuri", "force-cpu", "skiplock")

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            start_vm(call, call.vmid, task)

    return call.emulator.tasks.start("qmstart", call.vmid, call.user, work)


@route("POST", f"{_STATUS}/stop")
def stop(call: Call) -> Any:
    """Stop the VM immediately. `overrule-shutdown` ends shutdown tasks that hold the lock."""
    _require_root_for(call, "skiplock", "keepActive", "migratedfrom")

    def work(task: Task) -> None:
        if call.params.get("overrule-shutdown"):
            overruled = call.emulator.tasks.running("qmshutdown", call.vmid)
            for shutting in overruled:
                call.emulator.tasks.interrupt(shutting, SHUTDOWN_SECONDS)
            if overruled:
                task.write(f"overruled qmshutdown tasks: {', '.join(each.upid for each in overruled)}")
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.find_vm(call.vmid)
            if vm.running:
                _require_unlocked(call, vm)
                if call.params.get("timeout") == 0:
                    task.write(_TERMINATED)
                call.emulator.backend.stop(call.vmid)
                switched_off(call, vm, task)

    return call.emulator.tasks.start("qmstop", call.vmid, call.user, work)


def _shut_down(call: Call, vm: Vm, task: Task, timeout: float, *, force: bool) -> None:
    """Ask the agent, otherwise ACPI, and wait; with `force`, stop the VM if it does not shut down."""
    backend = call.emulator.backend
    if is_configured(vm.config):
        try:
            if call.emulator.faults.agent_silent(vm.vmid):
                raise AgentAbsent
            backend.agent(vm.vmid, "ping", {})
        except AgentAbsent:
            task.sleep(PING_SECONDS)
            protocol = "qga" if call.emulator.state.version >= 9 else "qmp"
            why = f"VM {vm.vmid} {protocol} command 'guest-ping' failed - got timeout"
            task.write(f"QEMU Guest Agent is not running - {why}")
    if not backend.shutdown(vm.vmid, timeout, task.checkpoint):
        if not force:
            raise ApiError(_QUIT_FAILED)
        task.write(_TERMINATED)
        backend.stop(vm.vmid)
    switched_off(call, vm, task)


def _timeout(call: Call, vm: Vm) -> float:
    down = re.search(r"down=(\d+)", str(vm.config.get("startup", "")))
    return float(call.params.get("timeout", int(down[1]) if down else SHUTDOWN_SECONDS))


@route("POST", f"{_STATUS}/shutdown")
def shutdown(call: Call) -> Any:
    _require_root_for(call, "skiplock", "keepActive")
    force = bool(call.params.get("forceStop"))
    present = call.emulator.state.vms.get(call.vmid)
    if present and present.paused and not force:
        raise ApiError("VM is paused - cannot shutdown")

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.find_vm(call.vmid)
            if vm.running:
                _require_unlocked(call, vm)
                _shut_down(call, vm, task, _timeout(call, vm), force=force)

    return call.emulator.tasks.start("qmshutdown", call.vmid, call.user, work)


@route("POST", f"{_STATUS}/reboot")
def reboot(call: Call) -> Any:
    """Shut down; qmeventd then starts the VM in another task, so that pending changes take effect."""
    if _require_running(call).paused:
        raise ApiError("VM is paused - cannot shutdown")

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.find_vm(call.vmid)
            if not vm.running:
                return
            call.emulator.require_unlocked(vm)
            vm.reboots = True
            try:
                _shut_down(call, vm, task, _timeout(call, vm), force=False)
            except BaseException:
                vm.reboots = False
                raise

    return call.emulator.tasks.start("qmreboot", call.vmid, call.user, work)


@route("POST", f"{_STATUS}/reset")
def reset(call: Call) -> Any:
    _require_root_for(call, "skiplock")
    _require_running(call)

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.find_vm(call.vmid)
            _require_unlocked(call, vm)
            call.emulator.backend.reset(call.vmid)

    return call.emulator.tasks.start("qmreset", call.vmid, call.user, work)


def _set_paused(call: Call, kind: str, paused: bool) -> str:
    """Set the pause state; allowed during a backup, unlike under other locks."""
    _require_root_for(call, "skiplock", "nocheck")
    _require_running(call)

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.find_vm(call.vmid)
            if call.emulator.lock_of(vm) != "backup":
                _require_unlocked(call, vm)
            vm.paused = paused

    return call.emulator.tasks.start(kind, call.vmid, call.user, work)


@route("POST", f"{_STATUS}/suspend")
def suspend(call: Call) -> Any:
    """Pause, or write the memory to disk and switch off. Machines behind the lab keep running, or boot again."""
    if call.params.get("statestorage") and "todisk" not in call.params:
        raise ParameterError({"todisk": "missing property - 'statestorage' requires this property"})
    return _to_disk(call) if call.params.get("todisk") else _set_paused(call, "qmpause", True)


def _to_disk(call: Call) -> str:
    _require_root_for(call, "skiplock")
    call.emulator.permissions.require(call.user, f"/vms/{call.vmid}", ["VM.Config.Disk"])
    if "statestorage" in call.params:
        call.emulator.permissions.require(
            call.user, f"/storage/{call.params['statestorage']}", ["Datastore.AllocateSpace"]
        )
    _require_running(call)

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.find_vm(call.vmid)
            _require_unlocked(call, vm)
            when = time.strftime("%Y-%m-%d", time.gmtime(call.emulator.state.clock.now()))
            chosen = call.params.get("statestorage")
            vm.config["lock"] = "suspending"
            saved = memory_state.save(call, vm, f"suspend-{when}", task.write, storage=chosen, quiet=True)
            vm.config.update(saved)
            task.linger()
            call.emulator.backend.stop(vm.vmid)
            call.emulator.switched_off(vm)
            vm.config["lock"] = "suspended"
            task.write("State saved, quitting")

    return call.emulator.tasks.start("qmsuspend", call.vmid, call.user, work)


@route("POST", f"{_STATUS}/resume")
def resume(call: Call) -> Any:
    vm = call.emulator.state.vms.get(call.vmid)
    if vm is not None and vm.config.get("lock") == "suspended":

        def work(task: Task) -> None:
            with call.emulator.locks.config(call.vmid):
                start_vm(call, call.vmid, task)

        return call.emulator.tasks.start("qmresume", call.vmid, call.user, work)
    return _set_paused(call, "qmresume", False)
