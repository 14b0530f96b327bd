"""The tables as trees that Nix reads lazily: the first levels are an object, deeper ones JSON in a string.

A node of the tree is
- a number: an option of that type, as an index into `types.json`;
- an object: the options below, by attribute; attribute "" is the object's own type if it is an option itself;
- a list of one string: the JSON text of such an object, parsed only when it is needed.
Removed options have a separate tree (`former`) with the new name's attributes as a list, empty without a new name.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.options import names, tables, types

# Objects with a longer text are read level by level, shorter ones (in characters) at once.
_AT_ONCE = 6000
_INLINE = 60


def write(directory: Path, at: int | None = None) -> None:
    """Write `types.json`, `SET.json` and `SET-former.json` of every set to `directory`, with the time `at`."""
    directory.mkdir()
    kinds: dict[str, int] = {}
    files: dict[str, Any] = {}
    for module_set, options in tables.options().items():
        files[module_set] = _lazy(_tree({name: kinds.setdefault(kind, len(kinds)) for name, kind in options.items()}))
        files[f"{module_set}-former"] = _tree(
            {gone.name: names.parts(gone.now) if gone.now else [] for gone in tables.former()[module_set]}
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
    """Return `node` with its larger children as strings."""
    lazy: dict[str, Any] = {}
    for name, below in node.items():
        text = _text(below)
        if not isinstance(below, dict) or len(text) < _INLINE:
            lazy[name] = below
        elif len(text) < _AT_ONCE:
            lazy[name] = [text]
        else:
            lazy[name] = _lazy(below)
    return lazy
