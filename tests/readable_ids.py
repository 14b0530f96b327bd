"""What a parametrized test is called by: its values in short, where pytest would count (`case0`) or print pages."""

from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import partial
from typing import Any

LONGEST = 40  # characters of one value


def readable(value: object) -> str | None:
    """A short name of a value, the same in every process; None for what pytest names well, or what has no name."""
    if isinstance(value, str):
        return _short(value) if len(value) > LONGEST else None
    if isinstance(value, (bool, int, float, complex, Enum, type)) or value is None:
        return None
    words = _words(value)
    return None if words is None else _short(words) or "none"


def _words(value: object) -> str | None:
    if isinstance(value, Mapping):
        parts = {key: _word(each) for key, each in value.items()}
        return _joined([None if each is None else f"{key}={each}" for key, each in parts.items()], ",")
    if isinstance(value, (list, tuple)):
        return _joined([_word(each) for each in value], " ")
    if isinstance(value, Set):
        words = [_word(each) for each in value]
        return None if None in words else " ".join(sorted(filter(None, words)))
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}({_words(_given(value)) or ''})"
    if isinstance(value, partial):
        return _joined([_word(value.func), *map(_word, value.args)], " ")
    if isinstance(value, BaseException):
        return f"{type(value).__name__}({' '.join(map(str, value.args))})"
    if isinstance(value, bytes):
        return value[:LONGEST].decode("ascii", "backslashreplace")
    name = getattr(value, "__name__", type(value).__name__)
    return str(name) if name != "<lambda>" else None


def _word(value: object) -> str | None:
    """A value inside another, to be read beside its neighbours."""
    if isinstance(value, str) or value is None or isinstance(value, (bool, int, float, Enum)):
        return str(value)
    words = _words(value)
    return words if words is None or isinstance(value, (bytes, partial)) or callable(value) else f"({words})"


def _joined(words: list[str | None], by: str) -> str | None:
    return None if None in words else by.join(word for word in words if word is not None)


def _given(value: Any) -> dict[str, object]:
    """The fields that are not as they would be without being named."""
    return {
        field.name: getattr(value, field.name)
        for field in fields(value)
        if field.repr and getattr(value, field.name) != field.default and getattr(value, field.name)
    }


def _short(text: str) -> str:
    text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in " ".join(text.split()))
    return text if len(text) <= LONGEST else text[: LONGEST - 2] + ".."
