"""The server's tasks: waiting for one, whoever holds a lock, and where a guest stands, in words.

A call that answers with a UPID has done nothing yet; the task's `exitstatus` decides."""

import re
import time
from collections.abc import Callable, Iterable

from nixherd.base.errors import ApiError, StillRunning, TaskFailed, TaskForgotten
from nixherd.base.names import STORAGE, pattern
from nixherd.base.waiting import Backoff, poll
from nixherd.fleet.models import GuestType, Vm
from nixherd.proxmox.answers import Task, TaskStatus, Upid, VmStatus
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest.identity import label
from nixherd.proxmox.steps import Step
from nixherd.proxmox.wire import TRANSIENT

# Ends that tell nothing of what happened.
_SILENT = frozenset(("job errors", "unexpected status", "received interrupt", "interrupted by signal"))
_GUEST = re.compile(r"Backup of (?:VM|CT) \d+ failed - ")


def reason(exitstatus: str, log: Iterable[str]) -> str:
    """Return why a task failed: its end, or, where that says nothing, the errors in its log, each once.

    A backup's log says an error when it happens, and once more with the guest that it was the end of.
    """
    if exitstatus not in _SILENT:
        return exitstatus
    errors = list(dict.fromkeys(line.partition("ERROR: ")[2] for line in log if line.startswith("ERROR: ")))
    ends = [error for error in errors if _GUEST.match(error)]
    return "; ".join(ends or errors) or exitstatus


NEWEST = 20  # of a guest's ended tasks, as many are looked at


def stands(status: VmStatus | None) -> str:
    """Describe a guest's power: `is off`, `runs since 12 s`; None: it is not where it was."""
    if status is None:
        return "is not on its node any more"
    lock = f", locked ({status.lock})" if status.lock else ""
    if not status.running:
        return f"is off{lock}"
    return f"{'is paused' if status.paused else 'runs'}, since {status.uptime} s{lock}"


def seen(client: "Client", node: str, vmid: int, type: GuestType) -> str:
    """Describe the same, asked now; an answer that does not come is unknown."""
    try:
        return stands(client.status(node, vmid, type))
    except ApiError as error:
        return f"cannot be asked for ({error})"


def asked_tasks(client: "Client", node: str, vmid: int) -> tuple[Task, ...]:
    """Return the guest's tasks that our token may see, newest first: running ones, then those that ended."""
    ended = client.tasks(node, vmid=vmid, active=False, limit=NEWEST)
    return (*client.tasks(node, vmid=vmid), *ended)


def tasks_of(client: "Client", node: str, vmid: int) -> tuple[Task, ...] | None:
    """Return the same; None where they cannot be asked for, which must not fail what they are asked for."""
    try:
        return asked_tasks(client, node, vmid)
    except ApiError:
        return None


def told(tasks: Iterable[Task] | None) -> str:
    """Describe tasks: `task qmshutdown of alice@pve: OK`, for each."""
    if tasks is None:
        return "they could not be asked for"
    ends = ((task, "still at work" if task.status in (None, "RUNNING") else task.status) for task in tasks)
    return ", ".join(f"task {task.type} of {task.user}: {end}" for task, end in ends)


def after(tasks: Iterable[Task] | None, begun: Upid, known: Iterable[str] = ()) -> tuple[Task, ...] | None:
    """Return those that began with or after `begun`, without itself and the known ones; None for unknown tasks."""
    if tasks is None:
        return None
    left_out = {str(begun), *known}
    return tuple(task for task in tasks if task.starttime >= begun.starttime and str(task.upid) not in left_out)


Progress = Callable[[str], None]

FIRST_PAUSE, LONGEST_PAUSE = 0.03, 1.0  # seconds between two looks
LAST_LINES = 3

_LOCK_TIMEOUT = re.compile(r"can't lock file '.*'.* got timeout|(unable to|can't) acquire lock|got lock timeout")


def lost_the_lock(error: Exception) -> bool:
    """Tell whether a call or task only came too late for a file's lock that another one held: it did nothing."""
    return _LOCK_TIMEOUT.search(str(error)) is not None


def wait(client: Client, upid: Upid, timeout: float, progress: Progress | None = None) -> None:
    """Return when the task has succeeded; warnings are told to `progress`.

    A server that does not answer meanwhile is asked again. Raises TaskFailed with the end of the task's log, Raise
    StillRunning after `timeout` seconds, TaskForgotten when the server knows no such task: no end that is not known to
    be good counts as one.
    """
    client.under_way.add(str(upid))
    _wait(client, upid, timeout, progress)
    client.under_way.discard(str(upid))  # an interrupted wait leaves it: its task goes on


def carry_out(client: Client, step: Step, timeout: float, progress: Progress | None = None) -> Upid | None:
    """Begin a step and wait for its task, which is returned. Raises as `wait` does."""
    upid = step.begin(client)
    if upid:
        wait(client, upid, timeout, progress)
    return upid


def _wait(client: Client, upid: Upid, timeout: float, progress: Progress | None) -> None:
    told, spoke = "", 0.0
    for waited in poll(timeout, Backoff(FIRST_PAUSE, LONGEST_PAUSE, 1.4)):
        status = _look(client, upid)
        if status and not status.running:
            client.under_way.discard(str(upid))
            if not status.succeeded:
                raise _failure(client, upid, status)
            if progress and status.exitstatus != "OK":
                _warn(client, upid, status, progress)
            return
        if progress and waited - spoke >= LONGEST_PAUSE:
            told, spoke = _tell(client, upid, told, progress), waited
    raise StillRunning(
        f"task {upid.type} {upid.id} on {upid.node} is not done within {timeout:.0f} s; "
        f"it goes on there, its log: `pvenode task log {upid}`",
        str(upid),
    )


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
    what = f"task {upid.type} {upid.id} on {upid.node} failed: {why}{log} (all of it: `pvenode task log {upid}`)"
    return TaskFailed(what, str(upid), exitstatus)


LONGEST_WAIT = 60.0  # seconds between two tries of what leaves a failed task behind
_CONSOLES = ("vncproxy", "spiceproxy", "termproxy", "vncshell", "spiceshell")  # which hold no lock
_STORAGE = pattern(rf"can't lock file '\S*/pve-storage-(?P<storage>{STORAGE})'")


class Held:
    """The lock that a step came too late for, how often, and when it is tried again. `pause` is the first one, in s."""

    def __init__(self, client: Client, vm: Vm, pause: float) -> None:
        self._client, self._vm, self._pause = client, vm, pause
        self._what, self._node, self._tries, self._until = "", "", 0, 0.0
        self._storage: str | None = None

    def lost(self, node: str, what: str, error: Exception) -> str:
        """Note that `what` waited for the lock in vain and did nothing; return who may hold it, in words."""
        match = _STORAGE.search(str(error))
        self._storage = match["storage"] if match else None
        self._node, self._what = node, what
        pause = min(LONGEST_WAIT, self._pause * 2**self._tries)
        self._tries, self._until = self._tries + 1, time.monotonic() + pause
        return self._words(self._working())

    def won(self) -> None:
        """Note that what waited was carried out: the next step has not been tried yet."""
        self._tries = 0

    def still(self) -> str:
        """Return why it is not tried again yet, empty when it is; nothing is sent that could fail."""
        if not self._tries:
            return ""
        working = self._working()
        if time.monotonic() < self._until or (working and not self._storage):
            return self._words(working)
        return ""

    def _working(self) -> tuple[Task, ...] | None:
        tasks = tasks_of(self._client, self._node, self._vm.vmid)
        if tasks is None:
            return None
        return tuple(task for task in tasks if task.status in (None, "RUNNING") and task.type not in _CONSOLES)

    def _words(self, working: Iterable[Task] | None) -> str:
        waits = f"{label(self._vm)}: {self._what} waits for the lock of"
        if self._storage:
            return f"{waits} storage {self._storage}, which somebody holds"
        who = told(working) if working is not None else "its tasks could not be asked for"
        who = who or "no task that this token may see; after a stop `qm cleanup` does, for half a minute"
        return f"{waits} its configuration file, which somebody holds: {who}"
