"""Waiting for the server's tasks. A call that answers with a UPID has done nothing yet; `exitstatus` decides."""

import re
import time
from collections.abc import Callable

from nixherd.errors import ApiError, TaskFailed
from nixherd.proxmox.client import Client
from nixherd.proxmox.errors import StillRunning, TaskForgotten
from nixherd.proxmox.models import TaskStatus, Upid
from nixherd.proxmox.reasons import reason
from nixherd.proxmox.wire import TRANSIENT

Progress = Callable[[str], None]

FIRST_PAUSE, LONGEST_PAUSE = 0.03, 1.0  # seconds between two looks
LAST_LINES = 3

_LOCK_TIMEOUT = re.compile(r"can't lock file '.*'.* got timeout|(unable to|can't) acquire lock|got lock timeout")


def lost_the_lock(error: Exception) -> bool:
    """Whether a call or task only came too late for a lock of a file that another one held: it did nothing."""
    return _LOCK_TIMEOUT.search(str(error)) is not None


def wait(client: Client, upid: Upid, timeout: float, progress: Progress | None = None) -> None:
    """Return when the task has succeeded; warnings are told to `progress`.

    A server that does not answer meanwhile is asked again. Raises TaskFailed with the end of the task's log,
    StillRunning after `timeout` seconds, TaskForgotten when the server knows no such task: no end that is not known
    to be good counts as one.
    """
    client.under_way.add(str(upid))
    _wait(client, upid, timeout, progress)
    client.under_way.discard(str(upid))  # an interrupted wait leaves it: its task goes on


def _wait(client: Client, upid: Upid, timeout: float, progress: Progress | None) -> None:
    began, pause, told = time.monotonic(), FIRST_PAUSE, ""
    spoke = began
    while True:
        status = _look(client, upid)
        if status and not status.running:
            client.under_way.discard(str(upid))
            if not status.succeeded:
                raise _failure(client, upid, status)
            if progress and status.exitstatus != "OK":
                _warn(client, upid, status, progress)
            return
        if time.monotonic() - began + pause > timeout:
            raise StillRunning(
                f"task {upid.type} {upid.id} on {upid.node} is not done within {timeout:.0f} s; "
                f"it goes on there, its log: `pvenode task log {upid}`",
                str(upid),
            )
        if progress and time.monotonic() - spoke >= LONGEST_PAUSE:
            told, spoke = _tell(client, upid, told, progress), time.monotonic()
        time.sleep(pause)
        pause = min(LONGEST_PAUSE, pause * 1.4)


def _look(client: Client, upid: Upid) -> TaskStatus | None:
    try:
        return client.task_status(upid)
    except ApiError as error:
        if error.status in TRANSIENT:
            return None
        if error.status == 400 and "no such task" in str(error):
            client.under_way.discard(str(upid))
            raise TaskForgotten(
                f"{upid.node} knows no task {upid} (any more), how it ended is not known; look at the guest", 400
            ) from error
        raise


def _warn(client: Client, upid: Upid, status: TaskStatus, progress: Progress) -> None:
    lines = [line for line in _log(client, upid) if re.match(r"WARN(ING)?:", line)]
    progress(f"task {upid.type} {upid.id} ended with {status.exitstatus}: {' | '.join(lines) or 'see its log'}")


def _log(client: Client, upid: Upid) -> tuple[str, ...]:
    try:
        return client.task_log(upid)
    except ApiError:  # what is said about a task is never worth losing the task for
        return ()


def _tell(client: Client, upid: Upid, told: str, progress: Progress) -> str:
    lines = [line for line in _log(client, upid) if line and line != "no content"]
    if lines and lines[-1] != told:
        progress(lines[-1])
        return lines[-1]
    return told


def _failure(client: Client, upid: Upid, status: TaskStatus) -> TaskFailed:
    exitstatus = status.exitstatus or "unexpected status"
    lines = [line for line in _log(client, upid) if line and not line.startswith("TASK ERROR")]
    why = reason(exitstatus, lines)
    log = f"; log: {' | '.join(lines[-LAST_LINES:])}" if lines and why == exitstatus else ""
    if why.startswith("403 "):  # what a request is refused for at once, a job finds out later
        log += "; this token lacks that permission: grant it on the node with `pveum acl modify`"
    return TaskFailed(
        f"task {upid.type} {upid.id} on {upid.node} failed: {why}{log} (all of it: `pvenode task log {upid}`)",
        str(upid),
        exitstatus,
    )
