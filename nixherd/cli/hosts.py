"""`nixherd hosts`: the hosts of the fleet by their names, and which configurations of its flake are none."""

from collections import defaultdict
from typing import Any

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import narrate, show_json, show_rows
from nixherd.cli.parameters import json_option
from nixherd.fleet.groups import check_selection, groups_of, separate
from nixherd.fleet.models import Fleet, Host

_COLUMNS = ("host", "kind", "groups", "guest")


@click.command()
@click.argument("patterns", nargs=-1, metavar="[HOST|GROUP|GLOB]…")
@json_option
@pass_front
def hosts(front: Front, patterns: tuple[str, ...]) -> None:
    """List the hosts of the fleet, and which configurations of its flake are not hosts, with why.

    What a configuration says of its host is not read: nothing is evaluated but names.
    """
    front.guarded = False
    fleet = front.fleet
    groups = groups_of(fleet)
    chosen = check_selection(separate(patterns, groups), groups, "hosts") if patterns else set(fleet.hosts)
    of_host: dict[str, list[str]] = defaultdict(list)
    for group, ids in groups.items():
        for host_id in ids:
            if group not in ("all", host_id):
                of_host[host_id].append(group)
    rows = [_row(fleet, host, of_host[host.id]) for host in fleet.hosts.values() if host.id in chosen]
    if front.wants_json:
        skipped = [{"configuration": name, "why": why} for name, why in fleet.skipped.items()]
        show_json({"hosts": rows, "skipped": skipped})
        return
    show_rows(rows, _COLUMNS, as_json=False)
    narrate(f"skipped {name}: {why}" for name, why in fleet.skipped.items() if not patterns)


def _row(fleet: Fleet, host: Host, groups: list[str]) -> dict[str, Any]:
    vm = fleet.vm_of(host.id)
    return {
        "host": host.id,
        "kind": "nixos" if host.is_nixos else "home",
        "configuration": str(host.attribute),
        "groups": [group for group in groups if group not in ("nixos", "home_manager")],
        "guest": vm.name if vm else None,
    }
