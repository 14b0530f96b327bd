"""The API's answers as values, parsed once, in the client. Nothing here does I/O.

Sizes are bytes, times are seconds since 1970 on the server's clock, unknown is None."""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any, Self, TypeVar, cast

from nixherd.fleet.models import GuestType
from nixherd.proxmox.config import is_true


def _text(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    return None if value in (None, "") else str(value)


def _number(row: Mapping[str, Any], key: str) -> int | None:
    """Read a number, which the API gives as a number or as text, depending on the call."""
    value = row.get(key)
    return None if value in (None, "") else int(float(value))


T = TypeVar("T")

_READ: Mapping[object, Callable[[Mapping[str, Any], str], object]] = {
    int | None: _number,
    str | None: _text,
    bool: lambda row, key: is_true(row.get(key, 0)),
    str: lambda row, key: str(row.get(key) or ""),
    int: lambda row, key: _number(row, key) or 0,
}


def _called(key: str, default: Any = MISSING) -> Any:
    """Declare a field that the API calls otherwise."""
    return field(default=default, metadata={"key": key})


def _read(cls: type[T], row: Mapping[str, Any], **given: Any) -> T:
    """Read a row, but for the fields that are `given`: each as its type says; without a default it must be there."""
    for each in fields(cast(Any, cls)):
        if each.name not in given:
            key, kind = each.metadata.get("key", each.name), cast(Any, each.type)
            given[each.name] = kind(row[key]) if each.default is MISSING else _READ[kind](row, key)
    return cls(**given)


@dataclass(frozen=True, slots=True)
class Resource:
    """A guest in /cluster/resources, wherever it runs.

    Where it runs is current; `status`, `name`, `uptime` and sizes may be ten seconds old, and a guest that was made
    since has `unknown` for a status and no name.
    """

    vmid: int
    type: GuestType
    node: str
    status: str
    name: str | None = None
    template: bool = False
    lock: str | None = None
    tags: tuple[str, ...] = ()
    pool: str | None = None
    cores: int | None = _called("maxcpu", None)
    memory: int | None = _called("maxmem", None)
    disk: int | None = _called("maxdisk", None)
    uptime: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        tags = tuple(tag for tag in str(row.get("tags") or "").split(";") if tag)
        return _read(cls, row, status=str(row.get("status") or "unknown"), tags=tags)


@dataclass(frozen=True, slots=True)
class StorageRow:
    """A storage in /cluster/resources, as one node has it; a shared one has a row for each node. `content` names what
    it may hold. One that is disabled has none."""

    name: str
    node: str
    content: tuple[str, ...]
    shared: bool

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "StorageRow":
        content = tuple(sorted(str(row.get("content") or "").split(",")))
        return cls(str(row["storage"]), str(row["node"]), content, is_true(row.get("shared", 0)))


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a storage: `local:backup/vzdump-qemu-110-….vma.zst`, `nvmeprom:vm-110-disk-0`."""

    volid: str
    content: str = ""
    format: str = ""
    size: int = 0
    vmid: int | None = None
    ctime: int | None = None
    used: int | None = None
    notes: str | None = None
    protected: bool = False
    parent: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        return _read(cls, row)


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A snapshot of a guest; `state` is set while one is made or removed. `with_memory`: its RAM is in it."""

    name: str
    description: str = ""
    parent: str | None = None
    time: int | None = _called("snaptime", None)
    with_memory: bool = _called("vmstate", False)
    state: str | None = _called("snapstate", None)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        return _read(cls, row, description=str(row.get("description") or "").strip())


@dataclass(frozen=True, slots=True)
class Pending:
    """An option of a running guest that waits for its next start; `after` is None where it will be gone."""

    key: str
    before: str | None
    after: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Pending | None":
        """Return None for an option that does not wait."""
        before = _text(row, "value")
        if row.get("delete"):
            return cls(str(row["key"]), before, None)
        return cls(str(row["key"]), before, str(row["pending"])) if "pending" in row else None


class Presence(StrEnum):
    """What can be known of a VMID that no list shows: free, taken by a guest that the token may not see, or neither."""

    ABSENT = "absent"
    NOT_VISIBLE = "not visible"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster as the others see it: `online`, `offline`, or `unknown` while its statistics are not told.

    An unknown one may well be at work: nothing but its statistics daemon need be away.
    """

    name: str
    status: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Node":
        return cls(str(row["node"]), str(row.get("status") or "unknown"))


@dataclass(frozen=True, slots=True)
class Resources:
    """All that one /cluster/resources shows of guests, storages and nodes."""

    guests: tuple[Resource, ...]
    storages: tuple[StorageRow, ...]
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class PciMapping:
    """A PCI device that guests get by name; `nodes` are those that have one, `entries` where: node, path, id, …"""

    id: str
    nodes: tuple[str, ...]
    entries: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "PciMapping":
        maps = row.get("map") or ()
        texts = [maps] if isinstance(maps, str) else [str(text) for text in maps]
        parts = [dict(item.split("=", 1) for item in text.split(",") if "=" in item) for text in texts]
        nodes = tuple(sorted({part["node"] for part in parts if "node" in part}))
        return cls(str(row["id"]), nodes, tuple(parts))


@dataclass(frozen=True, slots=True)
class Version:
    """`version` is the full one (`9.2.11`), `release` the short one (`9.2`)."""

    version: str
    release: str

    @property
    def major(self) -> int:
        return int(self.release.split(".")[0])


@dataclass(frozen=True, slots=True)
class VmStatus:
    """A guest's state of power, `status` as the API says it (`running`, `stopped`); `lock` if one is held.

    `paused`: it runs, but stands still. `pid` is that of the process which runs it, `uptime` its age in seconds.
    """

    vmid: int
    status: str
    name: str | None = None
    lock: str | None = None
    template: bool = False
    uptime: int = 0
    paused: bool = False
    pid: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], **given: Any) -> Self:
        return _read(cls, row, paused=row.get("qmpstatus") == "paused", pid=_number(row, "pid") or None, **given)

    @property
    def running(self) -> bool:
        return self.status == "running"


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage as one node sees it; sizes in bytes, None while it is away: the server says 0 then.

    `content` names what it may hold (`images`, …). It is not `active` when it is not mounted or its server does not
    answer, not `enabled` when somebody has switched it off.
    """

    name: str
    active: bool
    total: int | None
    used: int | None
    available: int | None
    content: tuple[str, ...]
    type: str = ""
    shared: bool = False
    enabled: bool = True

    @classmethod
    def of(cls, name: str, row: Mapping[str, Any]) -> "Storage":
        content = tuple(sorted(str(row.get("content", "")).split(",")))
        shared, active = (is_true(row.get(key, 0)) for key in ("shared", "active"))
        total, used, available = (int(row.get(key) or 0) if active else None for key in ("total", "used", "avail"))
        kind, enabled = str(row.get("type") or ""), is_true(row.get("enabled", 1))
        return cls(name, active, total, used, available, content, kind, shared, enabled)

    @property
    def away(self) -> str | None:
        """Why nothing can be done on it now, and what to do; None where something can."""
        if not self.enabled:
            return f"is disabled; `pvesm set {self.name} --disable 0` on the node enables it"
        return None if self.active else "is not active: not mounted, or its server does not answer; bring it up"


@dataclass(frozen=True, slots=True)
class Upid:
    """The name of a task: `UPID:NODE:PID:PSTART:STARTTIME:TYPE:ID:USER:`, its beginning in seconds since 1970."""

    text: str
    node: str
    type: str
    id: str
    user: str
    starttime: int = 0

    @classmethod
    def parse(cls, text: str) -> "Upid":
        """Parse a UPID. Raise ValueError when the text is not one."""
        parts = text.split(":")
        if len(parts) != 9 or parts[0] != "UPID" or parts[8] != "":
            raise ValueError(f"{text!r} is not a UPID")
        try:
            starttime = int(parts[4], 16)
        except ValueError:
            raise ValueError(f"{text!r} is not a UPID") from None
        return cls(text, node=parts[1], type=parts[5], id=parts[6], user=parts[7], starttime=starttime)

    def __str__(self) -> str:
        return self.text


_SUCCESS = re.compile(r"OK|WARNINGS: \d+")


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """`exitstatus` is None while the task runs; afterwards `OK`, `WARNINGS: n`, or what went wrong."""

    running: bool
    exitstatus: str | None

    @property
    def succeeded(self) -> bool:
        return self.exitstatus is not None and _SUCCESS.fullmatch(self.exitstatus) is not None


@dataclass(frozen=True, slots=True)
class Task:
    """A row of a node's task list; `user` with the token's name where the server shows it (`u@pve!token`)."""

    upid: Upid
    type: str
    id: str
    user: str
    status: str | None
    starttime: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Raise ValueError when its UPID is none."""
        user = str(row["user"])
        if row.get("tokenid") and "!" not in user:
            user = f"{user}!{row['tokenid']}"
        id, status = str(row.get("id") or ""), _text(row, "status")
        return _read(cls, row, upid=Upid.parse(row["upid"]), user=user, id=id, status=status)


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface as the guest sees it; `mac` in lower case, None where it has none."""

    name: str
    mac: str | None
    addresses: tuple[str, ...]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Interface":
        mac = row.get("hardware-address")
        addresses = tuple(str(item["ip-address"]) for item in row.get("ip-addresses") or ())
        return cls(str(row["name"]), mac.lower() if mac else None, addresses)

    @classmethod
    def of_container(cls, row: Mapping[str, Any]) -> "Interface":
        """Read a row of a container's interfaces: `hwaddr`, and `inet` and `inet6` with their prefix lengths."""
        mac = row.get("hwaddr") or row.get("hardware-address")
        addresses = tuple(str(row[key]).partition("/")[0] for key in ("inet", "inet6") if row.get(key))
        return cls(str(row["name"]), str(mac).lower() if mac else None, addresses)


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command in the guest ended; `exitcode` is None when a signal ended it."""

    exitcode: int | None
    stdout: str
    stderr: str
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the token may do: privileges by path; True where they reach the paths below as well."""

    paths: Mapping[str, Mapping[str, bool]]

    def allows(self, path: str, privilege: str) -> bool:
        """Tell whether the nearest path that the server listed grants it; inherited rights are merged by the server."""
        if path in self.paths:
            return privilege in self.paths[path]
        while path != "/":
            path = path.rsplit("/", 1)[0] or "/"
            if path in self.paths:
                return self.paths[path].get(privilege, False)
        return False
