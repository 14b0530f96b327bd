"""What the typed calls are built on, how their answers are read, and the nodes' tasks."""

import inspect
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

from nixherd.errors import UNFORESEEN, ApiError
from nixherd.fleet.models import GuestType
from nixherd.proxmox.answers import Task, TaskStatus, Upid
from nixherd.proxmox.errors import OutcomeUnknown
from nixherd.proxmox.route import Route
from nixherd.proxmox.wire import Upload

T = TypeVar("T")

_call: ContextVar[str] = ContextVar("call", default="")  # the one whose answer is being read


class Calls:
    """The verbs of the API below /api2/json; parts of a path hold no slash, but the last may with `rest`.

    An answer that cannot be read is an ApiError that names the call.
    """

    token_id: str
    """`USER@REALM!TOKENID`, whose rights decide what is shown"""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name, each in list(vars(cls).items()):
            if inspect.isfunction(each) and not name.startswith("_"):
                setattr(cls, name, _reading(each))

    @abstractmethod
    def _get(self, *path: object, **params: Any) -> Any: ...

    @abstractmethod
    def _post(self, *path: object, **data: Any) -> Any: ...

    @abstractmethod
    def _send(self, upload: Upload, *path: object) -> Any: ...

    @abstractmethod
    def _put(self, *path: object, **data: Any) -> Any: ...

    @abstractmethod
    def _delete(self, *path: object, **params: Any) -> Any: ...

    def change(
        self, route: Route, names: Mapping[str, object], parameters: Mapping[str, object], *, at_once: bool = False
    ) -> Upid | None:
        """Send a request of the guard's table, `names` in its path. Returns the task that it began.

        None only with `at_once`, where the server has done it when it answers.
        """
        send = {"POST": self._post, "PUT": self._put, "DELETE": self._delete}[route.method]
        data = send(*route.filled(names), **parameters)
        return None if data is None and at_once else upid_of(data)


def answer(method: str, path: Sequence[object], data: Any) -> Any:
    """The answer, noting whose it is: what cannot be read after that is this."""
    _call.set(f"{method} /{'/'.join(map(str, path))}")
    return data


def _reading(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def read(*args: Any, **arguments: Any) -> Any:
        _call.set("")
        try:
            return method(*args, **arguments)
        except UNFORESEEN as error:
            if not (call := _call.get()):
                raise
            detail = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            kind = ApiError if call.startswith("GET ") else OutcomeUnknown
            why = f"the answer is not what Proxmox VE's is ({detail}); which version answers there?"
            raise kind(f"{call}: {why}", 200) from error

    return read


def guest_path(node: str, vmid: int, type: GuestType) -> tuple[str, str, str, int]:
    return ("nodes", node, str(type), vmid)


def upid_of(data: object) -> Upid:
    """ApiError when the answer names no task."""
    try:
        return Upid.parse(str(data))
    except ValueError as error:
        raise ApiError(f"the server answered {data!r} where a task's UPID belongs; see its task list", 200) from error


def unless(detail: str, ask: Callable[[], T]) -> T | None:
    """What the server answers; None when it says, with status 400 or 500, something that this pattern is found in."""
    try:
        return ask()
    except ApiError as error:
        if error.status in (400, 500) and re.search(detail, str(error)):
            return None
        raise


class Tasks(Calls):
    def tasks(
        self,
        node: str,
        *,
        active: bool = True,
        type: str | None = None,
        vmid: int | None = None,
        limit: int = 50,
        errors: bool | None = None,
    ) -> tuple[Task, ...]:
        """Rows of the node's task list, newest first: those that run, or those that ended."""
        source = "active" if active else "archive"
        rows = self._get(
            *("nodes", node, "tasks"), source=source, typefilter=type, vmid=vmid, limit=limit, errors=errors
        )
        tasks = (Task.of(row) for row in rows)
        return tuple(task for task in tasks if not active or task.status in (None, "RUNNING"))

    def last_task(self, node: str, vmid: int) -> Task | None:
        """What was begun on the guest last, whether it goes on or not. A task that ends is archived a little later."""
        rows = self._get("nodes", node, "tasks", source="all", vmid=vmid, limit=50)
        return max(map(Task.of, rows), key=lambda task: (task.starttime, str(task.upid)), default=None)

    def task_status(self, upid: Upid) -> TaskStatus:
        data = self._get("nodes", upid.node, "tasks", upid, "status")
        exitstatus = data.get("exitstatus")
        return TaskStatus(data["status"] == "running", None if exitstatus is None else str(exitstatus))

    def task_log(self, upid: Upid) -> tuple[str, ...]:
        """All lines of the task's log; the first ones may come long before the last."""
        return tuple(str(row["t"]) for row in self._get("nodes", upid.node, "tasks", upid, "log", limit=0))
