"""`nixherd vm`: commands that look at guests. They send only GETs, of any guest that the token may see."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import click

from nixherd.base.errors import AgentUnavailable, ApiError, Exit, FleetError, NoAgent, Usage
from nixherd.base.terminal import one_line, say, say_text
from nixherd.base.waiting import Backoff, poll
from nixherd.cli import vm_change, vm_storage
from nixherd.cli.front import Front, pass_front
from nixherd.cli.guests import entry_of, guest_named, note_of
from nixherd.cli.help import Group
from nixherd.cli.output import console, show, show_facts, show_json, show_rows
from nixherd.cli.parameters import Guest, guest, json_option
from nixherd.cli.vm_storage import endpoint_node, when
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Origin, Vm
from nixherd.locate import neighbours
from nixherd.proxmox.answers import Task, Upid
from nixherd.proxmox.doctor import Verdict, examine
from nixherd.proxmox.guest.apply import desired
from nixherd.proxmox.guest.differences import Differs, differences
from nixherd.proxmox.guest.identity import (
    address_of,
    is_ours,
    label,
    mac_of,
    next_vmid,
    range_of,
)
from nixherd.proxmox.guest.observe import interfaces_of, observe, template_node
from nixherd.proxmox.guest.plan import Desired

T = TypeVar("T")

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red", Verdict.UNKNOWN: "magenta"}
_LISTED = ("vmid", "name", "kind", "node", "status", "origin", "readonly", "cores", "memory", "disk", "uptime", "tags")


@click.group(cls=Group)
def vm() -> None:
    """Guests of the hypervisor: virtual machines and containers.

    A guest is named by its name in vms/definitions.nix, by its host's id, hostname or alias, or by its VMID. Only
    declared ones that are managed and not readonly are ever changed.
    """


for _command in (*vm_change.COMMANDS, *vm_storage.COMMANDS):
    vm.add_command(_command)


def _origin(fleet: Fleet, vmid: int, vm: Vm | None) -> str:
    if vm is not None:
        return str(vm.origin)
    return "template" if fleet.template and fleet.template.vmid == vmid else "undeclared"


def _rows(front: Front) -> list[dict[str, Any]]:
    """List the guests that the server shows, and those declared that it does not: absent, not visible, or unknown."""
    fleet, template = front.fleet, front.fleet.template
    declared = {vm.vmid: vm for vm in fleet.vms.values()}
    rows = [asdict(each) for each in front.client.resources()]
    places: dict[int, tuple[str | None, GuestType, str]]
    places = {vmid: (vm.name, vm.type, fleet.node_of(vm)) for vmid, vm in declared.items()}
    if template:
        places.setdefault(template.vmid, (template.name, GuestType.QEMU, template_node(fleet)))
    for vmid in places.keys() - {row["vmid"] for row in rows}:
        name, kind, node = places[vmid]
        status = str(front.client.presence(vmid))
        rows.append({"vmid": vmid, "name": name, "type": kind, "node": node, "status": status})
    for row in rows:
        vm = declared.get(row["vmid"])
        row |= {"kind": str(row.pop("type")), "origin": _origin(fleet, row["vmid"], vm)}
        row |= {"readonly": vm.readonly if vm else None, "host": vm.host_id if vm else None}
    return sorted(rows, key=lambda row: row["vmid"])


def _still_there(vmid: int, answer: T | None) -> T:
    """Return the answer about a guest that was listed before. FleetError when the guest has gone since."""
    if answer is None:
        raise FleetError(f"guest {vmid} went away")
    return answer


@vm.command("list")
@json_option
@pass_front
def list_(front: Front) -> None:
    """List all guests of the cluster that the token may see; power and uptime may be ten seconds old.

    For declared guests that the server does not list it shows whether they are absent, or not visible.
    """
    show_rows(_rows(front), _LISTED, front.as_json)


@vm.command()
@guest
@json_option
@pass_front
def status(front: Front, guest: str) -> None:
    """Show a guest's node, status and lock, and whether it is this fleet's, as its node answers now."""
    node, vmid, kind, vm = front.placed(guest)
    power = _still_there(vmid, front.client.status(node, vmid, kind))
    config = _still_there(vmid, front.client.config(node, vmid, kind))
    waiting = [each.key for each in front.client.pending(node, vmid, kind)]
    show_facts(
        {
            **{"vmid": vmid, "name": config.name, "kind": str(kind), "node": node},
            **{"status": "paused" if power.paused else power.status, "uptime": power.uptime, "lock": config.lock},
            **{"origin": _origin(front.fleet, vmid, vm), "readonly": None if vm is None else vm.readonly},
            **{"ours": None if vm is None else is_ours(front.fleet, vm, config), "pending": waiting},
        },
        front.as_json,
    )


@vm.command()
@guest
@json_option
@pass_front
def config(front: Front, guest: str) -> None:
    """Show a guest's configuration, with what takes effect at its next start."""
    node, vmid, kind, _ = front.placed(guest)
    values = _still_there(vmid, front.client.config(node, vmid, kind)).values
    show_facts({key: values[key] for key in sorted(values)}, front.as_json)


@vm.command()
@guest
@click.option("--all", "every", is_flag=True, help="All interfaces and addresses.")
@json_option
@pass_front
def ip(front: Front, guest: str, every: bool) -> None:
    """Show the address on the interface with net0's MAC, as the guest's agent reports it.

    Without an agent, one that is fixed in the configuration, or one at which this machine has seen its card.
    """
    node, vmid, kind, vm = front.placed(guest)
    guest_vm = vm or Vm(str(vmid), vmid, Origin.IMPORTED, readonly=True, type=kind)
    try:
        interfaces = interfaces_of(front.client, node, guest_vm)
    except ApiError as error:
        silent = isinstance(error, (AgentUnavailable, NoAgent))
        if not silent and error.status != 403:
            raise
        who = "its agent" if kind is GuestType.QEMU else "its interfaces"
        why = f"{who} does not answer: {error}" if silent else f"{who} may not be asked: {error}"
        _without_agent(front, node, guest_vm, why, every=every)
        return
    if every:
        rows = [{"name": each.name, "mac": each.mac, "addresses": list(each.addresses)} for each in interfaces]
        show_rows(rows, ("name", "mac", "addresses"), front.as_json)
        return
    config = front.client.config(node, vmid, kind)
    address = address_of(config, interfaces) if config else None
    if address is None:
        raise FleetError(f"{label(guest_vm)} has no address on net0 (yet)")
    _show_value(front, address, vmid=vmid, address=address)


def _without_agent(front: Front, node: str, guest: Vm, why: str, *, every: bool) -> None:
    config = None if every else front.client.config(node, guest.vmid, guest.type)
    mac = mac_of(config) if config else None
    known = [("configuration", each) for each in neighbours.configured(guest, config)] if config else []
    known += [("neighbours", each) for each in neighbours.Sightings().from_here(mac)] if mac else []
    if not known:
        raise FleetError(f"{label(guest)}: {why}")
    source, address = known[0]
    place = "fixed in its configuration" if source == "configuration" else f"where this machine has seen its card {mac}"
    say(f"{why}; {place}, and nobody was asked whether it is there", err=True)
    _show_value(front, address, vmid=guest.vmid, address=address, source=source)


def _show_value(front: Front, value: object, **document: Any) -> None:
    """Show a bare value, in a pipe too: JSON only for those who say --json."""
    show(document, [value], bool(front.as_json))


@vm.command("next-id")
@click.argument("range", nargs=-1, metavar="[RANGE | FIRST LAST]")
@json_option
@pass_front
def next_id(front: Front, range: tuple[str, ...]) -> None:
    """Propose the lowest VMID that is neither declared nor taken, of a RANGE of vmidRanges or from FIRST to LAST.

    Without either, of the range `production`.
    """
    odd = len(range) > 2 or (len(range) == 2 and not all(each.isascii() and each.isdigit() for each in range))
    if odd or not all(range):
        text = " ".join(each or repr(each) for each in range)
        raise Usage(f"{text} is not a range; name one of vmidRanges, or its first and its last VMID")
    name = "-".join(range) or "production"
    range_of(front.fleet, name)
    vmid = next_vmid(front.client, front.fleet, name)
    _show_value(front, vmid, range=name, vmid=vmid)
    if front.as_json:
        return
    say(f"declare it in {DEFINITIONS}: managed.NAME = {{ vmid = {vmid}; … }};", err=True)
    if front.fleet.ranges and not any(each.start <= vmid <= each.end for each in front.fleet.ranges):
        say("no range of vmidRanges holds it: add one that does", err=True)


@vm.command()
@click.argument("guest", required=False, type=Guest())
@click.option("--running", is_flag=True, help="Only those that run.")
@click.option("--errors", is_flag=True, help="Only those that failed.")
@click.option("--limit", type=click.IntRange(1, 2**31 - 1), default=20, help="So many of them.")
@json_option
@pass_front
def tasks(front: Front, guest: str | None, running: bool, errors: bool, limit: int) -> None:
    """List the tasks of a guest, or of the endpoint's node: those that run first, then the newest."""
    node, vmid = endpoint_node(front), None
    if guest is not None:
        node, vmid, _, _ = front.placed(guest)
    entries: list[Task] = list(front.client.tasks(node, vmid=vmid, limit=limit))
    if not running:
        entries += front.client.tasks(node, active=False, vmid=vmid, limit=limit, errors=errors or None)
    rows = [
        {"started": when(task.starttime), **asdict(task), "upid": str(task.upid), "status": task.status or "RUNNING"}
        for task in entries
        if not (errors and task.status in (None, "RUNNING"))
    ]
    show_rows(rows[:limit], ("started", "type", "id", "user", "status", "upid"), front.as_json)


@vm.command()
@click.argument("upid")
@click.option("--follow", "-f", is_flag=True, help="Go on until the task ends; its end is the status.")
@pass_front
def log(front: Front, upid: str, follow: bool) -> int:
    """Print the log of the task UPID."""
    try:
        task = Upid.parse(upid)
    except ValueError:
        raise Usage(f"{upid} is not a UPID; `nixherd vm tasks` lists them") from None
    shown = 0
    for _ in poll(math.inf, Backoff(1.0, 1.0)):
        state = front.client.task_status(task) if follow else None
        lines = front.client.task_log(task)
        for line in lines[shown:]:
            say(line)
        shown = len(lines)
        if state is None or not state.running:
            break
    return Exit.DONE if state is None or state.succeeded else Exit.FAILED


@vm.command()
@click.argument("guests", nargs=-1, type=Guest())
@json_option
@pass_front
def diff(front: Front, guests: tuple[str, ...]) -> int:
    """Show how guests, or all of them, differ from their definitions; status 1 when any does."""
    chosen = [guest_named(front.fleet, name) for name in guests] or list(front.fleet.vms.values())
    rows: list[dict[str, Any]] = []
    for vm in chosen:
        if isinstance(vm, int):
            raise Usage(f"guest {vm} is not declared; it has no definition to compare with")
        rows += [{"vmid": vm.vmid, "name": vm.name, **each} for each in _compared(front, vm)]
    front.show(rows, (f"{row['name']} ({row['vmid']}): {row['difference']}" for row in rows))
    if not rows:
        say("no differences", err=True)
    return Exit.FAILED if rows else Exit.DONE


def _compared(front: Front, vm: Vm) -> Iterator[dict[str, Any]]:
    """Compare a guest; one that cannot be seen or compared differs by that, so that the others are shown."""
    try:
        actual = observe(front.client, front.fleet, vm)
        target = partial(_desired, front, vm)
        yield from map(asdict, differences(front.fleet, vm, actual, target, partial(note_of, vm)))
    except FleetError as error:  # NotVisible among them
        if isinstance(error, ApiError) and error.status != 403:
            raise
        yield asdict(Differs(str(error), "by hand"))


def _desired(front: Front, vm: Vm) -> Desired:
    return desired(front.client, front.fleet, vm, front.fleet.hosts[vm.host_id or ""])


@vm.command("import")
@guest
@click.option("--managed", metavar="HOST", help="As a managed guest of this host, to be handed over.")
@pass_front
def import_(front: Front, guest: str, managed: str | None) -> None:
    """Print an existing guest's entry, to paste into vms/definitions.nix."""
    if managed is not None and managed not in front.fleet.hosts:
        raise Usage(f"{front.fleet.file} has no host {managed}; it has {', '.join(front.fleet.hosts)}")
    other = next((each for each in front.fleet.vms.values() if managed and each.host_id == managed), None)
    if other is not None:
        raise Usage(f"host {managed} lives in {label(other)} already, {other.attribute}; one guest is one host")
    node, vmid, kind, vm = front.placed(guest)
    if vm is not None:
        raise Usage(f"{label(vm)} is declared already, as {vm.attribute}")
    if front.fleet.template and front.fleet.template.vmid == vmid:
        raise Usage(f"vm {vmid} is declared already, as the template; a template is not a guest")
    config = _still_there(vmid, front.client.config(node, vmid, kind))
    power = front.client.status(node, vmid, kind)
    text, name = entry_of(front.fleet, node, vmid, kind, config, power.status if power else None, managed)
    say_text(text)
    if managed:
        then = f"`nixherd vm adopt {name} {vmid}` marks it as this fleet's"
        renamed = "" if config.name == name else f"; its name must be {name} before that"
        say(f"to hand it over, paste this; then {then}{renamed}", err=True)


@vm.command()
@click.option("--strict", is_flag=True, help="What is unknown counts as failed.")
@json_option
@pass_front
def doctor(front: Front, strict: bool) -> int:
    """Check that the hypervisor itself refuses what the guard refuses, and fits the definitions; only GETs are sent.

    What the token may not read is unknown, never ok.
    """
    findings = examine(front.client, front.fleet)
    if front.wants_json:
        show_json([asdict(each) for each in findings])
    else:
        screen = console()
        for each in findings:
            remedy = f"; {each.remedy}" if each.remedy else ""
            screen.print(f"{each.verdict:8}", style=_STYLES[each.verdict], end="")
            screen.print(one_line(f" {each.check:12}{each.found}{remedy}"), soft_wrap=True)
    bad = {Verdict.FAILED, *((Verdict.UNKNOWN,) if strict else ())}
    return Exit.FAILED if any(each.verdict in bad for each in findings) else Exit.DONE
