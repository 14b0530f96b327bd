"""nixherd.nix: what people say of their hosts beside a flake, or beside a hosts.nix of their own shape. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nixherd.base.errors import Finding
from nixherd.fleet.field_types import Keys, ListOf, Words
from nixherd.fleet.models import NIXHERD
from nixherd.fleet.nix_values import NixSet, nix_type, shown
from nixherd.fleet.schema import Place, fields_of
from nixherd.fleet.validate import check_fields, is_host

_LISTS = (Keys, ListOf, Words)


@dataclass(frozen=True)
class Beside:
    """What stands there: `hosts` by id, `defaults` of all of them, `fields` by our names, the way to a value below an
    entry of hosts.nix; an empty way is none."""

    hosts: Mapping[str, NixSet] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, values: Any, findings: list[Finding]) -> "Beside":
        """Judge the whole file; None is one that does not exist."""
        top = NixSet(NIXHERD, "", "", {} if values is None else values, findings)
        if not top.is_set():
            return cls()
        check_fields(top, Place.BESIDE)
        hosts = {name: entry for name, entry in top.section("hosts").items() if is_host(name)}
        for entry in hosts.values():
            check_fields(entry, Place.HOST, needed=False)
        defaults = top.child("defaults")
        if defaults.values is not None and defaults.is_set():
            check_fields(defaults, Place.HOST, needed=False)
        usual = defaults.values if isinstance(defaults.values, dict) else {}
        return cls(hosts, usual, _fields(top.child("fields")))

    def translated(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """An entry of hosts.nix in our words; what it says in its own stays beside them, unless it was translated."""
        whole = {way[0] for way in self.fields.values() if len(way) == 1} - fields_of(Place.HOST).keys()
        found = {name: value for name, value in entry.items() if name not in whole}
        for name, way in self.fields.items():
            value: Any = entry
            for step in way:
                value = value.get(step) if isinstance(value, dict) else None
            value = value if way else None
            is_one = value is not None and not isinstance(value, list)
            found[name] = [value] if is_one and isinstance(fields_of(Place.HOST)[name].type, _LISTS) else value
        return found


def _fields(entry: NixSet) -> dict[str, tuple[str, ...]]:
    if entry.values is None or not entry.is_set():
        return {}
    ways = {}
    for name, value in entry.values.items():
        if name not in fields_of(Place.HOST):
            entry.report(name, "is not an attribute of a host", "docs/fields.md has their names")
        elif value is None or (type(value) is str and all(value.split("."))):
            ways[name] = tuple(value.split(".")) if value else ()
        else:
            what = shown(value) if type(value) is str else f"is {nix_type(value)}"
            entry.report(name, f"{what}, not a name", 'write what hosts.nix calls it, such as "ip", or null')
    return ways
