"""`nixherd deploy`, `plan` and `reboot`: one rollout, followed by its journal, judged by it, and reported."""

import os
import sys
from collections.abc import Iterable, Sequence
from getpass import getpass
from typing import Any

import click

from nixherd.cli.changes import changes
from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import narrate, show_json, wants_json
from nixherd.cli.parameters import F, WholeSeconds, data_option, json_option
from nixherd.cli.run_pyinfra import LOG, PARALLEL, despite, keep_report, last_words, own_error, run_pyinfra
from nixherd.deploy.journal import NAME, Journal, entries, new_directory, runs
from nixherd.deploy.options import LONGEST, Goal
from nixherd.deploy.report import Outcome, Report, report
from nixherd.errors import Usage
from nixherd.exit_codes import Exit
from nixherd.files import write_whole
from nixherd.fleet.groups import check_selection, groups_of, separate
from nixherd.terminal import is_terminal, say, say_text

_AT_LEAST_ONE = WholeSeconds(1, LONGEST)


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


@click.command()
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


@click.command()
@_selection
@_dirty
@click.option("--dry-copy", is_flag=True, help="Copy it too, and ask each machine which services would change.")
@pass_front
def plan(front: Front, /, hosts: Sequence[str], exclude: Sequence[str], data: Sequence[str], **said: Any) -> int:
    """Show what a deployment would change: evaluated and built, nothing copied, nothing activated."""
    if said.pop("dry_copy"):
        return rollout(front, DEPLOY, hosts, exclude, data, {**said, "goal": Goal.DRY_ACTIVATE}, dry=False)
    return rollout(front, DEPLOY, hosts, exclude, data, said, dry=True)


@click.command()
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


# What pyinfra itself says when it cannot go on (pyinfra_cli/exceptions.py).
DEPLOY, REBOOT = "deploys/deploy.py", "deploys/reboot.py"


def rollout(
    front: Front,
    deploy_file: str,
    hosts: Sequence[str],
    exclude: Sequence[str],
    data: Sequence[str],
    said: dict[str, Any],
    *,
    dry: bool,
) -> int:
    """Run it to its end and report; the status. `said` are host data by name."""
    directory = new_directory()
    Journal(directory).close()
    if flake := said.pop("flake"):
        reference, _, host = flake.partition("#")
        hosts, data = [*hosts, *([host] if host else [])], (*data, f"flake={reference}")
    if said.get("local") and not hosts:
        hosts = [os.uname().nodename]
    password = _password() if said.pop("ask_sudo_password") else None
    data = (*data, "sudo_password=stdin") if password is not None else data
    words = ["--dry" if dry else "-y", "--parallel", str(PARALLEL), "inventory.py", deploy_file]
    words += [word for each in hosts for word in ("--limit", each)]
    words += [word for each in exclude for word in ("--exclude", each)]
    given = {name: value for name, value in said.items() if value is not None}
    pairs = [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in given.items()]
    words += [word for pair in (f"journal={directory}", *pairs, *data) for word in ("--data", pair)]
    said_to_it = None if password is None else f"{password}\n"
    done, interrupted = run_pyinfra(front, words, directory, input=said_to_it)
    found = report(entries(directory))
    if not found.hosts and not interrupted:  # it never began
        say_text(last_words(done, directory / LOG), err=True)
        despite(lambda: write_whole(directory / LOG, done.stdout + done.stderr), str(directory))
        return done.status or int(Exit.FAILED)
    for line in done.stderr.splitlines():
        if str(directory / NAME) in line:  # what could not be noted is not in the report
            say(line, err=True)
    if error := own_error(done):
        say(error, err=True)
    status = Exit.INTERRUPTED if interrupted else found.exit
    about: dict[str, Any] = {"exit": int(status), "interrupted": interrupted, "pyinfra": done.status}
    document = {**found.to_json(), **about}
    keep_report(directory, about, document, done.stdout + done.stderr)
    is_said = despite(lambda: _show(front, found, document, dry=dry), "stdout")
    return int(status or (Exit.DONE if is_said else Exit.FAILED))


def _show(front: Front, found: Report, document: dict[str, Any], *, dry: bool) -> None:
    narrate(found.about.get("warnings", ()))
    if wants_json(front.as_json):
        show_json(document)
        return
    for line in _lines(found, dry=dry):
        say(line)


def failed_last(front: Front, named: Sequence[str] = ()) -> list[str]:
    """The hosts that the last deployment of this fleet did not bring to what the flake says; of those named, if any.

    Usage when no deployment is on record, or none of those named is among them.
    """
    failed = _failed_last(front)
    if not (named and failed):
        return failed
    groups = groups_of(front.fleet)
    selected = check_selection(separate(named, groups), groups, "HOST")
    if not selected.intersection(failed):
        raise Usage(
            f"--rerun-failed {' '.join(named)}: the last deployment of this fleet failed on none of these; "
            f"it failed on {', '.join(failed)}"
        )
    return [host for host in failed if host in selected]


def _failed_last(front: Front) -> list[str]:
    for directory in reversed(runs()):
        last = report(entries(directory))
        ours = last.about.get("fleet") == str(front.root) and "deploy" in last.about.get("steps", ())
        is_plan = last.about.get("dry") or all(each.outcome is Outcome.PLANNED for each in last.hosts)
        if ours and not is_plan:
            return [each.host for each in last.hosts if each.outcome.exit is not Exit.DONE]
    raise Usage(f"{front.root}: no deployment of this fleet is on record here")


def _password() -> str:
    """One line, typed unseen or piped."""
    if is_terminal(sys.stdin):
        return getpass("sudo's password on the machines: ")
    return sys.stdin.readline().rstrip("\n")


# For people


def _lines(found: Report, *, dry: bool) -> Iterable[str]:
    if dry or found.about.get("goal") == Goal.DRY_ACTIVATE:
        yield from changes(found.hosts)
    width = max((len(each.host) for each in found.hosts), default=0)
    for each in sorted(found.hosts, key=lambda each: (list(Outcome).index(each.outcome), each.host)):
        seconds = f" ({each.seconds:.1f} s)" if each.seconds and not dry else ""
        reboot = each.found.get("reboot_for") if each.outcome in (Outcome.DEPLOYED, Outcome.PENDING_REBOOT) else None
        notes = f"; needs a reboot for {', '.join(reboot)}" if reboot else ""
        notes += f"; revision not noted: {each.found['unnoted']}" if each.found.get("unnoted") else ""
        yield f"{each.host:{width}}  {each.outcome}{seconds}{f': {each.why}' if each.why else ''}{notes}"
        if each.outcome is Outcome.ROLLED_BACK:
            yield from (f"{'':{width}}  | {line}" for line in each.found.get("log", ())[-8:])
    if found.about.get("dirty"):
        yield f"from files that are not committed: {', '.join(found.about['dirty'])}"
    yield found.summary
