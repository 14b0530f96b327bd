"""What a guest tells of itself through its agent, and what cannot be its own: another's key, another's address."""

import ipaddress
import socket
from collections.abc import Mapping
from contextlib import suppress

from nixherd.errors import ApiError, FleetError, Refused
from nixherd.locate import this_machine
from nixherd.locate.proof import Asked
from nixherd.proxmox.guest.identity import plain_address
from nixherd.session import Session
from nixherd.ssh.keys import parse_public_key, same_key

HOST_KEY_FILE = "/etc/ssh/ssh_host_ed25519_key.pub"
AGAIN = 30.0  # seconds after which a hypervisor that could not be asked is asked again which addresses it has
_LOOK_THERE = "nothing was sent there: find out who is root in that guest"


def owner_of(session: Session, host_key: str, *, but: str) -> str | None:
    """The host of the fleet, but for this one, whose key this is: pinned in hosts.nix, or generated here for it."""
    for other in session.fleet.hosts.values():
        if other.id == but:
            continue
        known = [other.public_key]
        with suppress(FleetError):  # a key that cannot be used is nobody's
            held = session.state_of(other.id).host_key()
            known.append(held.public if held else None)
        if any(key and same_key(key, host_key) for key in known):
            return other.id
    return None


def told_key(session: Session, host_id: str, asked: Asked, *, for_good: bool) -> str:
    """The host key that the agent tells. Refused when it is another host's.

    `for_good`: it is this guest's in this run, and no other's. Until cloud-init is done clones share the template's.
    """
    key = session.client.agent_read(asked.node, asked.vmid, HOST_KEY_FILE).strip()
    try:
        parsed = parse_public_key(key)
    except ValueError as error:
        raise FleetError(f"{asked.label}: what its agent tells as its host key is none: {error}") from None
    if parsed.type != "ssh-ed25519":
        raise Refused(
            f"{asked.label}: what its agent tells as its ed25519 host key is of type {parsed.type}; {_LOOK_THERE}"
        )
    whose = owner_of(session, key, but=host_id)
    if whose is None and for_good:
        first = session.once(("told key", parsed.fingerprint), lambda: asked.label)
        whose = first if first != asked.label else None
    if whose:
        raise Refused(
            f"{asked.label}: its agent tells the host key of {whose} as its own ({parsed.fingerprint}); {_LOOK_THERE}"
        )
    return key


def require_a_guests(session: Session, asked: Asked, address: str) -> None:
    """Refused when the address that a guest names is the hypervisor's or our own."""
    if whose := owner_of_address(_hypervisors(session), address, asked.mac):
        raise Refused(f"{asked.label}: its agent tells {address} as its address, which {whose} has; {_LOOK_THERE}")


def owner_of_address(hypervisors: Mapping[str, str], address: str, mac: str | None) -> str | None:
    """Whose an address is that cannot be the guest's with this MAC: the hypervisor's, or our own; None otherwise.

    Ours is right where we run in that very guest.
    """
    about = ipaddress.ip_address(address)
    if about.is_loopback or about.is_link_local:
        return None  # no guest is believed to have one; the other is on one link alone
    whose = hypervisors.get(address)
    if whose is None and this_machine.has_address(address) and not (mac and this_machine.has_mac(mac)):
        whose = "the machine that this runs on"
    return whose


def hypervisor_at(session: Session, name: str) -> str | None:
    """Which part of the hypervisor has this name or address; None where it is none, as far as that is known."""
    known = known_hypervisors(session)
    return next((known[each] for each in map(plain_address, _resolved(name)) if each and each in known), None)


def known_hypervisors(session: Session) -> Mapping[str, str]:
    """By address, whose it is: the endpoint's and the nodes', or the endpoint's alone where the API cannot be asked.

    That it could not is known for a while, so that nobody waits for it again at each address.
    """
    try:
        return session.lately("known hypervisors", AGAIN, lambda: _hypervisors(session))
    except FleetError:
        return endpoint_addresses(session)


def endpoint_addresses(session: Session) -> Mapping[str, str]:
    """The same of the endpoint alone; the API is not asked."""
    return session.once("endpoint's addresses", lambda: _written(_endpoints(session)))


def _hypervisors(session: Session) -> Mapping[str, str]:
    """By address, whose it is: the endpoint's and the nodes', as far as the token shows them. Asked once per run."""
    return session.once("hypervisor's addresses", lambda: _written(_nodes(session) | _endpoints(session)))


def _written(found: Mapping[str, str]) -> dict[str, str]:
    return {written: whose for address, whose in found.items() if (written := plain_address(address))}


def _endpoints(session: Session) -> dict[str, str]:
    endpoint = session.fleet.endpoint
    return dict.fromkeys(_resolved(endpoint.host), "the hypervisor's API") if endpoint else {}


def _nodes(session: Session) -> dict[str, str]:
    client, found = session.client, dict[str, str]()
    for node in (row.name for row in client.node_rows() if row.status != "offline"):
        with suppress(ApiError):
            found |= dict.fromkeys(client.interface_addresses(node), f"the node {node}")
    with suppress(ApiError):
        found |= {address: f"the node {node}" for address, node in client.node_addresses().items()}
    return found


def _resolved(name: str) -> list[str]:
    try:
        return [str(row[4][0]) for row in socket.getaddrinfo(name.strip("[]"), None, type=socket.SOCK_STREAM)]
    except OSError:
        return []
