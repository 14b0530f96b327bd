"""`nixherd`: the command that people type. It ends with a status of `nixherd.base.errors`, whatever happens."""

import gc
import io
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from textwrap import shorten
from typing import ClassVar

import click

from nixherd.base.controller import require_linux
from nixherd.base.errors import FAILURES, Exit, exit_of
from nixherd.base.terminal import (
    keep_streams,
    let_go,
    require_text,
    say,
    say_any_character,
    say_error,
    say_text,
    worded,
)
from nixherd.cli.completion import offer
from nixherd.cli.front import Front, pass_front
from nixherd.cli.help import TOPICS, Group, dressed, help_

_EXITS = "\b\nExit codes:\n" + "\n".join(f"  {int(each):>3}  {each.meaning}" for each in Exit)
_EPILOG = f"{_EXITS}\n\n`nixherd help TOPIC` shows more: {', '.join(TOPICS)}."


class Lazy(Group):
    """Commands by their modules, each imported when it is called: imports take most of a command's time."""

    groups: ClassVar = {
        **{name: name for name in ("drift", "fix", "metrics", "overview", "page", "serve")},
        "ssh-config": "ssh_config",
        **{name: name for name in ("init", "install", "lock", "new", "publish", "report", "retire", "status")},
        **{name: name for name in ("secrets", "template", "token", "trust", "vm")},
        **dict.fromkeys(("check", "fmt", "hooks", "lint"), "check"),
        **dict.fromkeys(("copy", "deploy", "plan", "reboot"), "deploy"),
        **dict.fromkeys(("enroll", "provision", "post-provision"), "provision"),
        **dict.fromkeys(("build", "eval", "hosts", "repl"), "flake"),
        **dict.fromkeys(("history", "why"), "history"),
        **dict.fromkeys(("exec", "ssh", "fact", "generations", "rollback", "gc"), "machines"),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.groups])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.groups:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"nixherd.cli.{self.groups[cmd_name]}")
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(module, name, None) or getattr(module, f"{name}_")  # exec is Python's own
        return dressed(command, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        require_linux()  # before the command's modules are imported
        return super().resolve_command(ctx, args)


@click.group(cls=Lazy, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="nixherd", prog_name="nixherd")
@click.option("--fleet", metavar="DIR", help="The fleet's flake; else $FLEET, else the one around here.")
@click.option("--token-file", metavar="FILE", help="The API token; else $PROXMOX_TOKEN_FILE, else the usual place.")
@pass_front
def cli(front: Front, fleet: str | None, token_file: str | None) -> None:
    """Provision, deploy and guard fleets of NixOS machines."""
    front.fleet_path = fleet or front.fleet_path
    front.token_file = token_file or front.token_file


@cli.command(epilog='bash: put `eval "$(nixherd completion bash)"` into ~/.bashrc; the others alike.')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell's completion: of commands, hosts, guests, files, and names at the hypervisor where it answers."""
    from click.shell_completion import get_completion_class

    completion_class = get_completion_class(shell)
    assert completion_class is not None
    say_text(completion_class(cli, {}, "nixherd", "_NIXHERD_COMPLETE").source())


cli.add_command(help_)
offer(cli)
for _name, _command in cli.commands.items():
    dressed(_command, _name)


def main(words: Sequence[str] | None = None) -> None:
    """Run one command and end the program with its status."""
    keep_streams()
    status = run(sys.argv[1:] if words is None else words)
    is_written = let_go()
    gc.freeze()  # or the interpreter would look through all modules once more, for 20 ms
    sys.exit(status or (Exit.DONE if is_written else Exit.FAILED))


def run(words: Sequence[str]) -> int:
    """Run one command and return its status; an error is one line on stderr."""
    gc.set_threshold(50_000)  # garbage collection would be a tenth of a command's time
    say_any_character()
    front = Front.of_environment()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        require_text(words)
        # a command may return a status
        status = cli.main(list(words), prog_name="nixherd", standalone_mode=False, obj=front)
        return int(status) if isinstance(status, int) else int(Exit.DONE)
    except click.UsageError as error:
        if isinstance(error, click.exceptions.NoArgsIsHelpError):
            error.show()
        else:
            more = f"; see `{error.ctx.command_path} --help`" if error.ctx else ""
            say(f"Error: {' '.join(error.format_message().split()).rstrip('.')}{more}", err=True)
        return error.exit_code
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        say_text(text.getvalue().rstrip("\n"), err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort, EOFError):
        say("Interrupted", err=True)
        for upid in front.under_way:
            say(f"task {upid} goes on; follow it with: nixherd vm log --follow {upid}", err=True)
        return int(Exit.INTERRUPTED)
    except FAILURES as error:
        failure = worded(error, shorten(shlex.join(["nixherd", *words]), 120, placeholder=" …"))
        say_error(failure)
        return int(exit_of(failure, changed=front.changed))
    finally:
        front.close()


def _terminated(number: int, frame: object) -> None:
    raise KeyboardInterrupt
