"""At which addresses a guest may be without its agent: those declared, and those where a machine saw its network card.

Machines on the same network are asked for their neighbour tables and the leases that they gave, in one command that
only reads. What stands in them is the word of whoever is root on that machine, and of whoever answers ARP or asks for a
lease on its network: no more than addresses to try, and whoever answers there is known by the pinned key.

Formats: ip-neighbour(8), proc_net(5) (`/proc/net/arp`), lease.c of dnsmasq, the memfile backend of Kea (CSV),
dhcpd.leases(5) of ISC dhcpd, and the leases that systemd-networkd keeps (JSON, since 257). Files are read where they
usually are (neighbours.sh), and where a dnsmasq or dhcpd that runs was told to keep them.
"""

import ipaddress
import json
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

from nixherd.base.errors import FleetError
from nixherd.base.names import MAC, is_a
from nixherd.base.process import run
from nixherd.base.waiting import Once, OncePer
from nixherd.fleet.models import GuestType, Vm
from nixherd.locate import keyscan
from nixherd.proxmox.config import VmConfig, properties
from nixherd.proxmox.guest.identity import plain_address, usable_address

_LOOK = Path(__file__).with_name("neighbours.sh").read_text(encoding="utf-8")
_CARD = re.compile(r"[A-Za-z0-9]+")


class Sure(IntEnum):
    """How likely it is that the card is still there; the first is the likeliest."""

    SEEN = 0
    LEASED = 1
    STALE = 2


# What the kernel says of an entry that has a card: others wait for an answer that has not come.
_STATES = {**dict.fromkeys(("REACHABLE", "DELAY", "PROBE", "PERMANENT", "NOARP"), Sure.SEEN), "STALE": Sure.STALE}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One address at which a card was seen. `mac` is in lower case; `card` is the one it was seen through, if said."""

    mac: str
    address: str
    sure: Sure
    card: str | None = None


def look(token: str) -> str:
    """The script that a machine answers with what `parse` takes."""
    return _LOOK.replace("TOKEN", token)


def parse(output: str, token: str) -> tuple[Neighbour, ...] | None:
    """What the script said, each address of a card once; None when it did not come to its end."""
    parts: dict[str, list[list[str]]] = defaultdict(list)
    lines: list[str] = []
    for line in output.splitlines():
        mark, _, kind = line.partition(" ")
        if mark == token:
            lines = []
            parts[kind].append(lines)
        else:
            lines.append(line)
    if "end" not in parts:
        return None
    now = _number((parts.get("now", [[""]])[0] or [""])[0])
    found: dict[tuple[str, str], Neighbour] = {}
    for kind, read in _READERS.items():
        for lines in parts.get(kind, ()):
            for each in read(lines, now):
                known = found.get((each.mac, each.address))
                if known is None or each.sure < known.sure:
                    found[each.mac, each.address] = each
    return tuple(found.values())


def of(mac: str, neighbours: Iterable[Neighbour]) -> list[Neighbour]:
    """What is known of one card, the likeliest first; IPv4 before IPv6."""
    mine = (each for each in neighbours if each.mac == mac.lower())
    return sorted(mine, key=lambda each: (each.sure, ":" in each.address))


def _neighbours(lines: Iterable[str], now: int | None) -> Iterator[Neighbour]:
    """`10.0.0.5 dev br0 lladdr bc:24:11:00:00:01 REACHABLE`."""
    for line in lines:
        words = line.split()
        if "lladdr" not in words[1:-2]:
            continue
        at = words.index("lladdr")
        sure = next((_STATES[word] for word in words[at + 2 :] if word in _STATES), None)
        card = words[words.index("dev") + 1] if "dev" in words[:at] else ""
        if sure is not None:
            yield from _one(words[at + 1], words[0], sure, card if _CARD.fullmatch(card) else None)


def _arp(lines: Iterable[str], now: int | None) -> Iterator[Neighbour]:
    """Without ip(8): address, type, flags, card's address, mask, card. It does not tell stale ones apart."""
    for line in lines:
        words = line.split()
        if len(words) == 6 and words[2] in ("0x2", "0x6"):  # complete, and permanent
            yield from _one(words[3], words[0], Sure.STALE)


def _dnsmasq(lines: Iterable[str], now: int | None) -> Iterator[Neighbour]:
    """Expiry (0: never), card, address, name, client. IPv6 leases name no card."""
    for line in lines:
        words = line.split()
        if len(words) >= 4 and _is_valid(words[0], now):
            yield from _one(words[1], words[2], Sure.LEASED)


_ISC_LEASE = re.compile(r"^lease (\S+) \{$(.*?)^\}", re.MULTILINE | re.DOTALL)
_ISC_ENDS = re.compile(r"ends (?:\d (\d{4}/\d\d/\d\d \d\d:\d\d:\d\d)|epoch (\d{1,15})|(never));", re.ASCII)
_ISC_CARD = re.compile(r"^\s*hardware ethernet ([0-9A-Fa-f:]+);", re.MULTILINE)
_ISC_ACTIVE = re.compile(r"^\s*binding state active;", re.MULTILINE)


def _isc(lines: Iterable[str], now: int | None) -> Iterator[Neighbour]:
    """A journal of blocks: of an address the last one counts. Its times are in UTC; IPv6 leases name no card."""
    last = {match[1]: match[2] for match in _ISC_LEASE.finditer("\n".join(line.rstrip() for line in lines))}
    for address, lease in last.items():
        card, ends = _ISC_CARD.search(lease), _ISC_ENDS.search(lease)
        if card and ends and _ISC_ACTIVE.search(lease) and _is_valid(_epoch(ends), now):
            yield from _one(card[1], address, Sure.LEASED)


def _epoch(ends: re.Match[str]) -> str:
    """Seconds since 1970; 0 for what never ends, nothing for what is not a time."""
    if ends[3]:
        return "0"
    if ends[2]:
        return ends[2]
    try:
        moment = datetime.strptime(ends[1], "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return ""
    return str(max(1, int(moment.timestamp())))


def _kea(lines: Iterable[str], now: int | None, *, card: int, expiry: int, state: int) -> Iterator[Neighbour]:
    """A journal: of an address the last line counts. Only those in state 0 are anybody's."""
    last: dict[str, list[str]] = {}
    for line in lines:
        words = line.split(",")
        if len(words) > state:
            last[words[0]] = words
    for address, words in last.items():
        if words[state] == "0" and words[expiry] != "0" and _is_valid(words[expiry], now):
            yield from _one(words[card], address, Sure.LEASED)


def _networkd(lines: Iterable[str], now: int | None) -> Iterator[Neighbour]:
    """Addresses are lists of bytes; older ones tell the card by the client's id alone, which begins with its type."""
    try:
        leases = json.loads("\n".join(lines))["Leases"]
        rows = [row for row in leases if isinstance(row, dict)]
    except (ValueError, LookupError, TypeError, RecursionError):
        return
    for row in rows:
        ends = row.get("ExpirationRealtimeUSec")
        if type(ends) is int and now is not None and ends < now * 1_000_000:
            continue
        client = row.get("ClientId")
        by_client = client[1:7] if isinstance(client, list) and client[:1] == [1] and len(client) == 7 else None
        length = row.get("HardwareAddressLength", 6)
        card = row.get("HardwareAddress") if length == 6 and row.get("HardwareAddressType", 1) == 1 else None
        mac = _bytes(card[:6] if isinstance(card, list) else by_client, 6)
        address = _bytes(row.get("Address"), 4)
        if mac and address:
            yield from _one(mac.hex(":"), str(ipaddress.IPv4Address(address)), Sure.LEASED)


def _bytes(value: Any, length: int) -> bytes | None:
    good = isinstance(value, list) and len(value) == length and all(type(each) is int for each in value)
    return bytes(value) if good and all(0 <= each < 256 for each in value) else None


_READERS: Mapping[str, Callable[[Iterable[str], int | None], Iterator[Neighbour]]] = {
    "neighbours": _neighbours,
    "arp": _arp,
    "dnsmasq": _dnsmasq,
    "isc": _isc,
    "kea4": partial(_kea, card=1, expiry=4, state=9),
    "kea6": partial(_kea, card=12, expiry=3, state=13),
    "networkd": _networkd,
}


def _one(mac: str, address: str, sure: Sure, card: str | None = None) -> Iterator[Neighbour]:
    """What is a card and an address; nothing for what is not."""
    mac = mac.lower()
    try:
        written = str(ipaddress.ip_address(address))
    except ValueError:
        return
    if is_a(MAC, mac) and mac.strip("0:") and "%" not in written:
        yield Neighbour(mac, written, sure, card)


def _is_valid(expiry: str, now: int | None) -> bool:
    """Whether a lease that ends then is one still; 0 never ends."""
    ends = _number(expiry)
    return ends is not None and (ends == 0 or now is None or ends >= now)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


MOST_ADDRESSES = 8  # addresses of one card that are tried
RECENT = 5.0  # seconds for which what a machine told of its neighbours is not asked again
_HERE_TIMEOUT = 10.0  # seconds


def declared(vm: Vm) -> list[str]:
    """The addresses on net0 that the definitions give a guest; none where it takes what DHCP gives it."""
    return _fixed(_as_declared(vm))


def configured(vm: Vm, config: VmConfig) -> list[str]:
    """The same by the guest's configuration on the hypervisor."""
    return _fixed(_as_configured(vm, config))


def gateways(vm: Vm, config: VmConfig | None = None) -> frozenset[str]:
    """The addresses of its routers on net0, as declared and, where it is seen, as configured: none is its own."""
    found = [_as_declared(vm), _as_configured(vm, config) if config else {}]
    written = (plain_address(values[name]) for values in found for name in ("gw", "gw6") if name in values)
    return frozenset(address for address in written if address is not None)


def _as_declared(vm: Vm) -> Mapping[str, str]:
    if vm.type is GuestType.LXC:
        return next((card.values for card in vm.settings.networks if card.name == "net0"), {})
    return _ipconfig(vm.settings.cloud_init.addresses.get("ipconfig0"))


def _as_configured(vm: Vm, config: VmConfig) -> Mapping[str, str]:
    return _ipconfig(config.text("net0" if vm.type is GuestType.LXC else "ipconfig0"))


def _ipconfig(text: str | None) -> Mapping[str, str]:
    return properties(text or "", "ip")


def _fixed(values: Mapping[str, str]) -> list[str]:
    found = (usable_address(values.get(name, "")) for name in ("ip", "ip6"))
    return [str(address) for address in found if address is not None]


class Sightings:
    """What this run has seen of network cards and of networks lately; it is not asked for again at once."""

    def __init__(self) -> None:
        self.told: OncePer[str, tuple[Neighbour, ...]] = OncePer("asking a host for its neighbours", RECENT)
        """by host id"""
        self.hops: OncePer[str, str] = OncePer("looking for a host that others are reached through", RECENT)
        """by host id, where it answers"""
        self._ours: Once[tuple[Neighbour, ...]] = Once("reading the neighbours of this machine", RECENT)
        self.listening: OncePer[str, list[str]] = OncePer("searching a network", keyscan.SEARCH_AGAIN)
        """by network, the addresses at which something listens for SSH"""
        self._searches: Counter[str] = Counter()

    def from_here(self, mac: str) -> list[str]:
        """Where this machine has seen the card: nothing is sent, the kernel and the leases that are here are read."""
        with self._ours as ours:
            if ours.is_empty:
                ours.value = _ours()
            found = of(mac, ours.value)
        return list(dict.fromkeys(address for each in found if (address := _from_here(each))))[:MOST_ADDRESSES]

    def require_another_search(self, network: str) -> None:
        """Count one more search of a network. FleetError after too many."""
        self._searches[network] += 1
        if self._searches[network] > keyscan.MOST_SEARCHES:
            raise FleetError(f"it was searched {keyscan.MOST_SEARCHES} times by this run already")


def seen_elsewhere(mac: str, told: tuple[Neighbour, ...]) -> list[str]:
    """Where another machine has seen it, as far as that is of use here: link-local addresses are not."""
    found = (usable_address(each.address) for each in of(mac, told))
    return list(dict.fromkeys(str(address) for address in found if address is not None))[:MOST_ADDRESSES]


def _from_here(each: Neighbour) -> str | None:
    address = ipaddress.ip_address(each.address)
    if address.version == 6 and address.is_link_local:
        return f"{address}%{each.card}" if each.card else None
    found = usable_address(each.address)
    return str(found) if found else None


def _ours() -> tuple[Neighbour, ...]:
    token = secrets.token_hex(8)
    try:
        output = run(["sh", "-c", look(token)], timeout=_HERE_TIMEOUT, check=False).stdout
    except FleetError:
        return ()
    return parse(output, token) or ()
