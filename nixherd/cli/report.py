"""`nixherd report`: what became of an earlier run, by its number."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import Usage
from nixherd.cli.colours import Line
from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import narrate, show_rows
from nixherd.cli.parameters import json_option
from nixherd.cli.provision import lines as provision_lines
from nixherd.cli.recording import REPORT
from nixherd.cli.summary import lines
from nixherd.deploy.history import HistoryLine, end_of_steps
from nixherd.deploy.history_index import found
from nixherd.deploy.numbers import last_number, number_of, runs
from nixherd.deploy.report import entries, is_under_way
from nixherd.deploy.report import report as of_journal

_PROVISIONS = ("provision", "post-provision")
_LISTED = ("number", "began", "command", "host_count", "exit", "result")


@click.command()
@click.argument("number", required=False, type=click.IntRange(1), metavar="[NUMBER]")
@click.option("--limit", type=click.IntRange(1, 1000), default=10, help="So many of the last runs.")
@json_option
@pass_front
def report(front: Front, number: int | None, limit: int) -> None:
    """Show what became of the run NUMBER; without it, list the last runs.

    Every run has a number, which its summary names: deploy, plan, reboot, provision, and pyinfra with our deploys; so
    have those that changed guests or the fleet's files. The last fifty are kept whole; of older ones there is what
    `nixherd history` has.
    """
    if number is None:
        show_rows([_row(run) for run in reversed(runs()[-limit:])], _LISTED, front.as_json, empty="no run so far")
        return
    run = next((run for run in runs() if number_of(run) == number), None)
    if run is None:
        lines_kept = found(number=number)
        if not lines_kept:
            raise Usage(_unknown(number))
        narrate([f"the journal of run {number} is gone; this is what the history has of it"])
        document = _of_history(number, lines_kept)
        front.show(document, _history_lines(document))
        return
    document = document_of(run)
    if document["under_way"]:
        narrate([f"run {number} is under way: this is how far it is"])
    front.show(document, _lines(run, document))


def _of_history(number: int, kept: Sequence[HistoryLine]) -> dict[str, Any]:
    """A run as its lines in the history tell it, which stay when its journal goes."""
    hosts = [each.to_json() for each in reversed(kept) if each.host is not None]
    first = kept[0]
    known = {"began": _local(first.began), "command": first.command, "fleet": first.fleet, "operator": first.operator}
    return {"report": number, **known, "under_way": False, "summary": _counted(hosts), "hosts": hosts}


def _history_lines(document: Mapping[str, Any]) -> Iterable[str | Line]:
    yield f"{document['began']}  {document['command']}, by {document['operator']}"
    for row in document["hosts"]:
        yield Line(f"{row['host']}  ", row["outcome"], f": {row['why']}" if row["why"] else "")
    yield document["summary"]


def _local(moment: str | None) -> str | None:
    """As runs are named by their time: in our own time zone."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else None


def _unknown(number: int) -> str:
    last = last_number()
    if number > last:
        return f"report {number} does not exist yet; {f'the newest is {last}' if last else 'no run has begun'}"
    kept = [each for run in runs() if (each := number_of(run)) is not None]
    return f"report {number} is not kept any more{f'; the oldest that is kept is {min(kept)}' if kept else ''}"


def document_of(run: Path) -> dict[str, Any]:
    """Return a run's report as it was shown; of one that was killed, or that pyinfra ran, what its journal tells."""
    known: dict[str, Any] = {"report": number_of(run), "began": _began(run), "under_way": is_under_way(run)}
    try:
        document = json.loads((run / REPORT).read_text())
    except (OSError, ValueError):
        document = None
    if isinstance(document, dict):
        return {**document, **known}
    noted = entries(run)
    command = next((entry["command"] for entry in noted if entry["event"] == "command"), None)
    made = of_journal(noted).to_json() | {"command": command, "interrupted": None, **known}
    if not _is_rollout(noted):
        names = ("outcome", "why", "exit")
        ends = {row["host"]: end_of_steps(row["host"], noted) for row in made["hosts"]}
        made["hosts"] = [{"host": host, **dict(zip(names, end, strict=True))} for host, end in ends.items()]
        made |= {"summary": _counted(made["hosts"]), "exit": None}
    elif known["under_way"]:
        ended_hosts = {entry["host"] for entry in noted if entry["event"] == "end"}
        for row in made["hosts"]:
            if row["host"] not in ended_hosts:
                row |= {"outcome": "under way", "why": row["stage"], "exit": None}
        made |= {"summary": _counted(made["hosts"]), "exit": None}
    return made


def _is_rollout(noted: Iterable[dict[str, Any]]) -> bool:
    return any(entry["event"] in ("begin", "stage") for entry in noted)


def _counted(hosts: Iterable[dict[str, Any]]) -> str:
    counts = Counter(row["outcome"] for row in hosts)
    return ", ".join(f"{number} {outcome}" for outcome, number in counts.items()) or "no host"


def _began(run: Path) -> str | None:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.strptime(run.name[:15], "%Y%m%dT%H%M%S"))
    except ValueError:
        return None


def _row(run: Path) -> dict[str, Any]:
    document = document_of(run)
    command = document.get("command") or ", ".join(Path(each).stem for each in document.get("deploys", ()))
    hosts = document.get("hosts", ())
    result = document.get("summary") or _counted(hosts)
    return {
        **{"number": document["report"], "began": document["began"], "command": command, "host_count": len(hosts)},
        **{"exit": document.get("exit"), "result": result, "under_way": document["under_way"]},
        "fleet": document.get("fleet"),
    }


def _lines(run: Path, document: dict[str, Any]) -> Iterable[str | Line]:
    command = document.get("command")
    yield f"{document['began']}  {command or ', '.join(document.get('deploys', ()))}"
    if command in _PROVISIONS:
        yield from provision_lines(document)
        return
    result = of_journal(entries(run))
    if document["under_way"] or not _is_rollout(entries(run)):
        for row in document["hosts"]:
            yield Line(f"{row['host']}  ", row["outcome"], f": {row['why']}" if row["why"] else "")
        yield document.get("summary") or _counted(document["hosts"])
        return
    yield from lines(result, dry=bool(document.get("dry")), number=document["report"])
