"""What the typed calls are built on, and how their answers are read."""

import inspect
import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

from nixherd.errors import UNFORESEEN, ApiError
from nixherd.fleet.models import GuestType
from nixherd.proxmox.errors import OutcomeUnknown
from nixherd.proxmox.models import Upid
from nixherd.proxmox.upload import Upload

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
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            kind = ApiError if call.startswith("GET ") else OutcomeUnknown
            why = f"the answer is not what Proxmox VE's is ({said}); which version answers there?"
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


def unless(said: str, ask: Callable[[], T]) -> T | None:
    """What the server answers; None when it says, with status 400 or 500, something that this pattern is found in."""
    try:
        return ask()
    except ApiError as error:
        if error.status in (400, 500) and re.search(said, str(error)):
            return None
        raise
