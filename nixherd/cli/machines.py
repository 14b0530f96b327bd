"""`nixherd exec`, `ssh`, `fact`, `generations`, `rollback` and `gc`: what is done to machines on any day."""

import json
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import Exit, Usage, worst
from nixherd.base.names import many
from nixherd.base.process import foreground
from nixherd.cli.deploy import Asks, backup_option, is_whole, rollout
from nixherd.cli.fact_names import explained, require_known
from nixherd.cli.front import Front, pass_front
from nixherd.cli.host_rows import ends, report_rows, rows_of, run_for
from nixherd.cli.output import can_ask, narrate, show_rows
from nixherd.cli.parameters import (
    Text,
    ask_sudo_password_option,
    data_option,
    dry_run_option,
    json_option,
    sudo_password,
    together,
    whole_seconds,
    yes_option,
)
from nixherd.cli.run_pyinfra import Ended
from nixherd.deploy.options import LONGEST
from nixherd.deploy.running import days_of
from nixherd.fleet.groups import select

EXECUTE, WAY = "nixherd.operations.machines.execute", "nixherd.operations.machines.way"
GC = "nixherd.operations.nixos.gc"
ROLLBACK = {kind: f"nixherd.operations.{kind}.rollback" for kind in ("nixos", "home_manager")}
GENERATIONS = {kind: f"nixherd.facts.{kind}.Generations" for kind in ("nixos", "home_manager")}

_selection = together(
    click.argument("hosts", nargs=-1, required=True, metavar="HOST|GROUP..."),
    click.option("--exclude", multiple=True, metavar="HOST|GROUP", help="Not these; may be repeated."),
    data_option,
    json_option,
)


class WithCommand(click.Command):
    """A command whose words after the first `--` are another program's: `words` of the context's meta."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        ctx.meta["words"] = tuple(args[end + 1 :])
        return super().parse_args(ctx, args[:end])


def _line() -> str:
    """The line of a shell that the words after `--` are: one word is a line, of several each is one of its words."""
    words: tuple[str, ...] = click.get_current_context().meta["words"]
    return words[0] if len(words) == 1 else shlex.join(words)


@click.command("exec", cls=WithCommand)
@_selection
@click.option("--sudo", is_flag=True, help="As root.")
@click.option("--deadline", type=whole_seconds(1, LONGEST), default=120, show_default=True, help="Seconds for each.")
@ask_sudo_password_option
@dry_run_option
@yes_option
@pass_front
def exec_(
    front: Front,
    /,
    hosts: Sequence[str],
    exclude: Sequence[str],
    data: Sequence[str],
    sudo: bool,
    deadline: int,
    ask_sudo_password: bool,
) -> int:
    """Run a command on machines, side by side: HOST... -- COMMAND [ARGUMENT]...

    One word after `--` is a line of the shell there; several are a program and its arguments. Machines are reached by
    their pinned keys alone. Status 1 where it ended with another status than 0 on some machine.
    """
    line = _line()
    if not line.strip():
        raise Usage("exec: no command; write it after --, as in `nixherd exec web01 -- uptime`")
    if is_whole(hosts) and not front.dry_run:
        ids = select(front.fleet, hosts, exclude)
        plan = [f"{', '.join(ids)}: {'as root: ' if sudo else ''}{line}"]
        question = f"Run it on {many(len(ids), 'host')}?"
        front.confirm(question, "exec: nothing was run", plan=plan, unattended=True)
    answers = front.run.directory / "answers"  # what they printed goes with the run, also with one that is killed
    answers.mkdir()
    words = [EXECUTE, f"line={json.dumps(line)}", f"sudo={str(sudo).lower()}", f"deadline={deadline}"]
    words.append(f"answers={json.dumps(str(answers))}")
    typed = sudo_password(ask_sudo_password)
    told = [*data, *typed.data]
    ended = run_for(front, words, hosts, told, dry=front.dry_run, exclude=exclude, input=typed.line)
    rows = [{**row, **_answer(answers, row["host"])} for row in rows_of(ended, dry=front.dry_run)]
    return report_rows(front, ended, {"line": line}, rows, _answers(rows), asks=True)


def _answer(directory: Path, host: str) -> dict[str, Any]:
    """What the command printed on a host, and its status; None where that was not seen."""
    try:
        found: dict[str, Any] = json.loads((directory / f"{host}.json").read_text())
    except FileNotFoundError:
        return {"status": None, "stdout": None, "stderr": None}
    return found


def _answers(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Each line that machines printed, behind their names."""
    width = max((len(row["host"]) for row in rows), default=0)
    for row in rows:
        for text in (row["stdout"], row["stderr"]):
            yield from (f"{row['host']:{width}} | {line}" for line in (text or "").splitlines())


@click.command(cls=WithCommand)
@click.argument("host")
@data_option
@pass_front
def ssh(front: Front, host: str, data: Sequence[str]) -> int:
    """Log in to a machine by OpenSSH, at the address where it answers and by its pinned key alone: HOST [-- COMMAND].

    Its status is the command's, 255 where ssh itself fails.
    """
    host_id = only_one(front, host)
    ended, found = ways(front, [host_id], data)
    if host_id not in found:
        rows = rows_of(ended, dry=False)
        return report_rows(front, ended, {}, rows, asks=True)
    # a person is there: ssh may ask for a passphrase, and make a terminal; whom it trusts is in the file
    person = ("-o", "BatchMode=no", "-o", "RequestTTY=auto", "-o", "EscapeChar=~")
    words = click.get_current_context().meta["words"]
    line = [_line()] if words else []
    return foreground(["ssh", *person, "-F", found[host_id]["config"], "--", found[host_id]["target"], *line], {})


def ways(front: Front, hosts: Sequence[str], data: Sequence[str]) -> tuple[Ended, dict[str, Mapping[str, Any]]]:
    """Find machines where they answer now: by host its `target`, `address` and the `config` that leads there."""
    place = json.dumps(str(_kept(front)))
    ended = run_for(front, [WAY, f"directory={place}"], hosts, data, dry=False, asks=True)
    return ended, {entry["host"]: entry for entry in ended.entries if "config" in entry}


def _kept(front: Front) -> Path:
    """Where the ways to machines are kept, for ssh."""
    return front.run.state_directory / "ssh"


def pinned_keys(front: Front) -> Path:
    """Where each machine's pinned key is kept, for other programs."""
    return _kept(front) / "pinned"


def forget_ways(front: Front, host_id: str) -> None:
    """Remove what is kept for ssh of a machine."""
    shutil.rmtree(_kept(front) / host_id, ignore_errors=True)
    (pinned_keys(front) / host_id.lower()).unlink(missing_ok=True)


def only_one(front: Front, name: str) -> str:
    """The id of the one host that is meant. Usage where it is none, or several."""
    host_id, *others = select(front.fleet, [name])
    if others:
        raise Usage(f"{name}: means {', '.join(sorted([host_id, *others]))}; name one of them")
    return host_id


@click.command()
@_selection
@click.option("--fact", "facts", multiple=True, required=True, metavar="CLASS", help="May be repeated.")
@pass_front
def fact(
    front: Front, /, hosts: Sequence[str], exclude: Sequence[str], data: Sequence[str], facts: Sequence[str]
) -> int:
    """Ask machines for facts, of ours or of pyinfra's, one class after the other."""
    require_known(facts)
    names = [f"nixherd.{name}" if name.startswith("facts.") else name for name in facts]
    ended, told = ask_facts(front, names, hosts, data, exclude)
    if error := explained(facts, ended.output.stderr):
        raise error
    rows = _told(ended, told, len({*names}))
    lines = (
        f"{row['host']}: {name}: {json.dumps(value, ensure_ascii=False)}"
        for row in rows
        for name, value in row["facts"].items()
    )
    return report_rows(front, ended, {"facts": [*facts]}, rows, lines, asks=True)


Told = Mapping[str, Mapping[str, Any]]
"""by fact, and by host: what it said"""


def ask_facts(
    front: Front, facts: Sequence[str], hosts: Sequence[str], data: Sequence[str], exclude: Sequence[str]
) -> tuple[Ended, Told]:
    ended = run_for(front, ["--json", "fact", *facts], hosts, data, dry=False, exclude=exclude, asks=True)
    try:
        told = json.loads(ended.output.stdout)
    except ValueError:
        told = {}
    return ended, told


def _told(ended: Ended, told: Told, number: int) -> list[dict[str, Any]]:
    """A row per host with its `facts`; one of which not that number of facts is known has not done."""
    rows = rows_of(ended, dry=False)
    for row in rows:
        row["facts"] = {
            name.removeprefix("nixherd."): values[row["host"]] for name, values in told.items() if row["host"] in values
        }
        if row["outcome"] == "unknown" and len(row["facts"]) == number:
            row |= {"outcome": "done", "why": None, "exit": int(Exit.DONE)}
    return rows


@click.command()
@_selection
@pass_front
def generations(front: Front, /, hosts: Sequence[str], exclude: Sequence[str], data: Sequence[str]) -> int:
    """List what machines and homes can go back to, newest first."""
    exits, found = list[Exit](), list[dict[str, Any]]()
    for kind, ids in _by_kind(front, hosts, exclude).items():
        ended, told = ask_facts(front, [GENERATIONS[kind]], ids, data, ())
        rows = _told(ended, told, 1)
        if not rows:
            return ended.not_begun()
        for row in rows:
            [each] = row["facts"].values() or [()]
            found += [{"host": row["host"], **generation} for generation in reversed(each)]
        narrate(ends(rows))
        exits += [Exit(row["exit"]) for row in rows]
    show_rows(found, ("host", "number", "built", "current", "path"), front.as_json, "no generations")
    return int(worst(exits))


@click.command()
@_selection
@click.option(
    "--generation", type=click.IntRange(1, 999_999), metavar="NUMBER", help="By default the one before the current."
)
@backup_option
@ask_sudo_password_option
@dry_run_option
@yes_option
@pass_front
def rollback(
    front: Front,
    /,
    hosts: Sequence[str],
    exclude: Sequence[str],
    data: Sequence[str],
    generation: int | None,
    backup_extension: str | None,
    ask_sudo_password: bool,
) -> int:
    """Bring machines and homes back to a generation that they have, under their own guard; proven, or undone."""
    words = [] if generation is None else [f"generation={generation}"]
    by_kind = _by_kind(front, hosts, exclude)
    if len(by_kind) > 1:
        raise Usage(f"rollback: {', '.join(map(', '.join, by_kind.values()))} are machines and homes; name one kind")
    [(kind, ids)] = by_kind.items()
    how = {"exclude": (), "data": data, "flake": None, "ask_sudo_password": ask_sudo_password}
    how["backup_extension"] = backup_extension
    asks = Asks("Roll back", "nothing was rolled back")
    return rollout(front, [ROLLBACK[kind], *words], ids, dry=front.dry_run, asks=asks, **how)


@click.command()
@_selection
@click.option(
    "--older-than", type=Text("days", days_of), default="30d", show_default=True, metavar="DAYS", help="As in 30d."
)
@ask_sudo_password_option
@dry_run_option
@yes_option
@pass_front
def gc(
    front: Front,
    /,
    hosts: Sequence[str],
    exclude: Sequence[str],
    data: Sequence[str],
    older_than: int,
    ask_sudo_password: bool,
) -> int:
    """Delete old generations of machines, and what nothing needs then. What runs and what boots next stays.

    On a terminal the generations that would go are shown, as the machines have them, and it asks.
    """
    typed = sudo_password(ask_sudo_password)
    words, told, age = [GC, f"older_than={older_than}d"], [*data, *typed.data], {"older_than": f"{older_than}d"}
    carry_out = partial(run_for, front, words, hosts, told, exclude=exclude, input=typed.line)
    if not (front.dry_run or front.yes) and can_ask():
        planned = carry_out(dry=True)
        rows = rows_of(planned, dry=True)
        if planned.interrupted or not rows:
            return report_rows(front, planned, age, rows, asks=True)
        number = sum(row["outcome"] == "planned" for row in rows)
        question = f"Collect garbage on {number} of {many(len(rows), 'host')}?"
        front.confirm(question, "no garbage was collected", plan=ends(rows))
    ended = carry_out(dry=front.dry_run)
    return report_rows(front, ended, age, rows_of(ended, dry=front.dry_run))


def _by_kind(front: Front, hosts: Sequence[str], exclude: Sequence[str]) -> dict[str, list[str]]:
    """The ids of the machines (`nixos`) and homes (`home_manager`) that are selected. Usage where these are none."""
    by_kind: dict[str, list[str]] = {}
    for host in select(front.fleet, hosts, exclude):
        by_kind.setdefault("nixos" if front.fleet.hosts[host].is_nixos else "home_manager", []).append(host)
    if not by_kind:
        raise Usage("no host is left; the names and --exclude leave none")
    return by_kind
