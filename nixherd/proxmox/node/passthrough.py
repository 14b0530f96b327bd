"""What an operator asks of a node, read once, and the files that give devices to vfio-pci and reset a card. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from nixherd.base.errors import FleetError, Refused, Usage
from nixherd.proxmox.node import states
from nixherd.proxmox.node.kernel import WORD

_DEVICE = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_MODULE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_PATH = re.compile(r"/[A-Za-z0-9._+@/-]+", re.ASCII)
_SLOT = re.compile(r"hostpci(?:[0-9]|1[0-5])")
_VALUE = re.compile(r"[A-Za-z0-9:.,;=_/+-]+", re.ASCII)


@dataclass(frozen=True)
class Passthrough:
    """`devices` by vendor and device (`1002:13c0`), `source` a directory on the node, `guests` by name or VMID."""

    devices: tuple[str, ...]
    source: str | None = None
    blacklist: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    guests: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))


def read(data: Mapping[str, Any]) -> Passthrough:
    """Read an operator's request. Raise Usage for what cannot be meant."""
    devices = _words("devices", data.get("devices"), _DEVICE, "write ids as `lspci -nn` shows them, such as 1002:13c0")
    if not devices:
        raise Usage("devices: which ones are to be passed through? Say devices=1002:13c0,1002:1640 (see `lspci -nn`)")
    source = data.get("vendor_reset") or None
    if source is not None and not (
        isinstance(source, str) and _PATH.fullmatch(source) and ".." not in source.split("/")
    ):
        raise Usage(f"vendor_reset={source}: name the directory on the node that holds its dkms.conf, from / on")
    return Passthrough(
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
        raise Usage(f"{name}={value}: that is not a list; {remedy}")
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
        raise Usage(f"hostpci={value}: that is not a mapping of guests; {remedy}")
    guests = {}
    for guest, slots in value.items():
        if not isinstance(slots, Mapping) or not slots:
            raise Usage(f"hostpci: {guest}: says no hostpciN; {remedy}")
        for slot, text in slots.items():
            if not (_SLOT.fullmatch(str(slot)) and isinstance(text, str) and _VALUE.fullmatch(text)):
                raise Usage(f"hostpci: {guest}.{slot}: {text!r} is none; {remedy}")
        guests[str(guest)] = MappingProxyType({str(slot): text for slot, text in slots.items()})
    return MappingProxyType(guests)


MODULES = ("vfio", "vfio_iommu_type1", "vfio_pci")
_HEAD = "# Written by nixherd's deploys/proxmox_host.py, which writes it anew: change what it is told.\n"
# Which drivers a host has for what is passed through, by vendor and class; they are to come after vfio-pci.
_DISPLAY = {"1002": ("amdgpu", "radeon"), "8086": ("i915", "xe"), "10de": ("nouveau", "nvidia")}
_BY_CLASS = {"0403": ("snd_hda_intel",), "0c03": ("xhci_pci",), "1080": ("ccp",)}
_DISPLAYS = ("0300", "0302", "0380")
_IDS = re.compile(r"\bids=")


def named(request: Passthrough, pci: states.PciState) -> list[states.PciDevice]:
    """Return the node's devices that the request names. Raise FleetError for an id that the node lacks."""
    for id in request.devices:
        if not any(device["id"] == id for device in pci["devices"]):
            raise FleetError(f"devices: this node has no {id}; `lspci -nn` there shows what it has")
    return [device for device in pci["devices"] if device["id"] in request.devices]


def cards(devices: Sequence[states.PciDevice]) -> list[states.PciDevice]:
    """Return those that vendor-reset is for: AMD's graphics cards."""
    return [device for device in devices if device["id"].startswith("1002:") and device["kind"] in _DISPLAYS]


def drivers_of(devices: Sequence[states.PciDevice]) -> list[str]:
    """Return the drivers that the host would use for these devices."""
    drivers: list[str] = []
    for device in devices:
        display = device["kind"] in _DISPLAYS
        drivers += _DISPLAY.get(device["id"][:4], ()) if display else _BY_CLASS.get(device["kind"], ())
    return sorted(set(drivers))


def vfio(request: Passthrough, devices: Sequence[states.PciDevice]) -> dict[str, str]:
    """Return the files that bind these devices to vfio-pci, by path."""
    lines = [f"options vfio-pci ids={','.join(request.devices)}"]
    lines += [f"softdep {driver} pre: vfio-pci" for driver in drivers_of(devices)]
    lines += [f"blacklist {module}" for module in request.blacklist]
    return {states.VFIO: _HEAD + "\n".join(lines) + "\n", states.VFIO_MODULES: _HEAD + "\n".join(MODULES) + "\n"}


def reset(devices: Sequence[states.PciDevice]) -> dict[str, str]:
    """Return the files that load vendor-reset and have the kernel reset these cards by it, by path.

    Since Linux 5.15 a device has a list of ways to be reset, and the module's is `device_specific`, which is accepted
    once the module is loaded (its own udev rules do the same for the cards that it knows).
    """
    rules = []
    for id in sorted({device["id"] for device in cards(devices)}):
        vendor, _, device = id.partition(":")
        rules.append(
            f'ACTION=="add", SUBSYSTEM=="pci", ATTR{{vendor}}=="0x{vendor}", ATTR{{device}}=="0x{device}", '
            f'RUN+="/sbin/modprobe {states.VENDOR_RESET}", '
            "RUN+=\"/bin/sh -c 'echo device_specific >/sys$devpath/reset_method'\""
        )
    return {states.CARD_RULE: _HEAD + "\n".join(rules) + "\n", states.RESET_MODULE: f"{_HEAD}{states.VENDOR_RESET}\n"}


def require_no_others(modules: states.ModuleState) -> None:
    """Refuse another file that says which devices vfio-pci gets: of two such lists the kernel takes one."""
    for line in modules["options"]:
        if _IDS.search(line):
            file, number, text = line.split(":", 2)
            raise Refused(
                f"{file}:{number}: `{text.strip()}` says which devices vfio-pci gets; take it out and name its devices "
                "here as well, then run this again"
            )


def differing(texts: dict[str, str], modules: states.ModuleState) -> dict[str, str]:
    """Return those of these files that are missing or differ on the node."""
    return {path: text for path, text in texts.items() if modules["texts"].get(path) != text}
