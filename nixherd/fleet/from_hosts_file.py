"""The hosts of a fleet by its hosts.nix: the complete way, in a closed world. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from nixherd.base.errors import Finding
from nixherd.fleet.beside import Beside
from nixherd.fleet.models import HOSTS, Configuration
from nixherd.fleet.nix_values import NixSet
from nixherd.fleet.outputs import Outputs
from nixherd.fleet.validate import hosts_of
from nixherd.nix.kinds import Output

_FILES = ("configurationFile", "homeFile")


def entries_of(hosts: Any, beside: Beside, findings: list[Finding]) -> dict[str, NixSet]:
    """The entries by id, in our words, completed by what stands in nixherd.nix."""
    entries = hosts_of(NixSet(HOSTS, "", "", hosts, findings))
    for name, more in beside.hosts.items():
        if name not in entries:
            more.report("", f"{HOSTS} has no host of this name", "add it there, or correct the name")
    return {name: _complete(entry, beside) for name, entry in entries.items()}


def _complete(entry: NixSet, beside: Beside) -> NixSet:
    here = beside.translated(entry.values)
    more = beside.hosts.get(entry.name)
    for name, value in (more.values if more else {}).items():
        if here.get(name) not in (None, value) and more is not None:
            more.report(name, f"{HOSTS} says something else of it", "remove one of them")
    known = {name: value for name, value in here.items() if value is not None or name not in beside.defaults}
    values = {**beside.defaults, **(more.values if more else {}), **known}
    return NixSet(entry.file, entry.name, entry.attribute, values, entry.findings)


def configurations_of(entries: Mapping[str, NixSet], outputs: Callable[[], Outputs]) -> dict[str, Configuration]:
    """Of hosts that do not say by files what they are, where the flake has their configurations: a system goes first.

    `outputs` are asked for only where there is such a host; one that the flake does not have is a finding.
    """
    found: dict[str, Configuration] = {}
    for name, entry in entries.items():
        if any(entry.get(file) is not None for file in _FILES):
            continue
        known = {Output.SYSTEM: outputs().systems, Output.HOME: outputs().homes}
        for output, names in known.items():
            if name in names and name not in found:
                found[name] = Configuration(output, name)
        if name not in found:
            neither = f"neither {Output.SYSTEM} nor {Output.HOME} of this name"
            what = f"missing, so is configurationFile, and the flake has {neither}"
            entry.report("homeFile", what, "add one of the files, both for a NixOS host, or the configuration")
    return found
