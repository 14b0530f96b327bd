"""What the values of a guest's attributes may be: sizes, devices, cloud-init; beside `nixherd.fleet.field_types`."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nixherd.base import names
from nixherd.base.names import parse_size
from nixherd.fleet.field_types import Flag, Keys, Problem, Text, Type, shown_value
from nixherd.fleet.models import CloudInitSettings, Device
from nixherd.fleet.nix_values import nix_type, shown, shown_name

_MAC = re.compile(r"[0-9A-Fa-f][02468ACEace](?::[0-9A-Fa-f]{2}){5}")
_VALUE = re.compile(r"[^,\s]+")
_ADDRESSING = re.compile(r"(?:ip|ip6|gw|gw6)=[^,\s]+(?:,(?:ip|ip6|gw|gw6)=[^,\s]+)*")
_IPCONFIG = re.compile(r"ipconfig(?:[0-9]|[12][0-9]|3[01])")
STORAGE_REMEDY = "write the id that `pvesm status` shows"


@dataclass(frozen=True)
class Size(Type):
    """A size with its unit. Without one Proxmox takes bytes in one place and GiB in another."""

    words: str = "size, such as 64G"

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, str):
            yield Problem(f"is {nix_type(value)}, not a string")
        elif value.isdecimal() or not _is_size(value):
            yield Problem(f"{shown(value)} is not a size")

    def parse(self, value: Any) -> int:
        return parse_size(value)


def _is_size(value: str, multiple: int = 1) -> bool:
    try:
        return parse_size(value) % multiple == 0
    except ValueError:
        return False


@dataclass(frozen=True)
class Startup(Type):
    words: str = "set of order, up, down"

    def problems(self, value: Any) -> Iterator[Problem]:
        known = isinstance(value, dict) and value and set(value) <= {"order", "up", "down"}
        if not (known and all(type(each) is int and each >= 0 for each in value.values())):
            yield Problem("is not a startup order")

    def parse(self, value: Any) -> str:
        return _properties(value)


@dataclass(frozen=True)
class Features(Type):
    known: tuple[str, ...] = ()

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield Problem(f"is {nix_type(value)}")
            return
        yield from _unknown(value, self.known)
        for name, each in value.items():
            if name in self.known and not _is_value(each):
                yield Problem(f"{shown_value(each)} is not a value for it", f".{name}", "write true or false")

    def parse(self, value: Any) -> str | None:
        return _properties(value) if value else None


@dataclass(frozen=True)
class Devices(Type):
    """Devices by name, each with the properties that it may have, by the API's own names and texts."""

    section: str
    names: re.Pattern[str]
    example: str
    known: tuple[str, ...]

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield Problem(f"is {nix_type(value)}", remedy="it must be an attribute set")
            return
        for name, device in value.items():
            at = f".{shown_name(name)}"
            if not isinstance(device, dict):
                yield Problem(f"is {nix_type(device)}", at, "it must be an attribute set")
                continue
            if not self.names.fullmatch(name):
                what = f"{shown_name(name)} is not a name for one of its {self.section}"
                yield Problem(what, at, f"use one such as {self.example}")
            for found in self._of(device):
                yield Problem(found.what, at + found.at, found.remedy)

    def _of(self, device: Mapping[str, Any]) -> Iterator[Problem]:
        yield from _unknown(device, self.known)
        remedy = "write text without commas, a number or a boolean"
        for key, value in device.items():
            if key in self.known and key not in ("size", "storage") and not _is_value(value):
                yield Problem(f"{shown_value(value)} is not a value for it", f".{key}", remedy)
        for key in ("mac", "macaddr", "hwaddr"):
            if device.get(key) is not None and not (type(device[key]) is str and _MAC.fullmatch(device[key])):
                what = f"{shown_value(device[key])} is not a MAC address"
                yield Problem(what, f".{key}", 'write one such as "BC:24:11:00:00:01"')

    def parse(self, value: Any) -> tuple[Device, ...]:
        return _devices(value)


class Disks(Devices):
    def _of(self, device: Mapping[str, Any]) -> Iterator[Problem]:
        yield from super()._of(device)
        if (storage := device.get("storage")) is not None:
            for found in Text("", names.pattern(names.STORAGE), "storage name").problems(storage):
                yield Problem(found.what, ".storage", STORAGE_REMEDY)
        size, remedy = device.get("size"), "write whole GiB, such as 100G"
        if size is None:
            yield Problem("missing", ".size", remedy)
        elif not (type(size) is str and not size.isdecimal() and _is_size(size, 1 << 30)):
            yield Problem(f"{shown_value(size)} is not a size for a new disk", ".size", remedy)


@dataclass(frozen=True)
class Pci(Devices):
    """Also a list of mappings' names."""

    word: re.Pattern[str] = _VALUE

    def problems(self, value: Any) -> Iterator[Problem]:
        if isinstance(value, list):
            if not all(type(name) is str and self.word.fullmatch(name) for name in value):
                remedy = 'write the names of PCI mappings, such as [ "igpu" ]'
                yield Problem("is not a list of names", remedy=remedy)
        elif isinstance(value, dict):
            yield from super().problems(value)
        else:
            yield Problem(f"is {nix_type(value)}")

    def _of(self, device: Mapping[str, Any]) -> Iterator[Problem]:
        yield from super()._of(device)
        if device.get("mapping") is None:
            remedy = "name a PCI mapping of the cluster: a token cannot pass raw devices through"
            yield Problem("missing", ".mapping", remedy)

    def parse(self, value: Any) -> tuple[Device, ...]:
        if isinstance(value, list):
            return _devices({f"hostpci{number}": {"mapping": name} for number, name in enumerate(value)})
        return _devices(value)


@dataclass(frozen=True)
class CloudInit(Type):
    known: tuple[str, ...] = ("user", "keys", "nameserver", "searchDomain", "upgrade")

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, dict):
            yield Problem(f"is {nix_type(value)}")
            return
        line = Text("", re.compile(r"[^\n\0]+"), "line of text")
        address = Text("", _ADDRESSING, "address")
        types: dict[str, tuple[Type, str]] = {
            "user": (Text("", names.pattern(names.USER), "user name"), "write a login name"),
            "nameserver": (line, "write a string"),
            "searchDomain": (line, "write a string"),
            "upgrade": (Flag(), "write true or false"),
            "keys": (Keys(), "write the line of a .pub file"),
        }
        addresses = [name for name in value if _IPCONFIG.fullmatch(name)]
        yield from _unknown([name for name in value if name not in addresses], self.known)
        types |= dict.fromkeys(addresses, (address, 'write "ip=dhcp" or "ip=10.0.0.5/24,gw=10.0.0.1"'))
        for name, (type_, remedy) in types.items():
            if value.get(name) is not None:
                for found in type_.problems(value[name]):
                    yield Problem(found.what, f".{name}{found.at}", found.remedy or remedy)

    def parse(self, value: Any) -> CloudInitSettings:
        keys = value.get("keys")
        addresses = {name: each for name, each in value.items() if _IPCONFIG.fullmatch(name) and each is not None}
        as_written = {name: value.get(name) for name in ("user", "nameserver", "upgrade")}
        as_written |= {"keys": None if keys is None else tuple(keys), "search_domain": value.get("searchDomain")}
        return CloudInitSettings(**as_written, addresses=MappingProxyType(addresses))


# Attributes that Nix code spells otherwise than the API does.
_API_NAMES = {"mac": "macaddr", "xVga": "x-vga"}


def _unknown(names: Collection[str], known: Collection[str]) -> Iterator[Problem]:
    """In a set that has these attributes and no others."""
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it may be {', '.join(known)}"
            yield Problem("is nothing that it has", f".{shown_name(name)}", hint)


def _is_value(value: object) -> bool:
    return isinstance(value, (bool, int)) or (type(value) is str and bool(_VALUE.fullmatch(value)))


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _properties(values: Mapping[str, Any]) -> str:
    return ",".join(f"{key}={_text(values[key])}" for key in sorted(values))


def _devices(entries: Mapping[str, Mapping[str, Any]]) -> tuple[Device, ...]:
    def device(name: str, entry: Mapping[str, Any]) -> Device:
        rest = {_API_NAMES.get(key, key): _text(entry[key]) for key in entry if key not in ("size", "storage")}
        size = parse_size(entry["size"]) if "size" in entry else None  # a disk's
        return Device(name, MappingProxyType(rest), size, entry.get("storage"))

    return tuple(device(name, entry) for name, entry in entries.items())
