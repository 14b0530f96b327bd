"""How operations read their arguments: what is typed ad hoc comes as text, numbers or JSON."""

from collections.abc import Mapping
from pathlib import Path

from nixherd.errors import Usage
from nixherd.sizes import parse_size


def size_of(name: str, value: object) -> int:
    """Bytes of a size such as 64G. Usage when it is none."""
    try:
        if not isinstance(value, str) or value.isdecimal():
            raise ValueError
        return parse_size(value)
    except ValueError:
        raise Usage(f"{name}={value} is no size; write one like 64G") from None


MOST = 2**31 - 1


def whole(name: str, value: object, least: int = 0, most: int = MOST) -> int:
    """A whole number. Usage when it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Usage(f"{name}={value} is no whole number from {least} to {most}")
    return value


def text_of(name: str, value: object) -> str:
    """One word or line. Usage when it is something else, or could be taken for an option."""
    if not isinstance(value, (str, int)) or isinstance(value, bool) or not str(value) or str(value).startswith("-"):
        raise Usage(f"{name}={value} is no name")
    if "\n" in str(value):
        raise Usage(f"{name} is more than one line")
    return str(value)


def text_or_none(name: str, value: object) -> str | None:
    """As `text_of`, for what may be left out."""
    return None if value is None else text_of(name, value)


def names_of(name: str, value: object) -> list[str]:
    """Words, in a list or one text with `,` or `;` between them. Usage when it is something else, or empty."""
    words = value.replace(";", ",").split(",") if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)) or not words:
        raise Usage(f"{name}={value} is no list of names")
    return [text_of(name, word) for word in words]


def flag_of(name: str, value: object) -> bool:
    """Usage when it is neither true nor false."""
    if value not in (True, False, 0, 1):
        raise Usage(f"{name}={value} is neither true nor false")
    return bool(value)


def options_of(given: Mapping[str, object]) -> dict[str, object]:
    """Those that were given."""
    return {key: value for key, value in given.items() if value is not None}


def path_below(name: str, value: object) -> str:
    """A path below the fleet's directory. Usage when it is something else, or leads out of it."""
    if not isinstance(value, str) or not value or value.startswith(("-", "/")) or ".." in Path(value).parts:
        raise Usage(f"{name}={value} is no path below the fleet's directory")
    return value
