"""`nixherd init`: what a directory has, and the smallest file that makes a fleet of it, or a small fleet."""

import getpass
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import FleetError, Usage
from nixherd.base.files import expanded, fleet_root
from nixherd.base.names import many
from nixherd.base.ssh_keys import parse_authorized_key
from nixherd.cli.front import Front, pass_front
from nixherd.cli.init_guests import Ask, Hypervisor, Place, place_of
from nixherd.cli.output import ask, is_here, narrate, progress, typed
from nixherd.cli.parameters import VMID, dry_run_option, json_option, yes_option
from nixherd.fleet.git import top_of
from nixherd.fleet.load import flakes_below, load_fleet
from nixherd.fleet.models import FLAKE, HOSTS, NIXHERD
from nixherd.trust.new.directory import Beginning, Found, beginning, look_into, require_new, write_new
from nixherd.trust.new.fleet import SYSTEMS, TIME_ZONE, SmallFleet, before
from nixherd.trust.new.host import name_problem
from nixherd.trust.new.request import Request, decide

_RELEASE = "25.11"
_OF_A_VM = ("vmid", "proxmox", "fingerprint", "node", "storage", "template", "pool")
_OF_A_NEW_ONE = ("host", "system", "time_zone", "device", *_OF_A_VM)


@dataclass(frozen=True)
class _Plan:
    """What is to be written, what people should know, and what they would type next."""

    files: Mapping[str, bytes]
    hosts: tuple[str, ...]
    notes: tuple[str, ...] = ()
    next: tuple[str, ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict)


@click.command()
@click.argument("place", metavar="[DIR]", required=False)
@click.option("--host", metavar="NAME", help="Of an empty directory's first host.")
@click.option(
    "--user", metavar="USER", help="Its admin user; else yours. Or who logs in, where hosts.nix does not say."
)
@click.option("--system", type=click.Choice(SYSTEMS), help="What the host runs on; else what this machine does.")
@click.option("--key-file", "key_files", multiple=True, metavar="FILE", help="Who may log in: a .pub file; else yours.")
@click.option("--time-zone", metavar="ZONE", help="Such as Europe/Berlin; else this machine's.")
@click.option("--state-version", metavar="RELEASE", default=_RELEASE, help="NixOS' release that it begins with.")
@click.option("--device", metavar="DEVICE", help="The disk to install on, such as /dev/nvme0n1; not with --vm.")
@click.option(
    "--vm", "is_vm", is_flag=True, help="The host is a VM that nixherd makes, and the definitions are written."
)
@click.option("--vmid", type=VMID, help="With --vm: its VMID; else the first free one from 100.")
@click.option("--proxmox", metavar="ADDRESS", help="With --vm: the hypervisor's API; else the token's server.")
@click.option("--fingerprint", metavar="SHA256", help="With --vm: its certificate's, as `pvenode cert info` shows it.")
@click.option("--node", metavar="NODE", help="With --vm: where guests are made.")
@click.option("--storage", metavar="STORAGE", help="With --vm: where their disks are made; else the template's.")
@click.option("--template", type=VMID, help="With --vm: what they are cloned from; else the only one that there is.")
@click.option("--pool", metavar="POOL", help="With --vm: what they are made in; else the only one that the token may.")
@dry_run_option
@yes_option
@json_option
@pass_front
@click.pass_context
def init(ctx: click.Context, front: Front, /, place: str | None, **options: Any) -> None:
    """Look at a directory, and write the smallest file that makes a fleet of it.

    A flake with configurations needs none; a hosts.nix of another shape gets a nixherd.nix that translates it; an empty
    directory, or a new one, gets a small fleet. No host is evaluated, no file is overwritten, and a second run finds
    that all is there.
    """
    directory = fleet_root(place or ctx.find_root().params.get("fleet") or ".")
    front.fleet_path, front.guarded = str(directory), False
    found = look_into(directory)
    seen = Hypervisor.of(front)
    narrate([*found.lines(), *seen.lines(), *(f"unknown: {line}" for line in seen.unknown)])
    if found.is_fleet:
        plan = _existing(found, options)
    else:
        plan = _small(front, found, options, seen)
    require_new(directory, plan.files)
    document: dict[str, Any] = {
        "directory": str(directory), "flake": FLAKE in found.files, "outputs": dict(found.outputs),
        "hosts_nix": found.hosts_nix, "sops": list(found.sops), "guests": seen.guests, "hosts": list(plan.hosts),
        "unknown": [*found.unknown, *seen.unknown], "notes": list(plan.notes), "next": list(plan.next), **plan.document,
    }  # fmt: skip
    if front.dry_run or not plan.files:
        _report(front, document, plan, None)
        return
    question = f"Write {many(len(plan.files), 'file')} in {directory}?"
    front.confirm(question, "not confirmed", plan=_contents(plan), unattended=True)
    with progress("init") as tell:
        tell(f"write {many(len(plan.files), 'file')}")
        written = write_new(directory, plan.files, partial(_proven, directory, plan.hosts))
    front.wrote = bool(written)
    _report(front, document, plan, written)


def _existing(found: Found, options: Mapping[str, Any]) -> _Plan:
    begun: Beginning = beginning(found, options["user"])
    fleet, files = begun.fleet, {} if begun.text is None else {NIXHERD: begun.text.encode()}
    hosts = tuple(begun.hosts)
    unpinned = [name for name in hosts if fleet is None or fleet.hosts[name].public_key is None]
    host = next(iter((*unpinned, *hosts)), None)
    steps: tuple[tuple[str, ...], ...] = (("new", "NAME", "--dry-run"), ("hosts",), ("check",))
    if host is not None:
        steps = (("hosts",), ("trust", host) if unpinned else ("check",), ("plan", host))
    if host is not None and unpinned and (vm := fleet.vm_of(host) if fleet else None) and vm.may_change:
        steps = (("hosts",), ("provision", host, "--dry-run"), ("provision", host))
    notes = list(begun.notes)
    if unused := [f"--{name.replace('_', '-')}" for name in _OF_A_NEW_ONE if options[name]]:
        notes.append(f"{', '.join(unused)}: not used, as this is a fleet already; `nixherd new` adds a host")
    if fleet is not None and fleet.file != HOSTS and NIXHERD not in found.files:
        say = f'{NIXHERD}: {{ hosts.{host}.addresses = [ "…" ]; }}'
        notes.append(f"a host is reached at its name, or as its configuration says; say another address in {say}")
    if fleet is not None:
        notes += [f"not a host: {name}: {why}" for name, why in fleet.skipped.items()]
    fields = {name: ".".join(way) or None for name, way in begun.fields.items()}
    return _Plan(files, hosts, tuple(notes), _commands(found, *steps), {"fields": fields})


def _small(front: Front, found: Found, options: Mapping[str, Any], seen: Hypervisor) -> _Plan:
    if found.files:
        what = f"{found.directory}: it has {', '.join(found.files)} and neither {FLAKE} nor {HOSTS}"
        raise Usage(f"{what}; write a flake around that, or name an empty directory")
    if found.directory.is_dir() and (below := flakes_below(found.directory)):
        raise Usage(f"{found.directory}: {below[0]} has a flake; name {found.directory / below[0]}")
    for option in _OF_A_VM:
        if options[option] is not None and not options["is_vm"]:
            raise Usage(f"--{option}: is for a VM; add --vm, or leave it out")
    question = partial(ask, quiet=front.yes)
    name = options["host"] or question("--host", "The name of its first host")
    if why := name_problem(name):
        raise Usage(why)
    user = options["user"] or question("--user", "Its admin user", getpass.getuser())
    zone = options["time_zone"] or question("--time-zone", "Its time zone", _time_zone())
    if not TIME_ZONE.fullmatch(zone):
        raise Usage(f"--time-zone {zone}: is not a time zone; write one such as Europe/Berlin")
    machine = platform.machine()
    usual = next((system for system in SYSTEMS if system.startswith(f"{machine}-")), SYSTEMS[0])
    place = place_of(seen, options, question) if options["is_vm"] else None
    fleet = before(found.directory, place.endpoint, place.template) if place else before(found.directory)
    kind: dict[str, Any] = {"bare_metal": True}
    if place is not None:
        kind = {"size": "small", "range": None if options["vmid"] else "production", "pool": place.pool}
    given = {each: options[each] for each in ("vmid", "device", "state_version")}
    given |= {"user": user, "alias": name, "purpose": "", "home": False, "sudo_passwordless": user != "root"}
    request = Request(name, key_lines=_keys(options["key_files"], question), **kind, **given)
    client = partial(seen.connected, fleet) if place and place.is_seen else lambda: None
    host = decide(request, fleet, client, lambda _: None, question)
    small = SmallFleet(
        fleet.id,
        host,
        options["system"] or usual,
        zone,
        fleet.endpoint,
        fleet.template,
        bool(place and place.has_template),
    )
    notes = [*(place.notes if place else ())]
    notes += [f"sudo asks {user} for no password: a key alone logs in"] if user != "root" else []
    if host.guest is not None and host.guest.free is None:
        notes.append(f"whether another guest has VMID {host.guest.vmid} is unknown")
    notes.append("the flake was not evaluated: that fetches its inputs, as `nix flake lock` does")
    notes.append("a flake in a git repository has what git knows alone, and nixherd deploys what is committed")
    return _Plan(small.files(), (name,), tuple(notes), _next(found, name, place), {"system": small.system})


def _next(found: Found, name: str, place: Place | None) -> tuple[str, ...]:
    """The commands after a small fleet was written; the first makes a commit of it, with its inputs locked."""
    there = next(each for each in (found.directory, *found.directory.parents) if each.is_dir())
    begin = "git init && " if top_of(there) is None else ""
    begin += "git add . && nix flake lock && git add . && git commit -m 'A fleet'"
    if not is_here(found.directory):
        begin = f"cd {shlex.quote(str(found.directory))} && {begin}"
    if place is None:
        steps: tuple[tuple[str, ...], ...] = (("install", name, "--dry-run"), ("install", name))
    elif not place.is_seen:
        steps = (("token", "add"), ("provision", name, "--dry-run"))
    elif not place.has_template:
        steps = (("template", "create", "--from", "IMAGE.qcow2"), ("provision", name, "--dry-run"))
    else:
        steps = (("provision", name, "--dry-run"), ("provision", name))
    return (begin, *_commands(found, *steps))


def _commands(found: Found, *steps: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(typed(found.directory, *step) for step in steps)


def _keys(files: Sequence[str], question: Ask) -> tuple[str, ...]:
    """The lines of the keys that may log in. Usage where none is known."""
    if not files:
        usual = {str(path): path.name for path in sorted(expanded("~/.ssh").glob("*.pub")) if path.is_file()}
        only = next(iter(usual)) if len(usual) == 1 else None
        names = f" ({', '.join(usual.values())})" if usual else ""
        files = (question("--key-file", f"The public key of who may log in{names}", only),)
    lines: list[str] = []
    for file in files:
        try:
            text = expanded(file).read_text(encoding="utf-8")
            lines += [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
        except (OSError, UnicodeDecodeError) as error:
            raise Usage(
                f"--key-file {file}: cannot be read: {getattr(error, 'strerror', None) or 'not text'}"
            ) from None
    try:
        list(map(parse_authorized_key, lines))
    except ValueError as error:
        raise Usage(f"--key-file {files[0]}: not an SSH public key: {error}; name a .pub file") from None
    return tuple(dict.fromkeys(lines))


def _time_zone() -> str:
    """This machine's; UTC where that cannot be told."""
    _, _, zone = os.path.realpath("/etc/localtime").partition("/zoneinfo/")
    return zone if TIME_ZONE.fullmatch(zone) else "UTC"


# Writing


def _contents(plan: _Plan) -> list[str]:
    """List the lines of what would be written."""
    return [line for path, content in plan.files.items() for line in (f"{path}:", *_indented(content))]


def _indented(content: bytes) -> list[str]:
    return [f"  {line}".rstrip() for line in content.decode().splitlines()]


def _proven(directory: Path, hosts: Sequence[str]) -> None:
    """FleetError unless the files that were written make a fleet with these hosts."""
    fleet = load_fleet(directory)
    if missing := sorted(set(hosts) - set(fleet.hosts)):
        raise FleetError(f"{directory}: {missing[0]} is not a host of it after all; nothing was written")


def _report(front: Front, document: Mapping[str, Any], plan: _Plan, written: Sequence[str] | None) -> None:
    """Show the end; without `written` nothing was."""
    directory, names = document["directory"], ", ".join(plan.files)
    narrate(plan.notes)
    line = f"{directory}: all is there; nothing needs to be written"
    if plan.files and written is None:
        line = f"{directory}: would write {names}; nothing was changed"
    elif written:
        line = f"{directory}: wrote {', '.join(written)}"
    hosts = f"{many(len(plan.hosts), 'host')}: {', '.join(plan.hosts)}"
    end: dict[str, Any] = {"files": list(plan.files), "changed": bool(written)}
    shown = []
    if plan.files and written is None:
        end |= {"planned": True, "contents": {path: content.decode() for path, content in plan.files.items()}}
        shown = _contents(plan)
    front.show({**document, **end}, [*shown, line, hosts, *(f"next: {command}" for command in plan.next)])
