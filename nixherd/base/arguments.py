"""How arguments are read that people type: text, numbers or JSON, for operations and for verbs of guests alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import Usage
from nixherd.base.sizes import LONGEST, parse_size

MOST = 2**31 - 1


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
