"""A control group's device allow-list: a BPF program, so it works on every cgroup layout (linux/bpf.h).

Guests have all capabilities and could otherwise create a node for the host's disk.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, 321)
_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
BLOCK, CHARACTER = 1, 2
BLKEXT_MAJOR = 259  # partitions of loop devices, but also NVMe disks

Rule = tuple[int, int, int | None]  # BLOCK or CHARACTER, major, minor or any

# null zero full random urandom tty console ptmx, pseudo terminals, fuse, tun
COMMON: tuple[Rule, ...] = (
    *((CHARACTER, 1, minor) for minor in (3, 5, 7, 8, 9)),
    *((CHARACTER, 5, minor) for minor in (0, 1, 2)),
    (CHARACTER, 136, None),
    (CHARACTER, 10, 229),
    (CHARACTER, 10, 200),
)


def allow(cgroup: Path, loops: Iterable[tuple[int, int]]) -> None:
    """Allow the processes of `cgroup` common devices, these loop devices and partitions only. Raises OSError.

    Partition minors change whenever a table is read, so all of blkext is allowed except the host's own disks.
    """
    allowed: list[Rule] = [*COMMON, *((BLOCK, major, minor) for major, minor in loops), (BLOCK, BLKEXT_MAJOR, None)]
    _attach(cgroup, _program(_disks_of_the_host(), allowed))


def _disks_of_the_host() -> list[Rule]:
    """Return the block devices of blkext that are not (parts of) loop devices."""
    disks: list[Rule] = []
    for device in Path("/sys/class/block").iterdir():
        if not device.name.startswith("loop"):
            major, minor = (device / "dev").read_text().split(":")
            if int(major) == BLKEXT_MAJOR:
                disks.append((BLOCK, BLKEXT_MAJOR, int(minor)))
    return disks


def _program(denied: Iterable[Rule], allowed: Iterable[Rule]) -> bytes:
    """Return the bytecode: the first matching rule decides, the default is deny."""

    def instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
        return struct.pack("<BBhi", code, src << 4 | dst, offset, value)

    load = [
        instruction(0x61, 2, 1, 0),  # r2 = access << 16 | type
        instruction(0x54, 2, value=0xFFFF),
        instruction(0x61, 3, 1, 4),  # r3 = major
        instruction(0x61, 4, 1, 8),  # r4 = minor
    ]
    rules = []
    for verdict, group in ((0, denied), (1, allowed)):
        for kind, major, minor in group:
            tests = [(2, kind), (3, major), *([(4, minor)] if minor is not None else [])]
            for position, (register, value) in enumerate(tests):
                rules.append(
                    instruction(0x55, register, offset=len(tests) - position + 1, value=value)
                )  # no match: next rule
            rules += [instruction(0xB7, 0, value=verdict), instruction(0x95)]
    return b"".join([*load, *rules, instruction(0xB7, 0, value=0), instruction(0x95)])


def _attach(cgroup: Path, program: bytes) -> None:
    code, licence = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "<IIQQIIQ", _TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0
    )
    loaded = _bpf(_PROG_LOAD, attributes)
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _bpf(_PROG_ATTACH, struct.pack("<IIII", directory, loaded, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
    finally:
        os.close(directory)
        os.close(loaded)


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, 128)
    result: int = libc.syscall(_SYS_BPF, command, buffer, 128)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf: {os.strerror(error)}")
    return result
