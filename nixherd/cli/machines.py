"""`nixherd exec`, `ssh`, `fact`, `generations`, `rollback` and `gc`: what is done to machines on any day."""

import json
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import Exit, Usage, worst
from nixherd.base.process import foreground
from nixherd.cli.deploy import Asks, rollout
from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import narrate, show_rows
from nixherd.cli.parameters import (
    ask_sudo_password_option,
    data_option,
    dry_run_option,
    json_option,
    sudo_password,
    together,
    whole_seconds,
    yes_option,
)
from nixherd.cli.run_pyinfra import Ended, own_error, run_deploys
from nixherd.deploy.options import LONGEST
from nixherd.fleet.groups import check_selection, groups_of, separate

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
    """A command whose words after the first `--` are another program's, and reach it as `ctx.obj.words`."""

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
    with tempfile.TemporaryDirectory(prefix="nixherd-") as answers:
        words = [EXECUTE, f"line={json.dumps(line)}", f"sudo={str(sudo).lower()}", f"deadline={deadline}"]
        words.append(f"answers={json.dumps(answers)}")
        typed = sudo_password(ask_sudo_password)
        told = [*data, *typed.data]
        ended = run_for(front, words, hosts, told, dry=front.dry_run, exclude=exclude, input=typed.line)
        rows = [{**row, **_answer(Path(answers), row["host"])} for row in rows_of(ended, dry=front.dry_run)]
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
    directory = front.run.state_directory / "ssh"
    ended = run_for(front, [WAY, f"directory={json.dumps(str(directory))}"], hosts, data, dry=False)
    return ended, {entry["host"]: entry for entry in ended.entries if "config" in entry}


def only_one(front: Front, name: str) -> str:
    """The id of the one host that is meant. Usage where it is none, or several."""
    groups = groups_of(front.fleet)
    selected = check_selection(separate([name], groups), groups, "HOST")
    if len(selected) > 1:
        raise Usage(f"{name}: means {', '.join(sorted(selected))}; name one of them")
    return selected.pop()


@click.command()
@_selection
@click.option("--fact", "facts", multiple=True, required=True, metavar="CLASS", help="May be repeated.")
@pass_front
def fact(
    front: Front, /, hosts: Sequence[str], exclude: Sequence[str], data: Sequence[str], facts: Sequence[str]
) -> int:
    """Ask machines for facts, of ours or of pyinfra's, one class after the other."""
    names = [f"nixherd.{name}" if name.startswith("facts.") else name for name in facts]
    ended, told = _ask(front, names, hosts, data, exclude)
    rows = _told(ended, told)
    lines = (
        f"{row['host']}: {name}: {json.dumps(value, ensure_ascii=False)}"
        for row in rows
        for name, value in row["facts"].items()
    )
    return report_rows(front, ended, {"facts": [*facts]}, rows, lines, asks=True)


Told = Mapping[str, Mapping[str, Any]]
"""by fact, and by host: what it said"""


def _ask(
    front: Front, facts: Sequence[str], hosts: Sequence[str], data: Sequence[str], exclude: Sequence[str]
) -> tuple[Ended, Told]:
    ended = run_for(front, ["--json", "fact", *facts], hosts, data, dry=False, exclude=exclude)
    try:
        told = json.loads(ended.output.stdout)
    except ValueError:
        told = {}
    return ended, told


def _told(ended: Ended, told: Told) -> list[dict[str, Any]]:
    """A row per host with its `facts`; one of which a fact is not known has not done."""
    rows = rows_of(ended, dry=False)
    for row in rows:
        row["facts"] = {
            name.removeprefix("nixherd."): values[row["host"]] for name, values in told.items() if row["host"] in values
        }
        if row["outcome"] == "unknown" and row["facts"] and len(row["facts"]) == len(told):
            row |= {"outcome": "done", "why": None, "exit": int(Exit.DONE)}
    return rows


@click.command()
@_selection
@pass_front
def generations(front: Front, /, hosts: Sequence[str], exclude: Sequence[str], data: Sequence[str]) -> int:
    """List what machines and homes can go back to, newest first."""
    status = Exit.DONE
    found: list[dict[str, Any]] = []
    for kind, ids in _by_kind(front, hosts, exclude).items():
        ended, told = _ask(front, [GENERATIONS[kind]], ids, data, ())
        rows = _told(ended, told)
        if not rows:
            return ended.not_begun()
        for row in rows:
            [each] = row["facts"].values() or [()]
            found += [{"host": row["host"], **generation} for generation in reversed(each)]
        narrate(_ends(rows))
        status = worst([status, *(Exit(row["exit"]) for row in rows)])
    show_rows(found, ("host", "number", "built", "current", "path"), front.as_json, "no generations")
    return int(status)


@click.command()
@_selection
@click.option(
    "--generation", type=click.IntRange(1, 999_999), metavar="NUMBER", help="By default the one before the current."
)
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
    ask_sudo_password: bool,
) -> int:
    """Bring machines and homes back to a generation that they have, under their own guard; proven, or undone."""
    words = [] if generation is None else [f"generation={generation}"]
    by_kind = _by_kind(front, hosts, exclude)
    if len(by_kind) > 1:
        raise Usage(f"rollback: {', '.join(map(', '.join, by_kind.values()))} are machines and homes; name one kind")
    [(kind, ids)] = by_kind.items()
    how = {"exclude": (), "data": data, "flake": None, "ask_sudo_password": ask_sudo_password}
    asks = Asks("Roll back", "nothing was rolled back")
    return rollout(front, [ROLLBACK[kind], *words], ids, dry=front.dry_run, asks=asks, **how)


@click.command()
@_selection
@click.option("--older-than", default="30d", show_default=True, metavar="DAYS", help="Of generations, as in 30d.")
@ask_sudo_password_option
@dry_run_option
@pass_front
def gc(
    front: Front,
    /,
    hosts: Sequence[str],
    exclude: Sequence[str],
    data: Sequence[str],
    older_than: str,
    ask_sudo_password: bool,
) -> int:
    """Delete old generations of machines, and what nothing needs then. What runs and what boots next stays."""
    typed = sudo_password(ask_sudo_password)
    words, told = [GC, f"older_than={older_than}"], [*data, *typed.data]
    ended = run_for(front, words, hosts, told, dry=front.dry_run, exclude=exclude, input=typed.line)
    return report_rows(front, ended, {"older_than": older_than}, rows_of(ended, dry=front.dry_run))


def _by_kind(front: Front, hosts: Sequence[str], exclude: Sequence[str]) -> dict[str, list[str]]:
    """The ids of the machines (`nixos`) and homes (`home_manager`) that are selected. Usage where these are none."""
    fleet = front.fleet
    groups = groups_of(fleet)
    chosen = check_selection(separate(hosts, groups), groups, "HOST")
    chosen -= check_selection(separate(exclude, groups), groups, "--exclude")
    if not chosen:
        raise Usage("no host is left; the names and --exclude leave none")
    by_kind: dict[str, list[str]] = {}
    for host in sorted(chosen):
        by_kind.setdefault("nixos" if fleet.hosts[host].is_nixos else "home_manager", []).append(host)
    return by_kind


# The run and its result


def run_for(front: Front, words: Sequence[str], hosts: Sequence[str], data: Sequence[str], **how: Any) -> Ended:
    front.root  # noqa: B018  a fleet that does not exist is said before anything is started
    return run_deploys(front, words, hosts, data, **how)


def rows_of(ended: Ended, *, dry: bool) -> list[dict[str, Any]]:
    """What became of each host, by the run's journal; empty where it did not begin.

    `outcome` is done, unchanged, planned, failed, unreachable or unknown.
    """
    selected = next((entry["hosts"] for entry in ended.entries if entry["event"] == "run"), ())
    return [
        _row(host, [each for each in ended.entries if each.get("host") == host], ended, dry=dry) for host in selected
    ]


def _row(host: str, entries: Sequence[Mapping[str, Any]], ended: Ended, *, dry: bool) -> dict[str, Any]:
    def texts(event: str, **has: Any) -> list[str]:
        return [each["text"] for each in entries if each["event"] == event and has.items() <= each.items()]

    steps, made, nothing = texts("step", planned=dry), texts("made"), texts("nothing")
    row = {"host": host, "steps": steps if dry else made}
    end = next((each for each in entries if each["event"] == "end"), None)
    if end is not None:
        return {**row, "outcome": end["outcome"], "why": end["why"], "exit": int(end.get("exit", Exit.FAILED))}
    if steps and (dry or steps == made):
        return {**row, "outcome": "planned" if dry else "done", "why": None, "exit": int(Exit.DONE)}
    if nothing and not steps:
        return {**row, "outcome": "unchanged", "why": nothing[-1], "exit": int(Exit.DONE)}
    why = own_error(ended.output) or "the run ended before its end was seen"
    return {**row, "outcome": "unknown", "why": why, "exit": int(Exit.UNKNOWN)}


def report_rows(
    front: Front,
    ended: Ended,
    more: Mapping[str, Any],
    rows: list[dict[str, Any]],
    lines: Iterable[str] = (),
    *,
    asks: bool = False,
) -> int:
    """Show what became of the hosts, the lines before it; return the worst of their statuses.

    `asks`: nothing was to be changed, so that no hook is told.
    """
    if not rows:
        return ended.not_begun()
    kept = [{name: value for name, value in row.items() if name not in _TOLD_ONCE} for row in rows]
    document = {"fleet": str(front.root), **more, "dry": front.dry_run, "hosts": kept}
    status = worst(Exit(row["exit"]) for row in rows)
    lines = [*lines, *_ends(rows)]
    return ended.report(status, document, lambda document: front.show({**document, "hosts": rows}, lines), asks=asks)


# What machines tell is shown and not kept: it may be a secret.
_TOLD_ONCE = ("stdout", "stderr", "facts")


def _ends(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line per host that did not simply do it."""
    for row in rows:
        if row["outcome"] == "planned":
            yield from (f"{row['host']}: would {step}" for step in row["steps"])
        elif row["outcome"] != "done":
            yield ": ".join(filter(None, (row["host"], row["outcome"], row["why"])))
