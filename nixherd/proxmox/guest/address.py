"""A VM's address: what the guest's agent says of the interface that carries net0's MAC."""

import ipaddress
from collections.abc import Iterable

from nixherd.proxmox.answers import Interface
from nixherd.proxmox.config import VmConfig

_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")


def address_of(config: VmConfig, interfaces: Iterable[Interface]) -> str | None:
    """The guest's address on net0, IPv4 before IPv6; None while it has none that others can reach."""
    card = config.nets.get("net0")
    if card is None or card.mac is None:
        return None
    found = [address for interface in interfaces if interface.mac == card.mac for address in interface.addresses]
    reachable = [address for address in map(usable, found) if address is not None]
    return str(min(reachable, key=lambda address: address.version)) if reachable else None


def plain(text: str) -> str | None:
    """An address as it is written in one way only, without a zone; None when it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0].partition("/")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def usable(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address that a machine can have on a network, also one with its prefix; None for what is none, and for those
    that are nobody's, everybody's, or the asker's own."""
    written = plain(text)
    if written is None:
        return None
    address = ipaddress.ip_address(written)
    nobodys = address.is_link_local or address.is_loopback or address.is_unspecified or address.is_multicast
    if isinstance(address, ipaddress.IPv4Address):
        nobodys = nobodys or address.is_reserved or address in _THIS_NETWORK
    return None if nobodys else address
