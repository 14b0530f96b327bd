"""Tasks: the workers that change the node, their UPIDs and logs."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lab.api.errors import ApiError, PermissionDenied
from lab.api.permissions import User
from lab.api.state import State
from lab.backend import BackendError

UPID = re.compile(
    r"UPID:(?P<node>[A-Za-z][A-Za-z0-9-]*):(?P<pid>[0-9A-F]{8}):(?P<pstart>[0-9A-F]{8,9}):(?P<starttime>[0-9A-F]{8}):"
    r"(?P<type>[^:\s]+):(?P<id>[^:\s]*):(?P<user>[^:\s]+):"
)


class Interrupted(Exception):
    """Raised in a task that was stopped."""


class Killed(BaseException):
    """Raised when the worker dies: nothing is cleaned up."""


@dataclass
class Task:
    """One worker. `exitstatus` is None while it runs."""

    upid: str
    log: list[str] = field(default_factory=list)
    warnings: int = 0
    exitstatus: str | None = None
    # The remaining lines of an error with several.
    explanation: list[str] = field(default_factory=list)
    endtime: int | None = None
    # The task does not end before this time (monotonic).
    not_before: float = 0
    interrupt: threading.Event = field(default_factory=threading.Event)
    dies: bool = False
    # The node has forgotten the task.
    lost: bool = False
    thread: threading.Thread | None = None

    @property
    def parts(self) -> dict[str, str]:
        match = UPID.fullmatch(self.upid)
        return match.groupdict() if match else {}

    def write(self, *lines: str) -> None:
        """Append lines to the log."""
        self.log.extend(lines)

    def warn(self, line: str) -> None:
        """Log a warning: the task succeeds, but its status counts it."""
        self.warnings += 1
        self.log.append(f"WARN: {line}")

    def checkpoint(self) -> None:
        """Raise Interrupted if the task has been stopped."""
        if self.dies:
            raise Killed
        if self.interrupt.is_set():
            raise Interrupted

    def pace(self, line: Callable[[float], str]) -> None:
        """Log progress at a quarter, a half and three quarters of the task's minimum duration."""
        left = self.not_before - time.monotonic()
        for part in (0.25, 0.5, 0.75) if left > 0 else ():
            self.interrupt.wait(left / 4)
            self.checkpoint()
            self.write(line(part))

    def sleep(self, seconds: float) -> None:
        """Sleep for that long. Raises Interrupted if the task is stopped in the meantime."""
        self.interrupt.wait(seconds)
        self.checkpoint()

    def linger(self) -> None:
        """Wait until the task has reached its type's minimum duration (`task_seconds`)."""
        self.sleep(max(0, self.not_before - time.monotonic()))

    def lines(self) -> list[str]:
        """Return the log as far as it can be read now."""
        if self.exitstatus is None:
            return list(self.log)
        if self.exitstatus == "OK":
            return [*self.log, "TASK OK"]
        if self.exitstatus.startswith("WARNINGS: "):
            return [*self.log, f"TASK {self.exitstatus}"]
        first = self.exitstatus.removesuffix(" ".join(["", *self.explanation]))
        return [*self.log, f"TASK ERROR: {first}", *self.explanation]

    def row(self) -> dict[str, Any]:
        """Return the fields that lists and status share; the user is shown without token."""
        parts = self.parts
        user, _, token = parts["user"].partition("!")
        return {
            "upid": self.upid,
            "node": parts["node"],
            "pid": int(parts["pid"], 16),
            "pstart": int(parts["pstart"], 16),
            "starttime": int(parts["starttime"], 16),
            "type": parts["type"],
            "id": parts["id"],
            "user": user,
            **({"tokenid": token} if token else {}),
        }


class Tasks:
    """All tasks of the node, newest last."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._mutex = threading.Lock()
        self._began = time.monotonic()
        self._pid = 1200
        self.here = threading.local()
        self.fail_next: Callable[[str], str | None] = lambda kind: None
        self.kill_next: Callable[[str], bool] = lambda kind: False
        self.lose_next: Callable[[str], tuple[bool, bool]] = lambda kind: (False, True)
        self.by_upid: dict[str, Task] = {}
        self.ended_last: Task | None = None
        for raw in (raw for raw in state.tasks if "upid" in raw):
            status = None if raw.get("running") else raw.get("status", "OK")
            log = [line for line in raw.get("log", []) if not line.startswith("TASK ")]
            self.by_upid[raw["upid"]] = Task(raw["upid"], log, exitstatus=status, endtime=raw.get("endtime"))

    def next_pid(self) -> int:
        with self._mutex:
            self._pid += 7
            return self._pid

    def start(
        self,
        kind: str,
        ident: str | int,
        user: User,
        work: Callable[[Task], None],
        failed: Callable[[Task], None] | None = None,
    ) -> str:
        """Start `work` in its own worker and return the UPID. ApiError and BackendError end it with their text.

        `failed` is called then, still inside the worker.
        """
        pid, now = self.next_pid(), self._state.clock.seconds()
        pstart = int((time.monotonic() - self._began) * 100) + pid
        node = getattr(self.here, "node", self._state.node)
        upid = f"UPID:{node}:{pid:08X}:{pstart:08X}:{now:08X}:{kind}:{ident}:{user.name}:"
        task = Task(upid, not_before=time.monotonic() + self._state.task_seconds.get(kind, 0))
        with self._mutex:
            self.by_upid[upid] = task
        task.thread = threading.Thread(
            target=self._run, args=(task, kind, work, failed or (lambda _: None)), daemon=True, name=upid
        )
        task.thread.start()
        return upid

    def _run(self, task: Task, kind: str, work: Callable[[Task], None], failed: Callable[[Task], None]) -> None:
        status = "unexpected status"
        self.here.node = task.parts["node"]
        self.here.task = task
        task.dies = self.kill_next(kind)
        task.lost, works = self.lose_next(kind)
        try:
            failure = self.fail_next(kind)
            if failure:
                raise ApiError(failure)
            if works:
                work(task)
            task.linger()
            status = f"WARNINGS: {task.warnings}" if task.warnings else "OK"
        except (ApiError, BackendError) as error:
            failed(task)
            text = f"403 {error}" if isinstance(error, PermissionDenied) else str(error)
            first, *task.explanation = text.rstrip("\n").split("\n")
            status = " ".join([first, *task.explanation])
        except Interrupted:
            failed(task)
            status = "received interrupt"
        except Killed:
            pass
        finally:
            self.end(task, status)

    def check_here(self) -> None:
        """Raise Interrupted if the caller's task has been stopped."""
        if task := getattr(self.here, "task", None):
            task.checkpoint()

    def write_here(self, line: str) -> None:
        """Append a line to the log of the caller's task; without a task it is dropped."""
        if task := getattr(self.here, "task", None):
            task.write(line)

    def end(self, task: Task, status: str) -> None:
        """Write the exit status once."""
        with self._mutex:
            if task.exitstatus is None:
                task.exitstatus, task.endtime = status, self._state.clock.seconds()
                self.ended_last = task

    def interrupt(self, task: Task, patience: float) -> None:
        """Stop a task and wait up to that many seconds for it to end."""
        task.interrupt.set()
        if task.thread and task.thread is not threading.current_thread():
            task.thread.join(patience)

    def interrupt_all(self, patience: float) -> None:
        """Stop all tasks and wait up to that many seconds for slow ones."""
        tasks = list(self.by_upid.values())
        for task in tasks:
            task.interrupt.set()
        deadline = time.monotonic() + patience
        while any(t.thread and t.thread.is_alive() for t in tasks) and time.monotonic() < deadline:
            time.sleep(0.02)

    def running(self, kind: str, ident: str | int) -> list[Task]:
        """List the tasks of that type and id that have not ended."""
        tasks = list(self.by_upid.values())
        return [t for t in tasks if t.exitstatus is None and (t.parts["type"], t.parts["id"]) == (kind, str(ident))]
