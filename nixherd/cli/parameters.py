"""Arguments and options that commands share."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from getpass import getpass
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from nixherd.base.names import LONGEST, parse_seconds, parse_size
from nixherd.base.terminal import is_terminal
from nixherd.cli import completion
from nixherd.cli.front import Front

F = TypeVar("F", bound=Callable[..., Any])
VMID = click.IntRange(100, 999_999_999)


class Text(click.ParamType):  # type: ignore[type-arg]
    """A parameter that `read` makes of its text; its ValueError is wrong usage."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name, self.read = name, read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


def whole_seconds(least: int, most: int = LONGEST) -> Text:
    """A whole number of seconds, as servers and machines take them."""

    def read(text: str) -> int:
        seconds = int(text) if re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) else -1
        if not least <= seconds <= most:
            raise ValueError(f"{text} is not a number of seconds from {least} to {most}; write one like 60")
        return seconds

    return Text("seconds", read)


def _size(text: str) -> int:
    try:
        return parse_size("" if text.isdecimal() else text)
    except ValueError:
        raise ValueError(f"{text!r} is not a size; write one like 64G") from None


def _pair(text: str) -> str:
    """Require `NAME=VALUE`, as pyinfra takes host data: it ends with a traceback on anything else."""
    name, equals, _ = text.partition("=")
    if not (name and equals):
        raise ValueError(f"{text!r} is not NAME=VALUE")
    return text


SECONDS = Text("seconds", parse_seconds)
SIZE = Text("size", _size)
PAIR = Text("name=value", _pair)


class Guest(click.ParamType):  # type: ignore[type-arg]
    """A guest's name, which TAB completes."""

    name = "guest"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return completion.quietly(completion.guests, ctx, param, incomplete)


guest = click.argument("guest", type=Guest())


@dataclass(frozen=True)
class SudoPassword:
    """How a run is told sudo's password: in a line on its stdin, of which host data speak."""

    line: str | None = field(default=None, repr=False)

    @property
    def data(self) -> tuple[str, ...]:
        return ("sudo_password=stdin",) if self.line else ()


def sudo_password(ask: bool) -> SudoPassword:
    """Read it where it is to be asked for: typed unseen, or piped."""
    if not ask:
        return SudoPassword()
    if is_terminal(sys.stdin):
        return SudoPassword(getpass("sudo's password on the machines: ") + "\n")
    return SudoPassword(sys.stdin.readline().rstrip("\n") + "\n")


ask_sudo_password_option = click.option(
    "--ask-sudo-password", is_flag=True, help="Of machines where sudo asks; read from stdin when piped."
)
data_option = click.option("--data", multiple=True, type=PAIR, help="Host data, as pyinfra takes it.")


def _standing(name: str, usual: Any = None) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Make a callback that gives an option which is not set the value in group data, else `usual`."""

    def value_or_standing(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        value = ctx.ensure_object(Front).standing(name) if value is None else value
        return usual if value is None else value

    return value_or_standing


def standing(option: str, name: str, usual: Any, help: str, **more: Any) -> Callable[[F], F]:
    """Make an option that is the value in group data, or else `usual`, where it is not given; its help says so."""
    otherwise = f"; else group data's {name}{'' if usual is None else f', else {usual}'}."
    return click.option(option, callback=_standing(name, usual), help=f"{help}{otherwise}", **more)


identity_option = click.option(
    "--identity",
    metavar="FILE",
    callback=_standing("age_identity"),
    help="Who decrypts: age identities or an Ed25519 SSH key; else group data's age_identity, else sops' usual file.",
)
give_up_option = click.option(
    "--give-up", is_flag=True, help="Encrypt also what you could not decrypt any more afterwards."
)
commit_option = click.option(
    "--commit/--no-commit",
    default=None,
    callback=_standing("commit", usual=True),
    help="One commit of what changed; else as group data's commit says, else one.",
)


def _message(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise click.BadParameter("it is empty; write what is done, or leave it out")
    return value


message_option = click.option("--message", metavar="TEXT", callback=_message, help="The commit's message.")
edit_generated_option = click.option(
    "--edit-generated",
    is_flag=True,
    default=None,
    callback=_standing("edit_generated", usual=False),
    help="Edit .sops.yaml also where it says that something else makes it; else as group data says.",
)


def _of_front(name: str, option: str, help: str, **more: Any) -> Callable[[F], F]:
    """Make an option that sets an attribute of the Front where it is given."""

    def assign(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(ctx.ensure_object(Front), name, value)

    return click.option(option, expose_value=False, callback=assign, help=help, **more)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Make one decorator of several, the first of them outermost."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_JSON = "JSON or a table; by default as stdout is."
json_option = _of_front("as_json", "--json/--table", _JSON, default=None, is_eager=True)
dry_run_option = _of_front("dry_run", "--dry-run", "Show the steps, do none.", is_flag=True)
yes_option = _of_front("yes", "--yes", "Do not ask.", is_flag=True)
_DEADLINE = "For the task, and for whoever holds the guest's lock; else group data's task_deadline, else 3600."
# what every command takes that changes a guest
changing = together(
    json_option, _of_front("timeout", "--deadline", _DEADLINE, type=SECONDS), dry_run_option, yes_option
)
# what a command takes that changes the fleet's files by an operation, with one commit
committing = together(commit_option, message_option, dry_run_option, data_option, json_option)


def commit_data(message: str | None, *, commit: bool) -> list[str]:
    """The host data that --commit and --message are for an operation."""
    return [f"commit={str(commit).lower()}", *([f"commit_message={json.dumps(message)}"] if message else [])]
