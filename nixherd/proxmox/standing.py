"""Where a guest stands, in words: what was read back after something was asked of it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nixherd.errors import ApiError
from nixherd.fleet.models import GuestType
from nixherd.proxmox.models import Task, Upid, VmStatus

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client

NEWEST = 20  # of a guest's ended tasks, as many are looked at


def stands(status: VmStatus | None) -> str:
    """`is off`, `runs since 12 s`; None: it was not found where it was."""
    if status is None:
        return "is not on its node any more"
    lock = f", locked ({status.lock})" if status.lock else ""
    if not status.running:
        return f"is off{lock}"
    return f"{'is paused' if status.paused else 'runs'}, since {status.uptime} s{lock}"


def seen(client: "Client", node: str, vmid: int, type: GuestType) -> str:
    """The same, asked now; an answer that does not come is unknown."""
    try:
        return stands(client.status(node, vmid, type))
    except ApiError as error:
        return f"cannot be asked for ({error})"


def asked_tasks(client: "Client", node: str, vmid: int) -> tuple[Task, ...]:
    """The guest's tasks that our token may see, newest first: those that run, then those that ended."""
    ended = client.tasks(node, vmid=vmid, active=False, limit=NEWEST)
    return (*client.tasks(node, vmid=vmid), *ended)


def tasks_of(client: "Client", node: str, vmid: int) -> tuple[Task, ...] | None:
    """The same; None where they could not be asked for: what is said about a guest is never worth losing it for."""
    try:
        return asked_tasks(client, node, vmid)
    except ApiError:
        return None


def told(tasks: Iterable[Task] | None) -> str:
    """`task qmshutdown of alice@pve: OK`, for each."""
    if tasks is None:
        return "they could not be asked for"
    return ", ".join(f"task {task.type} of {task.user}: {_end(task)}" for task in tasks)


def _end(task: Task) -> str:
    return "still at work" if task.status in (None, "RUNNING") else str(task.status)


def after(tasks: Iterable[Task] | None, begun: Upid, known: Iterable[str] = ()) -> tuple[Task, ...] | None:
    """Those that began with or after `begun`, itself and the known ones left out; None where nobody told."""
    if tasks is None:
        return None
    left_out = {str(begun), *known}
    return tuple(task for task in tasks if task.starttime >= begun.starttime and str(task.upid) not in left_out)
