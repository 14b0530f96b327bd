"""What the hypervisor knows of a host's guest and of its storages: asked of the API, not of the machine."""

import json
from typing import Any, TypeVar

from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from nixherd.facts.base import Fact
from nixherd.pyinfra_glue.connector import ApiQuery

T = TypeVar("T")


class _FromApi(Fact[T]):
    """JSON of one line, of a `shape`. None where the host is not a guest of the hypervisor, or does not exist yet."""

    shape: type = object

    @override
    def process(self, output: list[str]) -> Any:
        try:
            answer = json.loads("\n".join(output))
        except ValueError:
            raise FactProcessError(f"expected JSON, got {output!r}") from None
        if answer is not None and not isinstance(answer, self.shape):
            raise FactProcessError(f"expected {self.shape.__name__}, got {type(answer).__name__}")
        return answer


class _OneQuery(_FromApi[T]):
    """What one query without parameters answers."""

    query: str

    @override
    def command(self) -> ApiQuery:
        return ApiQuery(self.query)


class VmStatus(_OneQuery[dict[str, Any] | None]):
    """
    Returns a guest's state of power, asked of its node. `uptime` is in seconds; `paused`: it runs, but stands still;
    `lock` if one is held:

    .. code:: python

        {"vmid": 110, "name": "dev", "node": "prom", "type": "qemu", "status": "running", "lock": None,
         "template": False, "uptime": 3600, "paused": False}
    """

    shape = dict
    query = "status"


class VmConfig(_OneQuery[dict[str, Any] | None]):
    """
    Returns a guest's configuration, with what waits for its next start, as the API shows it:

    .. code:: python

        {"name": "dev", "cores": 4, "memory": "8192", "scsi0": "nvmeprom:vm-110-disk-0,size=64G", …}
    """

    shape = dict
    query = "config"


class VmPending(_OneQuery[list[dict[str, Any]] | None]):
    """
    Returns the options that wait for a guest's next start; `after` is None for one that will be gone:

    .. code:: python

        [{"key": "cores", "before": "2", "after": "4"}]
    """

    shape = list
    query = "pending"


class VmSnapshots(_OneQuery[list[dict[str, Any]] | None]):
    """
    Returns a guest's snapshots, oldest first; `time` in seconds since 1970:

    .. code:: python

        [{"name": "clean", "description": "", "parent": None, "time": 1764000000, "with_memory": False, "state": None}]
    """

    shape = list
    query = "snapshots"


class VmBackups(_FromApi[list[dict[str, Any]] | None]):
    """
    Returns a guest's backups on all storages that hold some, or on one, oldest first in each; sizes in bytes:

    .. code:: python

        [{"volid": "local:backup/vzdump-qemu-110-….vma.zst", "size": 1073741824, "ctime": 1764000000, …}]
    """

    shape = list

    @override
    def command(self, storage: str | None = None) -> ApiQuery:
        return ApiQuery("backups", storage=storage)


class VmAddress(_OneQuery[str | None]):
    """
    Returns the address of the interface that carries net0's MAC, `none` while it has none, and `unknown` while nobody
    tells: the agent does not answer, as in a guest that is off, or there is none.
    """

    shape = str
    query = "ip"


class VmTasks(_FromApi[list[dict[str, Any]] | None]):
    """
    Returns the tasks of a guest on its node, running ones first, then newest first:

    .. code:: python

        [{"upid": "UPID:prom:…", "type": "qmstart", "id": "110", "user": "…", "status": "OK", "starttime": 1764000000}]
    """

    shape = list

    @override
    def command(self, limit: int = 20) -> ApiQuery:
        return ApiQuery("tasks", limit=limit)


class Storages(_OneQuery[list[dict[str, Any]] | None]):
    """
    Returns the storages of the node that the guest is declared on, else of the endpoint's; sizes in bytes:

    .. code:: python

        [{"name": "nvmeprom", "active": True, "total": …, "used": …, "available": …, "content": ["images"], "type": …}]
    """

    shape = list
    query = "storage"


class StorageContent(_FromApi[list[dict[str, Any]] | None]):
    """
    Returns the volumes of a storage, of one kind (`images`, `backup`, `iso`, …) or of all; sizes in bytes:

    .. code:: python

        [{"volid": "local:iso/nixos.iso", "content": "iso", "format": "iso", "size": 1073741824, "vmid": None, …}]
    """

    shape = list

    @override
    def command(self, storage: str, content: str | None = None) -> ApiQuery:
        return ApiQuery("content", storage=storage, content=content)


class NextVmid(_FromApi[int | None]):
    """Returns the lowest VMID of a range of the definitions that is neither declared nor taken: a proposal."""

    shape = int

    @override
    def command(self, range: str = "production") -> ApiQuery:
        return ApiQuery("next-id", range=range)
