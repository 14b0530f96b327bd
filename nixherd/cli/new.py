"""`nixherd new`: scaffold a new host: its files, entries and secrets, all or none."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import FleetError, Usage
from nixherd.base.files import expanded
from nixherd.base.names import many
from nixherd.base.terminal import say_text
from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import ask, is_here, narrate, progress, typed
from nixherd.cli.parameters import VMID, edit_generated_option, json_option
from nixherd.fleet import tree
from nixherd.fleet.changeset import Changeset, Done, changing, interrupted
from nixherd.fleet.git import Repository
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import DEFINITIONS, HOSTS, Host
from nixherd.trust.new.host import SIZES, Kind, NewHost
from nixherd.trust.new.request import Request, decide
from nixherd.trust.new.scaffold import ByHand, Scaffold, scaffold

_INTERRUPTED = "a run was interrupted while it published its changes; the next that changes anything finishes them"
_NOT_RUN = "not evaluated: whether Nix makes a system of it is not known"


@click.command()
@click.argument("name")
@click.option("--size", type=click.Choice(list(SIZES)), help="What it starts with; asked for, else small.")
@click.option("--no-vm", "bare_metal", is_flag=True, help="Not in a guest of the hypervisor: a machine of its own.")
@click.option("--home-only", is_flag=True, help="A home alone, on a system that somebody else keeps.")
@click.option("--vmid", type=VMID, help="Its VMID; else the next free one of the range.")
@click.option("--range", "range", metavar="RANGE", help="A range of vmidRanges, or FIRST-LAST.")
@click.option("--offline", is_flag=True, help="Do not ask the hypervisor; the definitions alone decide.")
@click.option("--cores", type=click.IntRange(1, 8192), help="Instead of the size's.")
@click.option("--memory", type=click.IntRange(16, 1 << 24), metavar="MIB", help="Instead of the size's.")
@click.option("--disk", metavar="SIZE", help="Instead of the size's; such as 64G.")
@click.option("--storage", metavar="STORAGE", help="For its disk; else proxmox.defaultStorage.")
@click.option("--node", metavar="NODE", help="Where it is made; else proxmox.node.")
@click.option("--pool", metavar="POOL", help="That it is made in; else that of most managed guests.")
@click.option("--pci", multiple=True, metavar="MAPPING", help="A PCI mapping of the cluster to pass through.")
@click.option("--archive", metavar="VOLUME", help="What a container is unpacked from.")
@click.option("--device", metavar="DEVICE", help="With --no-vm: the disk to install on.")
@click.option("--user", metavar="USER", help="Its admin user; else that of most hosts.")
@click.option("--ssh-alias", "alias", metavar="ALIAS", help="Its short name for ssh; else NAME.")
@click.option("--purpose", metavar="TEXT", help="What it is for, a line.")
@click.option("--keys-of", metavar="HOST", help="Who may log in: as on this host; else as on most.")
@click.option("--key-file", "key_files", multiple=True, metavar="FILE", help="Who may log in: a .pub file.")
@click.option("--home/--no-home", default=None, help="With a home of its own; else as most hosts.")
@click.option("--sudo-passwordless/--sudo-asks", default=None, help="Else as most managed guests' hosts.")
@click.option("--state-version", metavar="RELEASE", help="NixOS' release that it begins with; else the fleet's newest.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="It declares this secret, in its own file.")
@click.option("--recipient", "recipients", multiple=True, metavar="WHO", help="Who reads it: a person of .sops.yaml.")
@edit_generated_option
@click.option("--no-eval", is_flag=True, help="Leave the evaluation by Nix out; that it was not run is said.")
@click.option("--commit/--no-commit", default=None, help="One commit of it; else git add.")
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@click.option("--yes", is_flag=True, help="Ask nothing that has a default, nor whether it is right.")
@json_option
@pass_front
def new(front: Front, /, name: str, **options: Any) -> None:
    """Scaffold the host NAME: its files, its entries in hosts.nix and the definitions, its secrets.

    On a terminal it asks for what is missing. The result is evaluated and shown before anything is written; then all of
    it is written and added to git, uncommitted, or nothing is.
    """
    front.guarded = False
    names = ("offline", "recipients", "edit_generated", "no_eval", "commit", "dry_run", "yes")
    how = {each: options.pop(each) for each in names}
    options["key_lines"] = tuple(line for file in options.pop("key_files") for line in _keys_in(file))
    request = Request(name, **options)
    if how["recipients"] and not request.secrets:
        raise Usage("--recipient: says who reads a secret, and none is declared; add --secret NAME, or leave it out")
    if how["dry_run"]:
        if interrupted(front.root):
            narrate([_INTERRUPTED])
        scratch = front.run.directory / "new"
        scratch.mkdir()
        done = _scaffold(front, request, how, scratch, Repository.around(front.root))
        _show(front, done)
        _report(front, done, None)
        return
    with front.recording(name) as recording, changing(front.root, recording.begin) as changeset:
        if _resumed(front, changeset, name):
            return
        changeset.scratch.mkdir(parents=True, exist_ok=True)
        done = _scaffold(front, request, how, changeset.scratch, changeset.repository)
        _show(front, done)
        front.yes = bool(how["yes"])
        front.confirm("Write all of this?", f"{name} was not written")
        published = _publish(changeset, done, commit=bool(how["commit"]))
        front.wrote = True
    _report(front, done, published, _read_back(front, done))


def _resumed(front: Front, changeset: Changeset, name: str) -> bool:
    """Finish an interrupted run; whether it was about this host."""
    with progress(name) as tell:
        finished = changeset.resume(tell)
    if finished is None:
        return False
    front.wrote = True
    is_ours = any(Path(path).parts[-2:-1] == (name,) and path.endswith(".nix") for path in finished.paths)
    if is_ours:
        document = {"name": name, "files": list(finished.paths), "changed": True, "commit": finished.commit}
        line = f"{name}: what an interrupted run had begun is finished: {', '.join(finished.paths)}"
        front.show({**document, "resumed": True}, [line])
    return is_ours


def _scaffold(
    front: Front, request: Request, how: Mapping[str, Any], scratch: Path, repository: Repository | None
) -> Scaffold:
    fleet = load_fleet(front.root)
    fleet.require_hosts_file("add a configuration to it by hand")
    front.__dict__["fleet"] = fleet
    token_file = None if how["offline"] or not front.token_path.exists() else front.token_path
    read, question = partial(tree.read, front.root), partial(ask, quiet=how["yes"])
    host = decide(request, fleet, lambda: _client(front) if token_file else None, read, question)
    options = {each: how[each] for each in ("recipients", "edit_generated")}
    options |= {"evaluated": not how["no_eval"], "token_file": token_file}
    try:
        with progress(request.name) as tell:
            return scaffold(front.run, fleet, host, scratch, repository, say=tell, **options)
    except ByHand as error:
        say_text("\n".join((f"add to {error.place}:", *(f"  {line}" for line in error.lines))), err=True)
        raise


def _client(front: Front) -> Any:
    try:
        client = front.client
        client.version()
        return client
    except FleetError:
        narrate(["the hypervisor could not be asked; --offline does without it"])
        raise


def _publish(changeset: Changeset, done: Scaffold, *, commit: bool) -> Done:
    if commit:
        changeset.require_committable(list(done.files), commit=True)
    elif changeset.repository is not None and (dirty := changeset.repository.changed(done.changed)):
        narrate([f"{path}: has changes that nobody committed; they stay, beside ours" for path in dirty])
    for path, content in done.files.items():
        changeset.stage(path, content)
    with progress(done.host.id) as tell:
        return changeset.publish(dict(done.seen), _message(done.host), commit=commit, say=tell)


def _read_back(front: Front, done: Scaffold) -> list[str]:
    """FleetError unless the fleet's files hold the host now; return the new files that a git hook has changed."""
    host, now = done.host, front.read_back(f"{done.host.id} was written")
    left = [] if _apart(now.hosts.get(host.id)) == _apart(done.fleet.hosts[host.id]) else [f"{HOSTS}: {host.id}"]
    if host.guest is not None and now.vms.get(host.id) != done.fleet.vms[host.id]:
        left.append(f"{DEFINITIONS}: managed.{host.id}")
    left += [path for path in done.new if not (front.root / path).is_file()]
    if left:
        look = f"did a git hook change them? Look at them by hand (git -C {front.root} status)"
        raise FleetError(f"{', '.join(left)}: was written, but is not so in the files now; {look}")
    return [path for path in done.new if (front.root / path).read_bytes() != done.files[path]]


def _apart(host: Host | None) -> Host | None:
    """Leave out its files' paths, which were those of the copy that was evaluated."""
    return replace(host, configuration_file=None, home_file=None) if host else None


def _message(host: NewHost) -> str:
    return f"fleet: {host.id} is new\n\n{host.purpose or 'Scaffolded by nixherd new.'}"


def _show(front: Front, done: Scaffold) -> None:
    if not front.wants_json:
        say_text("\n".join(done.diff()))
        narrate(_findings(done))


def _findings(done: Scaffold) -> list[str]:
    """List what is not known, and what will be in the way."""
    host, findings = done.host, []
    if host.guest is not None and host.guest.free is None:
        findings.append(f"{host.id}: whether another guest has VMID {host.guest.vmid} is unknown")
    if host.kind is Kind.VM and host.machine.told_by is None:
        findings.append(f"{host.id}: what the template starts with is unknown; assuming {host.machine.firmware}")
    if done.evaluated is None:
        findings.append(f"{host.id}: {_NOT_RUN}")
    if host.is_nixos and not host.sudo_passwordless and host.user != "root":
        text = f"{host.id}: sudo will ask {host.user} for a password that is not set yet"
        findings.append(f"{text}; set one (initialHashedPassword, passwd), or say --sudo-passwordless")
    return [*findings, *done.obstacles]


def _report(front: Front, done: Scaffold, published: Done | None, altered: Sequence[str] = ()) -> None:
    """Show what was written, without `published` what would be; `altered` files are not those that were evaluated."""
    host, guest, files = done.host, done.host.guest, len(done.files)
    system = done.evaluated.toplevel if done.evaluated and not altered else None
    unknown = [f"{path}: a git hook changed it; whether Nix makes a system of it is not known" for path in altered]
    document: dict[str, Any] = {"name": host.id, "kind": str(host.kind), "files": sorted(done.files)}
    if guest is not None:
        document |= {"vmid": guest.vmid, "vmid_free": guest.free, "size": guest.size.name}
        document["firmware"] = host.machine.firmware
    document |= {"evaluated": done.evaluated is not None and not altered, "system": system}
    unknown += published.notes if published else ()
    document["findings"] = [*_findings(done), *unknown]
    if published is None:
        document |= {"diff": "\n".join(done.diff()), "planned": True, "commit": None}
        front.show(document, [f"{host.id}: would write {many(files, 'file')}; nothing was changed"])
        return
    lines = [f"{host.id}: wrote {', '.join(sorted(published.paths))}"]
    lines += [f"{host.id}: evaluates to {system}"] if system else []
    lines += [f"commit {published.commit}: {many(len(published.paths), 'file')}"] if published.commit else []
    front.show({**document, "changed": bool(published.paths), "commit": published.commit}, lines)
    if not front.wants_json:
        narrate([*unknown, *_next(front, host, committed=published.commit is not None)])


def _next(front: Front, host: NewHost, *, committed: bool) -> list[str]:
    """What people would type next."""
    git = ("git",) if is_here(front.root) else ("git", "-C", str(front.root))
    steps = []
    if not committed:
        steps.append(f"look at it and commit it: {shlex.join((*git, 'commit', '--all'))}")
    if host.secrets:
        edit = typed(front.root, "secrets", "edit", f"{host.id}.yaml")
        steps.append(f"secrets have random values; put yours there: {edit}")
    words = {
        Kind.VM: ("provision", host.id),
        Kind.CONTAINER: ("vm", "clone", host.id),
        Kind.METAL: ("install", host.id),
    }
    then = typed(front.root, *words.get(host.kind, ("deploy", host.id)))
    return [*steps, f"then {'pin its host key as publicKey, and' if host.kind is Kind.HOME else 'run'}: {then}"]


def _keys_in(file: str) -> list[str]:
    try:
        lines = expanded(file).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"--key-file {file}: cannot be read: {error}") from None
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise Usage(f"--key-file {file}: holds no key; name a .pub file")
    return keys
