"""A VM's address: what the guest's agent says of the interface that carries net0's MAC."""

import ipaddress
from collections.abc import Iterable

from nixherd.proxmox.models import Interface, VmConfig


def address_of(config: VmConfig, interfaces: Iterable[Interface]) -> str | None:
    """The guest's address on net0, IPv4 before IPv6; None while it has none that others can reach."""
    card = config.nets.get("net0")
    if card is None or card.mac is None:
        return None
    found = [address for interface in interfaces if interface.mac == card.mac for address in interface.addresses]
    usable = [address for address in map(_parse, found) if address is not None]
    return str(min(usable, key=lambda address: address.version)) if usable else None


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return None if address.is_link_local or address.is_loopback or address.is_unspecified else address
