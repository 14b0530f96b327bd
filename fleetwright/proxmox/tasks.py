"""Waiting for the server's tasks. A call that answers with a UPID has done nothing yet; `exitstatus` decides."""

import re
import time
from collections.abc import Callable

from fleetwright.errors import ApiError, DeadlineExceeded, TaskFailed
from fleetwright.proxmox.client import Client
from fleetwright.proxmox.models import TaskStatus, Upid
from fleetwright.proxmox.wire import TRANSIENT

Progress = Callable[[str], None]

FIRST_PAUSE, LONGEST_PAUSE = 0.03, 1.0  # seconds between two looks
LAST_LINES = 3

_LOCK_TIMEOUT = re.compile(r"can't lock file '.*'.* got timeout|unable to acquire lock|got lock timeout")


def lost_the_lock(error: Exception) -> bool:
    """Whether a call or task only came too late for a lock of a file that another one held: it did nothing."""
    return _LOCK_TIMEOUT.search(str(error)) is not None


def wait(client: Client, upid: Upid, timeout: float, progress: Progress | None = None) -> None:
    """Return when the task has succeeded, warnings included.

    A server that does not answer meanwhile is asked again. Raises TaskFailed with the end of the task's log,
    DeadlineExceeded after `timeout` seconds: the task then still runs.
    """
    began, pause, told = time.monotonic(), FIRST_PAUSE, ""
    while True:
        status = _look(client, upid)
        if status and not status.running:
            if status.succeeded:
                return
            raise _failure(client, upid, status)
        if time.monotonic() - began + pause > timeout:
            raise DeadlineExceeded(
                f"task {upid.type} {upid.id} on {upid.node} is not done within {timeout:.0f} s; "
                f"it goes on there, its log: `pvenode task log {upid}`"
            )
        if progress and pause >= LONGEST_PAUSE:
            told = _tell(client, upid, told, progress)
        time.sleep(pause)
        pause = min(LONGEST_PAUSE, pause * 1.4)


def _look(client: Client, upid: Upid) -> TaskStatus | None:
    try:
        return client.task_status(upid)
    except ApiError as error:
        if error.status in TRANSIENT:
            return None
        raise


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
    log = f"; log: {' | '.join(lines[-LAST_LINES:])}" if lines else ""
    return TaskFailed(
        f"task {upid.type} {upid.id} on {upid.node} failed: {exitstatus}{log} (all of it: `pvenode task log {upid}`)",
        str(upid),
        exitstatus,
    )
