"""What a guest tells of itself through its agent, and what cannot be its own: another's key, another's address."""

import ipaddress
import socket
from collections.abc import Mapping
from pathlib import Path

from nixherd.base.errors import FleetError, Refused
from nixherd.fleet.host_keys import HostKeys
from nixherd.locate.proof import Asked
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.ssh.keys import HOST_KEY_FILE, parse_public_key

_LOOK_THERE = "nothing was sent there: find out who is root in that guest"


def told_key(hypervisor: Hypervisor, keys: HostKeys, host_id: str, guest: Asked, *, for_good: bool) -> str:
    """The host key that the agent tells. Refused when it is another host's.

    `for_good`: it is this guest's in this run, and no other's. Until cloud-init is done clones share the template's.
    """
    key = hypervisor.client.agent_read(guest.node, guest.vmid, HOST_KEY_FILE).strip()
    try:
        parsed = parse_public_key(key)
    except ValueError as error:
        raise FleetError(f"{guest.label}: what its agent tells as its host key is none: {error}") from None
    if parsed.type != "ssh-ed25519":
        raise Refused(f"{guest.label}: its agent tells an ed25519 host key of type {parsed.type}; {_LOOK_THERE}")
    whose = keys.owner(key, but=host_id)
    if whose is None and for_good:
        first = keys.first_to_tell(parsed.fingerprint, guest.label)
        whose = first if first != guest.label else None
    if whose:
        what = f"its agent tells the host key of {whose} as its own ({parsed.fingerprint})"
        raise Refused(f"{guest.label}: {what}; {_LOOK_THERE}")
    return key


def require_a_guests(hypervisor: Hypervisor, guest: Asked, address: str) -> None:
    """Refused when the address that a guest names is the hypervisor's or our own."""
    if whose := owner_of_address(hypervisor.addresses, address, guest.mac):
        raise Refused(f"{guest.label}: its agent tells {address} as its address, which {whose} has; {_LOOK_THERE}")


def owner_of_address(hypervisors: Mapping[str, str], address: str, mac: str | None) -> str | None:
    """Whose an address is that cannot be the guest's with this MAC: the hypervisor's, or our own; None otherwise.

    Ours is right where we run in that very guest.
    """
    parsed = ipaddress.ip_address(address)
    if parsed.is_loopback or parsed.is_link_local:
        return None  # no guest is believed to have one; the other is on one link alone
    whose = hypervisors.get(address)
    if whose is None and has_address(address) and not (mac and has_mac(mac)):
        whose = "the machine that this runs on"
    return whose


def has_address(address: str) -> bool:
    """Whether this address is one of our own. Nothing is sent: the kernel says from where it would send there."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return ipaddress.ip_address(probe.getsockname()[0]) == ipaddress.ip_address(address)
    except OSError:  # no way there, or a broadcast address
        return False


def has_mac(mac: str) -> bool:
    """Whether one of our network cards has this MAC, in lower case."""
    found = set()
    for file in Path("/sys/class/net").glob("*/address"):
        try:
            found.add(file.read_text().strip().lower())
        except OSError:
            continue
    return mac in found
