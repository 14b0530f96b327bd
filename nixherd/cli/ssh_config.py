"""`nixherd ssh-config`: how other programs reach the fleet's machines, by their pinned keys."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from nixherd.base.errors import Exit
from nixherd.base.files import write_whole
from nixherd.base.ssh_options import HopName
from nixherd.base.terminal import say_text
from nixherd.cli.flake import chosen
from nixherd.cli.front import Front, pass_front
from nixherd.cli.machines import pinned_keys, ways
from nixherd.cli.output import narrate
from nixherd.cli.parameters import data_option
from nixherd.fleet.models import Fleet, Host
from nixherd.locate.reach import addresses
from nixherd.trust.aliases import Alias, config, known_hosts


@click.command("ssh-config")
@click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]...")
@click.option("--find", is_flag=True, help="Ask each machine first, and name the address at which it answers.")
@data_option
@pass_front
def ssh_config(front: Front, /, hosts: Sequence[str], find: bool, data: Sequence[str]) -> int:
    """Print an ssh_config with every machine by its id and alias, for other programs: pinned keys alone are accepted.

    Each key is written to a known_hosts file of nixherd's, which it names. Where the fleet does not say it, your own
    ssh_config goes on to say through which hosts, on which port and with which key.
    """
    front.guarded = False
    place = pinned_keys(front)
    ids = chosen(front, hosts)
    front.complete(ids)
    # the way to one may lead through others, by their names here
    shown = tuple(dict.fromkeys((*ids, *(hop for host_id in ids for hop in front.fleet.hops_of(host_id)))))
    found: dict[str, Any] = ways(front, shown, data)[1] if find and ids else {}
    aliases = [_alias(front, host_id, found.get(host_id, {})) for host_id in shown]
    for name, line in known_hosts(aliases).items():
        write_whole(place / name, line)
    narrate([f"the pinned keys are in {place}"])
    if lost := [host_id for host_id in ids if find and host_id not in found]:
        narrate([f"{', '.join(lost)}: not found; the address of {front.fleet.file} is named"])
    say_text(config(aliases, place).rstrip("\n"))
    return int(Exit.REMOTE if lost else Exit.DONE)


def _alias(front: Front, host_id: str, found: Mapping[str, Any]) -> Alias:
    host = front.fleet.hosts[host_id]
    called = _called(host)
    names = tuple(dict.fromkeys(name for name in (called, host.ssh_alias) if name))
    key = None if host.unread else front.keys.pinned(host_id)
    problem = host.unread or f"no key is pinned for it in {front.fleet.file}"
    address = found.get("address") or [*addresses(host), host.id][0]
    return Alias(names, address, host.user, key, host.port, _way(front.fleet, host), problem)


def _called(host: Host) -> str:
    return host.id.replace("@", "-")  # to ssh, what is before an @ is a user


def _way(fleet: Fleet, host: Host) -> str | None:
    """What it is reached through, as ProxyJump has it: hosts of the fleet by their names here."""
    hops = []
    for each in map(HopName.parse, host.jump or ()):
        other = fleet.known_as(each.name)
        hops.append(str(replace(each, name=_called(other)) if other else each))
    return ",".join(hops) or None
