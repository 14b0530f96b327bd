"""What a host does for the fleet beside being one of its hosts, as far as that can be seen from here."""

import json
import os
from collections.abc import Sequence

from nixherd.base.errors import FleetError
from nixherd.deploy.waves import label, wave_of
from nixherd.fleet.models import Fleet, Host, Vm
from nixherd.nix import commands as nix
from nixherd.nix.evaluator import Evaluator


def of(evaluator: Evaluator, fleet: Fleet, host: Host, guests: Sequence[Vm]) -> list[str]:
    """A line for each; what the flake does not tell is said to be not known."""
    return [*_declared(fleet, host, guests), *_evaluated(evaluator, host)]


def _declared(fleet: Fleet, host: Host, guests: Sequence[Vm]) -> list[str]:
    lines = []
    for vm in guests:
        for name in ("purpose", "services", "notes"):
            if text := _words(vm.extra.get(name)):
                lines.append(f"{vm.attribute}.{name} in the definitions: {text}")
    waves = {each.id: wave_of(each.id, *map(each.deployment.get, ("canary", "wave"))) for each in fleet.hosts.values()}
    mine = waves.pop(host.id)
    if waves and mine < min(waves.values()):
        lines.append(f"it is the only one of the {label(mine)}: no host is deployed to before the others then")
    if host.hostname == os.uname().nodename:
        lines.append(f"the machine that this runs on is called {host.hostname} as well; is it that one?")
    return lines


def _evaluated(evaluator: Evaluator, host: Host) -> list[str]:
    if not host.is_nixos:
        return []
    try:
        found: dict[str, bool] = json.loads(evaluator.ask(nix.duties(evaluator.flake, host.id)))
    except FleetError as error:
        return [f"what it does for the others is not known: {error}"]
    return [f"it is {what}" for what, is_so in found.items() if is_so]


def _words(value: object) -> str:
    each = value if isinstance(value, (list, tuple)) else [value]
    return ", ".join(" ".join(str(one).split()) for one in each if one)
