"""What happens after a VM's QEMU has ended: qmeventd notices, `qm cleanup` tidies up, and starts those that reboot.

A reboot is two tasks. The first ends when the VM is off; the second, of root@pam, starts it again seconds later, and
may fail. A VM that was started before `qm cleanup` came makes that wait for it to end, the configuration's lock in its
hands, for half a minute. Here the cleanup comes at once when somebody looks at the guest: who does that takes his time,
and requests follow each other faster here than there.
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
    """Made anew with each state, which says how long all that takes (`qmeventd`)."""

    def __init__(self, emulator: "Emulator") -> None:
        self._emulator, self._state, self._locks = emulator, emulator.state, emulator.locks
        self._times = emulator.state.qmeventd
        self._closed = threading.Event()
        # By VMID: somebody looked, and the cleanup has had its turn.
        self._waiting: dict[int, tuple[threading.Event, threading.Event]] = {}

    def close(self) -> None:
        """Nothing is tidied up or started any more."""
        self._closed.set()
        for looked, _ in list(self._waiting.values()):
            looked.set()

    def ended(self, vm: Vm) -> None:
        """The VM's QEMU has ended."""
        looked, had = self._waiting[vm.vmid] = threading.Event(), threading.Event()
        arguments = (vm, looked, had)
        threading.Thread(target=self._run, args=arguments, daemon=True, name=f"cleanup {vm.vmid}").start()

    def looked(self, vmid: int) -> None:
        """Somebody looks at the guest."""
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
        except ApiError:  # somebody holds the lock for longer than that: a VM that reboots stays off
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
                task.write("")  # as the task of a command does, not that of the API
                raise

        self._emulator.tasks.here.node = vm.node
        self._emulator.tasks.start("qmstart", vm.vmid, ROOT, work)
