"""`nixherd hosts`, `build`, `eval` and `repl`: what the fleet's files and its flake say, without a machine."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import click

from nixherd.base.errors import FAILURES, Exit, Usage, worst
from nixherd.base.process import foreground
from nixherd.base.terminal import worded
from nixherd.cli.front import Front, pass_front
from nixherd.cli.machines import only_one
from nixherd.cli.output import Say, narrate, progress, show_json, show_rows
from nixherd.cli.parameters import json_option
from nixherd.fleet.groups import groups_of, select
from nixherd.nix import commands as nix
from nixherd.nix.builder import Builder
from nixherd.nix.commands import Evaluated
from nixherd.nix.kinds import Output

_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*|\"[^\"\\$\n]*\"")
_COLUMNS = ("host", "kind", "hostname", "user", "addresses", "guest", "vmid", "tags", "key")


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]...")
@click.option("--groups", is_flag=True, help="The groups, with the hosts in each.")
@json_option
@pass_front
def hosts(front: Front, /, hosts: Sequence[str], groups: bool) -> None:
    """List the fleet's hosts, as its files have them; no machine and no hypervisor is asked.

    Of a flake's configurations only the names are evaluated; which of them are not hosts is said, with why, and
    what the words of another tool (colmena, deploy-rs) say that nixherd has no part in.
    """
    front.guarded = False
    by_group = groups_of(front.fleet)
    selected = chosen(front, hosts)
    if groups:
        rows = [{"group": name, "hosts": [id for id in ids if id in selected]} for name, ids in by_group.items()]
        show_rows([row for row in rows if row["hosts"]], ("group", "hosts"), front.as_json)
        return
    show_rows([_row(front, host_id) for host_id in selected], _COLUMNS, front.as_json, "the fleet has no host")
    if not hosts:
        narrate(f"skipped {name}: {why}" for name, why in front.fleet.skipped.items())
        narrate(f"not kept: {each}" for each in front.fleet.unkept)


def _row(front: Front, host_id: str) -> dict[str, Any]:
    host, vm = front.fleet.hosts[host_id], front.fleet.vm_of(host_id)
    return {
        "host": host_id,
        "kind": "nixos" if host.is_nixos else "home",
        "hostname": host.hostname,
        "user": host.user or None,
        "addresses": list(host.addresses or ()),
        "guest": vm.name if vm else None,
        "vmid": vm.vmid if vm else None,
        "tags": list(host.tags),
        "key": "pinned" if front.keys.pinned(host_id) else "not read" if host.unread else "none",
        "not_kept": [str(each) for each in front.fleet.unkept if host_id in each.hosts],
    }


def chosen(front: Front, names: Sequence[str]) -> list[str]:
    """The ids of the hosts that are meant, all where nobody is named. Usage for a name of nobody."""
    return select(front.fleet, names) if names else [*front.fleet.hosts]


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]...")
@click.option("--eval-only", is_flag=True, help="Name what would be built, and build nothing.")
@json_option
@pass_front
def build(front: Front, /, hosts: Sequence[str], eval_only: bool) -> int:
    """Build what hosts are to run, here: all of them, or those named. Copies nothing, activates nothing.

    They are evaluated and built together; a host that cannot be is named, and the others go on.
    """
    front.guarded = False
    selected = chosen(front, hosts)
    if not selected:
        raise Usage(f"the fleet has no host; add one to {front.fleet.file}")
    with progress("build") as tell:
        rows = [*_built(front, selected, tell, eval_only=eval_only)]
    front.show(
        {"fleet": str(front.root), "hosts": rows},
        (f"{row['host']}: {row['system']}" for row in rows if row["why"] is None),
    )
    narrate(f"{row['host']}: {row['why']}" for row in rows if row["why"] is not None)
    return int(worst(Exit.DONE if row["why"] is None else Exit.REMOTE for row in rows))


def _built(front: Front, ids: Sequence[str], tell: Say, *, eval_only: bool) -> Iterator[dict[str, Any]]:
    """Evaluate and build the hosts; a row for each: `outcome` is built, evaluated or failed, then with its `why`."""
    builder, configs, failed = Builder(front.evaluator), dict[str, Evaluated](), dict[str, str]()
    tell(f"evaluating {len(ids)} hosts")
    for host_id in ids:
        try:
            configs[host_id] = front.evaluator.evaluate(ids, host_id)
        except FAILURES as error:
            failed[host_id] = str(worded(error, f"{host_id}: evaluating it"))
    derivations = {host_id: [config.toplevel_drv] for host_id, config in configs.items()}
    if not eval_only:
        tell(f"building {len(derivations)} hosts")
        for host_id in derivations:
            try:
                builder.realise(derivations, host_id)
            except FAILURES as error:
                failed[host_id] = str(worded(error, f"{host_id}: building it"))
    for host_id in ids:
        outcome = "failed" if host_id in failed else "evaluated" if eval_only else "built"
        system = configs[host_id].toplevel if host_id in configs else None
        yield {"host": host_id, "system": system, "outcome": outcome, "why": failed.get(host_id)}


@click.command("eval")
@click.argument("host")
@click.argument("attribute", metavar="[OPTION]", default="")
@pass_front
def eval_(front: Front, host: str, attribute: str) -> None:
    """Show what an option of a host's configuration is, as JSON: HOST services.openssh.enable."""
    front.guarded = False
    text = front.evaluator.ask(nix.evaluate_option(front.evaluator.flake, *_configuration(front, host, attribute)))
    show_json(json.loads(text))


def _configuration(front: Front, host: str, attribute: str = "") -> tuple[Output, list[str]]:
    """The flake's configuration of a host, and the parts of an option's name. Usage for what is none."""
    host_id = only_one(front, host)
    parts = _PART.findall(attribute)
    if ".".join(parts) != attribute:
        raise Usage(f"{attribute}: is not an option's name; write one like services.openssh.enable")
    names = [part.strip('"') for part in parts]
    configuration = front.fleet.hosts[host_id].attribute
    return configuration.output, [configuration.name, *names]


@click.command()
@click.argument("host", default="")
@pass_front
def repl(front: Front, host: str) -> int:
    """Open Nix's own prompt on the fleet's flake; with HOST on its configuration (`config`, `options`, `pkgs`)."""
    front.guarded = False
    place = _configuration(front, host) if host else ()
    if Output.RAW in place:
        raise Usage(f"{host}: it is made of the flake's colmena; open the flake alone: nixherd repl")
    argv = nix.repl(front.evaluator.flake, *place)
    narrate(["leave it with :q"])
    return foreground(argv, {})
