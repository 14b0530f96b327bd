"""Which guests a value names: VMIDs, volumes, drives, archives and lists, read strictly. Pure.

Every reader returns the VMIDs that its value names and raises ValueError for a value that it cannot read with
certainty: what cannot be read is refused, never guessed. Formats are those of `PVE::JSONSchema`, `PVE::Storage::Plugin`
and `PVE::QemuServer::Drive`; digits are ASCII, without signs and leading zeros.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from nixherd.base import names
from nixherd.proxmox.route import Kind


@dataclass(frozen=True, slots=True)
class Named:
    """A guest that a value names. `base`: only as what a linked clone stands on."""

    vmid: str
    base: bool = False


_DIGITS = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]*", re.ASCII)
_NODE = names.pattern(names.NODE)
_STORAGE = names.pattern(names.STORAGE)
_SIZE = re.compile(r"[1-9][0-9]{0,14}(?:\.[0-9]{1,6})?[KMGT]?", re.ASCII)
_OPTION = re.compile(r"[a-z][a-z-]*[0-9]{0,3}", re.ASCII)
# Options that are the server's locks and what makes a guest what it is: never taken away.
_KEPT_OPTIONS = frozenset({"lock", "template", "parent", "digest", "vmgenid", "smbios1", "rootfs"})
_PROPERTY = re.compile(r"(?:[A-Za-z][A-Za-z0-9_-]*=)?[^,=\s]*(?:=[^,\s]*)?", re.ASCII)

_NUMBER = names.VMID
# `vm-110-disk-0`, `110/vm-110-disk-0.qcow2`, `base-9002-disk-0/vm-110-disk-0`, `9002/base-9002-….raw/110/vm-110-….raw`
_BASE = rf"(?:(?P<base_dir>{_NUMBER})/)?(?:base|basevol)-(?P<base>{_NUMBER})-[A-Za-z0-9_.-]+"
_OWN = rf"(?:(?P<own_dir>{_NUMBER})/)?(?:vm|base|subvol|basevol)-(?P<own>{_NUMBER})-[A-Za-z0-9_.-]+"
_IMAGE = re.compile(rf"(?:{_BASE}/)?{_OWN}", re.ASCII)
_BACKUP = names.pattern(names.BACKUP)
_NOBODYS = re.compile(r"(?:iso|vztmpl)/[A-Za-z0-9_.+~-]+", re.ASCII)
# An image to import a disk from is nobody's; one that we bring says for which template.
_IMPORTED = re.compile(rf"{names.STORAGE}:import/[A-Za-z0-9_.+~-]+\.(?:qcow2|raw|vmdk)", re.ASCII)
IMAGE_NAME = re.compile(rf"nixherd-(?P<template>{_NUMBER})-[A-Za-z0-9_.-]+\.(?:qcow2|raw|vmdk)", re.ASCII)
_NEW_VOLUME = re.compile(r"(?:0|[1-9][0-9]{0,9})(?:\.[0-9]{1,6})?|cloudinit", re.ASCII)
# Properties of drives that name nothing but themselves.
_DRIVE_PROPERTIES = frozenset(
    word
    for line in (
        "acl aio backup bps bps_rd bps_wr cache detect_zeroes discard efitype format iops iops_rd",
        "iops_wr iothread mbps mbps_rd mbps_wr media mountoptions mp pre-enrolled-keys queues quota",
        "replicate rerror ro scsiblock serial shared size snapshot ssd version werror wwn",
    )
    for word in line.split()
)
_DEVICE_PROPERTIES = frozenset(("mapping", "legacy-igd", "mdev", "pcie", "rombar", "x-vga"))


def vmid(text: str) -> str:
    """Return the text if it is a VMID, else raise ValueError."""
    if not re.fullmatch(_NUMBER, text, re.ASCII):
        raise ValueError("is not a VMID")
    return text


def read(kind: Kind, value: str) -> Iterator[Named]:
    """Return the guests that a value of this kind names. ValueError, saying what is wrong, if it cannot be read."""
    yield from _READERS[kind](value)


def _pattern(pattern: re.Pattern[str], what: str) -> Callable[[str], Iterator[Named]]:
    def reader(value: str) -> Iterator[Named]:
        if not pattern.fullmatch(value):
            raise ValueError(f"is not a {what}")
        return iter(())

    return reader


def _anything(value: str) -> Iterator[Named]:
    return iter(())


def _boolean(value: str) -> Iterator[Named]:
    if value not in ("0", "1"):
        raise ValueError("is neither 1 nor 0")
    return iter(())


def _exactly(expected: str) -> Callable[[str], Iterator[Named]]:
    def reader(value: str) -> Iterator[Named]:
        if value != expected:
            raise ValueError(f"is not {expected}")
        return iter(())

    return reader


def _image(value: str) -> Iterator[Named]:
    match = IMAGE_NAME.fullmatch(value)
    if match is None:
        raise ValueError("is not an image whose template can be told")
    yield Named(match["template"])


def _options(value: str) -> Iterator[Named]:
    for name in value.split(","):
        if not _OPTION.fullmatch(name) or name in _KEPT_OPTIONS:
            raise ValueError(f"has {name or 'nothing'} among the options")
    return iter(())


def _properties(value: str) -> Iterator[Named]:
    if not value or not all(_PROPERTY.fullmatch(part) for part in value.split(",")):
        raise ValueError("is not a list of properties")
    return iter(())


def _mapping(value: str) -> Iterator[Named]:
    values = _pairs(value, first="host")
    if "mapping" not in values or values.keys() - _DEVICE_PROPERTIES or not all(map(_WORD.fullmatch, values.values())):
        raise ValueError("is not a device by the name of a mapping")
    return iter(())


def _vmid(value: str) -> Iterator[Named]:
    yield Named(vmid(value))


def _pairs(value: str, first: str) -> dict[str, str]:
    """Parse a property string. Raise ValueError where a key comes twice, for the server might take the other one."""
    values: dict[str, str] = {}
    for number, part in enumerate(value.split(",")):
        key, equals, text = part.partition("=") if "=" in part else (first if number == 0 else "", "=", part)
        if not key or key in values or not equals:
            raise ValueError("is not a list of properties")
        values[key] = text
    return values


def drive(value: str) -> Iterator[Named]:
    """Read `STORAGE:SIZE`, `STORAGE:cloudinit`, `none`, or a volume, and its properties."""
    values = _pairs(value, first="file")
    file = values.pop("file", None)
    if file is None and (file := values.pop("volume", None)) is None:
        raise ValueError("names no volume")
    if file != "none":
        storage, _, name = file.partition(":")
        if not (_STORAGE.fullmatch(storage) and _NEW_VOLUME.fullmatch(name)):
            yield from volume(file)
    source = values.pop("import-from", None)
    if source is not None and not _IMPORTED.fullmatch(source):
        yield from volume(source)
    for key, text in values.items():
        if key not in _DRIVE_PROPERTIES or not re.fullmatch(r"[A-Za-z0-9_.+/%;-]*", text, re.ASCII):
            raise ValueError(f"has {key}, which is nothing that a drive has")
        if key != "mp" and "/" in text:
            raise ValueError(f"has a path in {key}")


def volume(value: str) -> Iterator[Named]:
    """Read a volume that exists: a guest's, a backup, or an ISO or container archive, which belong to no guest."""
    storage, colon, name = value.partition(":")
    if not colon or not _STORAGE.fullmatch(storage):
        raise ValueError("is not a volume")
    if _NOBODYS.fullmatch(name):
        return
    if _BACKUP.fullmatch(name):
        yield from archive(value)
        return
    match = _IMAGE.fullmatch(name)
    if match is None:
        raise ValueError("is not a volume whose owner can be told")
    for group, base in (("base_dir", True), ("base", True), ("own_dir", False), ("own", False)):
        if match[group]:
            yield Named(match[group], base)


def archive(value: str) -> Iterator[Named]:
    """Read a backup, by file or in a backup server."""
    storage, colon, name = value.partition(":")
    match = _BACKUP.fullmatch(name) if colon and _STORAGE.fullmatch(storage) else None
    if match is None:
        raise ValueError("is not a backup whose guest can be told")
    yield Named(match["file"] or match["pbs"])


def _unpacked(value: str) -> Iterator[Named]:
    storage, _, name = value.partition(":")
    if _STORAGE.fullmatch(storage) and name.startswith("vztmpl/") and _NOBODYS.fullmatch(name):
        return
    yield from archive(value)


_READERS: Mapping[Kind, Callable[[str], Iterator[Named]]] = {
    Kind.TEXT: _anything,
    Kind.WORDS: _anything,
    Kind.NAME: _pattern(_WORD, "word"),
    Kind.INTEGER: _pattern(_DIGITS, "whole number"),
    Kind.BOOLEAN: _boolean,
    Kind.SIZE: _pattern(_SIZE, "size to grow to"),
    Kind.OPTIONS: _options,
    Kind.NODE: _pattern(_NODE, "node's name"),
    Kind.STORAGE: _pattern(_STORAGE, "storage's name"),
    Kind.PROPERTIES: _properties,
    Kind.MAPPING: _mapping,
    Kind.VMID: _vmid,
    Kind.NEW_VMID: _vmid,
    Kind.DRIVE: drive,
    Kind.ARCHIVE: archive,
    Kind.UNPACKED: _unpacked,
    Kind.ZERO: _exactly("0"),
    Kind.SOCKET: _exactly("socket"),
    Kind.IMPORT: _exactly("import"),
    Kind.IMAGE: _image,
}

_MENTIONED = re.compile(r"(?:vm|ct|base|basevol|subvol|vzdump-[a-z]+)-([0-9]+)-", re.IGNORECASE)
_FREE = frozenset((Kind.TEXT, Kind.WORDS))


def mentions(kind: Kind, value: str) -> list[str]:
    """Return the VMIDs of volumes in a value that should name none; free text is only stored by the server."""
    return [] if kind in _FREE else _MENTIONED.findall(value)


# What names a guest wherever it stands: read in requests that no row knows, so that a refusal can say whose they are.

# Parameters of the API that name guests, whatever the call; in any of them each run of digits is a VMID.
_VMID_KEY = re.compile(r"(new|old|target-)?(vm|ct)?ids?|guests?|vms?|sid", re.IGNORECASE)
_OWNERS = (
    re.compile(r"(?:vm|ct|base|basevol|subvol|vzdump-[a-z]+)[-/:]([0-9]+)", re.IGNORECASE),
    re.compile(r"(?:^|[:/=,])([0-9]+)/"),
)


def anywhere(key: str, value: str) -> Iterator[str]:
    """Return every VMID that a parameter may name, as it is written there."""
    if _VMID_KEY.fullmatch(key):
        yield from re.findall(r"\d+", value)
    for owner in _OWNERS:
        yield from owner.findall(value)
