"""Every request that may be sent, one row each: what it does, and where it names guests. What has no row is refused.

What is done to a guest is declared with its step (`nixherd.proxmox.steps`); here are the rows for looking, and for
what is not a step. Left out with intent: whatever is for a whole node or cluster (stopall, migrateall, HA, pools,
users, ACL, firewall), consoles, `skiplock`, `force` of a migration, and calls that nobody here needs.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from nixherd.base import names
from nixherd.proxmox import steps
from nixherd.proxmox.route import GUEST, NODE, STORE, Effect, Guest, Kind, Route, each, on_guests

_VM, _CT = GUEST.values()


def _reading() -> Iterator[Route]:
    lists = {
        "/version": "",
        "/access/permissions": "",
        "/access/users/{user}/token/{token}": "",
        "/cluster/nextid": "vmid",
        "/cluster/resources": "type",
        "/cluster/status": "",
        "/cluster/mapping/pci/{name}": "",
        "/pools": "poolid",
        "/nodes": "",
        f"{NODE}/time": "",
        f"{NODE}/network": "",
        f"{NODE}/tasks": "source typefilter vmid limit errors",
        f"{NODE}/tasks/{{upid}}/status": "",
        f"{NODE}/tasks/{{upid}}/log": "limit",
        f"{NODE}/storage": "",
        f"{STORE}/status": "",
        f"{STORE}/content": "content vmid",
        f"{_VM}/cloudinit": "",
        f"{_VM}/agent/network-get-interfaces": "",
        f"{_VM}/agent/info": "",
        f"{_CT}/interfaces": "",
    }
    for guest in GUEST.values():
        lists |= {f"{guest}/status/current": "", f"{guest}/pending": "", f"{guest}/snapshot": ""}
        lists |= {f"{guest}/config": "current snapshot", f"{guest}/feature": "feature"}
    for path, parameters in lists.items():
        yield Route("GET", path, Effect.READ, each(Kind.TEXT, parameters))


def _without_a_step() -> Iterator[Route]:
    """Return changing requests, and looks inside guests, that are not steps."""
    # shows the hash of cloud-init's password
    yield from on_guests("GET", "/snapshot/{snapname}/config", Effect.DATA).values()
    agent = f"{_VM}/agent"
    yield Route("POST", f"{agent}/exec", Effect.DATA, {"command": Kind.WORDS, "input-data": Kind.TEXT}, trial=True)
    # each result is given out once
    yield Route("GET", f"{agent}/exec-status", Effect.DATA, {"pid": Kind.INTEGER}, trial=True)
    yield Route("GET", f"{agent}/file-read", Effect.DATA, {"file": Kind.TEXT}, guest=Guest.LOOKED_INTO)
    inside = {"volume": Kind.ARCHIVE}
    yield Route("GET", f"{NODE}/vzdump/extractconfig", Effect.DATA, inside, required=("volume",))
    # what a template is made out of, brought to a storage: by the node itself, or from here
    image = {"content": Kind.IMPORT, "filename": Kind.IMAGE, **each(Kind.NAME, "checksum checksum-algorithm")}
    for path, more in (("download-url", {"url": Kind.TEXT}), ("upload", {})):
        parameters = {**image, **more}
        yield Route(*("POST", f"{STORE}/{path}", Effect.DATA, parameters), required=tuple(parameters), template=True)


ROUTES: tuple[Route, ...] = (*_reading(), *steps.requests(), *_without_a_step())


# Finding a request's row

_SEGMENTS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        name: re.compile(pattern, re.ASCII)
        for name, pattern in {
            "node": names.NODE,
            "vmid": names.VMID,
            "storage": names.STORAGE,
            "snapname": names.SNAPSHOT,
            "upid": r"UPID(:[A-Za-z0-9_@!.+-]*){8}",
            "user": r"[A-Za-z0-9_.+-]+@[A-Za-z0-9_.-]+",
            "token": r"[A-Za-z][A-Za-z0-9_.-]+",
            "name": r"[A-Za-z][A-Za-z0-9_.-]*",
        }.items()
    }
)


@dataclass(frozen=True, slots=True)
class Found:
    """A request's row, and what its path says by name."""

    route: Route
    names: Mapping[str, str]


def find(method: str, path: str) -> Found | None:
    """Return the row of a request, None if it has none. `path` as it goes over the wire: nothing is decoded."""
    segments = path.split("/")
    for route, pattern in _INDEX.get((method, segments[1] if len(segments) > 1 else "", len(segments)), ()):
        names = _match(pattern, segments)
        if names is not None:
            return Found(route, names)
    return None


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    names: dict[str, str] = {}
    for part, segment in zip(pattern, segments, strict=True):
        if part.startswith("{"):
            name = part[1:-1]
            if not _SEGMENTS[name].fullmatch(segment):
                return None
            names[name] = segment
        elif part != segment:
            return None
    return names


def _index() -> Mapping[tuple[str, str, int], tuple[tuple[Route, tuple[str, ...]], ...]]:
    rows: dict[tuple[str, str, int], list[tuple[Route, tuple[str, ...]]]] = {}
    for route in ROUTES:
        pattern = tuple(route.path.split("/"))
        rows.setdefault((route.method, pattern[1], len(pattern)), []).append((route, pattern))
    return MappingProxyType({key: tuple(matches) for key, matches in rows.items()})


_INDEX = _index()
