"""The end of a VM's QEMU: qmeventd notices it, `qm cleanup` cleans up, and rebooting VMs are started.

A reboot is two tasks. The first ends when the VM is off; the second, by root@pam, starts it seconds later and may fail.
If a VM was started before `qm cleanup`, the cleanup waits up to half a minute for it to end while holding the
configuration's lock. In the lab the cleanup runs as soon as somebody reads the guest's status: requests follow each
other faster here than on a real server.
"""

import threading
import time
from typing import TYPE_CHECKING

from lab.api import power
from lab.api.errors import ApiError
from lab.api.permissions import User
from lab.api.routes import Call
from lab.api.state import Vm
from lab.api.tasks import Task

if TYPE_CHECKING:
    from lab.api.emulator import Emulator

ROOT = User("root@pam")
CLEANUP_LOCK_SECONDS = 60.0


class Qmeventd:
    """Created with each state, which sets the delays (`qmeventd`)."""

    def __init__(self, emulator: "Emulator") -> None:
        self._emulator, self._state, self._locks = emulator, emulator.state, emulator.locks
        self._times = emulator.state.qmeventd
        self._closed = threading.Event()
        # By VMID: the status was read, so the cleanup has had time to run.
        self._waiting: dict[int, tuple[threading.Event, threading.Event]] = {}

    def close(self) -> None:
        """Stop all cleanups and starts."""
        self._closed.set()
        for looked, _ in list(self._waiting.values()):
            looked.set()

    def ended(self, vm: Vm) -> None:
        """Record that the VM's QEMU has ended."""
        looked, had = self._waiting[vm.vmid] = threading.Event(), threading.Event()
        arguments = (vm, looked, had)
        threading.Thread(target=self._run, args=arguments, daemon=True, name=f"cleanup {vm.vmid}").start()

    def looked(self, vmid: int) -> None:
        """Record that a request has read the guest's status."""
        if waiting := self._waiting.get(vmid):
            waiting[0].set()
            waiting[1].wait(self._times["after"])

    def _run(self, vm: Vm, looked: threading.Event, had: threading.Event) -> None:
        looked.wait(self._times["after"])
        try:
            if not self._closed.is_set() and self._state.vms.get(vm.vmid) is vm:
                self._clean_up(vm, had)
        finally:
            had.set()
            if self._waiting.get(vm.vmid) == (looked, had):
                del self._waiting[vm.vmid]

    def _clean_up(self, vm: Vm, had: threading.Event) -> None:
        try:
            with self._locks.config(vm.vmid, CLEANUP_LOCK_SECONDS):
                if vm.running:
                    had.set()
                until = time.monotonic() + self._times["waits"]
                while vm.running and time.monotonic() < until:
                    if self._closed.wait(0.05):
                        return
                if vm.running:
                    return
                power.switched_off(self._call(vm), vm, Task(""))
                restarts, vm.reboots = vm.reboots, False
            had.set()
        except ApiError:  # somebody holds the lock for longer than that, so the rebooting VM stays off
            return
        if restarts and not self._closed.wait(self._times["restarts"]):
            self._start(vm)

    def _call(self, vm: Vm) -> Call:
        path = f"/nodes/{vm.node}/qemu/{vm.vmid}/status/start"
        return Call(self._emulator, ROOT, "POST", path, {"node": vm.node, "vmid": vm.vmid})

    def _start(self, vm: Vm) -> None:
        fault = self._emulator.faults.restart(vm.vmid)
        if fault is not None and (self._closed.wait(float(fault.get("seconds", 0))) or fault.get("never")):
            return
        call = self._call(vm)

        def work(task: Task) -> None:
            try:
                with self._locks.config(vm.vmid):
                    if fault is not None and "message" in fault:
                        raise ApiError(str(fault["message"]))
                    power.start_vm(call, vm.vmid, task)
            except ApiError:
                task.write("")  # the UPID of a command's task, not of an API task
                raise

        self._emulator.tasks.here.node = vm.node
        self._emulator.tasks.start("qmstart", vm.vmid, ROOT, work)
