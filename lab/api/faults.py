"""What can be made to go wrong: a lock held by another, a task that fails, a lost answer, a silent agent, a node away.

Switched by `POST /_lab/fault` {name, on, …}; NAMES says which there are and what each takes. Parameters may be left
out: then any VMID, task or request is meant.
"""

import re
import threading
import time
from collections.abc import Mapping
from typing import Any

NAMES = (
    "lock-held",  # vmid, lock, requests or seconds
    "file-held",  # vmid, seconds: the lock of the configuration file, as `qm cleanup` holds it
    "restart",  # vmid, message or never or seconds, count: the second task of a reboot fails, does not come, or late
    "task-fails",  # type, once, message
    "task-killed",  # type: the worker dies half-way, what it holds stays
    "task-lost",  # type, works: nobody knows of the task afterwards; the work was done, or with works=false not
    "drop-connection",  # method, path, count, refused: done (or refused), the connection closed instead of an answer
    "timed-out",  # method, path, count, refused: done (or refused), answered with 596
    "refused",  # method, path, count: not done, answered with 595
    "agent-silent",  # vmid
    "node-down",  # node
    "storage-full",  # storage
    "hotplug-fails",  # option, message, count: a running VM does not take it over, it waits
    "stale-resources",  # the cluster's list shows what it showed when this was switched on
    "archive-damaged",  # part: header (nothing of a backup can be read), data (it ends too early)
    "vmid-taken",  # vmid: a stranger's VM appears there when somebody comes to make one
)


class Faults:
    """The faults of the API that are switched on, with their parameters."""

    def __init__(self) -> None:
        self._on: dict[str, dict[str, Any]] = {}
        self._mutex = threading.Lock()

    def switch(self, name: str, on: bool, params: Mapping[str, Any]) -> bool:
        """Switch a fault on or off; False if it is not one of ours."""
        if name not in NAMES:
            return False
        with self._mutex:
            if on:
                self._on[name] = {**params, "since": time.monotonic()}
            else:
                self._on.pop(name, None)
        return True

    def active(self) -> dict[str, dict[str, Any]]:
        return {
            name: {key: value for key, value in params.items() if key != "since"}
            for name, params in list(self._on.items())
        }

    def is_on(self, name: str, **expected: Any) -> bool:
        """Is the fault on, and for these? A parameter that it does not have means any."""
        params = self._on.get(name)
        return params is not None and all(str(params.get(key, value)) == str(value) for key, value in expected.items())

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
        if "seconds" in params and time.monotonic() - params["since"] > float(params["seconds"]):
            self.switch("lock-held", False, {})
            return None
        lock = str(params.get("lock", "backup"))
        return lock if self._count_down("lock-held", "requests", None) else None

    def file_held(self, vmid: int) -> float:
        """For how many seconds more somebody holds the lock of a VM's configuration file."""
        params = self._on.get("file-held", {})
        if not self.is_on("file-held", vmid=vmid):
            return 0
        return max(0.0, float(params["since"]) + float(params.get("seconds", 30)) - time.monotonic())

    def restart(self, vmid: int) -> dict[str, Any] | None:
        """What is wrong with the start that follows a VM's shutdown for a reboot, None: nothing."""
        params = self._on.get("restart", {})
        if not self.is_on("restart", vmid=vmid) or not self._count_down("restart", "count", None):
            return None
        return dict(params)

    def task_failure(self, kind: str) -> str | None:
        """The error with which a task of that type is to end."""
        params = self._on.get("task-fails")
        if params is None or params.get("type", kind) != kind:
            return None
        message = str(params.get("message", f"{kind} failed: the lab was told so"))
        return message if self._count_down("task-fails", "count", 1 if params.get("once", True) else None) else None

    def kills(self, kind: str) -> bool:
        """Is the next task of that type to die half-way?"""
        return self.is_on("task-killed", type=kind) and self._count_down("task-killed", "count", 1)

    def loses(self, kind: str) -> tuple[bool, bool]:
        """Is the next task of that type to be forgotten, and is its work done before?"""
        params = self._on.get("task-lost", {})
        if not self.is_on("task-lost", type=kind) or not self._count_down("task-lost", "count", 1):
            return False, True
        return True, str(params.get("works", True)).lower() not in ("0", "false")

    def _meant(self, name: str, method: str, path: str) -> bool:
        params = self._on.get(name)
        if params is None or str(params.get("method", method)).upper() != method:
            return False
        return re.search(str(params.get("path", "")), path) is not None and self._count_down(name, "count", 1)

    def drops(self, method: str, path: str, *, refused: bool = False) -> bool:
        """Is the answer to this request to be lost?"""
        return self._concerns("drop-connection", refused) and self._meant("drop-connection", method, path)

    def times_out(self, method: str, path: str, *, refused: bool = False) -> bool:
        """Is this request, which was carried out or refused, to be answered with 596?"""
        return self._concerns("timed-out", refused) and self._meant("timed-out", method, path)

    def _concerns(self, name: str, refused: bool) -> bool:
        """A fault is for requests that were carried out, or for those alone that were refused."""
        return bool(self._on.get(name, {}).get("refused", False)) is refused

    def refuses(self, method: str, path: str) -> bool:
        """Is this request to be answered with 595, and not carried out?"""
        return self._meant("refused", method, path)

    def takes(self, vmid: int) -> bool:
        """Is a stranger to appear under this VMID now?"""
        return self.is_on("vmid-taken", vmid=vmid) and self._count_down("vmid-taken", "count", 1)

    def hotplug_failure(self, option: str) -> str | None:
        """Why a running VM does not take this option over now."""
        params = self._on.get("hotplug-fails", {})
        if not self.is_on("hotplug-fails", option=option) or not self._count_down("hotplug-fails", "count", 1):
            return None
        return str(params.get("message", f"error on hotplugging device '{option}'"))

    def agent_silent(self, vmid: int) -> bool:
        return self.is_on("agent-silent", vmid=vmid)
