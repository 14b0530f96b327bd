"""A run of operations for hosts, and a row for each: what became of it, by what the run's journal has seen."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nixherd.base.errors import Exit, worst
from nixherd.cli.front import Front
from nixherd.cli.run_pyinfra import Ended, own_error, run_deploys

# What machines tell is shown and not kept: it may be a secret.
_TOLD_ONCE = ("stdout", "stderr", "facts")


def run_for(front: Front, words: Sequence[str], hosts: Sequence[str], data: Sequence[str], **how: Any) -> Ended:
    """Run deploys or an operation for hosts and groups to the end; `how` as for `run_deploys`."""
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
    lines = [*lines, *ends(rows)]
    return ended.report(status, document, lambda document: front.show({**document, "hosts": rows}, lines), asks=asks)


def ends(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line per host that did not simply do it."""
    for row in rows:
        if row["outcome"] == "planned":
            yield from (f"{row['host']}: would {step}" for step in row["steps"])
        elif row["outcome"] != "done":
            why = (row["why"] or "").removeprefix(f"{row['host']}: ")
            yield ": ".join(filter(None, (row["host"], row["outcome"], why)))
