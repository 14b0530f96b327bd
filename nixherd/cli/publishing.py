"""`nixherd publish`: what machines that pull are to run, in a binary cache that any web server can serve."""

from collections.abc import Sequence
from pathlib import Path

import click

from nixherd import nix
from nixherd.build import realise
from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import show_json, wants_json
from nixherd.cli.parameters import json_option
from nixherd.deploying import gate
from nixherd.errors import FAILURES, Usage
from nixherd.evaluation import evaluate
from nixherd.exits import Exit
from nixherd.faults import worded
from nixherd.files import write_whole
from nixherd.inventory import check_selection, groups_of
from nixherd.process import run
from nixherd.terminal import say

DEADLINE = 4 * 3600.0  # seconds


@click.command()
@click.argument("directory", type=click.Path(file_okay=False))
@click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]...")
@click.option("--key-file", metavar="FILE", help="Sign with this key, as `nix key generate-secret` makes it.")
@click.option("--allow-dirty", is_flag=True, help="Publish what nobody committed.")
@json_option
@pass_front
def publish(front: Front, /, directory: str, hosts: Sequence[str], key_file: str | None, allow_dirty: bool) -> int:
    """Put what hosts are to run into the binary cache in DIRECTORY: all NixOS hosts, or those named.

    Evaluated and built once for all and signed; then DIRECTORY/systems/HOSTNAME names each host's system, which
    machines with `nixherd.pull` deploy to themselves. A host that cannot be evaluated or built keeps the one that
    it had there.
    """
    front.guarded = False
    if key_file and not Path(key_file).expanduser().is_file():
        raise Usage(f"--key-file {key_file}: no such file; `nix key generate-secret --key-name NAME` prints one")
    if not allow_dirty:
        gate.require_committed(str(front.root), gate.uncommitted(str(front.root)))
    groups = groups_of(front.fleet)
    chosen = check_selection(hosts or ["nixos"], groups, "HOST")
    ids = tuple(sorted(host_id for host_id in chosen if front.fleet.hosts[host_id].is_nixos))
    found, failed = _built(front, ids)
    if found:
        key = str(Path(key_file).expanduser().absolute()) if key_file else None
        run(nix.copy_to_cache(list(found.values()), str(Path(directory).absolute()), key), timeout=DEADLINE)
    systems = Path(directory) / "systems"
    systems.mkdir(parents=True, exist_ok=True)
    for host_id, system in found.items():  # what they name is there now
        write_whole(systems / front.fleet.hosts[host_id].hostname, f"{system}\n", mode=0o644)
    if wants_json(front.as_json):
        show_json({"published": found, "failed": failed})
    else:
        for host_id, system in found.items():
            say(f"{host_id}: {system}")
    for host_id, why in failed.items():
        say(f"{host_id}: not published: {why}", err=True)
    return int(Exit.FAILED if failed else Exit.DONE)


def _built(front: Front, ids: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """The systems of the hosts that can be evaluated and built, by id, and why the others cannot."""
    session, failed = front.session, dict[str, str]()
    abouts = []
    for host_id in ids:
        try:
            abouts.append(evaluate(session, ids, host_id))
        except FAILURES as error:
            failed[host_id] = str(worded(error, f"{host_id}: evaluating it"))
    found = {}
    for about in abouts:
        try:
            realise(session, {each.host_id: [each.toplevel_drv] for each in abouts}, about.host_id)
            found[about.host_id] = about.toplevel
        except FAILURES as error:
            failed[about.host_id] = str(worded(error, f"{about.host_id}: building it"))
    return found, failed
