"""What the values of the fleet's attributes may be: what is wrong with one that is something else, and what it means.

`nixherd.fleet.schema` says which attribute is of which type. Values are as `nix eval` gave them.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

from nixherd.base import names
from nixherd.base.becoming_root import Become
from nixherd.base.ssh_keys import parse_authorized_key, parse_public_key
from nixherd.base.ssh_options import HopName
from nixherd.fleet import health_checks
from nixherd.fleet.models import Access, GuestType
from nixherd.fleet.nix_values import NixPath, nix_type, shown, shown_name


def article(noun: str) -> str:
    """Return the noun with its article."""
    return noun if noun == "text" else f"{'an' if noun[0].lower() in 'aeio' else 'a'} {noun}"


_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){31}")
# `prom:8006`, `[2001:db8::1]:8006`, `[2001:db8::1]`
_WITH_PORT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^:/\[\]\s]+))(?::(?P<port>[0-9]+))?", re.ASCII)
_API_PORT = ":8006"
_SHARE = re.compile(r"(\d{1,3})\s*%|\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a value. `at` is where below its attribute (`[1]`, `.size`); an empty `remedy` is the
    attribute's own."""

    what: str
    at: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Type:
    """Any value: people's own, in any form. `words` are what the reference calls the type, `means` makes its value."""

    words: str
    means: Callable[[Any], Any] = field(default=lambda value: value, kw_only=True)

    def problems(self, value: Any) -> Iterator[Problem]:
        """What is wrong with a value that is there."""
        yield from ()

    def parse(self, value: Any) -> Any:
        """What a value without problems means."""
        return self.means(value)


FREE = Type("anything")


@dataclass(frozen=True)
class Text(Type):
    """A string, of this pattern where it has one; `noun` is what a string of another pattern is not."""

    pattern: re.Pattern[str] | None = None
    noun: str = "text"

    def problems(self, value: Any) -> Iterator[Problem]:
        if type(value) is not str:
            yield Problem(f"is {nix_type(value)}, not a string")
        elif self.pattern is not None and not self.pattern.fullmatch(value):
            yield Problem(f"{shown(value)} is not {article(self.noun)}")


def parse_fingerprint(text: str) -> str:
    """A SHA-256 fingerprint, with or without colons, as 64 lower-case hex digits; ValueError if it is none."""
    if not _FINGERPRINT.fullmatch(text.strip()):
        raise ValueError("it is not a SHA-256 fingerprint")
    return text.strip().replace(":", "").lower()


FINGERPRINT = Text("SHA-256, with or without colons", _FINGERPRINT, "fingerprint", means=parse_fingerprint)


@dataclass(frozen=True)
class AbsolutePath(Type):
    words: str = "absolute path, as a string"

    def problems(self, value: Any) -> Iterator[Problem]:
        if not (isinstance(value, str) and value.startswith("/") and value.isprintable()):
            yield Problem("is not an absolute path")


@dataclass(frozen=True)
class ExistingPath(Type):
    words: str = "path"

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, NixPath):
            yield Problem(f"is {nix_type(value)}, not a path")
        elif not value.exists:
            yield Problem(f"{shown_name(value)} does not exist", remedy="create the file or correct the path")

    def parse(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class Integer(Type):
    """`noun` is what a number that is too large is not."""

    least: int = 0
    most: int | None = None
    noun: str = ""

    def problems(self, value: Any) -> Iterator[Problem]:
        if isinstance(value, bool) or not isinstance(value, int):
            yield Problem(f"is {nix_type(value)}, not an integer")
        elif value < self.least:
            yield Problem(f"{value} is less than {self.least}")
        elif self.most is not None and value > self.most:
            yield Problem(f"{value} is not {article(self.noun)}" if self.noun else f"{value} is more than {self.most}")


@dataclass(frozen=True)
class Flag(Type):
    words: str = "true or false"

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, bool):
            yield Problem(f"is {nix_type(value)}, not a boolean")


@dataclass(frozen=True)
class OneOf(Type):
    """One of these strings; `noun` is what another one is not."""

    choices: tuple[str, ...] = ()
    noun: str = ""

    def problems(self, value: Any) -> Iterator[Problem]:
        if isinstance(value, str) and value in self.choices:
            return
        if self.noun:
            yield Problem(f"{shown_value(value)} is not {article(self.noun)}")
        else:
            yield Problem(f"is neither {' nor '.join(self.choices)}")


KIND = OneOf('"qemu" or "lxc"', tuple(GuestType), means=GuestType)
BECOME = OneOf('"sudo" or "doas"', tuple(Become), "way to be root", means=Become)
WAY = OneOf(", ".join(f'"{each}"' for each in Access), tuple(Access), "way in", means=Access)


@dataclass(frozen=True)
class Words(Type):
    """A list of strings of this pattern, in their order; `noun` is what another list is not one of."""

    pattern: re.Pattern[str]
    noun: str
    least: int = 0

    def problems(self, value: Any) -> Iterator[Problem]:
        good = isinstance(value, list) and len(value) >= self.least
        if not (good and all(type(each) is str and self.pattern.fullmatch(each) for each in value)):
            yield Problem(f"is not a list of {self.noun}")

    def parse(self, value: Any) -> tuple[str, ...]:
        return tuple(value)


def is_address(text: str) -> bool:
    """Whether this is a host name, an IPv4 address, or an IPv6 one with or without its zone: no port, no URL."""
    try:
        if ":" in text:
            IPv6Address(text)
        elif text.rpartition(".")[2].isdecimal():
            IPv4Address(text)
        else:
            return names.is_a(names.HOSTNAME, text)
    except ValueError:
        return False
    zone = text.partition("%")[2]
    return text.isascii() and (zone.isalnum() or "%" not in text)


@dataclass(frozen=True)
class Address(Type):
    """Of a server of HTTPS, whose URL has no place for a zone, unless `zone`."""

    words: str = "name or address"
    zone: bool = False

    def problems(self, value: Any) -> Iterator[Problem]:
        if type(value) is not str:
            yield Problem(f"is {nix_type(value)}, not a string")
        elif not is_address(value) or ("%" in value and not self.zone):
            yield self._problem(value)
        elif not self.zone and "::" in value and value.endswith(_API_PORT):
            host, full = value.removesuffix(_API_PORT), IPv6Address(value).exploded
            remedy = f'write host = "{host}"; port = {_API_PORT[1:]}; or all of the address: host = "{full}";'
            yield Problem(f"{shown(value)} may be an address, or one with a port", remedy=remedy)

    def _problem(self, value: str) -> Problem:
        """What is wrong with it; a port is taken off, where it has a place of its own."""
        match = _WITH_PORT.fullmatch(value)
        host = (match["six"] or match["host"]) if match else ""
        remedy = ""
        if match and is_address(host) and not self.zone:
            port = match["port"]
            remedy = f'write host = "{host}";' + (f" port = {port};" if port else "")
            if port and not 1 <= int(port[:6]) <= 65535:
                remedy = f'write host = "{host}"; and in `port` one from 1 to 65535, usually 8006'
        return Problem(f"{shown(value)} is not a name or address", remedy=remedy)


@dataclass(frozen=True)
class ListOf(Type):
    """A list of values of this type, at least one."""

    of: Type = FREE

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, list):
            yield Problem(f"is {nix_type(value)}, not a list")
        elif not value:
            yield Problem("is an empty list")
        for number, each in enumerate(value if isinstance(value, list) else ()):
            yield from (Problem(found.what, f"[{number}]", found.remedy) for found in self.of.problems(each))

    def parse(self, value: Any) -> tuple[str, ...]:
        return tuple(value)


class OneOrMore(ListOf):
    """A value of this type, or a list of them, each once."""

    def problems(self, value: Any) -> Iterator[Problem]:
        return super().problems(value) if isinstance(value, list) else self.of.problems(value)

    def parse(self, value: Any) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value if isinstance(value, list) else [value]))


@dataclass(frozen=True)
class Hop(Type):
    words: str = "host's id, or [USER@]NAME[:PORT]"

    def problems(self, value: Any) -> Iterator[Problem]:
        if type(value) is not str:
            yield Problem(f"is {nix_type(value)}, not a string")
            return
        try:
            HopName.parse(value)
        except ValueError:
            yield Problem(f"{shown(value)} is not a host's id or [USER@]NAME[:PORT]")


HOPS = OneOrMore("hop, or list of them", Hop())
ADDRESSES = ListOf("list of names or addresses", Address(zone=True))


LARGEST_SEARCHED = 22  # bits of its prefix: 1022 machines


@dataclass(frozen=True)
class Network(Type):
    """An IPv4 network that may be searched for a machine: one that is somebody's own, and not too large for it."""

    words: str = "network"

    def problems(self, value: Any) -> Iterator[Problem]:
        if type(value) is not str:
            yield Problem(f"is {nix_type(value)}, not a string")
            return
        try:
            address, _, length = value.partition("/")
            if not (length.isascii() and length.isdecimal()):
                raise ValueError
            IPv4Address(address)
            network = IPv4Network(value, strict=False)
        except ValueError:
            yield Problem(f"{shown(value)} is not an IPv4 network")
            return
        if str(network) != value:
            yield Problem(f"{shown(value)} is an address in {network}", remedy=f'write "{network}"')
        elif network.prefixlen < LARGEST_SEARCHED:
            what = f"{value} has {network.num_addresses} addresses, which is too many to try them"
            yield Problem(what, remedy=f"name networks of at most /{LARGEST_SEARCHED}, or the machine's addresses")
        elif not any(network.subnet_of(private) for private in _OWN_NETWORKS):
            private = ", ".join(map(str, _OWN_NETWORKS))
            remedy = f"name one in {private}, or the machine's addresses"
            yield Problem(f"{value} is not a private network", remedy=remedy)


# RFC 1918 §3, and RFC 6598 §7, which overlay networks use.
_OWN_NETWORKS = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))


# Keys


def is_placeholder(key: object) -> bool:
    """True for a `publicKey` that is yet to be filled in."""
    return key is None or (type(key) is str and (not key.strip() or "placeholder" in key.lower()))


@dataclass(frozen=True)
class HostKey(Type):
    words: str = "SSH public key"

    def problems(self, value: Any) -> Iterator[Problem]:
        if is_placeholder(value):
            return
        if type(value) is not str:
            yield Problem(f"is {nix_type(value)}, not a string")
            return
        try:
            parse_public_key(value)
        except ValueError as error:
            yield Problem(f"no SSH public key: {error}")

    def parse(self, value: Any) -> str | None:
        return None if is_placeholder(value) else str(value).strip()


@dataclass(frozen=True)
class Keys(Type):
    words: str = "list of SSH public keys"

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, list):
            yield Problem(f"is {nix_type(value)}, not a list", remedy="write a list of SSH public keys")
        for number, key in enumerate(value if isinstance(value, list) else ()):
            try:
                if type(key) is not str:
                    raise ValueError(f"it is {nix_type(key)}, not a string")
                parse_authorized_key(key)
            except ValueError as error:
                yield Problem(f"no SSH public key: {error}", f"[{number}]")

    def parse(self, value: Any) -> tuple[str, ...]:
        return tuple(line.strip() for line in value)


# Deployments


@dataclass(frozen=True)
class HealthChecks(Type):
    words: str = "set of checks by name"

    def problems(self, value: Any) -> Iterator[Problem]:
        try:
            health_checks.parse("", value)
        except health_checks.NoCheck as error:
            yield Problem(error.what, error.at, error.remedy)

    def parse(self, value: Any) -> tuple[health_checks.Check, ...]:
        return health_checks.parse("", value)


@dataclass(frozen=True)
class Share(Type):
    words: str = "number, or percentage"

    def problems(self, value: Any) -> Iterator[Problem]:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return
        match = _SHARE.fullmatch(value) if type(value) is str else None
        if match is None or int(match[1] or 0) > 100:
            yield Problem(f"{shown_value(value)} is neither a number of hosts nor a percentage")


def shown_value(value: object) -> str:
    return shown(value) if isinstance(value, str) else nix_type(value)
