"""A document that `nixherd status --json` wrote, read back: of the shape of `document`, or refused by what is wrong.

A part that this version does not know is left out, and one that the file does not have is not known.
"""

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import datetime
from enum import EnumType, StrEnum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from nixherd.base.errors import Usage
from nixherd.base.terminal import one_line
from nixherd.overview.document import VERSION, Overview

T = TypeVar("T")
_SHOWN = 60  # characters of a value that is wrong
_TIMES = frozenset(("taken", "at", "since", "when", "newest_snapshot", "oldest_snapshot", "newest_backup"))
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def read_overview(text: str, name: str) -> Overview:
    """The document in this text. Usage, beginning with `name`, where it has none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Usage(f"{name}: is not JSON: {one_line(error)}; write it with `nixherd status --json`") from None
    if not isinstance(value, dict) or not isinstance(value.get("hosts"), list) or "version" not in value:
        raise Usage(f"{name}: is not what `nixherd status --json` writes: it has no version and no hosts")
    if value["version"] != VERSION:
        what = f"is of version {_shown(value['version'])} of that document, and this nixherd reads {VERSION}"
        raise Usage(f"{name}: {what}; write it anew with `nixherd status --json`")
    try:
        return _made(Overview, value, "")
    except _Wrong as wrong:
        raise Usage(f"{name}: {wrong}; write it anew with `nixherd status --json`") from None


class _Wrong(Exception):
    """Where the document is not as it should be, and how."""


def _shown(value: object) -> str:
    text = one_line(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _made(kind: type[T], value: object, place: str) -> T:
    """An instance of a dataclass of the document."""
    if not isinstance(value, dict):
        raise _Wrong(f"{place or 'the document'} is {_shown(value)}, not an object")
    hints, parts = _hints(kind), dict[str, Any]()  # type: ignore[arg-type]  # a class is hashable
    for each in fields(kind):  # type: ignore[arg-type]
        where = f"{place}.{each.name}".lstrip(".")
        if each.name in value:
            parts[each.name] = _read(hints[each.name], value[each.name], where)
            if each.name in _TIMES and parts[each.name] is not None:
                _require_time(parts[each.name], where)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise _Wrong(f"{where} is missing")
    return kind(**parts)


_hints = cache(get_type_hints)  # a thousand hosts ask for those of a dozen classes


def _read(kind: Any, value: Any, place: str) -> Any:
    """The value as this type of the document has it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        [kind] = [each for each in arguments if each is not type(None)]
        return _read(kind, value, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise _Wrong(f"{place} is {_shown(value)}, not a list")
        return tuple(_read(arguments[0], each, f"{place}[{number}]") for number, each in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _Wrong(f"{place} is {_shown(value)}, not an object")
        return {key: _read(arguments[1], each, f"{place}.{one_line(key)}") for key, each in value.items()}
    if is_dataclass(kind):
        return _made(kind, value, place)  # type: ignore[arg-type]
    if isinstance(kind, EnumType):
        return _word(kind, value, place)  # type: ignore[arg-type]
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise _Wrong(f"{place} is {_shown(value)}, not {_WORDS[kind]}")


def _word(kind: type[StrEnum], value: Any, place: str) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise _Wrong(f"{place} is {_shown(value)}, not one of {', '.join(kind)}") from None


def _require_time(text: str, place: str) -> None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _Wrong(f"{place} is {_shown(text)}, not a time with its zone, like 2026-01-31T12:00:00Z")
