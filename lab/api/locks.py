"""The node's lock files: one for each VM's configuration (shared or exclusive), one for each storage."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lab.api.errors import ApiError

CONFIG_SECONDS = 10.0
CLONE_SECONDS = 1.0
STORAGE_SECONDS = 60.0


class _Flock:
    """A lock with one writer or many readers, and a time-out, as flock(2) in a loop gives it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._readers, self._writer = 0, False

    def acquire(self, shared: bool, timeout: float) -> bool:
        def free() -> bool:
            return not self._writer and (shared or not self._readers)

        with self._condition:
            if not self._condition.wait_for(free, timeout):
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
    """Lock files by path; waiting longer than the time-out is the error that the real server gives."""

    def __init__(self) -> None:
        self._files: dict[str, _Flock] = {}
        self._mutex = threading.Lock()

    @contextmanager
    def _file(self, path: str, timeout: float, shared: bool) -> Iterator[float]:
        with self._mutex:
            lock = self._files.setdefault(path, _Flock())
        began = time.monotonic()
        if not lock.acquire(shared, timeout):
            raise ApiError(f"can't lock file '{path}' - got timeout")
        try:
            yield time.monotonic() - began
        finally:
            lock.release(shared)

    @contextmanager
    def config(self, vmid: int, timeout: float = CONFIG_SECONDS, *, shared: bool = False) -> Iterator[None]:
        """Hold the lock of a VM's configuration file."""
        with self._file(f"/var/lock/qemu-server/lock-{vmid}.conf", timeout, shared):
            yield

    @contextmanager
    def storage(self, storage: str) -> Iterator[None]:
        """Hold the lock under which volumes of a storage are made and removed."""
        with self._file(f"/var/lock/pve-manager/pve-storage-{storage}", STORAGE_SECONDS, False):
            yield

    @contextmanager
    def backup_job(self, node: str, timeout: float, wait: Callable[[str], None]) -> Iterator[None]:
        """Hold the node's lock of backup jobs, of which one runs at a time; `wait` is told when another one does."""
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
