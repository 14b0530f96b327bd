"""The node's lock files: one per VM configuration (shared or exclusive), one per storage."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.api.errors import ApiError

CLONE_SECONDS = 1.0
STORAGE_SECONDS = 60.0
_LOOK = 0.1  # how often a waiting task checks whether it has been ended


class _Flock:
    """A lock for one writer or many readers with a time-out, like flock(2) in a loop."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._readers, self._writer = 0, False

    def acquire(self, shared: bool, timeout: float, check: Callable[[], None] = lambda: None) -> bool:
        """Acquire the lock within `timeout` seconds. An exception from `check` ends the wait."""
        until = time.monotonic() + timeout

        def free() -> bool:
            return not self._writer and (shared or not self._readers)

        with self._condition:
            while not self._condition.wait_for(free, min(_LOOK, max(0, until - time.monotonic()))):
                check()
                if time.monotonic() >= until:
                    return False
            if shared:
                self._readers += 1
            else:
                self._writer = True
            return True

    def release(self, shared: bool) -> None:
        with self._condition:
            if shared:
                self._readers -= 1
            else:
                self._writer = False
            self._condition.notify_all()


class Locks:
    """Lock files by path. A wait beyond the time-out raises the real server's error."""

    def __init__(self, config_seconds: float = 10.0) -> None:
        self._config_seconds = config_seconds
        self._files: dict[str, _Flock] = {}
        self._mutex = threading.Lock()
        # Of the waiting task: `check` ends the wait by raising, `write` appends a line to its log.
        self.check: Callable[[], None] = lambda: None
        self.tell: Callable[[str], None] = lambda line: None
        # For how many more seconds another process holds the lock of a VM's configuration.
        self.held: Callable[[int], float] = lambda vmid: 0

    @contextmanager
    def _file(self, path: str, timeout: float, shared: bool) -> Iterator[float]:
        with self._mutex:
            lock = self._files.setdefault(path, _Flock())
        began = time.monotonic()
        if not lock.acquire(shared, 0):
            self.tell("trying to acquire lock...")
            if not lock.acquire(shared, timeout, self.check):
                raise ApiError(f"can't lock file '{path}' - got timeout")
            self.tell(" OK")
        try:
            yield time.monotonic() - began
        finally:
            lock.release(shared)

    @contextmanager
    def config(self, vmid: int, timeout: float | None = None, *, shared: bool = False) -> Iterator[None]:
        """Hold the lock of a VM's configuration file."""
        path, patience = f"/var/lock/qemu-server/lock-{vmid}.conf", timeout or self._config_seconds
        if held := self.held(vmid):
            self._wait(path, held, patience)
        with self._file(path, patience, shared):
            yield

    def _wait(self, path: str, held: float, patience: float) -> None:
        self.tell("trying to acquire lock...")
        until = time.monotonic() + min(held, patience)
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(_LOOK, left))
            self.check()
        if held > patience:
            raise ApiError(f"can't lock file '{path}' - got timeout")
        self.tell(" OK")

    @contextmanager
    def storage(self, storage: str) -> Iterator[None]:
        """Hold the lock under which a storage's volumes are created and removed."""
        with self._file(f"/var/lock/pve-manager/pve-storage-{storage}", STORAGE_SECONDS, False):
            yield

    @contextmanager
    def backup_job(self, node: str, timeout: float, wait: Callable[[str], None]) -> Iterator[None]:
        """Hold the node's lock of backup jobs, of which one runs at a time; `wait` is called when another one does."""
        path = "/var/run/vzdump.lock"
        with self._mutex:
            lock = self._files.setdefault(f"{node}:{path}", _Flock())
        if not lock.acquire(False, 0):
            if timeout <= 0:
                raise ApiError(f"can't acquire lock '{path}' (wait = 0)")
            wait("trying to get global lock - waiting...")
            if not lock.acquire(False, timeout):
                raise ApiError(f"can't acquire lock '{path}' - got timeout")
            wait("got global lock")
        try:
            yield
        finally:
            lock.release(False)
