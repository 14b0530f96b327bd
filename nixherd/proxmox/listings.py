"""Rows of the API's lists as values: guests of the cluster, volumes, snapshots, pending options, nodes, mappings.

Parsed once, in the client; sizes are bytes, times are seconds since 1970 on the server's clock, unknown is None.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nixherd.fleet.models import GuestType
from nixherd.proxmox.models import is_true


def _text(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    return None if value in (None, "") else str(value)


def _number(row: Mapping[str, Any], key: str) -> int | None:
    """Numbers come as numbers or as text, depending on the call."""
    value = row.get(key)
    return None if value in (None, "") else int(float(value))


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
    cores: int | None = None
    memory: int | None = None
    disk: int | None = None
    uptime: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Resource":
        return cls(
            vmid=int(row["vmid"]),
            type=GuestType(row["type"]),
            node=str(row["node"]),
            status=str(row.get("status") or "unknown"),
            name=_text(row, "name"),
            template=is_true(row.get("template", 0)),
            lock=_text(row, "lock"),
            tags=tuple(tag for tag in str(row.get("tags") or "").split(";") if tag),
            pool=_text(row, "pool"),
            cores=_number(row, "maxcpu"),
            memory=_number(row, "maxmem"),
            disk=_number(row, "maxdisk"),
            uptime=_number(row, "uptime"),
        )


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume of a storage: `local:backup/vzdump-qemu-110-….vma.zst`, `nvmeprom:vm-110-disk-0`."""

    volid: str
    content: str
    format: str
    size: int
    vmid: int | None = None
    ctime: int | None = None
    used: int | None = None
    notes: str | None = None
    protected: bool = False
    parent: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Volume":
        return cls(
            volid=str(row["volid"]),
            content=str(row.get("content") or ""),
            format=str(row.get("format") or ""),
            size=_number(row, "size") or 0,
            vmid=_number(row, "vmid"),
            ctime=_number(row, "ctime"),
            used=_number(row, "used"),
            notes=_text(row, "notes"),
            protected=is_true(row.get("protected", 0)),
            parent=_text(row, "parent"),
        )


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A snapshot of a guest; `state` is set while one is made or removed. `with_memory`: its RAM is in it."""

    name: str
    description: str = ""
    parent: str | None = None
    time: int | None = None
    with_memory: bool = False
    state: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "SnapshotRow":
        return cls(
            name=str(row["name"]),
            description=str(row.get("description") or "").strip(),
            parent=_text(row, "parent"),
            time=_number(row, "snaptime"),
            with_memory=is_true(row.get("vmstate", 0)),
            state=_text(row, "snapstate"),
        )


@dataclass(frozen=True, slots=True)
class Pending:
    """An option of a running guest that waits for its next start; `after` is None where it will be gone."""

    key: str
    before: str | None
    after: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Pending | None":
        """None for an option that does not wait."""
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
