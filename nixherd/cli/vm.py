"""`nixherd vm`: guests of the hypervisor. Commands here send GETs alone, of any guest that the token may see."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TypeVar

import click

from nixherd.cli import acting, adopting, vm_storage
from nixherd.cli.front import Front, pass_front
from nixherd.cli.guests import difference, differing, entry_of, guest_named
from nixherd.cli.output import console, show_facts, show_json, show_rows, wants_json
from nixherd.cli.parameters import Guest, guest, json_option
from nixherd.cli.vm_storage import endpoint_node, when
from nixherd.display import one_line
from nixherd.errors import ApiError, FleetError, Usage
from nixherd.exit_codes import Exit
from nixherd.fleet.models import Fleet, GuestType, Origin, Vm
from nixherd.locate import whereabouts
from nixherd.poll import Backoff, poll
from nixherd.proxmox.answers import Resource, Task, Upid
from nixherd.proxmox.doctor import Verdict, examine
from nixherd.proxmox.errors import AgentUnavailable, NoAgent
from nixherd.proxmox.guest.apply import desired
from nixherd.proxmox.guest.identity import (
    address_of,
    contradiction,
    is_ours,
    label,
    mac_of,
    next_vmid,
    range_of,
    why_not_ours,
)
from nixherd.proxmox.guest.observe import interfaces_of, observe
from nixherd.proxmox.guest.plan import compared, drift, in_the_making, template_node
from nixherd.proxmox.steps import Row
from nixherd.terminal import say, say_text

T = TypeVar("T")

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red", Verdict.UNKNOWN: "magenta"}
_LISTED = ("vmid", "name", "kind", "node", "status", "origin", "readonly", "cores", "memory", "disk", "uptime", "tags")


@click.group()
def vm() -> None:
    """Guests of the hypervisor: virtual machines and containers.

    A guest is named by its name in vms/definitions.nix, by its host's id, hostname or alias, or by its VMID. Only
    declared ones that are managed and not readonly are ever changed.
    """


for _command in (*acting.COMMANDS, *adopting.COMMANDS, *vm_storage.COMMANDS):
    vm.add_command(_command)


def _origin(fleet: Fleet, vmid: int, vm: Vm | None) -> str:
    if vm is not None:
        return str(vm.origin)
    return "template" if fleet.template and fleet.template.vmid == vmid else "undeclared"


def _row(fleet: Fleet, row: Resource) -> dict[str, Any]:
    vm = next((vm for vm in fleet.vms.values() if vm.vmid == row.vmid), None)
    about = asdict(row)
    about["kind"] = str(about.pop("type"))
    return {
        **about,
        "origin": _origin(fleet, row.vmid, vm),
        "readonly": None if vm is None else vm.readonly,
        "host": vm.host_id if vm else None,
    }


def _still_there(vmid: int, found: T | None) -> T:
    """What was asked of a guest that was listed before. FleetError when it has gone meanwhile."""
    if found is None:
        raise FleetError(f"guest {vmid} went away")
    return found


def _missing(front: Front, seen: set[int]) -> Iterator[dict[str, Any]]:
    """Declared guests, and the template, that no list shows: absent, not visible, or unknown which of the two."""
    fleet = front.fleet
    for vm in fleet.vms.values():
        if vm.vmid not in seen:
            yield {
                **{"vmid": vm.vmid, "name": vm.name, "kind": str(vm.type), "node": fleet.node_of(vm)},
                **{"status": str(front.client.presence(vm.vmid)), "origin": str(vm.origin)},
                **{"readonly": vm.readonly, "host": vm.host_id},
            }
    template = fleet.template
    if template and template.vmid not in seen and all(vm.vmid != template.vmid for vm in fleet.vms.values()):
        yield {
            **{"vmid": template.vmid, "name": template.name, "kind": str(GuestType.QEMU), "node": template_node(fleet)},
            **{"status": str(front.client.presence(template.vmid)), "origin": "template"},
            **{"readonly": None, "host": None},
        }


@vm.command("list")
@json_option
@pass_front
def list_(front: Front) -> None:
    """All guests of the cluster that the token may see, in one request; power and uptime may be ten seconds old there.

    Of those that are declared and not shown it is asked whether they are absent, or not visible.
    """
    rows = [_row(front.fleet, row) for row in front.client.resources()]
    rows += _missing(front, {row["vmid"] for row in rows})
    show_rows(sorted(rows, key=lambda row: row["vmid"]), _LISTED, front.as_json)


@vm.command()
@guest
@json_option
@pass_front
def status(front: Front, guest: str) -> None:
    """Where a guest is and how it stands, asked of its node itself."""
    node, vmid, kind, vm = front.placed(guest)
    found = _still_there(vmid, front.client.status(node, vmid, kind))
    config = _still_there(vmid, front.client.config(node, vmid, kind))
    waiting = [each.key for each in front.client.pending(node, vmid, kind)]
    show_facts(
        {
            **{"vmid": vmid, "name": config.name, "kind": str(kind), "node": node},
            **{"status": "paused" if found.paused else found.status, "uptime": found.uptime, "lock": config.lock},
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
    """A guest's configuration, with what waits for its next start."""
    node, vmid, kind, _ = front.placed(guest)
    found = _still_there(vmid, front.client.config(node, vmid, kind))
    show_facts({key: found.values[key] for key in sorted(found.values)}, front.as_json)


@vm.command()
@guest
@click.option("--all", "every", is_flag=True, help="All interfaces and addresses.")
@json_option
@pass_front
def ip(front: Front, guest: str, every: bool) -> None:
    """The address on the interface that carries net0's MAC, as the guest's agent tells it.

    Where no agent tells, one that is fixed in its configuration, or one at which this machine has seen its card.
    """
    node, vmid, kind, vm = front.placed(guest)
    about = vm or Vm(str(vmid), vmid, Origin.IMPORTED, readonly=True, type=kind)
    try:
        interfaces = interfaces_of(front.client, node, about)
    except ApiError as error:
        silent = isinstance(error, (AgentUnavailable, NoAgent))
        if not silent and error.status != 403:
            raise
        who = "its agent" if kind is GuestType.QEMU else "its interfaces"
        why = f"{who} does not answer: {error}" if silent else f"{who} may not be asked: {error}"
        _without_agent(front, node, about, why, every=every)
        return
    if every:
        rows = [{"name": each.name, "mac": each.mac, "addresses": list(each.addresses)} for each in interfaces]
        show_rows(rows, ("name", "mac", "addresses"), front.as_json)
        return
    found = front.client.config(node, vmid, kind)
    address = address_of(found, interfaces) if found else None
    if address is None:
        raise FleetError(f"{label(about)} has no address on net0 (yet)")
    if front.as_json:
        show_json({"vmid": vmid, "address": address})
    else:
        say(address)


def _without_agent(front: Front, node: str, guest: Vm, why: str, *, every: bool) -> None:
    config = None if every else front.client.config(node, guest.vmid, guest.type)
    mac = mac_of(config) if config else None
    known = [("configuration", each) for each in whereabouts.configured(guest, config)] if config else []
    known += [("neighbours", each) for each in whereabouts.seen_from_here(front.session, mac)] if mac else []
    if not known:
        raise FleetError(f"{label(guest)}: {why}")
    source, address = known[0]
    said = {"configuration": "fixed in its configuration", "neighbours": f"where this machine has seen its card {mac}"}
    say(f"{why}; {said[source]}, and nobody was asked whether it is there", err=True)
    if front.as_json:
        show_json({"vmid": guest.vmid, "address": address, "source": source})
    else:
        say(address)


@vm.command("next-id")
@click.argument("range", nargs=-1, metavar="[RANGE | FIRST LAST]")
@json_option
@pass_front
def next_id(front: Front, range: tuple[str, ...]) -> None:
    """The lowest VMID that is neither declared nor taken, of a RANGE of vmidRanges or from FIRST to LAST: a proposal.

    Without either of the range `production`.
    """
    odd = len(range) > 2 or (len(range) == 2 and not all(each.isascii() and each.isdigit() for each in range))
    if odd or not all(range):
        said = " ".join(each or repr(each) for each in range)
        raise Usage(f"{said} is not a range; name one of vmidRanges, or its first and its last VMID")
    wanted = "-".join(range) or "production"
    range_of(front.fleet, wanted)
    vmid = next_vmid(front.client, front.fleet, wanted)
    if front.as_json:
        show_json({"range": wanted, "vmid": vmid})
        return
    say(str(vmid))
    say(f"declare it in vms/definitions.nix: managed.NAME = {{ vmid = {vmid}; … }};", err=True)
    if front.fleet.ranges and not any(each.start <= vmid <= each.end for each in front.fleet.ranges):
        say("it is in none of vmidRanges: add a range that has it", err=True)


@vm.command()
@click.argument("guest", required=False, type=Guest())
@click.option("--running", is_flag=True, help="Only those that run.")
@click.option("--errors", is_flag=True, help="Only those that failed.")
@click.option("--limit", type=click.IntRange(1, 2**31 - 1), default=20, show_default=True)
@json_option
@pass_front
def tasks(front: Front, guest: str | None, running: bool, errors: bool, limit: int) -> None:
    """The tasks of a guest, or of the endpoint's node: those that run first, then the newest."""
    node, vmid = endpoint_node(front), None
    if guest is not None:
        node, vmid, _, _ = front.placed(guest)
    found: list[Task] = list(front.client.tasks(node, vmid=vmid, limit=limit))
    if not running:
        found += front.client.tasks(node, active=False, vmid=vmid, limit=limit, errors=errors or None)
    rows = [
        {"started": when(task.starttime), **asdict(task), "upid": str(task.upid), "status": task.status or "RUNNING"}
        for task in found
        if not (errors and task.status in (None, "RUNNING"))
    ]
    show_rows(rows[:limit], ("started", "type", "id", "user", "status", "upid"), front.as_json)


@vm.command()
@click.argument("upid")
@click.option("--follow", "-f", is_flag=True, help="Go on until the task ends; its end is the status.")
@pass_front
def log(front: Front, upid: str, follow: bool) -> None:
    """The log of the task UPID, as text."""
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
    if state is not None and not state.succeeded:
        raise click.exceptions.Exit(int(Exit.FAILED))


@vm.command()
@click.argument("guests", nargs=-1, type=Guest())
@json_option
@pass_front
def diff(front: Front, guests: tuple[str, ...]) -> None:
    """How guests differ from their definitions; all of them unless some are named. Status 1 when any does."""
    wanted = [guest_named(front.fleet, name) for name in guests] or list(front.fleet.vms.values())
    rows: list[dict[str, Any]] = []
    for vm in wanted:
        if isinstance(vm, int):
            raise Usage(f"guest {vm} is not declared; there is no definition to compare it with")
        rows += [{"vmid": vm.vmid, "name": vm.name, **each} for each in _compared(front, vm)]
    if wants_json(front.as_json):
        show_json(rows)
    for row in () if wants_json(front.as_json) else rows:
        say(f"{row['name']} ({row['vmid']}): {row['difference']}")
    if rows:
        raise click.exceptions.Exit(int(Exit.FAILED))
    say("no differences", err=True)


def _compared(front: Front, vm: Vm) -> Iterator[dict[str, Any]]:
    """The differences; a guest that cannot be seen or compared differs by that, and keeps no other from being shown."""
    try:
        yield from _differences(front, vm)
    except FleetError as error:  # NotVisible among them
        if isinstance(error, ApiError) and error.status != 403:
            raise
        yield {"difference": str(error), "remedy": "by hand", "interrupts": False}


def _differences(front: Front, vm: Vm) -> Iterator[dict[str, Any]]:
    fleet, actual = front.fleet, observe(front.client, front.fleet, vm)
    if not vm.is_managed:
        for step in drift(vm, fleet.node_of(vm), actual):
            yield {"difference": str(step), "remedy": None, "interrupts": False}
        return
    whole = actual if actual is not None and not in_the_making(fleet, vm, actual) else None
    if whole and (why := why_not_ours(fleet, vm, whole.config, whole.node)):
        other = contradiction(fleet, vm, whole.config, whole.node)
        yield {"difference": why, "remedy": "by hand" if other else "adopt", "interrupts": False}
        if other:
            return  # another machine: what it has says nothing of ours
    host = fleet.hosts[vm.host_id or ""]
    for step in differing(vm, compared(desired(front.client, fleet, vm, host), actual)):
        if step.row is not Row.START:
            yield difference(vm, step)


@vm.command("import")
@guest
@click.option("--managed", metavar="HOST", help="As a managed guest of this host, to be handed over.")
@pass_front
def import_(front: Front, guest: str, managed: str | None) -> None:
    """Print the entry of an existing guest for vms/definitions.nix, to paste."""
    if managed is not None and managed not in front.fleet.hosts:
        raise Usage(f"hosts.nix has no host {managed}; there are {', '.join(front.fleet.hosts)}")
    other = next((each for each in front.fleet.vms.values() if managed and each.host_id == managed), None)
    if other is not None:
        raise Usage(f"host {managed} lives in {label(other)} already, {other.attribute}; one guest is one host")
    node, vmid, kind, vm = front.placed(guest)
    if vm is not None:
        raise Usage(f"{label(vm)} is declared already, as {vm.attribute}")
    if front.fleet.template and front.fleet.template.vmid == vmid:
        raise Usage(f"vm {vmid} is declared already, as the template; what is cloned from is no guest of its own")
    found = _still_there(vmid, front.client.config(node, vmid, kind))
    power = front.client.status(node, vmid, kind)
    endpoint = front.fleet.endpoint
    other_node = node if endpoint is None or node != endpoint.node else None
    status, fleet = power.status if power else None, front.fleet
    taken = {each.lower() for each in fleet.vms}
    homes = (fleet.hosts.get(vm.host_id or "") for vm in fleet.vms.values())
    housed = {host.hostname.lower() for host in homes if host}
    text, name = entry_of(vmid, kind, found, node=other_node, status=status, host=managed, taken=taken, housed=housed)
    say_text(text)
    if managed:
        then = f"`nixherd vm adopt {name} {vmid}` marks it as this fleet's"
        renamed = "" if found.name == name else f"; its name must be {name} before that"
        say(f"to hand it over, paste this; then {then}{renamed}", err=True)


@vm.command()
@click.option("--strict", is_flag=True, help="What is unknown counts as failed.")
@json_option
@pass_front
def doctor(front: Front, strict: bool) -> None:
    """Look whether the hypervisor refuses by itself what the guard would, and fits the definitions. Only GETs are sent.

    What the token may not read is unknown, never fine.
    """
    findings = examine(front.client, front.fleet)
    if wants_json(front.as_json):
        show_json([asdict(each) for each in findings])
    else:
        screen = console()
        for each in findings:
            remedy = f"; {each.remedy}" if each.remedy else ""
            screen.print(f"{each.verdict:8}", style=_STYLES[each.verdict], end="")
            screen.print(one_line(f" {each.check:12}{each.found}{remedy}"), soft_wrap=True)
    bad = {Verdict.FAILED, *((Verdict.UNKNOWN,) if strict else ())}
    if any(each.verdict in bad for each in findings):
        raise click.exceptions.Exit(int(Exit.FAILED))
