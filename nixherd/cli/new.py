"""`nixherd new`: a host that is not there yet, scaffolded: files, entries, secrets. All of it, or nothing."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import narrate, progress, show_json, wants_json
from nixherd.cli.parameters import json_option
from nixherd.errors import FleetError, Usage
from nixherd.files import expanded
from nixherd.fleet import tree
from nixherd.fleet.changeset import Changeset, Done, changing, interrupted
from nixherd.fleet.git import Repository
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import DEFINITIONS, HOSTS, Host
from nixherd.terminal import is_terminal, say, say_text
from nixherd.trust.new.files import ByHand
from nixherd.trust.new.host import SIZES, Kind, NewHost
from nixherd.trust.new.request import Request, decide
from nixherd.trust.new.scaffold import Scaffold, scaffold
from nixherd.trust.secrets.sops import nobody

_INTERRUPTED = "a run was interrupted while it published its changes; the next that changes anything finishes them"
_NOT_RUN = "not evaluated: whether Nix makes a system of it is not known"


@click.command()
@click.argument("name")
@click.option("--size", type=click.Choice(list(SIZES)), help="What it starts with; asked for, else small.")
@click.option("--no-vm", "bare_metal", is_flag=True, help="Not in a guest of the hypervisor: a machine of its own.")
@click.option("--home-only", is_flag=True, help="A home alone, on a system that somebody else keeps.")
@click.option("--vmid", type=click.IntRange(100, 999_999_999), help="Its VMID; else the next free one of the range.")
@click.option("--range", "range", metavar="RANGE", help="A range of vmidRanges, or FIRST-LAST.")
@click.option(
    "--offline", is_flag=True, help="Do not ask the hypervisor: VMID and template from the definitions alone."
)
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
@click.option(
    "--secret", "secrets", multiple=True, metavar="NAME", help="It declares this secret, in a file of its own."
)
@click.option("--recipient", "recipients", multiple=True, metavar="WHO", help="Who reads it: a person of .sops.yaml.")
@click.option("--no-eval", is_flag=True, help="Leave the evaluation by Nix out; that it was not run is said.")
@click.option("--commit/--no-commit", default=None, help="One commit of it; else git add.")
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@click.option("--yes", is_flag=True, help="Ask nothing that has a default, nor whether it is right.")
@json_option
@pass_front
def new(front: Front, /, name: str, **options: Any) -> None:
    """Scaffold the host NAME: its files, its entries in hosts.nix and the definitions, its secrets.

    It is asked for what it is to be on a terminal. What comes of it is evaluated and shown before anything is written;
    then all of it is there, known to git and not committed, or nothing.
    """
    front.guarded = False
    how = {each: options.pop(each) for each in ("offline", "recipients", "no_eval", "commit", "dry_run", "yes")}
    options["key_lines"] = tuple(line for file in options.pop("key_files") for line in _keys_in(file))
    request = Request(name, **options)
    if how["recipients"] and not request.secrets:
        raise Usage("--recipient: says who reads a secret, and none is declared; add --secret NAME, or leave it out")
    ask = partial(_ask, quiet=how["yes"])
    if how["dry_run"]:
        if interrupted(front.root):
            narrate([_INTERRUPTED])
        scratch = front.run.directory / "new"
        scratch.mkdir()
        done = _scaffold(front, request, ask, scratch, Repository.around(front.root), **how)
        _show(front, done)
        _report(front, done, None)
        return
    with changing(front.root) as changeset:
        if _resumed(front, changeset, name):
            return
        changeset.scratch.mkdir(parents=True, exist_ok=True)
        done = _scaffold(front, request, ask, changeset.scratch, changeset.repository, **how)
        _show(front, done)
        _require_yes(name, yes=how["yes"])
        published = _publish(changeset, done, commit=bool(how["commit"]))
        front.wrote = True
    _read_back(front, done)
    _report(front, done, published)


def _resumed(front: Front, changeset: Changeset, name: str) -> bool:
    """Whether an interrupted run's host is this one, and is finished now."""
    with progress(name) as told:
        finished = changeset.resume(told)
    if finished is None:
        return False
    front.wrote = True
    ours = any(Path(path).parts[-2:-1] == (name,) and path.endswith(".nix") for path in finished.paths)
    if ours:
        about = {"name": name, "files": list(finished.paths), "changed": True, "commit": finished.commit}
        if wants_json(front.as_json):
            show_json({**about, "resumed": True})
        else:
            say(f"{name}: what an interrupted run had begun is finished: {', '.join(finished.paths)}")
    return ours


def _scaffold(
    front: Front,
    request: Request,
    ask: Any,
    scratch: Path,
    repository: Repository | None,
    *,
    offline: bool,
    recipients: Sequence[str],
    no_eval: bool,
    **_: bool,
) -> Scaffold:
    fleet = load_fleet(front.root)
    front.__dict__["fleet"] = fleet
    asked = not offline and front.token_path.exists()
    host = decide(request, fleet, lambda: _client(front) if asked else None, partial(tree.read, front.root), ask)
    try:
        with progress(request.name) as told:
            return scaffold(
                front.run,
                fleet,
                host,
                scratch,
                repository=repository,
                sops=lambda: nobody(front.run),
                recipients=recipients,
                evaluated=not no_eval,
                token_file=front.token_path if asked else None,
                say=told,
            )
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


def _ask(
    option: str, question: str, default: str | None = None, choices: Mapping[str, str] | None = None, *, quiet: bool
) -> str:
    """The person at the terminal; in a pipe the default, where there is one."""
    if default is not None and (quiet or not is_terminal(sys.stdin)):
        return default
    if not is_terminal(sys.stdin):
        raise Usage(f"{option}: missing ({question[0].lower()}{question[1:]}), and there is no terminal to ask on")
    narrate(f"  {choice:8}{meaning}" for choice, meaning in (choices or {}).items())
    kind = click.Choice(list(choices)) if choices else str
    answer: str = click.prompt(
        question, default=default, type=kind, err=True, show_default=bool(default), show_choices=False
    )
    return answer.strip()


def _require_yes(name: str, *, yes: bool) -> None:
    if yes:
        return
    if not is_terminal(sys.stdin):
        raise Usage(f"{name}: nothing was changed: without a terminal to ask on, say --yes")
    if not click.confirm("Write all of this?", err=True):
        raise Usage(f"{name}: nothing was changed")


def _publish(changeset: Changeset, done: Scaffold, *, commit: bool) -> Done:
    if commit:
        changeset.require_committable(list(done.files), commit=True)
    elif changeset.repository is not None and (dirty := changeset.repository.changed(done.changed)):
        narrate([f"{path}: has changes that nobody committed; they stay, beside ours" for path in dirty])
    for path, content in done.files.items():
        changeset.stage(path, content)
    with progress(done.host.id) as told:
        return changeset.publish(dict(done.seen), _message(done.host), commit=commit, say=told)


def _read_back(front: Front, done: Scaffold) -> None:
    """FleetError unless the host is in the fleet's files now: a hook of git's may have changed them."""
    host, look = done.host, f"did a hook of git's change it? Look at it by hand (git -C {front.root} status)"
    try:
        now = load_fleet(front.root)
    except FleetError as error:
        raise FleetError(f"{host.id} was written, and now the fleet's files do not load: {error}; {look}") from error
    left = [] if _apart(now.hosts.get(host.id)) == _apart(done.fleet.hosts[host.id]) else [f"{HOSTS}: {host.id}"]
    if host.guest is not None and now.vms.get(host.id) != done.fleet.vms[host.id]:
        left.append(f"{DEFINITIONS}: managed.{host.id}")
    left += [path for path in done.new if not (front.root / path).is_file()]
    if left:
        raise FleetError(f"{', '.join(left)}: was written, and is not there like that; {look}")


def _apart(host: Host | None) -> Host | None:
    """Without its files' paths, which were those of the view that was evaluated."""
    return replace(host, configuration_file=None, home_file=None) if host else None


def _message(host: NewHost) -> str:
    return f"fleet: {host.id} is new\n\n{host.purpose or 'Scaffolded by nixherd new.'}"


def _show(front: Front, done: Scaffold) -> None:
    if not wants_json(front.as_json):
        say_text("\n".join(done.diff()))
        narrate(_findings(done))


def _findings(done: Scaffold) -> list[str]:
    """What is not known, and what will be in the way."""
    host, found = done.host, []
    if host.guest is not None and host.guest.free is None:
        found.append(
            f"{host.id}: VMID {host.guest.vmid} is from the definitions alone; whether another guest has it is unknown"
        )
    if host.kind is Kind.VM and host.machine.told_by is None:
        found.append(
            f"{host.id}: what the template starts with is unknown; {host.machine.firmware} is taken for granted"
        )
    if done.evaluated is None:
        found.append(f"{host.id}: {_NOT_RUN}")
    if host.is_nixos and not host.sudo_passwordless and host.user != "root":
        found.append(
            f"{host.id}: sudo will ask {host.user} for a password that is not set yet; set one "
            "(initialHashedPassword, or passwd as root), or say --sudo-passwordless"
        )
    return [*found, *done.obstacles]


def _report(front: Front, done: Scaffold, published: Done | None) -> None:
    host, guest = done.host, done.host.guest
    system = done.evaluated.toplevel if done.evaluated else None
    if wants_json(front.as_json):
        about: dict[str, Any] = {"name": host.id, "kind": str(host.kind), "files": sorted(done.files)}
        if guest is not None:
            about |= {
                "vmid": guest.vmid,
                "vmid_free": guest.free,
                "size": guest.size.name,
                "firmware": host.machine.firmware,
            }
        about |= {"evaluated": done.evaluated is not None, "system": system, "findings": _findings(done)}
        about |= {"diff": "\n".join(done.diff())} if published is None else {}
        how: dict[str, Any] = {"planned": True} if published is None else {"changed": bool(published.paths)}
        show_json({**about, **how, "commit": published.commit if published else None})
        return
    if published is None:
        say(f"{host.id}: would write {len(done.files)} files; nothing was changed")
        return
    say(f"{host.id}: wrote {', '.join(sorted(published.paths))}")
    if system:
        say(f"{host.id}: evaluates to {system}")
    if published.commit:
        say(f"commit {published.commit}: {len(published.paths)} files")
    narrate(_next(front, host, committed=published.commit is not None))


def _next(front: Front, host: NewHost, *, committed: bool) -> list[str]:
    steps = [] if committed else [f"look at it and commit it: git -C {front.root} commit -a"]
    if host.secrets:
        steps.append(f"secrets have random values; put yours there: nixherd secrets edit {host.id}.yaml")
    match host.kind:
        case Kind.VM:
            steps.append(f"then: pyinfra inventory.py deploys/provision.py --limit {host.id}")
        case Kind.CONTAINER:
            steps.append(f"then: nixherd vm clone {host.id}")
        case Kind.METAL:
            steps.append(f"then: pyinfra inventory.py deploys/install.py --limit {host.id} (docs/provisioning.md)")
        case Kind.HOME:
            steps.append(f"then pin the machine's host key as publicKey, and: nixherd deploy {host.id}")
    return steps


def _keys_in(file: str) -> list[str]:
    try:
        lines = expanded(file).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"--key-file {file}: cannot be read: {error}") from None
    found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not found:
        raise Usage(f"--key-file {file}: holds no key; name a .pub file")
    return found
