"""The `vm` commands that change a guest: each made from its verb in `nixherd.proxmox.guest`, and `adopt`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from nixherd.base import names
from nixherd.base.errors import Exit
from nixherd.base.terminal import say
from nixherd.cli.completion import SNAPSHOT
from nixherd.cli.front import Front, pass_front
from nixherd.cli.guests import declared, guest_named
from nixherd.cli.parameters import SIZE, Guest, changing, guest, whole_seconds
from nixherd.cli.vm_storage import snapshots_of_guest
from nixherd.fleet.models import Vm
from nixherd.proxmox.guest.adopt import adopt, candidate, needs_none, require_both_names
from nixherd.proxmox.guest.identity import is_ours, label
from nixherd.proxmox.guest.snapshots import KEEP, REMOVE, RemoveSnapshot, TakeSnapshot, reversible
from nixherd.proxmox.guest.verb import Parameter, Verb
from nixherd.proxmox.guest.verbs import COMMANDS as VERBS
from nixherd.proxmox.steps import Steps

_undo = click.option("--snapshot", type=click.Choice([KEEP, REMOVE]), help="Snapshot it before; keep or remove that.")


def command_of(verb: type[Verb]) -> click.Command:
    """Make the command of a verb: its parameters as arguments and options, the first line of its docstring as help."""

    def run(front: Front, /, guest: str, snapshot: str | None = None, **given: Any) -> int:
        for name, (parameter, _) in verb.parameters().items():
            if parameter.itself:
                given[name] = _name_typed(front, guest)
            elif parameter.guest and given[name]:
                given[name] = declared(front.fleet, given[name], verb.verb).name
            elif parameter.negated:
                given[name] = not given[name]
        return front.act(guest, reversible(verb(**given, by_person=True), snapshot))

    command: Callable[..., int] = changing(pass_front(run))
    if verb.undo:
        command = _undo(command)
    for name, (parameter, default) in reversed(list(verb.parameters().items())):
        if not parameter.itself:
            command = _written(name, parameter, default)(command)
    return click.command(verb.command, help=(verb.__doc__ or "").partition("\n\n")[0])(guest(command))


def _name_typed(front: Front, text: str) -> str:
    """The guest's name, unless the person wrote its VMID alone, which is returned as it is."""
    vm = guest_named(front.fleet, text)
    return vm.name if isinstance(vm, Vm) and not text.isdigit() else text


def _written(name: str, parameter: Parameter, default: Any) -> Callable[[Any], Any]:
    """Make click's argument or option for a parameter."""
    type: Any = Guest() if parameter.guest else SIZE if parameter.read is names.size_of else None
    if isinstance(parameter.read, names.OneOf):
        type = click.Choice(parameter.read.words)
    elif isinstance(parameter.read, names.Whole):
        read = parameter.read
        type = whole_seconds(read.least, read.most) if read.unit == "seconds" else click.INT
    if parameter.positional:
        return click.argument(name, type=type, metavar=parameter.metavar)
    option = parameter.option or f"--{name.replace('_', '-')}"
    if parameter.read is names.flag_of:
        return click.option(option, name, is_flag=True, help=parameter.help)
    if parameter.read is names.some_names:
        return click.option(option, name, multiple=True, help=parameter.help, metavar=parameter.metavar)
    more: dict[str, Any] = {"help": parameter.help, "show_default": default not in (None, "", ())}
    return click.option(option, name, type=type, default=default, metavar=parameter.metavar, **more)


@click.command()
@guest
@click.argument("name", required=False, type=SNAPSHOT)
@click.option("--description", default="", show_default=False, metavar="TEXT", help="What is noted with it.")
@click.option("--with-memory", is_flag=True, help="Its memory as well: a rollback brings it back running.")
@click.option("--delete", is_flag=True, help="Delete the snapshot NAME instead.")
@changing
@pass_front
def snapshot(front: Front, guest: str, name: str | None, description: str, with_memory: bool, delete: bool) -> int:
    """Take a snapshot NAME of a guest, or delete it; without a name, list them."""
    if name is None:
        if delete:
            raise click.UsageError("--delete needs the NAME of a snapshot")
        snapshots_of_guest(front, guest)
        return Exit.DONE
    if delete:
        return front.act(guest, RemoveSnapshot(name, by_person=True))
    return front.act(guest, TakeSnapshot(name, description, with_memory, by_person=True))


@click.command("adopt")
@guest
@click.argument("vmid", type=int)
@changing
@pass_front
def adopt_(front: Front, guest: str, vmid: int) -> None:
    """Take over a guest that was made elsewhere: show how it differs from its definition, and mark it as ours.

    Only the line in its notes is written. Name both its name and its VMID.
    """
    vm, fleet, seconds = declared(front.fleet, guest, "adopt"), front.fleet, 0.0
    require_both_names(vm, guest if guest.isdigit() else vm.name, vmid)
    shown = candidate(front.client, fleet, vm, fleet.hosts.get(vm.host_id or ""))
    # what a person decides by: a result for people, beside the result where that is JSON
    say(f"{label(vm)} {shown.known_by}", err=front.wants_json)
    differences = [f"differs: {line}" for line in shown.differs] or ["is as its definition says"]
    for line in differences:
        say(f"{label(vm)}: {line}", err=front.wants_json)
    steps: Steps = (shown.step,) if shown.step else ()
    ours, why_no_mark = is_ours(fleet, vm, shown.config), needs_none(vm)
    if steps and not front.dry_run:
        question = "Is this guest the one, and may it be this fleet's? Only its notes are changed"
        front.confirm(question, f"{label(vm)} was not adopted")
        act = partial(adopt, front.client, fleet, vm, shown, timeout=front.timeout)
        steps, seconds = front.timed(label(vm), vm.host_id or vm.name, act)
        ours = True  # adopt() ends when the mark was seen
    document = {"name": vm.name, "vmid": vm.vmid, "node": shown.node, "ours": ours}
    document |= {"needs_mark": why_no_mark is None, "differences": list(shown.differs)}
    reason = "" if steps else why_no_mark or "it is this fleet's"
    front.show_steps(label(vm), document, steps, seconds=None if front.dry_run else seconds, reason=reason)


COMMANDS = (*map(command_of, VERBS.values()), snapshot, adopt_)
