"""Which requests may be sent to the hypervisor: a pure function of the fleet's definitions.

Default-deny. A request must match a row of ROUTES to the letter and carry only the parameters listed there, and every
VMID that its path, a parameter or a volume's name holds must be declared in vms/definitions.nix and changeable, unless
the row only reads. It cannot be overridden: edit the definitions.

Paths are matched as they go over the wire, never decoded: what needs decoding (%2e, %2F) matches no row.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from nixherd.base import names
from nixherd.base.errors import Refused
from nixherd.base.files import BOOT_ID
from nixherd.base.ssh_keys import HOST_KEY_FILE
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Vm, VmidRange
from nixherd.proxmox.guard import vmid_references
from nixherd.proxmox.guard.routes import Found, find
from nixherd.proxmox.guard.vmid_references import Named
from nixherd.proxmox.route import Effect, Guest, Kind

# What tells which system runs in a guest, and that it is the one; nothing else is read.
GUEST_FILES = ("/etc/os-release", HOST_KEY_FILE, BOOT_ID)

_VMID = names.pattern(names.VMID)
_PATH = re.compile(r"(/[A-Za-z0-9_@:!.=+-]+)+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Making:
    """That the declared template is being made in this run: by its VMID, and that of the clone that tries it.

    Only rows that say so may name them, and only as long as the definitions do: `Policy.check` asks those.
    """

    template: int
    trial: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be done to which guest. Made from the definitions; without any, nothing may be changed.

    `making`: this run makes the template. Without it the template is only cloned from.
    """

    guests: Mapping[int, Vm]
    template: int | None
    ranges: tuple[VmidRange, ...] = ()
    making: Making | None = None

    @classmethod
    def from_fleet(cls, fleet: Fleet) -> "Policy":
        guests = {vm.vmid: vm for vm in fleet.vms.values()}
        template = fleet.template.vmid if fleet.template else None
        return cls(MappingProxyType(guests), template, fleet.ranges)

    def check(self, method: str, path: str, params: Mapping[str, object] | None = None) -> None:
        """Return when the request may be sent, else raise Refused saying which guest or rule forbids it.

        `path` is what follows /api2/json, undecoded and without a query; `params` are all parameters, of query
        and body, decoded once: a value is text, a number, a boolean, or a sequence of those.
        """
        _Question(self, method, path, params or {}).decide()

    def may_change(self, vmid: int) -> bool:
        """Tell whether any changing request to this guest can pass."""
        vm = self.guests.get(vmid)
        return vm is not None and vm.may_change and vmid != self.template

    def is_made(self, vmid: int) -> bool:
        """Tell whether this is the declared template while it is being made, and not a guest's VMID as well."""
        return self.making is not None and vmid == self.making.template == self.template and vmid not in self.guests

    def is_trial(self, vmid: int) -> bool:
        """Tell whether this is the trial's VMID: in a range of the definitions, and nothing else of theirs."""
        making = self.making
        if making is None or vmid != making.trial or vmid == self.template or vmid in self.guests:
            return False
        return self.is_made(making.template) and any(vmid in span for span in self.ranges)


@runtime_checkable
class PolicySource(Protocol):
    """Whoever knows the newest policy. `policy()` raises Refused when the definitions cannot be read."""

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
        match = find(self.method, self.path) if _PATH.fullmatch(self.path) and "/." not in self.path else None
        if match is None:
            self.refuse_unknown()
        elif match.route.effect is Effect.READ:
            self.require_parameters(match)
        elif match.route.guest is Guest.LOOKED_INTO:
            self.require_readable(match.names["vmid"])
            self.require_parameters(match)
        else:
            self.require_guests(match)

    def refuse_unknown(self) -> None:
        """Refuse a request that no row knows; a protected guest that it names is mentioned first."""
        if self.method != "GET":
            for part in re.split(r"[/?&=]", self.path):
                for vmid in [part] if re.fullmatch(r"\d+", part) else vmid_references.anywhere("", part):
                    self.require_changeable(vmid)
            for key, value in self.texts():
                for vmid in vmid_references.anywhere(key, value):
                    self.require_changeable(vmid)
        raise self.refuse("nixherd never sends this request", "do it by hand on the node if it must be done")

    def require_guests(self, match: Found) -> None:
        """Require that every guest that the request names may be changed, and what else its row says of it."""
        route, names = match.route, match.names
        vmid = names.get("vmid")
        if self.params.keys() & {"archive", "force"} and self.is_in_the_making(str(self.params.get("vmid"))):
            raise self.refuse("a template is made out of an image, not over a guest", "leave archive and force out")
        if vmid is not None and not (route.guest is Guest.SOURCE and vmid == str(self.policy.template)):
            self.require_changeable(vmid)
            self.require_type(vmid)
        # whoever hides a protected guest behind a parameter that the row does not have hears of the guest
        for key, value in self.texts():
            if route.kind_of(key) is None:
                for named in vmid_references.anywhere(key, value):
                    self.require_changeable(named)
        self.require_parameters(match)

    def require_parameters(self, match: Found) -> None:
        route = match.route
        for key, value in self.params.items():
            kind = route.kind_of(key)
            if kind is None:
                raise self.refuse(
                    f"the parameter {key} is not listed for this call", "do it by hand if it must be done"
                )
            values = list(self.items_of(key, value))
            if route.effect is not Effect.READ:
                for text in values:
                    self.require_named(kind, key, text)
            if kind is not Kind.WORDS and (len(values) != 1 or not isinstance(value, (str, int, float))):
                raise self.refuse(f"the parameter {key} is given {len(values)} times", "give it once")
        for key in route.required:
            if key not in self.params:
                raise self.refuse(f"the parameter {key} is missing", "this is a mistake in nixherd; report it")

    def require_named(self, kind: Kind, key: str, value: str) -> None:
        """Require that the value can be read with certainty, and that every guest in it may be changed."""
        try:
            for named in vmid_references.read(kind, value):
                self.require_usable(named)
                if kind is Kind.NEW_VMID:
                    self.require_type(named.vmid)
            if kind not in (Kind.DRIVE, Kind.ARCHIVE, Kind.UNPACKED):
                for vmid in vmid_references.mentions(kind, value):
                    self.require_changeable(vmid)
        except ValueError as error:
            for vmid in vmid_references.anywhere(key, value):  # a protected guest in it is what to hear about
                self.require_changeable(vmid)
            if kind in (Kind.VMID, Kind.NEW_VMID):
                raise self.undeclared(value) from error
            raise self.refuse(f"the parameter {key} {error}", "only what can be read for certain is sent") from error

    def require_usable(self, named: Named) -> None:
        if named.base and named.vmid == str(self.policy.template):
            return  # a linked clone of the template stands on its disk
        self.require_changeable(named.vmid)

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

    def is_in_the_making(self, vmid: str) -> bool:
        """Tell whether it is the template in the making, or its trial, and the request makes or tries it."""
        match = find(self.method, self.path) if _VMID.fullmatch(vmid) else None
        if match is None or ("vmid" in match.route.required and str(self.params.get("vmid")) != vmid):
            return False  # what is made for another guest has no part in it
        made = match.route.template and self.policy.is_made(int(vmid))
        return made or (match.route.trial and self.policy.is_trial(int(vmid)))

    def require_changeable(self, vmid: str) -> None:
        if self.is_in_the_making(vmid):
            return
        vm = self.policy.guests.get(int(vmid)) if _VMID.fullmatch(vmid) else None
        if _VMID.fullmatch(vmid) and int(vmid) == self.policy.template:
            raise self.refuse(f"vm {vmid} is the template in {DEFINITIONS}", "it may only be cloned from")
        if vm is None:
            raise self.undeclared(vmid)
        if vm.readonly:
            raise self.refuse(
                f"vm {vmid} ({vm.name}) is readonly in {DEFINITIONS}", "edit the definitions if it may change"
            )
        if not vm.may_change:
            raise self.refuse(f"vm {vmid} ({vm.name}) is {vm.origin} in {DEFINITIONS}", "only managed ones are changed")

    def undeclared(self, vmid: str) -> Refused:
        return self.refuse(f"vm {vmid} is not declared in {DEFINITIONS}", "declare it under managed to let it change")

    def require_type(self, vmid: str) -> None:
        """Require that the kind of guest in the path is the declared one; other paths do not say."""
        kind = next((kind for kind in GuestType if f"/{kind}/" in f"{self.path}/"), None)
        guest = self.policy.guests.get(int(vmid))
        declared = guest.type if guest else GuestType.QEMU  # what is in the making is a VM
        if kind is not None and declared is not kind:
            raise self.refuse(f"vm {vmid} is declared as {declared} in {DEFINITIONS}", "correct its type there")

    def require_readable(self, vmid: str) -> None:
        """Require that files are read in managed guests only, readonly ones included, and only those of GUEST_FILES."""
        vm = self.policy.guests.get(int(vmid))
        if vm is None or not vm.is_managed or vm.vmid == self.policy.template:
            raise self.refuse(f"vm {vmid} is not managed in {DEFINITIONS}", "only managed guests' files are read")
        if self.params.get("file") not in GUEST_FILES:
            raise self.refuse(f"the file is not one of {', '.join(GUEST_FILES)}", "read others over SSH")
