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
from nixherd.fleet.models import FLAKE, NIXHERD, Configuration, Unkept
from nixherd.fleet.nix_values import NixSet, shown_name
from nixherd.fleet.outputs import Outputs
from nixherd.fleet.schema import Place
from nixherd.fleet.shapes import unkept
from nixherd.fleet.validate import GROUPS, check_fields, is_host
from nixherd.nix.kinds import Output

UNREAD = "what its configuration says of it was not read"
_NO_SYSTEM = "the flake has no nixosConfigurations of its name, which is what is deployed; add it, or rename the node"
_MAC = "nix-darwin's configurations are for Macs; nixherd deploys NixOS and Home Manager"


@dataclass(frozen=True)
class Listed:
    """The hosts of a flake: where it has them, and by what they are called there, why others are none.

    `unkept` is what other tools are told of them in vain.
    """

    configurations: Mapping[str, Configuration]
    skipped: Mapping[str, str]
    unkept: tuple[Unkept, ...] = ()


def listed(outputs: Outputs) -> Listed:
    """A name that two configurations have is the system's; the home of it is NAME-home.

    Of a name that is in a hive, too, the hive's system is meant: it is what is deployed there.
    """
    found: dict[str, Configuration] = {}
    skipped = {f"darwinConfigurations.{shown_name(name)}": _MAC for name in outputs.macs} | dict(outputs.unread)
    systems = tuple(dict.fromkeys((*outputs.systems, *outputs.hive, *outputs.raw)))
    for name in systems:
        _add(_output_of(outputs, name), name, name, found, skipped)
    for name in outputs.homes:
        _add(Output.HOME, name, f"{name}-home" if name in systems else name, found, skipped)
    for name in outputs.nodes:
        if name not in systems:
            skipped[f"{Output.NODE}.{shown_name(name)}"] = _NO_SYSTEM
    return Listed(found, skipped, tuple(unkept(outputs)))


def _output_of(outputs: Outputs, name: str) -> Output:
    if name in outputs.hive:
        return Output.HIVE
    if name in outputs.raw:
        return Output.RAW
    if name in outputs.nodes:
        return Output.NODE
    return Output.CLAN if outputs.is_clan else Output.SYSTEM


def _add(output: Output, name: str, host_id: str, found: dict[str, Configuration], skipped: dict[str, str]) -> None:
    if why := _why_not(host_id, output, found):
        skipped[f"{output.place}.{shown_name(name)}"] = why
    else:
        found[host_id] = Configuration(output, name)


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
    return f"the flake has no {Output.SYSTEM} or {Output.HOME} of this name", hint
