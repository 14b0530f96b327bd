"""The hypervisor of a fleet, for one run: its guarded client, by the fleet's files as they are now."""

import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nixherd.base.errors import ApiError, FleetError, Foreign, Refused, Unusable, is_passing
from nixherd.base.files import expanded
from nixherd.base.waiting import Once, once_property
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import DEFINITIONS, NO_ENDPOINT, Fleet
from nixherd.fleet.world import Fingerprint, World, look_settled
from nixherd.proxmox.guest.identity import plain_address
from nixherd.proxmox.guest.observe import template_or_why
from nixherd.proxmox.token import Token

if TYPE_CHECKING:
    from nixherd.proxmox.answers import Permissions, Storage, Version
    from nixherd.proxmox.client import Client
    from nixherd.proxmox.config import VmConfig
    from nixherd.proxmox.guard.policy import Policy, PolicySource


T = TypeVar("T")


class Definitions:
    """A fleet and where it comes from. `policy()` is what the guard asks before each changing request."""

    def __init__(self, fleet: Fleet, read: Fingerprint) -> None:
        self.fleet = fleet
        self._read, self._as_read = read, fleet
        self._policy: Policy | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Definitions":
        """Raises as `load_fleet` does."""
        directory = expanded(path).absolute()
        try:
            world = look_settled(directory)  # before the evaluation: what changes meanwhile is noticed next time
        except OSError:
            return cls(load_fleet(directory), frozenset())  # which says what is wrong
        return cls(load_fleet(directory, world), world.fingerprint)

    def policy(self) -> "Policy":
        """The policy of the fleet's files as they are now; they are evaluated again when any of them has changed.

        Refused, in one sentence, when that cannot be done, or when they name another hypervisor than before.
        """
        from nixherd.proxmox.guard.policy import Policy  # a twentieth of a second: not for those who change nothing

        with self._lock:
            now = self._look()
            if now.fingerprint != self._read:
                self._evaluate(now)
            if self._policy is None:
                self._policy = Policy.from_fleet(self._as_read)
            return self._policy

    def _look(self) -> World:
        try:
            return look_settled(self.fleet.path)
        except FleetError as error:
            raise Refused(f"{error}; refusing any change") from error
        except OSError as error:
            why = f"{self.fleet.path} cannot be read any more ({error.strerror})"
            raise Refused(f"{why}; refusing any change") from error

    def _evaluate(self, now: World) -> None:
        try:
            fleet = load_fleet(self.fleet.path, now)
        except FleetError as error:
            first, *rest = str(error).splitlines()
            more = f" (and {len(rest)} more)" if rest else ""
            raise Refused(f"the definitions changed and cannot be used: {first}{more}; refusing any change") from error
        if fleet.endpoint != self.fleet.endpoint or fleet.id != self.fleet.id:
            raise Refused(
                f"{DEFINITIONS} names another fleet or hypervisor than when this run began; refusing any change"
            )
        self._read, self._as_read, self._policy = now.fingerprint, fleet, None


class Hypervisor:
    """The API that the definitions of `fleet` name, used with the token in `token_file`.

    The guard asks `definitions` before each changing request; without them it goes by `fleet`. Not `may_ask`: to this
    run it is as if there were none.
    """

    def __init__(
        self, fleet: Fleet, token_file: Path, definitions: "PolicySource | None" = None, *, may_ask: bool = True
    ) -> None:
        self.fleet, self.token_file, self.may_ask = fleet, token_file, may_ask
        self._definitions = definitions
        # a question that failed is asked again when its answer is needed again
        self.template_storages = Once[Mapping[str, "Storage | None"]](
            "asking for the template's storages", is_passing=is_passing
        )
        self.entered = Once["Client"]("hypervisor: client", is_passing=is_passing)
        self._version = Once["Version"]("hypervisor: version", is_passing=is_passing)
        self._nodes = Once[tuple[str, ...]]("hypervisor: nodes", is_passing=is_passing)
        self._permissions = Once["Permissions"]("hypervisor: permissions", is_passing=is_passing)
        self._template = Once[tuple["VmConfig | None", FleetError | None]](
            "hypervisor: template", is_passing=is_passing
        )
        self._addresses = Once[tuple[Mapping[str, str], bool]]("hypervisor: addresses", is_passing=is_passing)

    @once_property
    def guarded(self) -> "Client":
        """The guarded client, made on first use; it has not asked anything yet.

        Unusable without an endpoint or a token, Refused when the token belongs to another server.
        """
        if self.fleet.endpoint is None:
            raise Unusable(f"{NO_ENDPOINT}; add host and node")
        if not self.may_ask:
            raise Unusable("it is not to be asked in this run (ask_hypervisor=false)")
        # They take a third of a second: not for those who need no API.
        from nixherd.proxmox.client import connect
        from nixherd.proxmox.guard.policy import Policy

        policy = self._definitions or Policy.from_fleet(self.fleet)
        return connect(self.fleet.endpoint, policy, Token.read(self.token_file))

    @property
    def client(self) -> "Client":
        """The same, once it was asked for the version and the nodes.

        Unusable without a way in: no endpoint, another certificate, a token that is missing or refused,
        an unknown node.
        """
        return _computed(self.entered, self._enter)

    def _enter(self) -> "Client":
        try:
            client, _, nodes = self.guarded, self.version, self.nodes
        except FleetError as error:
            raise (Foreign if isinstance(error, Refused) else Unusable)(str(error)) from error
        node = self.fleet.endpoint.node if self.fleet.endpoint else ""
        if node not in nodes:
            remedy = f"name one of {', '.join(nodes)}"
            raise Unusable(f"{DEFINITIONS}: proxmox.node: node {node} does not exist; {remedy}")
        return client

    @property
    def under_way(self) -> list[str]:
        """The UPIDs of the tasks that this run began and did not see ending."""
        client = Hypervisor.guarded.of(self).known
        return sorted(client.under_way) if client else []

    @property
    def accepted_changes(self) -> int:
        """How many changing requests the hypervisor has taken from this run."""
        client = Hypervisor.guarded.of(self).known
        return client.accepted_changes if client else 0

    # What is the same for every guest; only GETs are sent

    @property
    def version(self) -> "Version":
        return _computed(self._version, lambda: self.guarded.version())

    @property
    def nodes(self) -> tuple[str, ...]:
        return _computed(self._nodes, lambda: self.guarded.nodes())

    @property
    def permissions(self) -> "Permissions":
        return _computed(self._permissions, lambda: self.client.permissions())

    @property
    def template(self) -> "tuple[VmConfig | None, FleetError | None]":
        """The template's configuration, and why it could not be looked at."""
        return _computed(
            self._template, lambda: template_or_why(self.client, self.fleet), lambda value: is_passing(value[1])
        )

    # Whose an address is

    @once_property
    def endpoint_addresses(self) -> Mapping[str, str]:
        """By address, whose it is, of the endpoint alone; the API is not asked."""
        endpoint = self.fleet.endpoint
        return _written(dict.fromkeys(_resolved(endpoint.host), "the hypervisor's API")) if endpoint else {}

    @property
    def addresses(self) -> Mapping[str, str]:
        """By address, whose it is: the endpoint's and the nodes', as far as the token shows them."""
        return _computed(self._addresses, self._all_addresses, lambda value: value[1])[0]

    def _all_addresses(self) -> tuple[Mapping[str, str], bool]:
        """The same, and whether some are missing that may be told when they are asked for again."""
        client, found, failures = self.client, dict[str, str](), list[ApiError]()
        for node in (row.name for row in client.node_rows() if row.status != "offline"):
            try:
                found |= dict.fromkeys(client.interface_addresses(node), f"the node {node}")
            except ApiError as error:
                failures.append(error)
        try:
            found |= {address: f"the node {node}" for address, node in client.node_addresses().items()}
        except ApiError as error:
            failures.append(error)
        return {**_written(found), **self.endpoint_addresses}, any(map(is_passing, failures))

    @property
    def known_addresses(self) -> Mapping[str, str]:
        """The same, or the endpoint's alone where the API cannot be asked."""
        try:
            return self.addresses
        except FleetError:
            return self.endpoint_addresses

    def part_at(self, name: str) -> str | None:
        """Which part of the hypervisor has this name or address; None where it is none, as far as that is known."""
        known = self.known_addresses
        return next((known[each] for each in map(plain_address, _resolved(name)) if each and each in known), None)


def _computed(once: Once[T], compute: Callable[[], T], passes: Callable[[T], bool] = lambda value: False) -> T:
    """Return the result, which whoever comes first computes; one that `passes` is computed anew for who comes later.

    Not a method of Once: what is computed here asks for other such results of this file.
    """
    with once:
        if once.is_empty:
            once.value = compute()
            once.passes = passes(once.value)
        return once.value


def _written(found: Mapping[str, str]) -> dict[str, str]:
    return {written: whose for address, whose in found.items() if (written := plain_address(address))}


def _resolved(name: str) -> list[str]:
    try:
        return [str(row[4][0]) for row in socket.getaddrinfo(name.strip("[]"), None, type=socket.SOCK_STREAM)]
    except OSError:
        return []
