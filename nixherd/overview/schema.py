"""The form of the document, as a JSON Schema (2020-12), made from the types of `document`.

What a later version adds is allowed: a reader of this version leaves it out.
"""

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import EnumType
from typing import Any, Union, get_args, get_origin, get_type_hints

from nixherd.base.errors import Exit
from nixherd.overview.document import VERSION, Overview, State

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_WORDS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def schema() -> dict[str, Any]:
    """What `nixherd status --json` is valid by, and `nixherd status --schema` prints."""
    parts: dict[str, Any] = {}
    document = _object(Overview, parts)
    states = {str(state): {"type": "integer", "minimum": 0} for state in State}
    more = {
        "version": {"const": VERSION},
        "summary": {"type": "object", "properties": states, "required": [*states]},
        "exit": {"enum": [int(each) for each in (Exit.DONE, Exit.FAILED, Exit.REMOTE, Exit.UNKNOWN)]},
    }
    document["properties"] = {**more, **document["properties"]}
    document["required"] = [*more, *document["required"]]
    return {"$schema": _DIALECT, "title": "nixherd status", **document, "$defs": dict(sorted(parts.items()))}


def _object(kind: type, parts: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind)]
    properties = {name: _of(hints[name], parts) for name in names}
    return {"type": "object", "properties": properties, "required": names}


def _of(hint: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """The schema of a type; a dataclass and an enumeration are parts of their own."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        choices = [_of(each, parts) for each in get_args(hint)]
        simple = [each["type"] for each in choices if each.keys() == {"type"}]
        return {"type": simple} if len(simple) == len(choices) else {"anyOf": choices}
    if origin is tuple:
        return {"type": "array", "items": _of(get_args(hint)[0], parts)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _of(get_args(hint)[1], parts)}
    if isinstance(hint, EnumType):
        words: list[Any] = list(hint)
        parts[hint.__name__] = {"enum": [str(each) for each in words]}
    elif isinstance(hint, type) and is_dataclass(hint):
        parts.setdefault(hint.__name__, {})
        parts[hint.__name__] = _object(hint, parts)
    else:
        return {"type": _WORDS[hint]}
    return {"$ref": f"#/$defs/{hint.__name__}"}
