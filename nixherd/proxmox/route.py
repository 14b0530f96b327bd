"""The words in which a row of the guard's table is written: a request, what it does, how its parameters are read.

Values only. Steps declare their rows with these, `guard.routes` collects them, and `guard.policy` judges by them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Any

from nixherd.fleet.models import GuestType


class Effect(StrEnum):
    """What a request does to the guests that it names."""

    READ = auto()  # names guests freely
    POWER = auto()
    CONFIG = auto()
    DATA = auto()  # reads, copies or replaces what is inside or on its disks, or moves them
    DESTROY = auto()


class Guest(StrEnum):
    """How the VMID in a path counts."""

    CHANGED = "changed"  # must be declared and changeable
    SOURCE = "source"  # the declared template serves as well: it is only copied
    LOOKED_INTO = "looked into"  # a managed guest's file; the policy says which files


class Kind(Enum):
    """How a parameter's value is read."""

    TEXT = auto()  # the server stores it or hands it to the guest, and takes no VMID from it
    WORDS = auto()  # TEXT that may be an array
    NAME = auto()  # one word of the server's: a CPU type, a mode, a digest, a snapshot
    INTEGER = auto()
    BOOLEAN = auto()
    SIZE = auto()  # what a disk is grown to: never by how much, which a second time would be more
    OPTIONS = auto()  # names of options, comma-separated: what is deleted or reverted
    NODE = auto()
    STORAGE = auto()
    PROPERTIES = auto()  # `key=value,…` of a card, a CPU, an address: nothing in it names a guest
    MAPPING = auto()  # a passed-through device, by the name of a mapping and no other way
    VMID = auto()
    NEW_VMID = auto()  # of a guest to be made
    DRIVE = auto()  # a disk's value: a new volume, one that is there, what it is imported from
    ARCHIVE = auto()  # a backup
    UNPACKED = auto()  # a backup, or an archive of nobody's
    ZERO = auto()  # must be there and 0
    SOCKET = auto()  # a serial port that is a socket of the node's, and no device of it
    IMPORT = auto()  # the kind of content that disks are imported from, and no other
    IMAGE = auto()  # the name of a file to import from, which says for which template it is


Parameters = Mapping[str, Kind]


@dataclass(frozen=True, slots=True)
class Route:
    """A request that may be sent. `path` as the API's documentation writes it.

    `indexed` are families of parameters (`net0` … `net31`) by their name without the number. `template` and `trial`:
    it may also name the declared template that is being made, or the clone that tries it (`guard.policy.Making`).
    """

    method: str
    path: str
    effect: Effect
    parameters: Parameters = field(default_factory=dict)
    indexed: Parameters = field(default_factory=dict)
    required: tuple[str, ...] = ()
    guest: Guest = Guest.CHANGED
    template: bool = False
    trial: bool = False

    def kind_of(self, parameter: str) -> Kind | None:
        """Return how a parameter is read; None where the call has no such parameter."""
        if parameter in self.parameters:
            return self.parameters[parameter]
        match = _INDEXED.fullmatch(parameter)
        return self.indexed.get(match[1]) if match else None

    def filled(self, names: Mapping[str, object]) -> tuple[object, ...]:
        """Return the parts of the path with these names in the places of `{node}`, `{vmid}`, …"""
        parts = self.path.split("/")[1:]
        return tuple(names[part[1:-1]] if part.startswith("{") else part for part in parts)


_INDEXED = re.compile(r"([a-z]+)(?:0|[1-9][0-9]{0,2})", re.ASCII)

NODE = "/nodes/{node}"
STORE = f"{NODE}/storage/{{storage}}"
GUESTS: Mapping[GuestType, str] = {type: f"{NODE}/{type}" for type in GuestType}
GUEST: Mapping[GuestType, str] = {type: f"{base}/{{vmid}}" for type, base in GUESTS.items()}


def each(kind: Kind, names: str) -> dict[str, Kind]:
    """Return parameters, separated by blanks, that are read in the same way."""
    return dict.fromkeys(names.split(), kind)


Requests = dict[GuestType, Route]


def on_vm(method: str, path: str, effect: Effect, parameters: Parameters | None = None, **rest: Any) -> Requests:
    """Declare a request to virtual machines, `path` below the guest's own; `rest` as Route has it."""
    return {GuestType.QEMU: Route(method, GUEST[GuestType.QEMU] + path, effect, parameters or {}, **rest)}


def on_container(method: str, path: str, effect: Effect, parameters: Parameters | None = None, **rest: Any) -> Requests:
    return {GuestType.LXC: Route(method, GUEST[GuestType.LXC] + path, effect, parameters or {}, **rest)}


def on_guests(
    method: str,
    path: str,
    effect: Effect,
    parameters: Parameters | None = None,
    *,
    required: tuple[str, ...] = (),
    vm: Parameters | None = None,
    **of_vm: bool,
) -> Requests:
    """Declare a request that virtual machines and containers have in common.

    `vm`: parameters of the former alone; `of_vm`: whether it is for the `template` in the making, or its `trial`.
    """
    container = on_container(method, path, effect, parameters, required=required)
    return on_vm(method, path, effect, {**(parameters or {}), **(vm or {})}, required=required, **of_vm) | container
