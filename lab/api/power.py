"""Power: start, stop, shutdown, reboot, reset, pause."""

import re
import time
from typing import Any

from lab.api import cloudinit, drives, options
from lab.api.agent import is_configured
from lab.api.changes import Change
from lab.api.errors import ApiError, ParameterError
from lab.api.resources import memory_bytes
from lab.api.routes import Call, route
from lab.api.state import Vm
from lab.api.tasks import Task
from lab.api.volumes import parse_volid
from lab.backend import AgentAbsent

_STATUS = "/nodes/{node}/qemu/{vmid}/status"
SHUTDOWN_SECONDS = 60
PING_SECONDS = 3.0
_QUIT_FAILED = "VM quit/powerdown failed - got timeout"


def _require_root_to_skip(call: Call) -> None:
    if call.params.get("skiplock") and not call.user.is_root:
        raise ParameterError({"skiplock": "Only root may use this option."})


def _require_running(call: Call) -> Vm:
    vm = call.emulator.state.vms.get(call.vmid)
    if vm is None or not vm.running:
        raise ApiError(f"VM {call.vmid} not running")
    return vm


def _require_unlocked(call: Call, vm: Vm) -> None:
    if not call.params.get("skiplock"):
        call.emulator.require_unlocked(vm)


def start_vm(call: Call, vmid: int, task: Task) -> None:
    """Switch the VM on, with what was pending; its lock is held."""
    vm = call.emulator.state.vm(vmid)
    if vm.is_template:
        raise ApiError("you can't start a vm if it's a template")
    if vm.config.get("lock") == "suspended":
        _take_up(call, vm, task)
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
    vm.on_drive.clear()
    call.emulator.backend.start(vmid, dict(vm.config), files)
    vm.running, vm.paused = True, False
    vm.started, vm.pid = call.emulator.state.clock.now(), call.emulator.tasks.next_pid()


def _take_up(call: Call, vm: Vm, task: Task) -> None:
    """What was suspended to disk goes on; its state is used up."""
    task.write("Resuming suspended VM")
    del vm.config["lock"]
    call.emulator.volumes.remove(str(vm.config.pop("vmstate")))


def _off(vm: Vm) -> None:
    vm.running = vm.paused = False
    vm.pid = 0
    vm.on_drive.clear()


@route("POST", f"{_STATUS}/start")
def start(call: Call) -> Any:
    _require_root_to_skip(call)

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            start_vm(call, call.vmid, task)

    return call.emulator.tasks.start("qmstart", call.vmid, call.user, work)


@route("POST", f"{_STATUS}/stop")
def stop(call: Call) -> Any:
    """Pull the plug. `overrule-shutdown` ends shutdowns that hold the lock."""
    _require_root_to_skip(call)

    def work(task: Task) -> None:
        if call.params.get("overrule-shutdown"):
            for shutting in call.emulator.tasks.running("qmshutdown", call.vmid):
                call.emulator.tasks.end(shutting, "unexpected status")
                call.emulator.backend.stop(call.vmid)
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.find_vm(call.vmid)
            if vm.running:
                _require_unlocked(call, vm)
                call.emulator.backend.stop(call.vmid)
                _off(vm)

    return call.emulator.tasks.start("qmstop", call.vmid, call.user, work)


def _shut_down(call: Call, vm: Vm, task: Task, timeout: float, *, force: bool) -> None:
    """Ask the agent, else ACPI; wait; with `force` stop what does not."""
    backend = call.emulator.backend
    if is_configured(vm.config):
        try:
            if call.emulator.faults.agent_silent(vm.vmid):
                raise AgentAbsent
            backend.agent(vm.vmid, "ping", {})
        except AgentAbsent:
            time.sleep(PING_SECONDS)
            protocol = "qga" if call.emulator.state.version >= 9 else "qmp"
            why = f"VM {vm.vmid} {protocol} command 'guest-ping' failed - got timeout"
            task.write(f"QEMU Guest Agent is not running - {why}")
    if not backend.shutdown(vm.vmid, timeout):
        if not force:
            raise ApiError(_QUIT_FAILED)
        task.write("VM still running - terminating now with SIGTERM")
        backend.stop(vm.vmid)
    _off(vm)


def _timeout(call: Call, vm: Vm) -> float:
    down = re.search(r"down=(\d+)", str(vm.config.get("startup", "")))
    return float(call.params.get("timeout", int(down[1]) if down else SHUTDOWN_SECONDS))


@route("POST", f"{_STATUS}/shutdown")
def shutdown(call: Call) -> Any:
    _require_root_to_skip(call)
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
    """Shut down and start again, so that pending changes take effect."""
    if _require_running(call).paused:
        raise ApiError("VM is paused - cannot shutdown")

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.find_vm(call.vmid)
            call.emulator.require_unlocked(vm)
            _shut_down(call, vm, task, _timeout(call, vm), force=False)
            start_vm(call, call.vmid, Task(task.upid))

    return call.emulator.tasks.start("qmreboot", call.vmid, call.user, work)


@route("POST", f"{_STATUS}/reset")
def reset(call: Call) -> Any:
    _require_root_to_skip(call)
    _require_running(call)

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.find_vm(call.vmid)
            _require_unlocked(call, vm)
            call.emulator.backend.reset(call.vmid)

    return call.emulator.tasks.start("qmreset", call.vmid, call.user, work)


def _set_paused(call: Call, kind: str, paused: bool) -> str:
    _require_root_to_skip(call)
    _require_running(call)

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = call.emulator.state.find_vm(call.vmid)
            _require_unlocked(call, vm)
            vm.paused = paused

    return call.emulator.tasks.start(kind, call.vmid, call.user, work)


@route("POST", f"{_STATUS}/suspend")
def suspend(call: Call) -> Any:
    """Pause, or write the memory to disk and switch off. (Machines behind it go on running, or boot anew.)"""
    return _to_disk(call) if call.params.get("todisk") else _set_paused(call, "qmpause", True)


def _to_disk(call: Call) -> str:
    _require_root_to_skip(call)
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
            volumes, first = call.emulator.volumes, next(iter(drives.of(vm.config)), None)
            chosen = call.params.get("statestorage") or vm.config.get("vmstatestorage")
            storage = volumes.storage(chosen or (parse_volid(first[1]["file"]).storage if first else "local"))
            when = time.strftime("%Y-%m-%d", time.gmtime(call.emulator.state.clock.now()))
            size = 2 * memory_bytes(vm) + (500 << 20)
            name = f"vm-{vm.vmid}-state-suspend-{when}"
            vm.config["lock"] = "suspending"
            vm.config["vmstate"] = volumes.allocate(storage, vm.vmid, size, "raw", name=name)
            task.write("saving VM state and RAM using storage " + f"'{storage.name}'")
            task.linger()
            call.emulator.backend.stop(vm.vmid)
            _off(vm)
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
