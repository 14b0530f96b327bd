"""The content of a disk: its GUID partition table and the file systems' magic numbers.

Read from the image, because the host's kernel may not support partition tables (UEFI specification, chapter 5).
"""

import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")


@dataclass(frozen=True)
class Partition:
    """`offset` and `size` in bytes; `number` as in the device's name."""

    number: int
    kind: uuid.UUID
    name: str
    offset: int
    size: int


def read_partitions(image: Path) -> tuple[Partition, ...]:
    """Return the partitions by number; empty without a valid table."""
    with image.open("rb") as file:
        file.seek(SECTOR)
        header = file.read(92)
        if header[:8] != b"EFI PART":
            return ()
        start, count, length = struct.unpack_from("<QII", header, 72)
        if not 128 <= length <= 4096 or count > 1024:
            return ()
        file.seek(start * SECTOR)
        table = file.read(count * length)
    partitions = []
    for number in range(1, len(table) // length + 1):
        entry = table[(number - 1) * length : number * length]
        kind = uuid.UUID(bytes_le=entry[:16])
        if kind.int == 0:
            continue
        first, last = struct.unpack_from("<QQ", entry, 32)
        name = entry[56:128].decode("utf-16-le", errors="replace").rstrip("\0")
        partitions.append(Partition(number, kind, name, first * SECTOR, (last - first + 1) * SECTOR))
    return tuple(partitions)


def is_ext4(image: Path, partition: Partition) -> bool:
    """Return whether an ext file system's superblock is at that place."""
    with image.open("rb") as file:
        file.seek(partition.offset + 1024 + 56)
        return file.read(2) == b"\x53\xef"
