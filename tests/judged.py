"""What a fleet whose files say this gives rise to, without Nix: as `load_fleet` has it of hosts.nix."""

from pathlib import Path
from typing import Any

from nixherd.base.errors import Finding
from nixherd.fleet import validate
from nixherd.fleet.beside import Beside
from nixherd.fleet.from_hosts_file import configurations_of, entries_of
from nixherd.fleet.models import Fleet
from nixherd.fleet.outputs import Outputs
from nixherd.fleet.parse import fleet_of


def find(hosts: Any, definitions: Any) -> list[Finding]:
    """Every finding."""
    findings: list[Finding] = []
    entries = entries_of(hosts, Beside(), findings)
    configurations_of(entries, Outputs)
    return validate.find(entries, definitions, findings)


def parsed(hosts: Any, definitions: Any) -> Fleet:
    """The fleet of sound files, in `/f`."""
    values = {name: entry.values for name, entry in entries_of(hosts, Beside(), []).items()}
    return fleet_of(Path("/f"), values, definitions or {}, [])
