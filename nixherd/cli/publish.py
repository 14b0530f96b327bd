"""`nixherd publish`: the systems of machines that pull, in a binary cache that any web server can serve."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from nixherd.base.errors import FAILURES, Exit, FleetError, Usage
from nixherd.base.files import expanded, write_whole
from nixherd.base.process import run
from nixherd.base.terminal import say, worded
from nixherd.cli.front import Front, pass_front
from nixherd.cli.parameters import PAIR, json_option, standing
from nixherd.deploy import commit_policy as gate
from nixherd.deploy.commit_policy import Gate
from nixherd.fleet.git import Repository
from nixherd.fleet.groups import check_selection, groups_of, separate
from nixherd.fleet.place import operators_data
from nixherd.nix import commands as nix
from nixherd.nix.builder import Builder
from nixherd.nix.commands import Evaluated
from nixherd.trust import publish as pointers
from nixherd.trust.publish import Pointer, SigningKey

DEADLINE = 4 * 3600.0  # seconds


@click.command()
@click.argument("directory", type=click.Path(file_okay=False))
@click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]...")
@click.option("--key-file", required=True, metavar="FILE", help="Sign with this, of `nix key generate-secret`.")
@standing("--allow-dirty", "allow_dirty", None, "Publish what nobody committed", is_flag=True, default=None)
@click.option("--data", multiple=True, type=PAIR, help=f"{', '.join(gate.DATA_KEYS)}, as for deploy.")
@json_option
@pass_front
def publish(
    front: Front, /, directory: str, hosts: Sequence[str], key_file: str, allow_dirty: bool | None, data: Sequence[str]
) -> int:
    """Put what hosts are to run into the binary cache in DIRECTORY: all NixOS hosts, or those named.

    All systems are evaluated, built and signed; then DIRECTORY/systems/HOSTNAME, signed by the same key, names each
    host's system, which machines with `nixherd.pull` deploy to themselves. A host that cannot be evaluated or built
    keeps the system that it had there.
    """
    front.guarded = False
    root = str(front.root)
    key = SigningKey.read(expanded(key_file).absolute())
    _through_the_gate(front, data)
    if not allow_dirty:
        gate.require_committed(root, gate.uncommitted(root))
    groups = groups_of(front.fleet)
    patterns = separate(hosts, groups) or ["nixos"]
    chosen = check_selection(patterns, groups, "HOST")
    ids = tuple(sorted(host_id for host_id in chosen if front.fleet.hosts[host_id].is_nixos))
    others = (front.fleet.hosts[each] for each in sorted(chosen - {*ids}))
    if homes := [each.id for each in others if not ids or {each.id, each.hostname, each.ssh_alias} & {*patterns}]:
        raise Usage(f"{', '.join(homes)}: only machines with NixOS pull their systems; name NixOS hosts alone")
    revision = _revision(front)
    built, failed = _built(front, ids)
    published: dict[str, str] = {}
    with front.recording(*built) as recording:
        if built:
            recording.begin()
            systems = [config.toplevel for config in built.values()]
            run(nix.copy_to_cache(systems, str(Path(directory).absolute()), str(key.file)), timeout=DEADLINE)
        (Path(directory) / "systems").mkdir(parents=True, exist_ok=True)
        for host_id, config in built.items():  # what they name is in the cache now
            try:
                file = Path(directory) / "systems" / config.hostname
                published[host_id] = _point(front, file, config, revision, key)
            except FAILURES as error:
                failed[host_id] = str(worded(error, f"{host_id}: signing its pointer"))
        recording.failures = {host_id: failed[host_id] for host_id in built if host_id in failed}
    document = {"published": published, "failed": failed, "revision": revision}
    front.show(document, (f"{host_id}: {system}" for host_id, system in published.items()))
    for host_id, why in failed.items():
        say(f"{host_id}: not published: {why}", err=True)
    return int(Exit.FAILED if failed else Exit.DONE)


def _through_the_gate(front: Front, data: Sequence[str]) -> None:
    """Take everything from the verified commit, where the operator or a host requires one."""
    given = dict(pair.partition("=")[::2] for pair in data)
    if unknown := sorted(given.keys() - set(gate.DATA_KEYS)):
        raise Usage(f"--data {unknown[0]}: publish takes only {', '.join(gate.DATA_KEYS)}")
    group_data = operators_data(front.root)
    front.require(Gate.of(front.root, given, group_data, notes=True))
    if front.gate is None and gate.required_by_hosts(front.fleet):
        front.require(Gate.of(front.root, given, group_data, by_hosts=True, notes=True))


def _revision(front: Front) -> str | None:
    """Give the commit that everything comes from; None where files differ from it."""
    if front.verified:
        return front.verified.revision
    repository = Repository.around(front.root)
    return repository.full_head() if repository and not repository.changed(["."]) else None


def _point(front: Front, file: Path, config: Evaluated, revision: str | None, key: SigningKey) -> str:
    """Write and sign the pointer to a host's system, with a higher serial than the one before.

    Return the system that the file names then, as a machine reads it. FleetError when it is another pointer.
    """
    before = pointers.read(file, key.public, config.hostname, front.run.directory)
    serial = max(int(time.time()), before.serial + 1 if before else 0)
    pointer = Pointer(config.hostname, config.toplevel, revision, serial)
    write_whole(file, key.sign(pointer, front.run.directory), mode=0o644)
    front.wrote = True
    written = pointers.read(file, key.public, config.hostname, front.run.directory)
    if written is None or written.serial != serial:
        raise FleetError(f"{file}: does not hold what was written to it; publish again")
    return written.system


def _built(front: Front, ids: tuple[str, ...]) -> tuple[dict[str, Evaluated], dict[str, str]]:
    """Evaluate and build the hosts; return those that succeed, by id, and why the others do not."""
    builder, failed = Builder(front.evaluator), dict[str, str]()
    configs: list[Evaluated] = []
    for host_id in ids:
        try:
            config = front.evaluator.evaluate(ids, host_id)
            pointers.require_name(config.hostname)
            configs.append(config)
        except FAILURES as error:
            failed[host_id] = str(worded(error, f"{host_id}: evaluating it"))
    built = {}
    names = Counter(config.hostname for config in configs)
    for config in configs:
        try:
            if names[config.hostname] > 1:
                raise FleetError(f"networking.hostName = {config.hostname} is another host's as well")
            builder.realise({each.host_id: [each.toplevel_drv] for each in configs}, config.host_id)
            built[config.host_id] = config
        except FAILURES as error:
            failed[config.host_id] = str(worded(error, f"{config.host_id}: building it"))
    return built, failed
