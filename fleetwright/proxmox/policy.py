"""Which requests may be sent to the hypervisor: a pure function of the fleet's definitions.

Default-deny. A GET may be sent, save for those that act. Any other request must match one of ROUTES to the
letter, carry only the parameters listed there, and every VMID that its path, a parameter or a volume name
holds must be declared in vms/definitions.nix and changeable. There is no override: edit the definitions.

Paths are matched as they go over the wire, never decoded: what needs decoding (%2e, %2F) matches no route.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from fleetwright.errors import Refused
from fleetwright.models import Fleet, GuestType, Vm

DEFINITIONS = "vms/definitions.nix"


class Kind(Enum):
    """How a parameter's value is read."""

    PLAIN = auto()  # may hold a volume or anything else the server interprets: every VMID in it counts
    TEXT = auto()  # the server stores it or hands it to the guest, and takes no VMID from it
    WORDS = auto()  # TEXT that may be an array
    NEW_VMID = auto()  # the VMID of a guest to be made
    NODE = auto()


@dataclass(frozen=True, slots=True)
class Route:
    """A changing request that may be sent. `path` has named groups node, type and vmid."""

    method: str
    path: re.Pattern[str]
    parameters: Mapping[str, Kind]
    from_template: bool = False


def _route(
    method: str, tail: str, parameters: Mapping[str, Kind] | None = None, *, from_template: bool = False
) -> Route:
    guest = r"/nodes/(?P<node>[A-Za-z0-9][A-Za-z0-9-]*)/(?P<type>qemu)/(?P<vmid>[1-9][0-9]{2,8})"
    path = re.compile(guest + re.escape(tail), re.ASCII)
    return Route(method, path, MappingProxyType(dict(parameters or {})), from_template)


_PLAIN, _TEXT = Kind.PLAIN, Kind.TEXT
_CONFIG = {
    "agent": _PLAIN,
    "ciupgrade": _PLAIN,
    "ciuser": _TEXT,
    "cores": _PLAIN,
    "digest": _PLAIN,
    "ipconfig0": _TEXT,
    "memory": _PLAIN,
    "onboot": _PLAIN,
    "protection": _PLAIN,
    "sockets": _PLAIN,
    "sshkeys": _TEXT,
    "tags": _TEXT,
}
_CLONE = {
    "newid": Kind.NEW_VMID,
    "name": _TEXT,
    "description": _TEXT,
    "full": _PLAIN,
    "pool": _PLAIN,
    "storage": _PLAIN,
    "target": Kind.NODE,
}

ROUTES: tuple[Route, ...] = (
    _route("POST", "/clone", _CLONE, from_template=True),
    _route("PUT", "/config", _CONFIG),
    _route("PUT", "/resize", {"disk": _PLAIN, "size": _PLAIN, "digest": _PLAIN}),
    _route("PUT", "/cloudinit"),
    _route("POST", "/status/start"),
    _route("POST", "/status/stop", {"timeout": _PLAIN}),
    _route("POST", "/status/shutdown", {"timeout": _PLAIN, "forceStop": _PLAIN}),
    _route("POST", "/status/reboot", {"timeout": _PLAIN}),
    _route("POST", "/agent/ping"),
    _route("POST", "/agent/exec", {"command": Kind.WORDS, "input-data": _TEXT}),
)

# GETs that act: they open a tunnel into a guest, make the node ask others or start a restore, take the result of a
# command away from whoever started it (exec-status gives each result once), or read a guest's files as its root.
_ACTING_GET = re.compile(
    r".*websocket|/nodes/[^/]+/(scan(/.*)?|query-.*|storage/[^/]+/file-restore/.*)"
    r"|.*/agent/(?!(network-get-interfaces|get-[a-z-]+|info)\Z).*",
    re.ASCII,
)
_GUEST_GET = re.compile(r"/nodes/[^/]+/qemu/(?P<vmid>[1-9][0-9]{2,8})/agent/(?P<verb>exec-status|file-read)", re.ASCII)
# What tells which system runs in a guest, and that it is the one; nothing else is read.
GUEST_FILES = ("/etc/os-release", "/etc/ssh/ssh_host_ed25519_key.pub")
_GET_PATH = re.compile(r"(/[A-Za-z0-9_@:!.=+-]+)+", re.ASCII)

_VMID = re.compile(r"[1-9][0-9]{2,8}", re.ASCII)
# Parameters of the API that name guests, whatever the call; in any of them each run of digits is a VMID.
_VMID_KEY = re.compile(r"(new|old|target-)?(vm|ct)?ids?|guests?|vms?", re.IGNORECASE)
# Volumes name their owner: `vm-104-disk-0`, `base-9002-disk-0/vm-110-disk-0`, `local:104/vm-104-disk-0.qcow2`,
# `backup/vzdump-qemu-104-…`, `pbs:backup/vm/104/…`.
_OWNERS = (
    re.compile(r"(?:vm|ct|base|basevol|subvol|vzdump-[a-z]+)[-/]([0-9]+)", re.IGNORECASE),
    re.compile(r"(?:^|[:/=,])([0-9]+)/"),
)


def vmids_in(key: str, value: str) -> Iterator[str]:
    """Every VMID that a parameter names, as it is written there."""
    if _VMID_KEY.fullmatch(key):
        yield from re.findall(r"\d+", value)
    for owner in _OWNERS:
        yield from owner.findall(value)


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be done to which guest. Made from the definitions; without any, nothing may be changed."""

    guests: Mapping[int, Vm]
    nodes: frozenset[str]
    template: int | None

    @classmethod
    def from_fleet(cls, fleet: Fleet) -> "Policy":
        guests = {vm.vmid: vm for vm in fleet.vms.values()}
        nodes = {vm.node for vm in guests.values() if vm.node}
        if fleet.endpoint:
            nodes.add(fleet.endpoint.node)
        template = fleet.template.vmid if fleet.template else None
        return cls(MappingProxyType(guests), frozenset(nodes), template)

    def check(self, method: str, path: str, params: Mapping[str, object] | None = None) -> None:
        """Return when the request may be sent, else raise Refused saying which guest or rule forbids it.

        `path` is what follows /api2/json, undecoded and without a query; `params` are all parameters, of query
        and body, decoded once: a value is text, a number, a boolean, or a sequence of those.
        """
        _Question(self, method, path, params or {}).decide()

    def may_change(self, vmid: int) -> bool:
        """Whether any changing request to this guest can pass."""
        vm = self.guests.get(vmid)
        return vm is not None and vm.may_change and vmid != self.template


@runtime_checkable
class PolicySource(Protocol):
    """Whoever knows the newest policy. Refused when the definitions cannot be read."""

    def policy(self) -> Policy: ...


@dataclass(frozen=True, slots=True)
class _Question:
    """One request put to one policy."""

    policy: Policy
    method: str
    path: str
    params: Mapping[str, object]

    def refuse(self, why: str, remedy: str) -> Refused:
        return Refused(f"{why}; refusing {self.method} {self.path} ({remedy})")

    def decide(self) -> None:
        if self.method == "GET":
            self.decide_get()
            return
        # The guests first: naming one that is protected is what the operator wants to hear about.
        for vmid in self.named_in_path():
            self.require_changeable(vmid)
        for key, value in self.texts():
            if self.kind_of(key) in (Kind.TEXT, Kind.WORDS):
                continue
            for vmid in vmids_in(key, value):
                self.require_changeable(vmid)
        self.require_route()

    def decide_get(self) -> None:
        if not _GET_PATH.fullmatch(self.path) or "/." in self.path:
            raise self.refuse("the path is not one of the API's", "this is a mistake in fleetwright; please report it")
        if not _ACTING_GET.fullmatch(self.path):
            return
        match = _GUEST_GET.fullmatch(self.path)
        if match is None:
            raise self.refuse("this GET acts", "only GETs that observe may be sent")
        if match["verb"] == "file-read":
            self.require_readable(match["vmid"])
        else:
            self.require_changeable(match["vmid"])

    def route(self) -> tuple[Route, re.Match[str]] | None:
        for route in ROUTES:
            match = route.path.fullmatch(self.path)
            if match and route.method == self.method:
                return route, match
        return None

    def kind_of(self, key: str) -> Kind:
        """How the matching route reads a parameter; PLAIN, the strictest, where none lists it."""
        found = self.route()
        return found[0].parameters.get(key, Kind.PLAIN) if found else Kind.PLAIN

    def named_in_path(self) -> Iterator[str]:
        """Every number that stands alone between slashes, but the template where it is only cloned from."""
        found = self.route()
        for part in re.split(r"[/?&=]", self.path):
            if not re.fullmatch(r"\d+", part):
                yield from vmids_in("", part)
            elif not (found and found[0].from_template and part == str(self.policy.template)):
                yield part

    def texts(self) -> Iterator[tuple[str, str]]:
        for key, value in self.params.items():
            for item in self.items_of(key, value):
                yield key, item

    def items_of(self, key: str, value: object) -> Iterator[str]:
        if isinstance(value, bool):
            yield str(int(value))
        elif isinstance(value, (str, int, float)):
            yield str(value)
        elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            for item in value:
                yield from self.items_of(key, item)
        else:
            raise self.refuse(f"the parameter {key} is a {type(value).__name__}", "send text, numbers or lists of them")

    def require_changeable(self, vmid: str) -> None:
        vm = self.policy.guests.get(int(vmid)) if _VMID.fullmatch(vmid) else None
        if _VMID.fullmatch(vmid) and int(vmid) == self.policy.template:
            raise self.refuse(f"vm {vmid} is the template in {DEFINITIONS}", "it may only be cloned from")
        if vm is None:
            raise self.refuse(
                f"vm {vmid} is not declared in {DEFINITIONS}", "declare it under managed to let it change"
            )
        if vm.readonly:
            raise self.refuse(
                f"vm {vmid} ({vm.name}) is readonly in {DEFINITIONS}", "edit the definitions if it may change"
            )
        if not vm.may_change:
            raise self.refuse(f"vm {vmid} ({vm.name}) is {vm.origin} in {DEFINITIONS}", "only managed ones are changed")

    def require_readable(self, vmid: str) -> None:
        """Files are read in managed guests only, readonly ones included, and only those of GUEST_FILES."""
        vm = self.policy.guests.get(int(vmid))
        if vm is None or not vm.is_managed or vm.vmid == self.policy.template:
            raise self.refuse(f"vm {vmid} is not managed in {DEFINITIONS}", "only managed guests' files are read")
        if self.params.get("file") not in GUEST_FILES:
            raise self.refuse(f"the file is none of {', '.join(GUEST_FILES)}", "read others over SSH")

    def require_route(self) -> None:
        found = self.route()
        if found is None:
            raise self.refuse("fleetwright never sends this request", "do it by hand on the node if it must be done")
        route, match = found
        self.require_node(match["node"])
        self.require_path_guest(route, match)
        for key, value in self.params.items():
            self.require_parameter(route, key, value)
        for key, kind in route.parameters.items():
            if kind is Kind.NEW_VMID and key not in self.params:
                raise self.refuse(f"the parameter {key} is missing", "name the guest that is to be made")

    def require_path_guest(self, route: Route, match: re.Match[str]) -> None:
        if route.from_template:
            if int(match["vmid"]) != self.policy.template:
                raise self.refuse(f"vm {match['vmid']} is not the template in {DEFINITIONS}", "only it is cloned from")
            return
        self.require_type(match["vmid"], GuestType(match["type"]))

    def require_type(self, vmid: str, wanted: GuestType) -> None:
        declared = self.policy.guests[int(vmid)].type
        if declared is not wanted:
            raise self.refuse(f"vm {vmid} is declared as {declared} in {DEFINITIONS}", "correct its type there")

    def require_parameter(self, route: Route, key: str, value: object) -> None:
        kind = route.parameters.get(key)
        if kind is None:
            raise self.refuse(f"the parameter {key} is not listed for this call", "do it by hand if it must be done")
        values = list(self.items_of(key, value))
        if kind is not Kind.WORDS and (len(values) != 1 or not isinstance(value, (str, int, float))):
            raise self.refuse(f"the parameter {key} is given {len(values)} times", "give it once")
        if kind is Kind.NODE:
            self.require_node(values[0])
        if kind is Kind.NEW_VMID:
            self.require_changeable(values[0])
            self.require_type(values[0], GuestType.QEMU)

    def require_node(self, node: str) -> None:
        if node not in self.policy.nodes:
            raise self.refuse(
                f"{DEFINITIONS} names no node {node}", f"known: {', '.join(sorted(self.policy.nodes)) or 'none'}"
            )
