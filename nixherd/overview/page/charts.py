"""Pictures as values, which templates draw: where each piece stands, and what it is. Pure; no colour and no markup.

`History` is a host's lines (`nixherd.deploy.history`, as JSON), oldest first.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

History = Sequence[Mapping[str, Any]]
COLOURS = 8
"""so many colours tell revisions apart; the commonest have one each, all others share another, 0"""
_WIDEST = 400  # segments of a strip


@dataclass(frozen=True)
class Segment:
    """A revision that ran from one moment to another. `x` and `width` in thousandths of the strip; `colour` 0 to 8."""

    x: int
    width: int
    colour: int
    revision: str | None
    since: str


@dataclass(frozen=True)
class Span:
    """The time that strips show."""

    begin: datetime
    end: datetime

    def at(self, moment: datetime) -> int:
        """Where a moment stands, in thousandths."""
        whole = (self.end - self.begin).total_seconds() or 1.0
        return round(1000 * min(1.0, max(0.0, (moment - self.begin).total_seconds() / whole)))


def span_of(histories: Iterable[History], end: datetime) -> Span | None:
    """From the first deployment on record until now; None where there is none."""
    moments = [moment for history in histories for line in history if (moment := _moment(line))]
    earlier = [moment for moment in moments if moment < end]
    return Span(min(earlier), end) if earlier else None


def palette(histories: Iterable[History]) -> dict[str, int]:
    """A colour for each of the revisions that ran on most hosts."""
    counts = Counter(line["revision"] for history in histories for line in history if line.get("revision"))
    ordered = sorted(counts, key=lambda revision: (-counts[revision], revision))
    return {revision: number for number, revision in enumerate(ordered[:COLOURS], 1)}


def strip(history: History, span: Span, colours: Mapping[str, int]) -> list[Segment]:
    """Which revision ran when, as far as runs from here or the machine's notes tell."""
    changes = [(moment, line) for line in history if (moment := _moment(line)) and line.get("after")]
    changes = sorted(changes, key=lambda change: change[0])[-_WIDEST:]
    segments = list[Segment]()
    for number, (moment, line) in enumerate(changes):
        until = changes[number + 1][0] if number + 1 < len(changes) else span.end
        x, revision = span.at(moment), line.get("revision")
        width = max(span.at(until) - x, 2)
        segments.append(Segment(x, width, colours.get(revision or "", 0), revision, str(line["began"])))
    return segments


@dataclass(frozen=True)
class Dot:
    """One deployment: when, in thousandths of the width, and how long, in thousandths of the height."""

    x: int
    y: int
    seconds: float
    host: str
    when: str
    is_well: bool


def durations(histories: Mapping[str, History], span: Span, most: int = 500) -> tuple[list[Dot], float]:
    """The last deployments by their seconds, and the longest of them, which the height is."""
    lines = [
        (moment, host, line)
        for host, history in histories.items()
        for line in history
        if (moment := _moment(line)) and line.get("seconds") is not None and line.get("changed")
    ]
    lines = sorted(lines, key=lambda each: each[0])[-most:]
    longest = max((float(line["seconds"]) for _, _, line in lines), default=0.0)
    dots = [
        Dot(
            span.at(moment),
            round(1000 * float(line["seconds"]) / longest) if longest else 0,
            float(line["seconds"]),
            host,
            str(line["began"]),
            not line.get("exit"),
        )
        for moment, host, line in lines
    ]
    return dots, longest


@dataclass(frozen=True)
class Heat:
    """Hosts by kinds of differences: the kinds that there are, and for each host which of them it has."""

    kinds: tuple[str, ...]
    rows: tuple[tuple[str, tuple[bool, ...]], ...]
    more: int


def heat(document: Mapping[str, Any], most: int = 100) -> Heat:
    """Who differs in what, the most different first."""
    found = {host["host"]: {each["kind"] for each in host["differences"]} for host in document["hosts"]}
    kinds = tuple(sorted({kind for each in found.values() for kind in each}))
    differing = sorted((host for host, each in found.items() if each), key=lambda host: (-len(found[host]), host))
    rows = tuple((host, tuple(kind in found[host] for kind in kinds)) for host in differing[:most])
    return Heat(kinds, rows, max(0, len(differing) - most))


@dataclass(frozen=True)
class Week:
    """What was done in one week: deployments, reboots, and runs that did not end well."""

    begins: str
    deployments: int
    reboots: int
    failures: int


def weeks(histories: Iterable[History], most: int = 26) -> list[Week]:
    """By calendar weeks, the last of them, oldest first."""
    counts: dict[str, Counter[str]] = {}
    for line in (line for history in histories for line in history):
        moment = _moment(line)
        if moment is None:
            continue
        year, week, _ = moment.isocalendar()
        begins = datetime.fromisocalendar(year, week, 1).strftime("%Y-%m-%d")
        count = counts.setdefault(begins, Counter())
        count["reboots"] += line.get("outcome") == "rebooted"
        count["deployments"] += bool(line.get("changed")) and line.get("outcome") != "rebooted"
        count["failures"] += bool(line.get("exit"))
    return [
        Week(begins, *(counts[begins][name] for name in ("deployments", "reboots", "failures")))
        for begins in sorted(counts)[-most:]
    ]


def _moment(line: Mapping[str, Any]) -> datetime | None:
    """When a line began; None where that is not known."""
    try:
        return datetime.fromisoformat(str(line["began"]))
    except (KeyError, ValueError):
        return None
