"""The tables as trees that Nix reads lazily: the first levels are an object, what is below is JSON in a string.

A node of the tree is
- a number: an option of that type, as an index into `types.json`;
- an object: the options below, by attribute; with the attribute "" where it is itself an option, of that type;
- a list of one string: the JSON text of such an object, so that only who looks below reads it.
Of options that are gone a tree of its own (`former`) has the new name's attributes as a list, empty where none is new.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.options import names, tables, types

# An object whose text is longer is read level by level, a shorter one at once, in letters.
_AT_ONCE = 6000
_INLINE = 60


def write(directory: Path, at: int | None = None) -> None:
    """Write `types.json`, `SET.json` and `SET-former.json` of every set to `directory`, with the time `at`."""
    directory.mkdir()
    kinds: dict[str, int] = {}
    files: dict[str, Any] = {}
    for where, found in tables.options().items():
        files[where] = _lazy(_tree({name: kinds.setdefault(kind, len(kinds)) for name, kind in found.items()}))
        files[f"{where}-former"] = _tree(
            {gone.name: names.parts(gone.now) if gone.now else [] for gone in tables.former()[where]}
        )
    files["types"] = [[kind, types.parse(kind)] for kind in kinds]
    for name, content in files.items():
        path = directory / f"{name}.json"
        path.write_text(_text(content))
        if at is not None:
            os.utime(path, (at, at))
    if at is not None:
        os.utime(directory, (at, at))


def _text(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def _tree(leaves: Mapping[str, int | list[str]]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *above, last = names.parts(name)
        level = root
        for part in above:
            below = level.setdefault(part, {})
            if not isinstance(below, dict):
                below = level[part] = {"": below}
            level = below
        if isinstance(level.get(last), dict):
            level[last][""] = leaf
        else:
            level[last] = leaf
    return root


def _lazy(node: dict[str, Any]) -> dict[str, Any]:
    """`node` itself, what is below as strings where that is worth it."""
    found: dict[str, Any] = {}
    for name, below in node.items():
        text = _text(below)
        if not isinstance(below, dict) or len(text) < _INLINE:
            found[name] = below
        elif len(text) < _AT_ONCE:
            found[name] = [text]
        else:
            found[name] = _lazy(below)
    return found
