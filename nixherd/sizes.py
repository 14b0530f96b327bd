"""Sizes of disks, in Proxmox' own notation and as people say them; and durations as people say them."""

import re

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([KMGT]?)")
_MOST = 1 << 62  # bytes; what a server counts them with ends there
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of a Proxmox disk size such as `64G` or `2.5G`; no unit means bytes. ValueError if it is none."""
    match = _SIZE.fullmatch(text)
    size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if not 0 < size <= _MOST:
        raise ValueError(f"{text!r} is not a size; write one like 64G")
    return size


def format_size(size: int) -> str:
    """The size as Proxmox writes it into a VM's configuration: the largest unit that divides it."""
    for unit in ("T", "G", "M", "K"):
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def human(size: int) -> str:
    """Bytes as people say them: `64 GiB`, `1.5 TiB`."""
    value, units = float(size), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"


LONGEST = 30 * 24 * 3600  # seconds: what takes longer than a month is not waited for, and no clock takes 1e300


def parse_seconds(given: object) -> float:
    """A number of seconds, 1 to `LONGEST`. ValueError for what is none: `nan` is never over, and `inf` no deadline."""
    try:
        found = float(str(given))
    except ValueError:
        found = 0.0
    if not 1 <= found <= LONGEST:
        raise ValueError(f"{given} is not a number of seconds from 1 to {LONGEST}; write one like 300")
    return found
