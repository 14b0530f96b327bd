"""What guests are given of a node's devices, by what the API says, compared with the node and with what is wanted.

Nothing here changes a guest: what differs becomes the line that a person would type on the node. Pure.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nixherd.fleet.models import GuestType, Vm
from nixherd.proxmox.answers import PciMapping
from nixherd.proxmox.config import written
from nixherd.proxmox.node.states import PciDevice

_SLOT = re.compile(r"hostpci\d+")
_TRUE = {"1": "1", "on": "1", "yes": "1", "true": "1", "0": "0", "off": "0", "no": "0", "false": "0"}
_DEFAULTS = {"pcie": "0", "x-vga": "0", "legacy-igd": "0", "rombar": "1"}


@dataclass(frozen=True)
class Given:
    """A guest and what its configuration gives it; `devices` is None where that could not be read, and `why`."""

    vmid: int
    name: str
    devices: Mapping[str, str] | None
    why: str = ""

    @property
    def label(self) -> str:
        return f"VM {self.vmid} ({self.name})"


@dataclass(frozen=True)
class Devices:
    """All of a node's devices, and those `named` that the operator passes through."""

    node: str
    devices: Sequence[PciDevice]
    named: Sequence[PciDevice]

    @property
    def only(self) -> PciDevice | None:
        """The one that is named, where it is one."""
        return self.named[0] if len(self.named) == 1 else None


@dataclass(frozen=True)
class Line:
    """Something to say. `command`: what a person would type on the node, as root, and nixherd does not."""

    text: str
    command: str | None = None


def slots_of(values: Mapping[str, object]) -> dict[str, str]:
    """Return the hostpciN of a configuration."""
    return {key: str(value) for key, value in sorted(values.items()) if _SLOT.fullmatch(key)}


def names_of(vm: Vm) -> tuple[str, ...]:
    """Return what an operator may call a guest: its name in the definitions, its host, its VMID."""
    return (vm.name, *filter(None, (vm.host_id,)), str(vm.vmid))


def slots_wanted_of(vm: Vm, requested: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    """Return what a guest is to have: what the operator says of it by name or VMID, else its definition."""
    if vm.type is not GuestType.QEMU:
        return {}
    for key in names_of(vm):
        if key in requested:
            return requested[key]
    return {device.name: written(device.values) for device in vm.settings.pci}


def properties(text: str) -> dict[str, str]:
    """Parse a hostpciN; the first property may lack its name, and defaults are left out."""
    values: dict[str, str] = {}
    for number, part in enumerate(text.split(",")):
        key, equals, value = part.partition("=")
        if not equals and number == 0:
            key, value = "host", key
        values[key] = value
    if "host" in values:
        values["host"] = ";".join(sorted(full(each) for each in values["host"].split(";")))
    plain = {key: _TRUE.get(value, value) if key in _DEFAULTS else value for key, value in values.items()}
    return {key: value for key, value in plain.items() if _DEFAULTS.get(key) != value}


def full(address: str) -> str:
    """Write a PCI address with its domain, in lower case; without a function it stands for all of them."""
    lower = address.lower()
    return lower if lower.count(":") == 2 else f"0000:{lower}"


def at(address: str, devices: Iterable[PciDevice]) -> list[PciDevice]:
    """Return the devices at an address as hostpciN has it."""
    target = full(address)
    return [each for each in devices if each["address"] == target or each["address"].startswith(f"{target}.")]


def compare(
    given: Given, expected: Mapping[str, str], here: Devices, mapping_of: Callable[[str], PciMapping | str | None]
) -> list[Line]:
    """Return what to say of a guest whose devices are known.

    `mapping_of` asks for a mapping by its name: None where it does not exist, a text why it could not be read.
    """
    assert given.devices is not None
    lines = list(_against_wanted(given, expected))
    for slot, text in given.devices.items():
        if expected and properties(expected.get(slot, "")) != properties(text):
            continue  # it is to be another or none, and is looked at when it is
        lines += _on_node(given, slot, text, here)
    names = dict.fromkeys(
        name for text in (*given.devices.values(), *expected.values()) if (name := properties(text).get("mapping"))
    )
    for name in names:
        lines += _mapping(name, mapping_of(name), here)
    return lines or [Line(f"{given.label}: {_slots(given.devices)}{', as wanted' if expected else ''}")]


def _slots(devices: Mapping[str, str]) -> str:
    return "; ".join(f"{slot}: {text}" for slot, text in devices.items()) or "it is given no device"


def _against_wanted(given: Given, expected: Mapping[str, str]) -> Iterator[Line]:
    assert given.devices is not None
    for slot, text in expected.items():
        have = given.devices.get(slot)
        if have is None or properties(have) != properties(text):
            what = f"{slot} is {have or 'not there'}, wanted is {text}"
            yield Line(f"{given.label}: {what}", f"qm set {given.vmid} --{slot} {shlex.quote(text)}")
    if expected:
        for slot, text in given.devices.items():
            if slot not in expected:
                yield Line(f"{given.label}: {slot} is {text}, wanted is none", f"qm set {given.vmid} --delete {slot}")


def _on_node(given: Given, slot: str, text: str, here: Devices) -> Iterator[Line]:
    """Check that the node has what a guest is given by address: firmware updates and new cards move addresses."""
    named = properties(text).get("host")
    for address in named.split(";") if named else ():
        present = at(address, here.devices)
        elsewhere = [each["address"] for each in here.named]
        if not present:
            line = (
                f"qm set {given.vmid} --{slot} {shlex.quote(_moved(text, here.only['address']))}" if here.only else None
            )
            where = f"; the devices named are at {', '.join(elsewhere)}" if elsewhere else ""
            yield Line(f"{given.label}: {slot} is {text}, and {here.node} has no device there{where}", line)
        elif not any(each in here.named for each in present):
            what = ", ".join(f"{each['id']} at {each['address']}" for each in present)
            yield Line(f"{given.label}: {slot} gives it {what}, which is not among the devices named here")


def _moved(text: str, address: str) -> str:
    first, comma, rest = text.partition(",")
    return f"{'host=' if first.startswith('host=') else ''}{address}{comma}{rest}"


def _mapping(name: str, mapping: PciMapping | str | None, here: Devices) -> Iterator[Line]:
    """Check that a mapping fits this node: Proxmox VE starts no guest with one that does not."""
    if isinstance(mapping, str):
        yield Line(f"PCI mapping {name}: unknown: {mapping}")
        return
    node, entries = here.node, [entry for entry in mapping.entries if entry.get("node") == here.node] if mapping else []
    if not entries:
        what = "has nothing on" if mapping else "is not there, for"
        verb = f"set /cluster/mapping/pci/{name}" if mapping else f"create /cluster/mapping/pci --id {name}"
        others = [written(entry) for entry in mapping.entries] if mapping else []
        line = _pvesh(verb, [*others, written(_of(here.only, node))]) if here.only else None
        yield Line(f"PCI mapping {name} {what} {node}", line)
        return
    assert mapping is not None
    for entry in entries:
        corrected = _corrected(entry, here)
        differs = {key: value for key, value in (corrected or {}).items() if entry.get(key) not in (value, None)}
        if corrected is None:
            yield Line(f"PCI mapping {name}: {node} has no device {entry.get('id')} at {entry.get('path')}")
        elif differs:
            what = ", ".join(f"{key} is {entry.get(key)}, the node has {value}" for key, value in differs.items())
            rest = [written(each if each is not entry else {**entry, **differs}) for each in mapping.entries]
            yield Line(f"PCI mapping {name}: {what}", _pvesh(f"set /cluster/mapping/pci/{name}", rest))


def _corrected(entry: Mapping[str, str], here: Devices) -> dict[str, str] | None:
    """Return path, id and group as the node has them: of the device at the path, if its id fits, else of the id."""
    path, id = entry.get("path", ""), entry.get("id", "")
    there = at(path.split(";")[0], here.devices)
    same = [each for each in there if each["id"] == id]
    moved = [each for each in here.named if each["id"] == id]
    at_path = [each for each in there if each in here.named]
    device = next(iter((*same, *moved, *at_path)), None)
    if device is None:
        return None
    right = {"id": device["id"]}
    if not same and device not in at_path:
        right["path"] = device["address"]
    if device["group"] is not None:
        right["iommugroup"] = str(device["group"])
    return right


def _of(device: PciDevice, node: str) -> dict[str, str]:
    group = {} if device["group"] is None else {"iommugroup": str(device["group"])}
    return {"node": node, "path": device["address"], "id": device["id"], **group}


def _pvesh(verb: str, entries: Sequence[str]) -> str:
    return " ".join(("pvesh", *verb.split(), *(f"--map {shlex.quote(entry)}" for entry in entries)))
