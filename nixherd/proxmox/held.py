"""Waiting for a lock of a file that somebody holds: the server's, which no request shows.

What comes too late for it is a task that fails, and stays in the node's log. So nothing is tried while a task that this
token may see works on the guest, and the more seldom the more often it was in vain where none can be seen.
"""

import re
import time
from collections.abc import Iterable

from nixherd.fleet.models import Vm
from nixherd.proxmox import standing
from nixherd.proxmox.client import Client
from nixherd.proxmox.identity import label
from nixherd.proxmox.models import Task

LONGEST_PAUSE = 60.0  # seconds between two tries of what leaves a failed task behind
_CONSOLES = ("vncproxy", "spiceproxy", "termproxy", "vncshell", "spiceshell")  # which hold no lock
_STORAGE = re.compile(r"can't lock file '\S*/pve-storage-(?P<storage>[\w.-]+)'", re.ASCII)


class Held:
    """The lock that a step came too late for, how often, and when it is tried again. `pause` is the first one, in s."""

    def __init__(self, client: Client, vm: Vm, pause: float) -> None:
        self._client, self._vm, self._pause = client, vm, pause
        self._what, self._node, self._tries, self._until = "", "", 0, 0.0
        self._storage: str | None = None

    def lost(self, node: str, what: str, error: Exception) -> str:
        """`what` waited for the lock in vain, and has done nothing: who may hold it, in words."""
        found = _STORAGE.search(str(error))
        self._storage = found["storage"] if found else None
        self._node, self._what = node, what
        pause = min(LONGEST_PAUSE, self._pause * 2**self._tries)
        self._tries, self._until = self._tries + 1, time.monotonic() + pause
        return self._words(self._working())

    def won(self) -> None:
        """What waited was carried out: the next step has not been tried yet."""
        self._tries = 0

    def still(self) -> str:
        """Why it is not tried again yet, empty when it is: only looked at, so that no further task fails."""
        if not self._tries:
            return ""
        working = self._working()
        if time.monotonic() < self._until or (working and not self._storage):
            return self._words(working)
        return ""

    def _working(self) -> tuple[Task, ...] | None:
        tasks = standing.tasks_of(self._client, self._node, self._vm.vmid)
        if tasks is None:
            return None
        return tuple(task for task in tasks if task.status in (None, "RUNNING") and task.type not in _CONSOLES)

    def _words(self, working: Iterable[Task] | None) -> str:
        waits = f"{label(self._vm)}: {self._what} waits for the lock of"
        if self._storage:
            return f"{waits} storage {self._storage}, which somebody holds"
        who = standing.told(working) if working is not None else "its tasks could not be asked for"
        who = who or "no task that this token may see; after a stop `qm cleanup` does, for half a minute"
        return f"{waits} its configuration file, which somebody holds: {who}"
