"""What people type: each kind of name as one pattern, sizes and durations, and how arguments are read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import Usage

VMID = r"[1-9][0-9]{2,8}"
DNS_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DNS_NAME = rf"(?=.{{1,253}}$){DNS_LABEL}(?:\.{DNS_LABEL})*"
# as DNS_NAME, with what people have in their hostnames
_HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
HOSTNAME = rf"(?=.{{1,253}}$){_HOST_LABEL}(?:\.{_HOST_LABEL})*"
NODE = DNS_LABEL
STORAGE = r"[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]"
SNAPSHOT = r"[A-Za-z][A-Za-z0-9_-]{1,39}"
# a backup in its storage, as a file or in a backup server: what kind of guest, and which
BACKUP = (
    rf"backup/(?:vzdump-(?P<kind>qemu|lxc|openvz)-(?P<file>{VMID})-[0-9][0-9_-]*\.[a-z0-9.]+"
    rf"|(?P<group>vm|ct)/(?P<pbs>{VMID})/[0-9T:Z-]+)"
)
HOST_ID = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
# a host's id as a flake has it: a home is often USER@MACHINE
ANY_HOST_ID = rf"{HOST_ID}(?:@{HOST_ID})?"
USER = r"[A-Za-z_][A-Za-z0-9_.-]*"
EXTENSION = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}"  # that a file may be given
MAC = r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
# a path that every program, shell and option takes as it is
PLAIN_PATH = r"[A-Za-z0-9/._+@-]+"


_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([KMGT]?)")
_MOST = 1 << 62  # bytes; what a server counts them with ends there
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
LONGEST = 30 * 24 * 3600  # seconds: what takes longer than a month is not waited for, and no clock takes 1e300
MOST = 2**31 - 1


def pattern(name: str) -> re.Pattern[str]:
    return re.compile(name, re.ASCII)


def is_a(name: str, text: str) -> bool:
    """Whether a text can be a name of this kind."""
    return re.fullmatch(name, text, re.ASCII) is not None


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


def many(number: int, what: str) -> str:
    """So many things as people say them: `1 file`, `2 files`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first of some names, and how many there are besides."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def human(size: int) -> str:
    """Bytes as people say them: `64 GiB`, `1.5 TiB`."""
    value, units = float(size), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"


def parse_seconds(given: object) -> float:
    """A number of seconds, 1 to `LONGEST`. ValueError for what is none: `nan` is never over, and `inf` no deadline."""
    try:
        found = float(str(given))
    except ValueError:
        found = 0.0
    if not 1 <= found <= LONGEST:
        raise ValueError(f"{given} is not a number of seconds from 1 to {LONGEST}; write one like 300")
    return found


def size_of(name: str, value: object) -> int:
    """Bytes of a size such as 64G. Usage when it is not one."""
    try:
        if not isinstance(value, str) or value.isdecimal():
            raise ValueError
        return parse_size(value)
    except ValueError:
        raise Usage(f"{name}={value} is not a size; write one like 64G") from None


def whole(name: str, value: object, least: int = 0, most: int = MOST) -> int:
    """A whole number. Usage when it is not one."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Usage(f"{name}={value} is not a whole number from {least} to {most}")
    return value


@dataclass(frozen=True, slots=True)
class Whole:
    """Reads a whole number between bounds; `unit` is what it counts."""

    least: int = 0
    most: int = MOST
    unit: str = ""

    def __call__(self, name: str, value: object) -> int:
        return whole(name, value, self.least, self.most)


SECONDS = Whole(1, LONGEST, "seconds")


def text_of(name: str, value: object) -> str:
    """One word or line. Usage when it is something else, or could be taken for an option."""
    if not isinstance(value, (str, int)) or isinstance(value, bool) or not str(value) or str(value).startswith("-"):
        raise Usage(f"{name}={value} is not a name")
    if "\n" in str(value):
        raise Usage(f"{name} is more than one line")
    return str(value)


def any_text(name: str, value: object) -> str:
    """Text of any kind, of several lines too."""
    return str(value)


def names_of(name: str, value: object) -> list[str]:
    """Words, in a list or one text with `,` or `;` between them. Usage when it is something else, or empty."""
    words = value.replace(";", ",").split(",") if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)) or not words:
        raise Usage(f"{name}={value} is not a list of names")
    return [text_of(name, word) for word in words]


def some_names(name: str, value: object) -> tuple[str, ...]:
    """As `names_of`, for a list that may be left out or empty."""
    return () if value is None or value == () else tuple(names_of(name, value))


def flag_of(name: str, value: object) -> bool:
    """Usage when it is neither true nor false."""
    if value not in (True, False, 0, 1):
        raise Usage(f"{name}={value} is neither true nor false")
    return bool(value)


@dataclass(frozen=True, slots=True)
class OneOf:
    """Reads one of some words."""

    words: tuple[str, ...]

    def __call__(self, name: str, value: object) -> str:
        if value not in self.words:
            raise Usage(f"{name}={value}: write {', '.join(self.words[:-1])} or {self.words[-1]}")
        return str(value)


def options_of(given: Mapping[str, object]) -> dict[str, object]:
    """Those that were given."""
    return {key: value for key, value in given.items() if value is not None}


def path_below(name: str, value: object) -> str:
    """A path below the fleet's directory. Usage when it is something else, or leads out of it."""
    if not isinstance(value, str) or not value or value.startswith(("-", "/")) or ".." in Path(value).parts:
        raise Usage(f"{name}={value} is not a path below the fleet's directory")
    return value
