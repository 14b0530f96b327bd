"""`nixherd deploy`, `plan` and `reboot`: one rollout, followed by its journal, judged by it, and reported."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import click

from nixherd.base.errors import Exit, Usage
from nixherd.base.names import many
from nixherd.base.terminal import say
from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import can_ask, narrate
from nixherd.cli.parameters import (
    ask_sudo_password_option,
    data_option,
    json_option,
    sudo_password,
    together,
    whole_seconds,
    yes_option,
)
from nixherd.cli.run_pyinfra import Ended, own_error, run_deploys
from nixherd.cli.summary import lines
from nixherd.deploy.numbers import runs
from nixherd.deploy.options import LONGEST, Goal
from nixherd.deploy.report import JOURNAL, Outcome, Report, entries, report
from nixherd.fleet.groups import select

_AT_LEAST_ONE = whole_seconds(1, LONGEST)


# what the three commands take
_selection = together(
    click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]..."),
    click.option("--exclude", multiple=True, metavar="HOST|GROUP", help="Not these; may be repeated."),
    click.option("--flake", metavar="REF[#HOST]", help="Any flake reference, without a checkout."),
    data_option,
    click.option("--local", is_flag=True, default=None, help="The machine that this runs on, which needs no SSH."),
    ask_sudo_password_option,
    json_option,
)


backup_option = click.option(
    "-b",
    "--backup-extension",
    metavar="EXT",
    help="Move a home's files that are in the way to FILE.EXT, as home-manager's -b does; read back.",
)


# What hosts.nix or group data may set as well has no default here: an option that is not given overrules nothing.
_dirty = click.option("--allow-dirty", is_flag=True, default=None, help="Deploy what nobody committed; it is reported.")


@click.command()
@_selection
@yes_option
@_dirty
@click.option(
    "--goal",
    type=click.Choice([str(goal) for goal in Goal]),
    help="What to come to; else what the fleet or group data say, else switch.",
)
@click.option("--specialisation", metavar="NAME", help="The specialisation to switch to.")
@backup_option
@click.option("--activation-deadline", type=_AT_LEAST_ONE, help="For an activation.")
@click.option("--confirm-deadline", type=_AT_LEAST_ONE, help="For the proof; then the machine goes back.")
@click.option("--max-fail", metavar="N|N%", help="So many may fail before the rest is held; else none before a wave.")
@click.option("--rerun-failed", is_flag=True, help="Only the hosts that the last deployment did not bring there.")
@click.option("--build-on", metavar="local|target|HOST", help="Here, on each machine itself, or on one of the fleet.")
@click.option(
    "--reboot/--no-reboot",
    default=None,
    help="Boot into the new system where that is needed, and prove it after that; else what the fleet says.",
)
@click.option("--no-check", is_flag=True, default=None, help="Switch whatever it says against that (NIXOS_NO_CHECK).")
@click.option("--soak", type=whole_seconds(0, LONGEST), help="Watch the new system for so long before it is kept.")
@pass_front
def deploy(front: Front, /, hosts: Sequence[str], **options: Any) -> int:
    """Bring hosts to what the flake says: all of them, or those named.

    Everything is evaluated and built once. Each machine activates its system under a guard of its own; what is not
    proven there is not kept, and the machine goes back to the system that ran before.
    """
    if options.pop("rerun_failed"):
        hosts = failed_last(front, hosts)
        if not hosts:
            say("the last deployment of this fleet left no host to run again", err=True)
            return int(Exit.DONE)
    asks = Asks("Deploy to", "the fleet was not deployed") if is_whole(hosts, **options) else None
    return rollout(front, DEPLOY, dry=False, hosts=hosts, asks=asks, **options)


@click.command()
@_selection
@_dirty
@click.option("--dry-copy", is_flag=True, help="Copy it too, and ask each machine which services would change.")
@pass_front
def plan(front: Front, /, **options: Any) -> int:
    """Show what a deployment would change: evaluated and built, nothing copied, nothing activated."""
    if options.pop("dry_copy"):
        return rollout(front, DEPLOY, dry=False, goal=Goal.DRY_ACTIVATE, **options)
    return rollout(front, DEPLOY, dry=True, **options)


@click.command()
@_selection
@_dirty
@click.option("--dry-run", is_flag=True, help="Show what would be copied, copy nothing.")
@pass_front
def copy(front: Front, /, **options: Any) -> int:
    """Copy to hosts what they are to run, so that a deployment later is short. Activates nothing.

    Nothing holds it there: a machine's next garbage collection may take it.
    """
    dry = options.pop("dry_run")
    return rollout(front, COPY, dry=dry, **options)


@click.command()
@_selection
@yes_option
@click.option("--dry-run", is_flag=True, help="Show who needs one and why, reboot nobody.")
@click.option("--force", is_flag=True, default=None, help="Also those that need none.")
@click.option("--max-fail", metavar="N|N%", help="So many may fail before the rest is held.")
@pass_front
def reboot(front: Front, /, **options: Any) -> int:
    """Reboot hosts whose next boot brings another kernel, initrd, modules or systemd; one of a role at a time.

    Each is proven by another boot_id, the system that runs, its units and its health checks. A readonly VM is only
    listed, with the command for its owner.
    """
    asks = Asks("Reboot", "the fleet was not rebooted") if is_whole(**options) else None
    return rollout(front, REBOOT, dry=options.pop("dry_run"), asks=asks, **options)


@dataclass(frozen=True)
class Asks:
    """What a person at a terminal is asked once the plan was shown, and what an error says without a yes."""

    verb: str
    refusal: str


COPY, DEPLOY, REBOOT = (["deploys/copy.py"], ["deploys/deploy.py"], ["deploys/reboot.py"])


def rollout(
    front: Front, words: Sequence[str], hosts: Sequence[str], *, dry: bool, asks: Asks | None = None, **options: Any
) -> int:
    """Run a rollout, which the words for pyinfra are, to its end and report it; return the status.

    `options` are host data by name, None: not given. With `asks` a person at a terminal is shown the plan and asked.
    """
    exclude, data = options.pop("exclude"), options.pop("data")
    if flake := options.pop("flake"):
        reference, _, host = flake.partition("#")
        hosts, data = [*hosts, *([host] if host else [])], (*data, f"flake={reference}")
    if options.get("local") and not hosts:
        hosts = [os.uname().nodename]
    typed = sudo_password(options.pop("ask_sudo_password"))
    data = (*data, *typed.data)
    given = {name: value for name, value in options.items() if value is not None}
    pairs = [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in given.items()]
    carry_out = partial(carried_out, front, words, hosts, data=[*pairs, *data], exclude=exclude, input=typed.line)
    if asks and not dry and options.get("goal") != Goal.DRY_ACTIVATE and not front.yes and can_ask():
        status = _plan_confirmed(front, asks, carry_out)
        if status is not None:
            return status
    return reported(front, carry_out(dry=dry), dry=dry)


def is_whole(hosts: Sequence[str], local: bool | None = None, flake: str | None = None, **_: Any) -> bool:
    """Whether the hosts that were named are the whole fleet."""
    named = {name for pattern in hosts for name in pattern.split(",")}
    return not named.isdisjoint(("all", "*")) if named else not (local or (flake and "#" in flake))


def carried_out(
    front: Front, words: Sequence[str], hosts: Sequence[str], *, data: Sequence[str], dry: bool, **how: Any
) -> tuple[Ended, Report]:
    """Run a rollout to its end; `how` as for `run_deploys`. No host in the report: it did not begin."""
    ended = run_deploys(front, words, hosts, data, dry=dry, **how)
    return ended, report(ended.entries)


def _plan_confirmed(front: Front, asks: Asks, carry_out: Callable[..., tuple[Ended, Report]]) -> int | None:
    """Plan it, and ask whether to go on. Usage without a yes.

    Return a status where no plan came of it.
    """
    ended, planned = carry_out(dry=True)
    if ended.interrupted or not planned.hosts:
        return reported(front, (ended, planned), dry=True)
    ended.report(planned.exit, planned.to_json(), lambda document: None)
    settled = (Outcome.UNCHANGED, Outcome.UNCHANGED_NOT_WELL, Outcome.LISTED)
    to_do = [each.host for each in planned.hosts if each.outcome not in settled]  # of one that fails now, who knows
    if to_do:
        question = f"{asks.verb} {len(to_do)} of {many(len(planned.hosts), 'host')}?"
        front.confirm(question, asks.refusal, plan=lines(planned, dry=True, number=ended.number))
    return None


def reported(front: Front, done: tuple[Ended, Report], *, dry: bool) -> int:
    """Report a rollout that is over; return the status."""
    ended, result = done
    if not result.hosts and not ended.interrupted:
        return ended.not_begun()
    for line in ended.output.stderr.splitlines():
        if str(ended.directory / JOURNAL) in line:  # what could not be noted is not in the report
            say(line, err=True)
    if error := own_error(ended.output):
        say(error, err=True)

    def show(document: dict[str, Any]) -> None:
        narrate(result.settings.get("warnings", ()))
        front.show(document, lines(result, dry=dry, number=document["report"]))

    return ended.report(result.exit, result.to_json(), show)


def failed_last(front: Front, named: Sequence[str] = ()) -> list[str]:
    """List the hosts on which the last deployment of this fleet failed; of those named, if any are.

    Usage when no deployment is on record, or it failed on none of those named.
    """
    failed = _failed_last(front)
    if not (named and failed):
        return failed
    selected = select(front.fleet, named)
    if not {*selected}.intersection(failed):
        raise Usage(f"--rerun-failed {' '.join(named)}: the last deployment failed on {', '.join(failed)} alone")
    return [host for host in failed if host in selected]


def _failed_last(front: Front) -> list[str]:
    for directory in reversed(runs()):
        last = report(entries(directory))
        is_ours = last.settings.get("fleet") == str(front.directory) and "deploy" in last.settings.get("steps", ())
        is_plan = last.settings.get("dry") or all(each.outcome is Outcome.PLANNED for each in last.hosts)
        if is_ours and not is_plan:
            return [each.host for each in last.hosts if each.outcome.exit is not Exit.DONE]
    raise Usage(f"{front.directory}: no deployment of this fleet is on record here")
