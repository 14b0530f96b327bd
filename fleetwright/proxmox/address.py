"""A VM's address: what the guest's agent says of the interface that carries net0's MAC."""

import ipaddress
import time
from collections.abc import Callable, Iterable

from fleetwright.errors import DeadlineExceeded
from fleetwright.proxmox.client import Client
from fleetwright.proxmox.errors import AgentUnavailable
from fleetwright.proxmox.models import Interface, VmConfig


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


def wait_for_address(
    client: Client, node: str, vmid: int, timeout: float, progress: Callable[[str], None] | None = None
) -> str:
    """The VM's address once it has one. DeadlineExceeded after `timeout` seconds, saying what was missing."""
    began = time.monotonic()
    missing = "the guest agent has not answered"
    while True:
        config = client.config(node, vmid)
        try:
            address = address_of(config, client.agent_interfaces(node, vmid)) if config else None
            missing = "the interface with net0's MAC has no address" if config else "there is no such VM"
        except AgentUnavailable as error:
            address, missing = None, str(error)
        if address:
            return address
        if time.monotonic() - began > timeout:
            raise DeadlineExceeded(
                f"vm {vmid}: no address within {timeout:.0f} s: {missing}; look at its console on {node}"
            )
        if progress:
            progress(missing)
        time.sleep(0.5)
