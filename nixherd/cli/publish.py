"""`nixherd publish`: what machines that pull are to run, in a binary cache that any web server can serve."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from nixherd.cli.front import CHECKOUT, Front, pass_front
from nixherd.cli.parameters import Pair, json_option, standing
from nixherd.deploy import commit_policy as gate
from nixherd.deploy.commit_policy import Gate
from nixherd.errors import FAILURES, FleetError, Usage
from nixherd.exit_codes import Exit
from nixherd.faults import worded
from nixherd.files import expanded, write_whole
from nixherd.fleet.git import Repository
from nixherd.fleet.groups import check_selection, groups_of, separate
from nixherd.nix import commands as nix
from nixherd.nix.builder import Builder
from nixherd.nix.commands import Evaluated
from nixherd.process import run
from nixherd.terminal import say
from nixherd.trust import publish as pointers
from nixherd.trust.publish import Pointer, SigningKey

DEADLINE = 4 * 3600.0  # seconds


@click.command()
@click.argument("directory", type=click.Path(file_okay=False))
@click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]...")
@click.option(
    "--key-file", required=True, metavar="FILE", help="Sign with this key, as `nix key generate-secret` makes it."
)
@click.option(
    "--allow-dirty", is_flag=True, default=None, callback=standing("allow_dirty"), help="Publish what nobody committed."
)
@click.option(
    "--data", multiple=True, type=Pair(), metavar="NAME=VALUE", help=f"{', '.join(gate.NAMES)}, as for deploy."
)
@json_option
@pass_front
def publish(
    front: Front, /, directory: str, hosts: Sequence[str], key_file: str, allow_dirty: bool | None, data: Sequence[str]
) -> int:
    """Put what hosts are to run into the binary cache in DIRECTORY: all NixOS hosts, or those named.

    Evaluated and built once for all and signed; then DIRECTORY/systems/HOSTNAME names each host's system, signed by the
    same key, which machines with `nixherd.pull` deploy to themselves. A host that cannot be evaluated or built keeps
    the one that it had there.
    """
    front.guarded = False
    key = SigningKey.read(expanded(key_file).absolute())
    _through_the_gate(front, data)
    if not allow_dirty:
        gate.require_committed(str(front.root), gate.uncommitted(str(front.root)))
    groups = groups_of(front.fleet)
    chosen = check_selection(separate(hosts, groups) or ["nixos"], groups, "HOST")
    ids = tuple(sorted(host_id for host_id in chosen if front.fleet.hosts[host_id].is_nixos))
    revision = _revision(front)
    found, failed = _built(front, ids)
    if found:
        systems = [about.toplevel for about in found.values()]
        run(nix.copy_to_cache(systems, str(Path(directory).absolute()), str(key.file)), timeout=DEADLINE)
    (Path(directory) / "systems").mkdir(parents=True, exist_ok=True)
    published: dict[str, str] = {}
    for host_id, about in found.items():  # what they name is there now
        try:
            published[host_id] = _point(front, Path(directory) / "systems" / about.hostname, about, revision, key)
        except FAILURES as error:
            failed[host_id] = str(worded(error, f"{host_id}: signing its pointer"))
    document = {"published": published, "failed": failed, "revision": revision}
    front.show(document, (f"{host_id}: {system}" for host_id, system in published.items()))
    for host_id, why in failed.items():
        say(f"{host_id}: not published: {why}", err=True)
    return int(Exit.FAILED if failed else Exit.DONE)


def _through_the_gate(front: Front, data: Sequence[str]) -> None:
    """Have everything come from the commit that was verified, where the operator or a host requires that."""
    said = dict(pair.partition("=")[::2] for pair in data)
    if unknown := sorted(said.keys() - set(gate.NAMES)):
        raise Usage(f"--data {unknown[0]}: of it all, publish takes {', '.join(gate.NAMES)}")

    standing = [CHECKOUT / "group_data"]
    front.require(Gate.of(front.root, said, standing, notes=True))
    if front.gate is None and gate.required_by_hosts(front.fleet):
        front.require(Gate.of(front.root, said, standing, by_hosts=True, notes=True))


def _revision(front: Front) -> str | None:
    """Of which commit it is; None where nobody could say."""
    if front.verified:
        return front.verified.revision
    repository = Repository.around(front.root)
    return repository.full_head() if repository and not repository.changed(["."]) else None


def _point(front: Front, file: Path, about: Evaluated, revision: str | None, key: SigningKey) -> str:
    """Say in a signed file what a host is to run, later than what the same key has signed for it before.

    Return the system that the file names then, as a machine reads it. FleetError when it names none.
    """
    before = pointers.read(file, key.public, about.hostname, front.run.directory)
    serial = max(int(time.time()), before.serial + 1 if before else 0)
    pointer = Pointer(about.hostname, about.toplevel, revision, serial)
    write_whole(file, key.sign(pointer, front.run.directory), mode=0o644)
    front.wrote = True
    written = pointers.read(file, key.public, about.hostname, front.run.directory)
    if written is None or written.serial != serial:
        raise FleetError(f"{file}: what was written there is not what is there now; publish it again")
    return written.system


def _built(front: Front, ids: tuple[str, ...]) -> tuple[dict[str, Evaluated], dict[str, str]]:
    """The hosts that can be evaluated and built, by id, and why the others cannot."""
    builder, failed = Builder(front.evaluator), dict[str, str]()
    abouts = []
    for host_id in ids:
        try:
            about = front.evaluator.evaluate(ids, host_id)
            pointers.require_name(about.hostname)
            abouts.append(about)
        except FAILURES as error:
            failed[host_id] = str(worded(error, f"{host_id}: evaluating it"))
    found = {}
    names = Counter(about.hostname for about in abouts)
    for about in abouts:
        try:
            if names[about.hostname] > 1:
                raise FleetError(f"networking.hostName = {about.hostname} is another host's as well")
            builder.realise({each.host_id: [each.toplevel_drv] for each in abouts}, about.host_id)
            found[about.host_id] = about
        except FAILURES as error:
            failed[about.host_id] = str(worded(error, f"{about.host_id}: building it"))
    return found, failed
