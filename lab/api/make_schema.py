"""Writes schema.json, the condensed schema of the routes served, from the official API documentation.

    python -m lab.api.make_schema APIDOC-8.json APIDOC-9.json

The arguments are the API trees of the two major versions, as JSON: what pve-doc-generator's apidoc.js assigns to
`apiSchema`. Kept are names, types, limits, formats, enumerations, permissions and where a call runs; no prose.
Properties that many routes share are written once; version 8 has only the routes that differ (null: not there).
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.api import served  # noqa: F401  (registers the routes)
from lab.api.routes import REGISTRY
from lab.api.schema import FILE

KEPT = (
    "type",
    "optional",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "enum",
    "pattern",
    "default_key",
    "alias",
    "keyAlias",
)
NUMBERS = ("minimum", "maximum", "minLength", "maxLength")


def routes(tree: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every method of a documented tree as (`GET /path`, its description)."""
    for node in tree:
        for method, info in (node.get("info") or {}).items():
            yield f"{method} {node['path']}", info
        yield from routes(node.get("children", []))


def condense(prop: dict[str, Any]) -> dict[str, Any]:
    """Return one property without its prose."""
    kept = {key: prop[key] for key in KEPT if key in prop}
    kept.update({key: float(kept[key]) if "." in str(kept[key]) else int(kept[key]) for key in NUMBERS if key in kept})
    if "pattern" in kept:  # the form in which Perl prints compiled patterns
        kept["pattern"] = re.sub(r"\(\?\^([a-z]*):", lambda m: f"(?{m[1]}:", kept["pattern"])
    form = prop.get("format")
    if isinstance(form, dict):
        kept["format"] = {name: condense(inner) for name, inner in form.items()}
    elif form:
        kept["format"] = form
    if "items" in prop:
        kept["items"] = condense(prop["items"])
    return kept


class Table:
    """Properties, numbered in the order of first use."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.numbers: dict[str, int] = {}

    def number(self, prop: dict[str, Any]) -> int:
        text = json.dumps(condense(prop), sort_keys=True, separators=(",", ":"))
        if text not in self.numbers:
            self.numbers[text] = len(self.rows)
            self.rows.append(text)
        return self.numbers[text]

    def route(self, info: dict[str, Any]) -> str:
        permissions = info.get("permissions") or {}
        return json.dumps(
            {
                "parameters": {
                    name: self.number(prop)
                    for name, prop in sorted(info.get("parameters", {}).get("properties", {}).items())
                    if isinstance(prop, dict)
                },
                "permissions": {key: permissions[key] for key in ("check", "user") if key in permissions},
                "flags": [flag for flag in ("protected", "allowtoken") if info.get(flag)]
                + (["proxied"] if info.get("proxyto") == "node" else []),
            },
            sort_keys=True,
            separators=(",", ":"),
        )


def condensed(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> str:
    """Return the file's text from the documented routes of versions 8 and 9."""
    table = Table()
    nine = {key: table.route(new[key]) for key in sorted(REGISTRY) if key in new}
    eight = {key: table.route(old[key]) if key in old else "null" for key in sorted(REGISTRY)}
    differing = {key: text for key, text in eight.items() if text != nine.get(key)}

    def lines(members: dict[str, str]) -> str:
        return ",\n".join(f"{json.dumps(key)}:{text}" for key, text in members.items())

    properties = ",\n".join(table.rows)
    return f'{{"properties":[\n{properties}\n],\n"9":{{\n{lines(nine)}\n}},\n"8":{{\n{lines(differing)}\n}}}}\n'


def documented(path: str | Path) -> dict[str, dict[str, Any]]:
    """Return the routes of one documentation file."""
    return dict(routes(json.loads(Path(path).read_text())))


def main(argv: list[str]) -> None:
    """Write the file and print routes that neither version documents."""
    old, new = map(documented, argv)
    FILE.write_text(condensed(old, new))
    print(*(key for key in REGISTRY if key not in old and key not in new), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
