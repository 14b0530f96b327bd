"""`nixherd vm adopt`: a guest that was made elsewhere becomes this fleet's."""

import sys
import time
from typing import Any

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.guests import declared
from nixherd.cli.output import progress, show_json, wants_json
from nixherd.cli.parameters import changing, guest
from nixherd.errors import Usage
from nixherd.fleet.models import Vm
from nixherd.proxmox.guest.adopt import Candidate, adopt, candidate, needs_none, require_both_names
from nixherd.proxmox.guest.identity import is_ours, label
from nixherd.terminal import is_terminal, say


@click.command("adopt")
@guest
@click.argument("vmid", type=int)
@click.option("--yes", is_flag=True, help="Do not ask; there must have been a look at what differs.")
@changing
@pass_front
def adopt_(front: Front, guest: str, vmid: int, yes: bool) -> None:
    """Take over a guest that was made elsewhere: show how it differs from its definition, and mark it as ours.

    Nothing but the line in its notes is written. Its name and its VMID are both asked for.
    """
    vm = declared(front.fleet, guest, "adopt")
    require_both_names(vm, guest if guest.isdigit() else vm.name, vmid)
    shown = candidate(front.client, front.fleet, vm, front.fleet.hosts.get(vm.host_id or ""))
    _show(front, vm, shown)
    if front.dry_run or shown.step is None:
        _report(front, vm, shown, [str(shown.step)] if shown.step else [])
        return
    _ask(vm, yes=yes)
    front.run.claim(vm.host_id or vm.name)
    began = time.monotonic()
    with progress(label(vm)) as told:
        done = adopt(front.client, front.fleet, vm, shown, timeout=front.timeout, progress=told)
    _report(front, vm, shown, list(map(str, done)), seconds=time.monotonic() - began)


def _show(front: Front, vm: Vm, shown: Candidate) -> None:
    """What a person decides by: a result for people, beside the result where that is JSON."""
    beside = wants_json(front.as_json)
    say(f"{label(vm)} {shown.known_by}", err=beside)
    for line in shown.differs:
        say(f"{label(vm)}: differs: {line}", err=beside)
    if not shown.differs:
        say(f"{label(vm)}: is as its definition says", err=beside)


def _ask(vm: Vm, *, yes: bool) -> None:
    if yes:
        return
    if not is_terminal(sys.stdin):
        raise Usage(f"{label(vm)} was not adopted: without a terminal to ask on, say --yes")
    if not click.confirm("Is this guest the one, and may it be this fleet's? Only its notes are changed", err=True):
        raise Usage(f"{label(vm)} was not adopted; nothing was written")


def _report(front: Front, vm: Vm, shown: Candidate, steps: list[str], *, seconds: float | None = None) -> None:
    planned, reason = front.dry_run, needs_none(vm)
    ours = is_ours(front.fleet, vm, shown.config) or seconds is not None
    if wants_json(front.as_json):
        result: dict[str, Any] = {"name": vm.name, "vmid": vm.vmid, "node": shown.node, "ours": ours}
        result |= {"needs_mark": reason is None, "differences": list(shown.differs), "steps": steps}
        show_json(
            result | ({"planned": True} if planned else {"changed": bool(steps), "seconds": round(seconds or 0, 1)})
        )
        return
    for step in steps:
        say(f"{label(vm)}: {'would ' if planned else ''}{step}")
    if reason:
        say(reason)
    elif not steps:
        say(f"{label(vm)}: nothing to do, it is this fleet's")


COMMANDS = (adopt_,)
