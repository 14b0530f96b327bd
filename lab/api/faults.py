"""Faults: a lock held by another, a failing task, a lost answer, a silent agent, an unreachable node.

Switched by `POST /_lab/fault` {name, on, …}; FAULTS lists them with their parameters. A parameter that is left out
matches any VMID, task or request.
"""

import re
import threading
import time
from collections.abc import Mapping
from typing import Any

# By name: the parameters, and the effect.
FAULTS = {
    "lock-held": "vmid=N requests=N seconds=N: another client holds the VM's lock",
    "file-held": "vmid=N seconds=30: `qm cleanup` holds the lock of the VM's configuration file",
    "restart": "vmid=N message=TEXT: the second task of a reboot fails; never=1: never starts; seconds=N: starts late",
    "task-fails": "type=qmclone once=1: a task ends with an error after its 200",
    "task-killed": "type=qmclone: its worker dies half-way and cleans nothing up",
    "task-lost": "type=qmclone works=1: the task is forgotten; works=0: and was not done",
    "drop-connection": "method=POST path=REGEX count=1: carried out, the answer is lost; refused=1: of a refusal",
    "timed-out": "method=POST path=REGEX count=1: carried out, the answer is 596",
    "refused": "method=POST path=REGEX count=1: not carried out, the answer is 595",
    "node-down": "node=NAME: that node does not answer",
    "hotplug-fails": "option=scsi1 count=1: the hotplug fails, the option stays pending, the answer is 400",
    "storage-full": "storage=NAME: the storage is full",
    "stale-resources": "the cluster's list no longer changes",
    "archive-damaged": "part=header|data: a backup cannot be read at all, or ends too early",
    "vmid-taken": "vmid=N: another user's VM appears there when a call creates one",
    "agent-silent": "vmid=N: the guest agent never answers",
}


class Faults:
    """The API faults that are switched on, with their parameters."""

    def __init__(self) -> None:
        self._on: dict[str, dict[str, Any]] = {}
        self._mutex = threading.Lock()

    def switch(self, name: str, on: bool, params: Mapping[str, Any]) -> bool:
        """Switch a fault on or off; return False if it is not an API fault."""
        if name not in FAULTS:
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
        """Return whether the fault is on for these values. A parameter that the fault leaves out matches any value."""
        params = self._on.get(name)
        return params is not None and all(str(params.get(key, value)) == str(value) for key, value in expected.items())

    def _count_down(self, name: str, counter: str, default: int | None) -> bool:
        """Return whether the fault is on. Its counter, if it has one, switches it off at zero."""
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
        """Return the lock that another user holds on a VM's configuration."""
        params = self._on.get("lock-held")
        if params is None or int(params.get("vmid", vmid)) != vmid:
            return None
        if "seconds" in params and time.monotonic() - params["since"] > float(params["seconds"]):
            self.switch("lock-held", False, {})
            return None
        lock = str(params.get("lock", "backup"))
        return lock if self._count_down("lock-held", "requests", None) else None

    def file_held(self, vmid: int) -> float:
        """Return for how many more seconds the lock of a VM's configuration file is held."""
        params = self._on.get("file-held", {})
        if not self.is_on("file-held", vmid=vmid):
            return 0
        return max(0.0, float(params["since"]) + float(params.get("seconds", 30)) - time.monotonic())

    def restart(self, vmid: int) -> dict[str, Any] | None:
        """Return the fault of the start that follows a reboot's shutdown; None if there is none."""
        params = self._on.get("restart", {})
        if not self.is_on("restart", vmid=vmid) or not self._count_down("restart", "count", None):
            return None
        return dict(params)

    def task_failure(self, kind: str) -> str | None:
        """Return the error with which a task of that type must end."""
        params = self._on.get("task-fails")
        if params is None or params.get("type", kind) != kind:
            return None
        message = str(params.get("message", f"{kind} failed: a fault of the lab"))
        return message if self._count_down("task-fails", "count", 1 if params.get("once", True) else None) else None

    def kills(self, kind: str) -> bool:
        """Return whether the next task of that type dies half-way."""
        return self.is_on("task-killed", type=kind) and self._count_down("task-killed", "count", 1)

    def loses(self, kind: str) -> tuple[bool, bool]:
        """Return whether the next task of that type is forgotten, and whether its work is done first."""
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
        """Return whether the answer to this request is lost."""
        return self._concerns("drop-connection", refused) and self._meant("drop-connection", method, path)

    def times_out(self, method: str, path: str, *, refused: bool = False) -> bool:
        """Return whether this request, carried out or refused, is answered with 596."""
        return self._concerns("timed-out", refused) and self._meant("timed-out", method, path)

    def _concerns(self, name: str, refused: bool) -> bool:
        """Return whether a fault matches: it applies to requests carried out, or only to refused ones."""
        return bool(self._on.get(name, {}).get("refused", False)) is refused

    def refuses(self, method: str, path: str) -> bool:
        """Return whether this request is answered with 595 and not carried out."""
        return self._meant("refused", method, path)

    def takes(self, vmid: int) -> bool:
        """Return whether another user's VM must appear under this VMID now."""
        return self.is_on("vmid-taken", vmid=vmid) and self._count_down("vmid-taken", "count", 1)

    def hotplug_failure(self, option: str) -> str | None:
        """Return why a running VM refuses this option now."""
        params = self._on.get("hotplug-fails", {})
        if not self.is_on("hotplug-fails", option=option) or not self._count_down("hotplug-fails", "count", 1):
            return None
        return str(params.get("message", f"error on hotplugging device '{option}'"))

    def agent_silent(self, vmid: int) -> bool:
        return self.is_on("agent-silent", vmid=vmid)
