"""`nixherd deploy`, `plan` and `reboot`."""

from collections.abc import Sequence
from typing import Any

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.parameters import F, WholeSeconds, data_option, json_option
from nixherd.cli.rollout import DEPLOY, REBOOT, failed_last, rollout
from nixherd.deploying.goal import Goal
from nixherd.deploying.options import LONGEST
from nixherd.exits import Exit
from nixherd.terminal import say

_AT_LEAST_ONE = WholeSeconds(1, LONGEST)
_CONTEXT = {"help_option_names": ["-h", "--help"]}


def _selection(command: F) -> F:
    """What all of them take."""
    options = [
        click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]..."),
        click.option("--exclude", multiple=True, metavar="HOST|GROUP", help="Not these; may be repeated."),
        click.option("--flake", metavar="REF[#HOST]", help="Any flake reference, without a checkout."),
        data_option,
        click.option("--local", is_flag=True, default=None, help="The machine that this runs on, which needs no SSH."),
        click.option(
            "--ask-sudo-password", is_flag=True, help="Of machines where sudo asks; read from stdin when piped."
        ),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


# What hosts.nix or group data may say as well has no default here: an option that nobody gave must not overrule them.
_dirty = click.option(
    "--allow-dirty", is_flag=True, default=None, help="Deploy what nobody committed; the report says so."
)


@click.command(context_settings=_CONTEXT)
@_selection
@_dirty
@click.option(
    "--goal",
    type=click.Choice([str(goal) for goal in Goal]),
    help="What to come to; else what hosts.nix or group data say, else switch.",
)
@click.option("--specialisation", metavar="NAME", help="The specialisation to switch to.")
@click.option("--activation-deadline", type=_AT_LEAST_ONE, help="For an activation.")
@click.option(
    "--confirm-deadline",
    type=_AT_LEAST_ONE,
    help="For the proof; then the machine goes back.",
)
@click.option("--max-fail", metavar="N|N%", help="So many may fail before the rest is held; else none before a wave.")
@click.option("--rerun-failed", is_flag=True, help="Only the hosts that the last deployment did not bring there.")
@click.option("--build-on", metavar="local|target|HOST", help="Here, on each machine itself, or on one of the fleet.")
@click.option(
    "--reboot/--no-reboot",
    default=None,
    help="Boot into the new system where that is needed, and prove it after that; else what hosts.nix says.",
)
@click.option(
    "--no-check",
    is_flag=True,
    default=None,
    help="Switch to it whatever it says against that itself (NIXOS_NO_CHECK).",
)
@click.option(
    "--soak",
    type=WholeSeconds(0, LONGEST),
    help="Watch the new system for so long before it is kept.",
)
@pass_front
def deploy(front: Front, /, hosts: Sequence[str], exclude: Sequence[str], data: Sequence[str], **said: Any) -> int:
    """Bring hosts to what the flake says: all of them, or those named.

    Evaluated and built once for all, activated under the machine's own guard, proven, and only then kept; a machine on
    which anything goes wrong goes back to the system that ran before.
    """
    if said.pop("rerun_failed"):
        hosts = failed_last(front, hosts)
        if not hosts:
            say("the last deployment of this fleet left no host to run again", err=True)
            return int(Exit.DONE)
    return rollout(front, DEPLOY, hosts, exclude, data, said, dry=False)


@click.command(context_settings=_CONTEXT)
@_selection
@_dirty
@click.option("--dry-copy", is_flag=True, help="Copy it too, and ask each machine which services would change.")
@pass_front
def plan(front: Front, /, hosts: Sequence[str], exclude: Sequence[str], data: Sequence[str], **said: Any) -> int:
    """Show what a deployment would change: evaluated and built, nothing copied, nothing activated."""
    if said.pop("dry_copy"):
        return rollout(front, DEPLOY, hosts, exclude, data, {**said, "goal": Goal.DRY_ACTIVATE}, dry=False)
    return rollout(front, DEPLOY, hosts, exclude, data, said, dry=True)


@click.command(context_settings=_CONTEXT)
@_selection
@click.option("--dry-run", is_flag=True, help="Show who needs one and why, reboot nobody.")
@click.option("--force", is_flag=True, default=None, help="Also those that need none.")
@click.option("--max-fail", metavar="N|N%", help="So many may fail before the rest is held.")
@pass_front
def reboot(front: Front, /, hosts: Sequence[str], exclude: Sequence[str], data: Sequence[str], **said: Any) -> int:
    """Reboot hosts whose next boot brings another kernel, initrd, modules or systemd; one of a role at a time.

    Another boot_id, the system that runs, its units and health checks prove each. A readonly VM is only listed, with
    the command for its owner.
    """
    dry = said.pop("dry_run")
    return rollout(front, REBOOT, hosts, exclude, data, said, dry=dry)
