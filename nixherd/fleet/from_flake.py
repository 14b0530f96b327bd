"""The hosts of a fleet by its flake alone: its configurations' names, and what nixherd.nix and nixherd.hosts say. Pure.

What the configurations themselves say is read for the hosts that are worked on (`nixherd.fleet.completing`).
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nixherd.base import names
from nixherd.base.errors import Finding
from nixherd.fleet.beside import Beside
from nixherd.fleet.models import FLAKE, NIXHERD, Configuration, Output
from nixherd.fleet.nix_values import NixSet, shown_name
from nixherd.fleet.outputs import Outputs
from nixherd.fleet.schema import Place
from nixherd.fleet.validate import GROUPS, check_fields, is_host

UNREAD = "what its configuration says of it was not read"
_MAC = "nix-darwin's configurations are for Macs; nixherd deploys NixOS and Home Manager"


@dataclass(frozen=True)
class Listed:
    """The hosts of a flake: where it has them, and by what they are called there, why others are none."""

    configurations: Mapping[str, Configuration]
    skipped: Mapping[str, str]


def listed(outputs: Outputs) -> Listed:
    """A name that two configurations have is the system's; the home of it is NAME-home."""
    found: dict[str, Configuration] = {}
    skipped = {f"darwinConfigurations.{shown_name(name)}": _MAC for name in outputs.macs}
    for output, all_names in ((Output.SYSTEM, outputs.systems), (Output.HOME, outputs.homes)):
        for name in all_names:
            host_id = f"{name}-home" if output is Output.HOME and name in outputs.systems else name
            if why := _why_not(host_id, output, found):
                skipped[f"{output}.{shown_name(name)}"] = why
            else:
                found[host_id] = Configuration(output, name)
    return Listed(found, skipped)


def _why_not(host_id: str, output: Output, found: Mapping[str, Configuration]) -> str | None:
    pattern = names.ANY_HOST_ID if output is Output.HOME else names.HOST_ID
    if not names.is_a(pattern, host_id):
        return "its name is not one for a host: letters, digits, '-', '_' and '.'; rename it"
    if not is_host(host_id):
        return "its name begins with '_'; rename it if it is a host"
    if host_id in GROUPS:
        return f"'{host_id}' is the name of a group; rename it"
    if other := next((each for each in found if each.lower() == host_id.lower()), None):
        case = "" if other == host_id else " but for case"
        return f"{host_id} is {found[other]}{case}; rename one of them"
    return None


def entries_of(outputs: Outputs, beside: Beside, hosts: Listed, findings: list[Finding]) -> dict[str, NixSet]:
    """What is said of each host in nixherd.nix, else in the flake's output nixherd.hosts."""
    output = _output(outputs.hosts, findings)
    for file, entries in ((NIXHERD, beside.hosts), (FLAKE, output)):
        for name, entry in entries.items():
            if name not in hosts.configurations:
                entry.report("", *_why_unknown(file, name, hosts))
    found = {}
    for name in hosts.configurations:
        first, second = beside.hosts.get(name), output.get(name)
        values = {**(_known(second) if second else {}), **(_known(first) if first else {})}
        where = first or second
        file, attribute = (where.file, where.attribute) if where else (FLAKE, str(hosts.configurations[name]))
        found[name] = NixSet(file, name, attribute, values, findings)
    return found


def _known(entry: NixSet) -> dict[str, Any]:
    return {name: value for name, value in entry.values.items() if value is not None}


def _output(values: Any, findings: list[Finding]) -> dict[str, NixSet]:
    """The entries of the output; each is judged as one of hosts.nix is."""
    top = NixSet(FLAKE, "", "nixherd.hosts", values, findings)
    entries = {name: entry for name, entry in top.entries().items() if is_host(name)}
    for entry in entries.values():
        check_fields(entry, Place.HOST, needed=False)
    return entries


def _why_unknown(file: str, name: str, hosts: Listed) -> tuple[str, str]:
    for output in Output:
        if why := hosts.skipped.get(f"{output}.{name}"):
            return f"{output}.{name} is not a host: {why}", f"take it out of {file} until then"
    near = difflib.get_close_matches(name, hosts.configurations, n=1)
    hint = f"did you mean {near[0]}?" if near else "add the configuration, or correct the name"
    return f"the flake has no {' or '.join(Output)} of this name", hint
