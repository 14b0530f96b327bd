"""The commands that ask something of a guest, each made from its verb in `nixherd.proxmox.guest`."""

from collections.abc import Callable
from typing import Any

import click

from nixherd import arguments
from nixherd.cli.front import Front, pass_front
from nixherd.cli.guests import declared, guest_named
from nixherd.cli.parameters import Guest, Size, WholeSeconds, changing, guest
from nixherd.cli.vm_storage import snapshots_of_guest
from nixherd.fleet.models import Vm
from nixherd.proxmox.guest.snapshots import KEEP, REMOVE, RemoveSnapshot, TakeSnapshot, reversible
from nixherd.proxmox.guest.verb import Parameter, Verb
from nixherd.proxmox.guest.verbs import COMMANDS as VERBS

_undo = click.option(
    "--snapshot", type=click.Choice([KEEP, REMOVE]), help="Take a snapshot before; keep or remove it after."
)


def command_of(verb: type[Verb]) -> click.Command:
    """Make the command of a verb: its parameters as arguments and options, the first line of its docstring as help."""

    def run(front: Front, guest: str, snapshot: str | None = None, **given: Any) -> None:
        for name, (parameter, _) in verb.parameters().items():
            if parameter.itself:
                given[name] = _name_typed(front, guest)
            elif parameter.guest and given[name]:
                given[name] = declared(front.fleet, given[name], verb.verb).name
            elif parameter.negated:
                given[name] = not given[name]
        front.act(guest, reversible(verb(**given, by_person=True), snapshot))

    command: Callable[..., None] = pass_front(run)
    command = changing(command)
    if verb.undo:
        command = _undo(command)
    for name, (parameter, default) in reversed(list(verb.parameters().items())):
        if not parameter.itself:
            command = _written(name, parameter, default)(command)
    return click.command(verb.command, help=(verb.__doc__ or "").partition("\n\n")[0])(guest(command))


def _name_typed(front: Front, text: str) -> str:
    """The name of the guest as a person wrote it: whoever names it by its VMID alone has not named it."""
    found = guest_named(front.fleet, text)
    return found.name if isinstance(found, Vm) and not text.isdigit() else text


def _written(name: str, parameter: Parameter, default: Any) -> Callable[[Any], Any]:
    """An argument or option of click's."""
    type = _TYPES.get(parameter.read) if not parameter.guest else Guest()
    if isinstance(parameter.read, arguments.OneOf):
        type = click.Choice(parameter.read.words)
    elif isinstance(parameter.read, arguments.Whole):
        read = parameter.read
        type = WholeSeconds(read.least, read.most) if read.unit == "seconds" else click.INT
    if parameter.positional:
        return click.argument(name, type=type, metavar=parameter.metavar)
    option = parameter.option or f"--{name.replace('_', '-')}"
    if parameter.read is arguments.flag_of:
        return click.option(option, name, is_flag=True, help=parameter.help)
    if parameter.read is arguments.some_names:
        return click.option(option, name, multiple=True, help=parameter.help, metavar=parameter.metavar)
    metavar = parameter.metavar or ("SECONDS" if isinstance(type, WholeSeconds) else None)
    more: dict[str, Any] = {"help": parameter.help, "metavar": metavar, "show_default": default not in (None, "")}
    return click.option(option, name, type=type, default=default, **more)


_TYPES: dict[Any, Any] = {arguments.size_of: Size()}


@click.command()
@guest
@click.argument("name", required=False)
@click.option("--description", default="")
@click.option("--with-memory", is_flag=True, help="Its memory as well: a rollback brings it back running.")
@click.option("--delete", is_flag=True, help="Delete the snapshot NAME instead.")
@changing
@pass_front
def snapshot(front: Front, guest: str, name: str | None, description: str, with_memory: bool, delete: bool) -> None:
    """Take a snapshot NAME of a guest, or delete it; without a name, list them."""
    if name is None:
        if delete:
            raise click.UsageError("--delete needs the NAME of a snapshot")
        snapshots_of_guest(front, guest)
    elif delete:
        front.act(guest, RemoveSnapshot(name, by_person=True))
    else:
        front.act(guest, TakeSnapshot(name, description, with_memory, by_person=True))


COMMANDS = (*map(command_of, VERBS.values()), snapshot)
