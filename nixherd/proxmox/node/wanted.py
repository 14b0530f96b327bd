"""What an operator asks of a node, as text, list or mapping: read once, or Usage. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from nixherd.errors import Usage
from nixherd.proxmox.node.command_line import WORD

_DEVICE = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_MODULE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_PATH = re.compile(r"/[A-Za-z0-9._+@/-]+", re.ASCII)
_SLOT = re.compile(r"hostpci(?:[0-9]|1[0-5])")
_VALUE = re.compile(r"[A-Za-z0-9:.,;=_/+-]+", re.ASCII)


@dataclass(frozen=True)
class Wanted:
    """`devices` by vendor and device (`1002:13c0`), `source` a directory on the node, `guests` by name or VMID."""

    devices: tuple[str, ...]
    source: str | None = None
    blacklist: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    guests: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))


def read(data: Mapping[str, Any]) -> Wanted:
    """What these data ask for. Usage for what cannot be meant."""
    devices = _words("devices", data.get("devices"), _DEVICE, "write ids as `lspci -nn` shows them, such as 1002:13c0")
    if not devices:
        raise Usage("devices: which ones are to be passed through? Say devices=1002:13c0,1002:1640 (see `lspci -nn`)")
    source = data.get("vendor_reset") or None
    if source is not None and not (
        isinstance(source, str) and _PATH.fullmatch(source) and ".." not in source.split("/")
    ):
        raise Usage(f"vendor_reset={source}: name the directory on the node that holds its dkms.conf, from / on")
    return Wanted(
        devices=devices,
        source=source.rstrip("/") if source else None,
        blacklist=_words("blacklist", data.get("blacklist"), _MODULE, "write names of modules, such as amdgpu"),
        words=_words("kernel_words", data.get("kernel_words"), WORD, "write words of its command line: iommu=pt"),
        guests=_guests(data.get("hostpci")),
    )


def _words(name: str, value: object, pattern: re.Pattern[str], remedy: str) -> tuple[str, ...]:
    if value in (None, ""):
        return ()
    # a word of the kernel's may have commas in it
    parts = re.split(r"[;\s]+" if pattern is WORD else r"[,;\s]+", value.strip()) if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise Usage(f"{name}={value}: that is no list; {remedy}")
    words = [str(part).strip() for part in parts]
    words = [word.lower() for word in words] if name == "devices" else words
    if wrong := [word for word in words if not pattern.fullmatch(word)]:
        raise Usage(f"{name}: {wrong[0]!r} is none; {remedy}")
    return tuple(dict.fromkeys(words))


def _guests(value: object) -> Mapping[str, Mapping[str, str]]:
    remedy = 'write hostpci=\'{"igp": {"hostpci0": "mapping=igpu,pcie=1"}}\''
    if value in (None, ""):
        return MappingProxyType({})
    if not isinstance(value, Mapping):
        raise Usage(f"hostpci={value}: that is no mapping of guests; {remedy}")
    found = {}
    for guest, slots in value.items():
        if not isinstance(slots, Mapping) or not slots:
            raise Usage(f"hostpci: {guest}: says no hostpciN; {remedy}")
        for slot, text in slots.items():
            if not (_SLOT.fullmatch(str(slot)) and isinstance(text, str) and _VALUE.fullmatch(text)):
                raise Usage(f"hostpci: {guest}.{slot}: {text!r} is none; {remedy}")
        found[str(guest)] = MappingProxyType({str(slot): text for slot, text in slots.items()})
    return MappingProxyType(found)
