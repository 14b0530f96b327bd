"""What the typed calls are built on, and how their answers are read."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from nixherd.errors import ApiError
from nixherd.models import GuestType
from nixherd.proxmox.models import Upid

T = TypeVar("T")


class Calls:
    """The verbs of the API below /api2/json; parts of a path hold no slash, but the last may with `rest`."""

    @abstractmethod
    def _get(self, *path: object, **params: Any) -> Any: ...

    @abstractmethod
    def _post(self, *path: object, **data: Any) -> Any: ...

    @abstractmethod
    def _put(self, *path: object, **data: Any) -> Any: ...

    @abstractmethod
    def _delete(self, *path: object, **params: Any) -> Any: ...


def guest_path(node: str, vmid: int, type: GuestType) -> tuple[str, str, str, int]:
    return ("nodes", node, str(type), vmid)


def upid_of(data: object) -> Upid:
    """ApiError when the answer names no task."""
    try:
        return Upid.parse(str(data))
    except ValueError as error:
        raise ApiError(f"the server answered {data!r} where a task's UPID belongs; see its task list", 200) from error


def unless(said: str, ask: Callable[[], T]) -> T | None:
    """What the server answers; None when it says, with status 500, something that holds these words."""
    try:
        return ask()
    except ApiError as error:
        if error.status == 500 and said in str(error):
            return None
        raise
