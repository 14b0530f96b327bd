"""The condensed schema of the routes served (schema.json, written by make_schema.py)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("schema.json")

Property = Mapping[str, Any]

# The number of instances of an indexed option (`net[n]`).
INDEXED = {
    "net": 32,
    "ipconfig": 32,
    "ide": 4,
    "sata": 6,
    "scsi": 31,
    "virtio": 16,
    "serial": 4,
    "parallel": 3,
    "hostpci": 16,
    "usb": 14,
    "numa": 8,
    "unused": 256,
    "virtiofs": 10,
    "mp": 256,
    "dev": 256,
}
_INDEX = re.compile(r"([a-z]+)(0|[1-9]\d*)")


@dataclass(frozen=True)
class RouteSchema:
    """The documentation of one call."""

    parameters: Mapping[str, Property]
    permissions: Mapping[str, Any]
    protected: bool
    allows_token: bool
    proxied: bool

    def property(self, name: str) -> Property | None:
        """Return the property of that name; `net0` matches `net[n]`."""
        if name in self.parameters:
            return self.parameters[name]
        match = _INDEX.fullmatch(name)
        if match and int(match[2]) < INDEXED.get(match[1], 0):
            return self.parameters.get(f"{match[1]}[n]")
        return None

    @cached_property
    def required(self) -> tuple[str, ...]:
        return tuple(name for name, prop in self.parameters.items() if not prop.get("optional") and "[n]" not in name)


@cache
def _document() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text()))


class Schema:
    """The schema of one major version."""

    def __init__(self, version: int) -> None:
        self._version = str(version)
        self._parsed: dict[str, RouteSchema] = {}

    def route(self, key: str) -> RouteSchema | None:
        """Return the documentation of `GET /path/{name}`; None if this version does not have that call."""
        if key not in self._parsed:
            document = _document()
            raw = document["9"].get(key)
            if self._version == "8" and key in document["8"]:
                raw = document["8"][key]
            if raw is None:
                return None
            properties = document["properties"]
            self._parsed[key] = RouteSchema(
                parameters={name: properties[number] for name, number in raw["parameters"].items()},
                permissions=raw["permissions"],
                protected="protected" in raw["flags"],
                allows_token="allowtoken" in raw["flags"],
                proxied="proxied" in raw["flags"],
            )
        return self._parsed[key]

    def config_property(self, name: str) -> Property | None:
        """Return the property of an option in a VM's configuration."""
        return self.require("PUT /nodes/{node}/qemu/{vmid}/config").property(name)

    def require(self, key: str) -> RouteSchema:
        """Return the schema of a call that both versions have."""
        route = self.route(key)
        if route is None:
            raise KeyError(key)
        return route
