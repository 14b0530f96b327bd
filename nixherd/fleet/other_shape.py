"""A hosts.nix that is not of our shape, in one line: what it is, and the smallest thing that makes it work. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nixherd.base.errors import Finding, Severity
from nixherd.fleet.models import HOSTS, NIXHERD
from nixherd.fleet.outputs import Outputs
from nixherd.fleet.schema import Place, fields_of
from nixherd.fleet.translating import entries_in, shape_of, translation

REACHED_BY = frozenset(("addresses", "user", "port", "publicKey"))
_SHOWN = 4  # entries
_OF_YOUR_OWN = f"where it is a file of your own, write {NIXHERD}: {{ useHostsFile = false; }}"


def is_about_something_else(entries: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether no entry has an attribute of ours, by our name or by one that people use for what reaches a machine."""
    names = fields_of(Place.HOST)
    return not any(name in names for entry in entries.values() for name in entry) and not _reached(entries)


def why(hosts: Any, errors: Sequence[Finding], outputs: Callable[[], Outputs]) -> str | None:
    """Return the line for a hosts.nix that gave rise to these errors; None where it is ours, with a mistake in it.

    `outputs` are asked for where it matters that the flake has hosts.
    """
    entries = entries_in(hosts)
    if entries is None:
        sets = {name: each for name, each in hosts.items() if isinstance(each, dict)} if isinstance(hosts, dict) else {}
        if is_about_something_else(sets) and outputs().has_hosts:
            return f"{HOSTS}: is {shape_of(hosts)}, not a set of hosts; {_OF_YOUR_OWN}"
        return None
    if entries and is_about_something_else(entries):
        if outputs().has_hosts:
            names = ", ".join(list(entries)[:_SHOWN]) + (", …" if len(entries) > _SHOWN else "")
            return f"{HOSTS}: says nothing of {names} that nixherd reads; {_OF_YOUR_OWN}"
        return None
    if (seen := _reached(entries)) and all(error.what == "missing" for error in errors):
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        user = " --user NAME" if "user" not in seen and any(each.attribute.endswith(".user") for each in errors) else ""
        return f"{HOSTS}: {errors[0].attribute}: missing{more}; `nixherd init{user}` writes {_translation(seen)}"
    return None


def unread(hosts: Any) -> Finding | None:
    """Return a warning where hosts.nix is sound, and says in other words than ours how its machines are reached."""
    seen = _reached(entries_in(hosts) or {})
    if not seen:
        return None
    remedy = f"`nixherd init` writes {_translation(seen)}"
    return Finding(Severity.WARNING, HOSTS, ", ".join(seen.values()), "means nothing to nixherd", remedy)


def _reached(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What says how machines are reached, in the file's words by ours."""
    fields = translation(entries).fields if entries else {}
    return {name: ".".join(way) for name, way in fields.items() if way and name in REACHED_BY}


def _translation(seen: Mapping[str, str]) -> str:
    return f"a {NIXHERD} that takes {', '.join(f'{way} for {name}' for name, way in seen.items())}"
