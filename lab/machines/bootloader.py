"""Finds what a machine boots from the content of its disk, like firmware and boot loader."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.machines.gpt import BIOS_BOOT, ESP, Partition, is_ext4, read_partitions


class NotBootable(Exception):
    """The error on the machine's screen."""


@dataclass(frozen=True)
class Entry:
    """A boot entry: the program in `init=`, and the partitions that its root may be on."""

    name: str
    init: str
    roots: tuple[Partition, ...]


def read_entry(image: Path, bios: str) -> Entry:
    """Return the disk's default entry for this firmware, `ovmf` or `seabios`. Raises NotBootable.

    OVMF needs an ESP. SeaBIOS needs a BIOS boot partition for GRUB; the entries are the same files.
    """
    partitions = read_partitions(image)
    if not partitions:
        raise NotBootable("no GUID partition table")
    esp = next((part for part in partitions if part.kind == ESP), None)
    if bios != "ovmf" and not any(part.kind == BIOS_BOOT for part in partitions):
        raise NotBootable("SeaBIOS: the disk has no BIOS boot partition")
    if esp is None:
        raise NotBootable(f"{bios}: the disk has no EFI system partition")
    name = _value(_read(image, esp, "loader/loader.conf"), "default")
    if name is None:
        raise NotBootable("loader.conf names no default entry")
    name = name if name.endswith(".conf") else f"{name}.conf"
    options = _value(_read(image, esp, f"loader/entries/{name}"), "options") or ""
    init = re.search(r"(?:^|\s)init=(/\S+)", options)
    if not init:
        raise NotBootable(f"entry {name}: no init= in its options")
    roots = tuple(part for part in partitions if is_ext4(image, part))
    if not roots:
        raise NotBootable("no root file system")
    return Entry(name, init[1], roots)


def _read(image: Path, esp: Partition, path: str) -> str:
    done = subprocess.run(
        ["mtype", "-i", f"{image}@@{esp.offset}", f"::/{path}"], capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise NotBootable(f"{path} is not on the EFI system partition")
    return done.stdout


def _value(text: str, key: str) -> str | None:
    """Return the value of the last line `key value`."""
    values = re.findall(rf"^{key}\s+(.*\S)", text, re.MULTILINE)
    return values[-1] if values else None
