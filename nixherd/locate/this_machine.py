"""The machine that we run on, as a network sees it."""

import ipaddress
import socket
from pathlib import Path


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
