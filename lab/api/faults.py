"""What can be made to go wrong: a lock held by another, a task that fails, a lost answer, a silent agent.

Switched by `POST /_lab/fault`: `lock-held` {vmid, lock, requests}, `task-fails` {type, once, message},
`drop-connection` {method, path, count}, `agent-silent` {vmid}. Parameters may be left out: then any VMID, task or
request is meant.
"""

import re
import threading
from collections.abc import Mapping
from typing import Any

NAMES = ("lock-held", "task-fails", "drop-connection", "agent-silent")


class Faults:
    """The faults of the API that are switched on, with their parameters."""

    def __init__(self) -> None:
        self._on: dict[str, dict[str, Any]] = {}
        self._mutex = threading.Lock()

    def switch(self, name: str, on: bool, params: Mapping[str, Any]) -> bool:
        """Switch a fault on or off; False if it is none of ours."""
        if name not in NAMES:
            return False
        with self._mutex:
            if on:
                self._on[name] = dict(params)
            else:
                self._on.pop(name, None)
        return True

    def active(self) -> dict[str, dict[str, Any]]:
        return {name: dict(params) for name, params in list(self._on.items())}

    def _count_down(self, name: str, counter: str, default: int | None) -> bool:
        """Is the fault on? Off by itself after as many times as its counter says; never without one."""
        with self._mutex:
            params = self._on.get(name)
            if params is None:
                return False
            left = params.get(counter, default)
            if left is not None:
                params[counter] = int(left) - 1
                if params[counter] <= 0:
                    del self._on[name]
            return True

    def lock_of(self, vmid: int) -> str | None:
        """The lock that someone else holds on a VM's configuration."""
        params = self._on.get("lock-held")
        if params is None or int(params.get("vmid", vmid)) != vmid:
            return None
        lock = str(params.get("lock", "backup"))
        return lock if self._count_down("lock-held", "requests", None) else None

    def task_failure(self, kind: str) -> str | None:
        """The error with which a task of that type is to end."""
        params = self._on.get("task-fails")
        if params is None or params.get("type", kind) != kind:
            return None
        message = str(params.get("message", f"{kind} failed: the lab was told so"))
        return message if self._count_down("task-fails", "count", 1 if params.get("once", True) else None) else None

    def drops(self, method: str, path: str) -> bool:
        """Is the answer to this request to be lost?"""
        params = self._on.get("drop-connection")
        if (
            params is None
            or params.get("method", method).upper() != method
            or not re.search(params.get("path", ""), path)
        ):
            return False
        return self._count_down("drop-connection", "count", 1)

    def agent_silent(self, vmid: int) -> bool:
        params = self._on.get("agent-silent")
        return params is not None and int(params.get("vmid", vmid)) == vmid
