"""Programs of Debian that bind each function when it is first called, instead of all of them as they start.

Nix loads sixty libraries, and its start is most of what the smallest question to it takes; a quarter of that start is
binding functions of which few are called. Format: the ELF-64 object file format and the gABI's dynamic section.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEADER = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_SEGMENT, _ENTRY, _RELOCATION = struct.Struct("<IIQQQQQQ"), struct.Struct("<qQ"), struct.Struct("<QQq")
_LOAD, _DYNAMIC, _RELRO = 1, 2, 0x6474E552
_EXECUTABLE = 1
_PLT_SIZE, _PLT, _BIND_NOW, _FLAGS, _FLAGS_1, _DEBUG = 2, 23, 24, 30, 0x6FFFFFFB, 21
_NOW = {_FLAGS: 8, _FLAGS_1: 1}  # the bit that says it


@dataclass(frozen=True)
class _Segment:
    place: int  # of its header in the file
    type: int
    flags: int
    offset: int
    address: int
    size: int

    def holds(self, address: int) -> bool:
        return self.address <= address < self.address + self.size


def bind_lazily(path: Path) -> bool:
    """Change a program or library so, and return whether it was: not where it could not be called that way."""
    data = bytearray(path.read_bytes())
    if not data.startswith(_HEADER):
        return False
    segments = list(_segments(data))
    dynamic = [each for each in segments if each.type == _DYNAMIC]
    if len(dynamic) != 1 or not _is_prepared(data, segments, dict(each[1:] for each in _entries(data, dynamic[0]))):
        return False
    for place, tag, value in _entries(data, dynamic[0]):
        if tag in _NOW:
            _ENTRY.pack_into(data, place, tag, value & ~_NOW[tag])
        elif tag == _BIND_NOW:
            _ENTRY.pack_into(data, place, _DEBUG, 0)
    for segment in segments:
        if segment.type == _RELRO:  # where a function is noted stays writable
            struct.pack_into("<I", data, segment.place, 0)
    path.write_bytes(data)
    return True


def _segments(data: bytearray) -> Iterator[_Segment]:
    [start], [count] = struct.unpack_from("<Q", data, 32), struct.unpack_from("<H", data, 56)
    for place in range(start, start + count * _SEGMENT.size, _SEGMENT.size):
        type, flags, offset, address, _, size, _, _ = _SEGMENT.unpack_from(data, place)
        yield _Segment(place, type, flags, offset, address, size)


def _entries(data: bytearray, dynamic: _Segment) -> Iterator[tuple[int, int, int]]:
    """Each with its place in the file."""
    for place in range(dynamic.offset, dynamic.offset + dynamic.size, _ENTRY.size):
        tag, value = _ENTRY.unpack_from(data, place)
        if tag == 0:
            return
        yield place, tag, value


def _is_prepared(data: bytearray, segments: list[_Segment], entries: dict[int, int]) -> bool:
    """Return whether each function's slot leads to code that binds it; some linkers leave that out with `-z now`."""

    def offset(address: int) -> int:
        [found] = [each for each in segments if each.type == _LOAD and each.holds(address)]
        return found.offset + address - found.address

    code = [each for each in segments if each.type == _LOAD and each.flags & _EXECUTABLE]
    if _PLT not in entries:
        return False
    start = offset(entries[_PLT])
    for place in range(start, start + entries[_PLT_SIZE], _RELOCATION.size):
        slot, _, _ = _RELOCATION.unpack_from(data, place)
        [initial] = struct.unpack_from("<Q", data, offset(slot))
        if not any(each.holds(initial) for each in code):
            return False
    return True
