"""`fleetwright deploy`, `plan` and `reboot`: pyinfra with one of deploys/ as a child, judged by its journal."""

import json
import sys
import threading
from collections.abc import Iterable, Sequence
from getpass import getpass
from pathlib import Path
from typing import Any

import click

import fleetwright
from fleetwright.cli.following import follow
from fleetwright.cli.front import Front, pass_front
from fleetwright.cli.output import show_json, wants_json
from fleetwright.cli.parameters import F, json_option
from fleetwright.deploying.goal import Goal
from fleetwright.deploying.journal import Journal, entries, new_directory, runs
from fleetwright.deploying.report import HostReport, Outcome, Report, report
from fleetwright.errors import FleetError, Usage
from fleetwright.exits import Exit
from fleetwright.files import write_whole
from fleetwright.process import Completed, interrupt_all, run
from fleetwright.sizes import human

REPORT = "report.json"
DEPLOY, REBOOT = "deploys/deploy.py", "deploys/reboot.py"
PARALLEL = 100  # hosts at a time; what is heavy is bounded where it is done
CHECKOUT = Path(fleetwright.__path__[0]).parent
_CONTEXT = {"help_option_names": ["-h", "--help"]}


def _selection(command: F) -> F:
    """What all of them take."""
    options = [
        click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]..."),
        click.option("--exclude", multiple=True, metavar="HOST|GROUP", help="Not these; may be repeated."),
        click.option("--flake", metavar="REF[#HOST]", help="Any flake reference, without a checkout."),
        click.option("--data", multiple=True, metavar="KEY=VALUE", help="Host data, as pyinfra takes it."),
        click.option(
            "--ask-sudo-password", is_flag=True, help="Of machines where sudo asks; read from stdin when piped."
        ),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


_dirty = click.option("--allow-dirty", is_flag=True, help="Deploy what nobody committed; the report says so.")


@click.command(context_settings=_CONTEXT)
@_selection
@click.option(
    "--goal",
    type=click.Choice([str(goal) for goal in Goal]),
    default="switch",
    show_default=True,
    help="What to come to.",
)
@click.option("--specialisation", metavar="NAME", help="The specialisation to switch to.")
@click.option("--activation-deadline", type=int, metavar="SECONDS", help="For an activation.")
@click.option("--confirm-deadline", type=int, metavar="SECONDS", help="For the proof; then the machine goes back.")
@click.option("--max-fail", metavar="N|N%", help="So many may fail before the rest is held; else none before a wave.")
@click.option("--rerun-failed", is_flag=True, help="Only the hosts that the last deployment did not bring there.")
@click.option("--reboot", is_flag=True, help="Boot into the new system where that is needed, and prove it after that.")
@click.option("--soak", type=int, metavar="SECONDS", help="Watch the new system for so long before it is kept.")
@pass_front
def deploy(front: Front, /, hosts: Sequence[str], exclude: Sequence[str], data: Sequence[str], **said: Any) -> int:
    """Bring hosts to what the flake says: all of them, or those named.

    Evaluated and built once for all, activated under the machine's own guard, proven, and only then kept; a machine on
    which anything goes wrong goes back to the system that ran before.
    """
    if said.pop("rerun_failed"):
        hosts = _failed_last(front)
        if not hosts:
            click.echo("the last deployment of this fleet left no host to run again", err=True)
            return int(Exit.DONE)
    return _rollout(front, DEPLOY, hosts, exclude, data, said, dry=False)


@click.command(context_settings=_CONTEXT)
@_selection
@_dirty
@click.option("--dry-copy", is_flag=True, help="Copy it too, and ask each machine which services would change.")
@pass_front
def plan(front: Front, /, hosts: Sequence[str], exclude: Sequence[str], data: Sequence[str], **said: Any) -> int:
    """Show what a deployment would change: evaluated and built, nothing copied, nothing activated."""
    if said.pop("dry_copy"):
        return _rollout(front, DEPLOY, hosts, exclude, data, {**said, "goal": Goal.DRY_ACTIVATE}, dry=False)
    return _rollout(front, DEPLOY, hosts, exclude, data, said, dry=True)


@click.command(context_settings=_CONTEXT)
@_selection
@click.option("--dry-run", is_flag=True, help="Show who needs one and why, reboot nobody.")
@click.option("--force", is_flag=True, help="Also those that need none.")
@click.option("--max-fail", metavar="N|N%", help="So many may fail before the rest is held.")
@pass_front
def reboot(front: Front, /, hosts: Sequence[str], exclude: Sequence[str], data: Sequence[str], **said: Any) -> int:
    """Reboot hosts whose next boot brings another kernel, initrd, modules or systemd; one of a role at a time.

    Another boot_id, the system that runs, its units and health checks prove each. A readonly VM is only listed, with
    the command for its owner.
    """
    dry = said.pop("dry_run")
    return _rollout(front, REBOOT, hosts, exclude, data, said, dry=dry)


def _rollout(
    front: Front,
    deploy_file: str,
    hosts: Sequence[str],
    exclude: Sequence[str],
    data: Sequence[str],
    said: dict[str, Any],
    *,
    dry: bool,
) -> int:
    directory = new_directory()
    Journal(directory).close()
    if flake := said.pop("flake"):
        reference, _, host = flake.partition("#")
        hosts, data = [*hosts, *([host] if host else [])], (*data, f"flake={reference}")
    password = _password() if said.pop("ask_sudo_password") else None
    data = (*data, "sudo_password=stdin") if password is not None else data
    words = ["--dry" if dry else "-y", "--parallel", str(PARALLEL), "inventory.py", deploy_file]
    words += [word for each in hosts for word in ("--limit", each)]
    words += [word for each in exclude for word in ("--exclude", each)]
    given = {name: value for name, value in said.items() if value not in (None, False)}
    pairs = [f"{name}={str(value).lower() if value is True else value}" for name, value in given.items()]
    words += [word for pair in (f"journal={directory}", *pairs, *data) for word in ("--data", pair)]
    done, interrupted = _run(front, words, directory, password)
    found = report(entries(directory))
    if not found.hosts and not interrupted:  # it never began
        click.echo(_said(done), err=True)
        return done.status or int(Exit.FAILED)
    status = Exit.INTERRUPTED if interrupted else found.exit
    Journal(directory).note("done", exit=int(status), interrupted=interrupted, pyinfra=done.status)
    document = report(entries(directory)).to_json() | {"exit": int(status)}
    write_whole(directory / REPORT, json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")
    if wants_json(front.as_json):
        show_json(document)
    else:
        click.echo("\n".join(_lines(found, dry=dry)))
    click.echo(f"report: {directory / REPORT}", err=True)
    return int(status)


def _failed_last(front: Front) -> list[str]:
    """The hosts that the last deployment of this fleet was to bring to what the flake says, and did not."""
    for directory in reversed(runs()):
        last = report(entries(directory))
        ours = last.about.get("fleet") == str(front.root) and last.about.get("deploys") == [DEPLOY]
        if ours and not all(each.outcome is Outcome.PLANNED for each in last.hosts):
            return [each.host for each in last.hosts if each.outcome.exit is not Exit.DONE]
    raise Usage(f"{front.root}: no deployment of this fleet is on record here")


def _password() -> str:
    """One line, typed unseen or piped."""
    if sys.stdin.isatty():
        return getpass("sudo's password on the machines: ")
    return sys.stdin.readline().rstrip("\n")


def _run(front: Front, words: Sequence[str], directory: Path, password: str | None) -> tuple[Completed, bool]:
    """Run pyinfra to its end, following its journal; whether we were interrupted meanwhile."""
    argv = [str(Path(sys.executable).with_name("pyinfra")), *words]
    env = {"FLEET": str(front.root), "PROXMOX_TOKEN_FILE": str(Path(front.token_file).expanduser()), "NO_COLOR": "1"}
    env |= {"PYINFRA_PROGRESS": "off"}
    said = None if password is None else f"{password}\n"
    ended: list[Completed | BaseException] = []

    def child() -> None:
        try:
            ended.append(run(argv, cwd=CHECKOUT, env=env, check=False, input=said))
        except FleetError as error:
            ended.append(error)

    thread = threading.Thread(target=child)
    thread.start()
    interrupted = False
    with follow(directory) as look:
        while thread.is_alive():
            try:
                look()
                thread.join(0.1)
            except KeyboardInterrupt:
                if not interrupted:
                    click.echo("Interrupted; machines that are being activated decide by themselves", err=True)
                interrupted = True
                interrupt_all()
        look()
    [result] = ended
    if isinstance(result, BaseException):
        raise result
    write_whole(directory / "pyinfra.log", result.stdout + result.stderr)
    return result, interrupted


def _said(done: Completed) -> str:
    """What a pyinfra that never began had to say."""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip() and not line.startswith("-->")]
    return "\n".join(lines) or f"pyinfra ended with status {done.status}"


# For people


def _lines(found: Report, *, dry: bool) -> Iterable[str]:
    if dry or found.about.get("goal") == Goal.DRY_ACTIVATE:
        yield from _changes(found.hosts)
    width = max(len(each.host) for each in found.hosts)
    for each in sorted(found.hosts, key=lambda each: (list(Outcome).index(each.outcome), each.host)):
        seconds = f" ({each.seconds:.1f} s)" if each.seconds and not dry else ""
        reboot = each.found.get("reboot_for") if each.outcome in (Outcome.DEPLOYED, Outcome.PENDING_REBOOT) else None
        notes = f"; needs a reboot for {', '.join(reboot)}" if reboot else ""
        yield f"{each.host:{width}}  {each.outcome}{seconds}{f': {each.why}' if each.why else ''}{notes}"
        if each.outcome is Outcome.ROLLED_BACK:
            yield from (f"{'':{width}}  | {line}" for line in each.found.get("log", ())[-8:])
    if found.about.get("dirty"):
        yield f"from files that are not committed: {', '.join(found.about['dirty'])}"
    yield found.summary


def _changes(hosts: Iterable[HostReport]) -> Iterable[str]:
    """Hosts with the same changes are shown once."""
    groups: dict[tuple[Any, ...], list[HostReport]] = {}
    for each in hosts:
        if "diff" in each.found:
            services = each.found.get("services", "services unknown")
            told = (services,) if isinstance(services, str) else tuple(services)
            key = (tuple(each.found["diff"]), tuple(each.found.get("reboot_for", ())), told)
            groups.setdefault(key, []).append(each)
    for (changes, reboot, services), members in groups.items():
        first = members[0].found
        yield f"{', '.join(each.host for each in members)}:"
        yield from (f"  {change}" for change in changes)
        yield f"  closure {human(first['size_before'])} → {human(first['size_after'])}"
        yield f"  needs a reboot: {', '.join(reboot) if reboot else 'no'}"
        yield from (f"  {line}" for line in services)
        yield ""
