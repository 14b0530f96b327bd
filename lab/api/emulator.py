"""The emulated node: the state and everything that works on it, rebuilt at each reset."""

import threading
from collections.abc import Mapping
from typing import Any

from lab.api.auth import Authenticator
from lab.api.errors import ApiError
from lab.api.faults import Faults
from lab.api.locks import Locks
from lab.api.permissions import Permissions
from lab.api.qmeventd import Qmeventd
from lab.api.resources import Statistics
from lab.api.schema import Schema
from lab.api.state import State, Vm
from lab.api.tasks import Tasks
from lab.api.volumes import Volumes
from lab.backend import Backend


class Emulator:
    """One cluster. Handlers run in their own threads; `mutex` guards what must be atomic."""

    state: State
    schema: Schema
    locks: Locks
    tasks: Tasks
    volumes: Volumes
    permissions: Permissions
    statistics: Statistics
    qmeventd: Qmeventd

    def __init__(self, document: Mapping[str, Any], backend: Backend) -> None:
        self._document = document
        self.backend = backend
        self.mutex = threading.RLock()
        self.faults = Faults()
        # The fingerprint of the server's certificate, as lists and consoles show it.
        self.certificate = self.fingerprint = ""
        self.authenticator = Authenticator()
        self._build(document)
        backend.on_power_off(self._powered_off)

    def _build(self, document: Mapping[str, Any]) -> None:
        self.state = State(document)
        self.schema = Schema(self.state.version)
        self.locks = Locks(self.state.lock_seconds)
        self.locks.held = self.faults.file_held
        self.tasks = Tasks(self.state)
        self.locks.check, self.locks.tell = self.tasks.check_here, self.tasks.write_here
        self.tasks.fail_next = self.faults.task_failure
        self.tasks.kill_next = self.faults.kills
        self.tasks.lose_next = self.faults.loses
        self.volumes = Volumes(self.state, self.locks, self.backend, self.faults)
        self.permissions = Permissions(self.state)
        self.statistics = Statistics(self.state, self.faults)
        self.qmeventd = Qmeventd(self)

    def reset(self, patch: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Restore the start state with a merge patch that applies until the next reset; running tasks are ended.

        Returns that state.
        """
        self.qmeventd.close()
        self.tasks.interrupt_all(patience=1)
        for name in self.faults.active():
            self.faults.switch(name, False, {})
        self.backend.reset_all()
        document = merged(self._document, patch or {})
        self._build(document)
        return document

    def lock_of(self, vm: Vm) -> str | None:
        """Return the lock in a VM's configuration; a fault may hold one too."""
        lock = vm.config.get("lock") or self.faults.lock_of(vm.vmid)
        return str(lock) if lock else None

    def require_unlocked(self, vm: Vm) -> None:
        """Raise ApiError if the VM's configuration is locked."""
        lock = self.lock_of(vm)
        if lock:
            raise ApiError(f"VM is locked ({lock})")

    def switched_off(self, vm: Vm) -> None:
        """Record that the VM's QEMU has ended. A repeated report of the same end changes nothing."""
        with self.mutex:
            if not vm.running:
                return
            vm.running = vm.paused = False
            vm.pid = 0
            vm.on_drive.clear()
        self.qmeventd.ended(vm)

    def _powered_off(self, vmid: int) -> None:
        vm = self.state.vms.get(vmid)
        if vm and vm.running and not self.backend.running(vmid):
            self.switched_off(vm)


def merged(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Apply an RFC 7396 merge patch: objects are merged, null removes, other values replace."""
    result = dict(document)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            under = result.get(key)
            result[key] = merged(under if isinstance(under, dict) else {}, value)
        else:
            result[key] = value
    return result
