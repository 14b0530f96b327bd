"""`nixherd init --vm`: the hypervisor of a fleet that begins, as its token sees it, or as people say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from nixherd.base.errors import FleetError, Usage
from nixherd.cli.front import Front
from nixherd.fleet.models import NOTHING, Endpoint, Fleet, Template

# What asks the hypervisor is imported where there is a token: most directories are looked at without one.
if TYPE_CHECKING:
    from nixherd.proxmox.client import Client
    from nixherd.proxmox.offers import Offers
    from nixherd.proxmox.token import Server

NEW_TEMPLATE = 9000
_NODE, _STORAGE = "pve", "local-lvm"
T = TypeVar("T")
Ask = Callable[..., str]


@dataclass
class Hypervisor:
    """The token's server. What it has is None without a token, and where that is unknown: `unknown` says why."""

    front: Front
    server: "Server | None" = None
    client: "Client | None" = None
    offers: "Offers | None" = None
    unknown: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, front: Front) -> "Hypervisor":
        """Ask the server that the token is for, if there is one."""
        seen = cls(front)
        if front.token_path.exists():
            seen.offers = seen.told("the hypervisor", seen._look)
        return seen

    def _look(self) -> "Offers":
        from nixherd.proxmox.offers import offers
        from nixherd.proxmox.token import Token

        self.server = server = Token.read(self.front.token_path).server
        endpoint = Endpoint(server.host, "", port=server.port, fingerprint=server.fingerprint)
        self.client = self.connected(Fleet(str(self.front.directory), "", NOTHING, endpoint=endpoint))
        return offers(self.client)

    def connected(self, fleet: Fleet) -> "Client":
        """Return a client for this fleet; nothing is sent yet."""
        from nixherd.proxmox.hypervisor import Hypervisor as Api

        return Api(fleet, self.front.token_path).guarded

    def told(self, what: str, ask: Callable[[], T]) -> T | None:
        """Return an answer; None where none comes, which is noted."""
        try:
            return ask()
        except FleetError as error:
            self.unknown.append(f"{what}: {str(error).splitlines()[0]}")
            return None

    @property
    def guests(self) -> list[dict[str, Any]] | None:
        if self.offers is None:
            return None
        return [
            {"vmid": each.vmid, "name": each.name, "kind": str(each.type), "node": each.node, "status": each.status}
            for each in self.offers.guests
        ]

    def lines(self) -> list[str]:
        """Say what it has, a line each."""
        if self.offers is None:
            return []
        names = ", ".join(f"{each.vmid} {each.name}" for each in self.offers.guests)
        return [f"the hypervisor: {names or 'no guest that the token may see'}"]


@dataclass(frozen=True)
class Place:
    """Where a fleet's guests are to be made. `is_seen`: the token's server was asked, and has what is named."""

    endpoint: Endpoint
    template: Template
    pool: str | None = None
    is_seen: bool = False
    has_template: bool = False
    notes: Sequence[str] = ()


def place_of(seen: Hypervisor, options: Mapping[str, Any], question: Ask) -> Place:
    """Decide by the options, by what the hypervisor has, and by answers. Usage where none of them says it."""
    named, before = _server(seen, options, question), len(seen.unknown)
    is_tokens = seen.server is not None and (named.host, named.port) == (seen.server.host, seen.server.port)
    offers = seen.offers if is_tokens else None
    templates = {str(each.vmid): each for each in offers.templates} if offers else {}
    chosen = _chosen("--template", "The template to clone from", options["template"], list(templates), question)
    model = templates.get(chosen or "")
    nodes = list(offers.nodes) if offers else []
    usual = model.node if model else None if len(nodes) > 1 else next(iter(nodes), _NODE)
    node = options["node"] or question("--node", "The node that guests are made on", usual, _words(nodes))
    storage = options["storage"]
    if storage is None:
        storages = _storages(seen, node) if offers else []
        of_model = _storage_of(seen, model) if model else None
        likely = (of_model, _STORAGE, *(storages if len(storages) == 1 else ()))
        usual = next((each for each in likely if each in storages), None if storages else _STORAGE)
        storage = question("--storage", "The storage for their disks", usual, _words(storages))
    pools = list(offers.pools) if offers else []
    pool = _chosen("--pool", "The pool that they are made in", options["pool"], pools, question)
    vmid = int(chosen) if chosen else NEW_TEMPLATE
    template = Template(vmid, node=model.node if model and model.node != node else None)
    endpoint = Endpoint(named.host, node, storage, port=named.port, fingerprint=named.fingerprint)
    notes = [*_notes(named, is_tokens), *(f"unknown: {line}" for line in seen.unknown[before:])]
    return Place(endpoint, template, pool, offers is not None, model is not None, notes)


def _server(seen: Hypervisor, options: Mapping[str, Any], question: Ask) -> "Server":
    from nixherd.proxmox.token import Server

    known, given = seen.server, options["fingerprint"]
    host = options["proxmox"] or question("--proxmox", "The hypervisor's API", str(known) if known else None)
    try:
        named = Server.parse(host)
        if known is not None and (named.host, named.port) == (known.host, known.port) and given is None:
            return Server(named.host, named.port, known.fingerprint)
        if given is None:
            what = "Its certificate's SHA-256, of `pvenode cert info` there; empty where this system trusts it"
            given = question("--fingerprint", what, "")
    except ValueError as error:
        raise Usage(f"--proxmox: {error}; write its name or address") from None
    try:
        return Server.parse(host, given or None)
    except ValueError as error:
        raise Usage(f"--fingerprint {given}: {error}; `pvenode cert info` on the node shows it") from None


def _chosen(option: str, what: str, given: object, known: Sequence[str], question: Ask) -> str | None:
    """What was said; else the only one; else one of several, which people choose. None where there is none."""
    if given is not None:
        return str(given)
    if len(known) < 2:
        return next(iter(known), None)
    return question(option, what, None, _words(known))


def _words(known: Sequence[str]) -> dict[str, str] | None:
    return dict.fromkeys(known, "") or None


def _storages(seen: Hypervisor, node: str) -> list[str]:
    from nixherd.proxmox.offers import disk_storages

    client = seen.client
    assert client is not None
    return [each.name for each in seen.told(f"storages of {node}", lambda: disk_storages(client, node)) or ()]


def _storage_of(seen: Hypervisor, template: Any) -> str | None:
    from nixherd.proxmox.offers import storage_of

    client = seen.client
    assert client is not None
    return seen.told(f"the disk of template {template.vmid}", lambda: storage_of(client, template))


def _notes(server: "Server", is_tokens: bool) -> list[str]:
    if server.fingerprint or is_tokens:
        return []
    how = "say --fingerprint (`pvenode cert info` there), or write proxmox.fingerprint into vms/definitions.nix"
    return [f"{server}: its certificate has to be one that this system trusts; for Proxmox's own, {how}"]
