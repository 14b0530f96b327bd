"""`nixherd history` and `why`: what was done to machines, and what brought what runs there."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import Exit, FleetError, Usage
from nixherd.base.names import human
from nixherd.base.process import run
from nixherd.cli.front import Front, pass_front
from nixherd.cli.gathering import gather
from nixherd.cli.host_rows import run_for
from nixherd.cli.machines import EXECUTE, GENERATIONS, ask_facts, only_one
from nixherd.cli.output import show_rows
from nixherd.cli.parameters import Text, data_option, json_option
from nixherd.deploy.history import HistoryLine
from nixherd.deploy.history_index import found
from nixherd.deploy.running import Generation, days_of
from nixherd.deploy.timeline import contradictions, last, timeline
from nixherd.fleet.git import Repository
from nixherd.fleet.groups import select
from nixherd.fleet.revisions import shown
from nixherd.nix.builder import closure_diff, closure_listing, parse_listing
from nixherd.nix.commands import closure_sizes, is_store_path
from nixherd.overview.last_seen import LastSeen, SeenBefore

_COLUMNS = ("began", "number", "command", "host", "outcome", "revision", "operator")
LISTING_DEADLINE = 600  # seconds


def _since(text: str) -> datetime:
    """A day (2026-11-30), a moment as RFC 3339 has it, or so many days ago (7d). ValueError for anything else."""
    if re.fullmatch(r"[0-9]+d", text):
        return datetime.now(UTC) - timedelta(days=days_of(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text} is not a day or a number of days; write 2026-11-30, or 7d") from None
    return moment.astimezone(UTC)


@click.command()
@click.argument("hosts", nargs=-1, metavar="[HOST|GROUP]...")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="So many at most.")
@click.option("--since", type=Text("day", _since), metavar="DAY|DAYS", help="As in 2026-11-30, or 7d.")
@click.option("--outcome", "outcomes", multiple=True, metavar="WORD", help="As in `failed`; may be repeated.")
@json_option
@pass_front
def history(front: Front, /, hosts: Sequence[str], limit: int, since: datetime | None, outcomes: Sequence[str]) -> None:
    """Show what every run did to every host, newest first; what is kept here is kept for ever.

    Commands that only ask or plan are not in it. Of hosts also what their machines noted of others' deployments when
    they were asked last: it is marked as told by the machine.
    """
    front.guarded = False
    ids = _ids(front, hosts) if hosts else []
    began = since.strftime("%Y-%m-%dT%H:%M:%SZ") if since else None
    lines = found(hosts=ids, fleet=str(front.root), since=began, outcomes=outcomes, limit=limit)
    rows = [{**line.to_json(), "source": "proved"} for line in lines]
    if not outcomes:
        rows += _told(front, ids, began)
    rows.sort(key=lambda row: row["began"] or "", reverse=True)
    if front.wants_json:
        front.show(rows[:limit])
        return
    table = [{**row, "began": _local(row["began"]), "revision": shown(row["revision"])} for row in rows[:limit]]
    show_rows(table, _COLUMNS, front.as_json, empty="nothing was done so far")


def _ids(front: Front, names: Sequence[str]) -> list[str]:
    """The ids of hosts and groups; also of a host that is in the history alone. Usage for a name of nobody."""
    ids = list[str]()
    for name in names:
        try:
            ids += select(front.fleet, [name])
        except Usage:
            if not found(hosts=[name], fleet=str(front.root), limit=1):
                raise
            ids.append(name)
    return [*dict.fromkeys(ids)]


def _told(front: Front, ids: Sequence[str], began: str | None) -> Iterator[dict[str, Any]]:
    """What machines noted of deployments of others, when they were asked last."""
    now = datetime.now(UTC)
    for host, seen in SeenBefore(front.run.state_directory).recall().items():
        if ids and host not in ids:
            continue
        for event in timeline(_lines(front, host), seen.notes, now):
            if event.source == "told" and (began is None or (event.when or "") >= began):
                parts = {"began": event.when, "operator": event.who, "after": event.path, "revision": event.revision}
                yield {"host": host, "run": event.run, "number": None, "command": "told", "outcome": None, **parts} | {
                    "source": "told"
                }


def _lines(front: Front, host: str) -> list[HistoryLine]:
    """What was done to a host from here and could change what it runs, oldest first."""
    lines = found(hosts=[host], fleet=str(front.root))
    return [line for line in reversed(lines) if line.is_deployment]


def _local(moment: str | None) -> str | None:
    """For people: in their own time zone."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M") if moment else None


@click.command()
@click.argument("host")
@click.option("--ask", is_flag=True, help="Ask the machine what it runs now; else what it said last.")
@click.option(
    "--diff",
    nargs=2,
    metavar="FROM TO",
    help="What differs between two generations: their numbers there, store paths, or run:NUMBER.",
)
@data_option
@json_option
@pass_front
def why(front: Front, /, host: str, ask: bool, diff: tuple[str, str] | None, data: Sequence[str]) -> int:
    """Show which commit, which run and which operator brought what runs on a machine, and what ran before."""
    front.guarded = False
    host_id = only_one(front, host)
    if diff:
        return _diff(front, host_id, diff, data)
    silent = None
    if ask:
        [view] = gather(front, [host_id], evaluate=False, vm=False, data=data).hosts
        silent = None if view.reach.answered else view.reach.why or "it did not answer"
    seen = SeenBefore(front.run.state_directory).recall().get(host_id, LastSeen())
    running = seen.seen.running if seen.seen else None
    lines, now = _lines(front, host_id), datetime.now(UTC)
    event = last(lines, seen.notes, running.current if running else None, now)
    line = next((each for each in reversed(lines) if event and each.run == event.run), None)
    document: dict[str, Any] = {
        "host": host_id,
        "runs": running.current if running else None,
        "seen": seen.at,
        "revision": running.revision if running else None,
        "commit": _subject(front, running.revision if running else None),
        "brought_by": asdict(event) if event else None,
        "before": line.before if line else None,
        "revision_before": line.revision_before if line else None,
        "contradictions": list(contradictions(lines, seen.notes, now)),
    }
    document["not_asked"] = silent
    front.show(document, _sentences(document))
    if document["contradictions"]:
        return int(Exit.FAILED)
    if silent:
        return int(Exit.REMOTE)
    return int(Exit.DONE if running and event and event.path == running.current else Exit.UNKNOWN)


def _sentences(document: Mapping[str, Any]) -> Iterator[str]:
    if document["not_asked"]:
        yield f"{document['host']}: it did not answer now: {document['not_asked']}; this is what was last known"
    if document["runs"] is None:
        yield f"{document['host']}: what it runs is unknown: it was not asked from here yet; --ask asks it"
        return
    subject = f" ({document['commit']})" if document["commit"] else ""
    yield f"{document['host']} runs {document['runs']}"
    yield f"  as it said at {_local(document['seen'])}"
    yield f"  of revision {shown(document['revision'])}{subject}"
    event = document["brought_by"]
    if event is None or event["path"] != document["runs"]:
        yield "  what brought it is unknown: no run from here did, and the machine notes none"
    else:
        by = f"run {event['number']}, {event['command']}" if event["number"] else f"run {event['run']}"
        source = "" if event["source"] == "proved" else ", as the machine says"
        yield f"  brought by {event['who']} at {_local(event['when']) or 'an unknown time'} ({by}){source}"
    if document["before"]:
        yield f"  before that it ran {document['before']} (revision {shown(document['revision_before'])})"
    yield from (f"  contradicted: {each}" for each in document["contradictions"])


def _subject(front: Front, revision: str | None) -> str | None:
    """The first line of a commit's message, where this repository has it."""
    try:
        repository = Repository.around(Path(front.fleet.path)) if revision else None
    except FleetError:
        return None
    if repository is None or revision is None:
        return None
    commit = revision.removesuffix("-dirty")
    text = repository.contents([commit]).get(commit, b"").decode(errors="replace")
    return text.partition("\n\n")[2].partition("\n")[0] or None


# What differs between two generations


def _diff(front: Front, host_id: str, names: tuple[str, str], data: Sequence[str]) -> int:
    before, after = _paths(front, host_id, names, data)
    sizes = [_closure(front, host_id, path, data) for path in (before, after)]
    difference = closure_diff(*sizes)
    changes = [str(change) for change in difference.changes]
    document: dict[str, Any] = {"host": host_id, "from": before, "to": after, "changes": changes}
    document |= {"size_before": difference.before, "size_after": difference.after}
    sizes_shown = f"closure {human(difference.before)} → {human(difference.after)}"
    front.show(document, [f"{before} → {after}", *changes, sizes_shown])
    return int(Exit.DONE)


def _paths(front: Front, host_id: str, names: Sequence[str], data: Sequence[str]) -> list[str]:
    """The store paths that are meant. Usage for a generation or a run that there is not."""
    generations: dict[int, str] = {}
    if any(name.isdecimal() for name in names):
        kind = "nixos" if front.fleet.hosts[host_id].is_nixos else "home_manager"
        ended, told = ask_facts(front, [GENERATIONS[kind]], [host_id], data, ())
        listed: list[Generation] | None = next(iter(told.values()), {}).get(host_id)
        if listed is None:
            raise ended.failure
        generations = {each["number"]: each["path"] for each in listed}
    return [_path(front, host_id, name, generations) for name in names]


def _path(front: Front, host_id: str, name: str, generations: Mapping[int, str]) -> str:
    if name.isdecimal():
        path = generations.get(int(name))
        if path is None:
            raise Usage(f"{host_id}: generation {name} does not exist; there are {', '.join(map(str, generations))}")
        return path
    if name.startswith("run:") and name[4:].isdecimal():
        lines = found(hosts=[host_id], fleet=str(front.root), number=int(name[4:]))
        path = lines[0].after if lines else None
        if path is None:
            raise Usage(f"{host_id}: what it ran after run {name[4:]} is not on record; `nixherd history {host_id}`")
        return path
    if not is_store_path(name):
        raise Usage(f"{name} is neither a generation's number nor a store path nor run:NUMBER")
    return name


def _closure(front: Front, host_id: str, path: str, data: Sequence[str]) -> Mapping[str, int]:
    """The sizes of a closure's paths: here where it is here, else by the machine. FleetError where neither has it."""
    if Path(path).exists():
        return parse_listing(run(closure_sizes(path), timeout=LISTING_DEADLINE).stdout)
    answers = front.run.directory / "closures"
    answers.mkdir(exist_ok=True)
    words = [EXECUTE, f"line={json.dumps(closure_listing(path))}", "sudo=false", f"deadline={LISTING_DEADLINE}"]
    run_for(front, [*words, f"answers={json.dumps(str(answers))}"], [host_id], data, dry=False, asks=True, keep=False)
    try:
        sizes = parse_listing(json.loads((answers / f"{host_id}.json").read_text(encoding="utf-8"))["stdout"])
    except FileNotFoundError:
        raise FleetError(f"{host_id}: it was not seen what {path} has: the machine did not answer") from None
    if not sizes:
        raise FleetError(f"{host_id}: {path} is neither here nor there any more")
    return sizes
