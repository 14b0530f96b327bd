"""What came to a machine and when: by the runs from here, and by the machine's own notes of everybody's. Pure.

What a run from here proved is never overruled by what a machine says: anybody who is root there can write it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nixherd.deploy.history import HistoryLine
from nixherd.deploy.report import Outcome
from nixherd.fleet.revisions import Note

PROVED, TOLD = "proved", "told"
# After the name of a run: its second rollout, say, and what goes on by a boot.
_ROLLOUT = re.compile(r"(\.\d+)?(-boot)?$")
_AHEAD = timedelta(minutes=5)  # by which clocks may differ


@dataclass(frozen=True)
class Event:
    """One deployment. `source`: proved (a run from here) or told (by the machine); `when` is UTC as RFC 3339 has it,
    None where the machine says a time that is yet to come."""

    source: str
    when: str | None
    who: str | None
    run: str
    path: str | None
    revision: str | None
    number: int | None = None
    outcome: str | None = None
    command: str | None = None


def timeline(lines: Sequence[HistoryLine], notes: Sequence[Note], now: datetime) -> list[Event]:
    """All that is known of one host, oldest first; a deployment of ours once, as it was proved."""
    ours = {line.run for line in lines}
    events = [_proved(line) for line in lines if line.changed is not False]
    events += [_told(note, now) for note in notes if _run_of(note) not in ours]
    return sorted(events, key=lambda event: event.when or "")


def last(lines: Sequence[HistoryLine], notes: Sequence[Note], current: str | None, now: datetime) -> Event | None:
    """The deployment that brought what runs now, as far as that is known; else the last one from here."""
    changes = [line for line in reversed(lines) if line.changed is not False]
    proved = [line for line in changes if line.outcome != Outcome.REBOOTED] or changes  # a boot brings it not
    brought = next((line for line in proved if current is not None and line.after == current), None)
    note = next((note for note in reversed(notes) if note.path == current), None)
    if brought is None and note is not None:
        return _told(note, now)
    line = brought or next(iter(proved), None)
    return _proved(line) if line else None


def contradictions(lines: Sequence[HistoryLine], notes: Sequence[Note], now: datetime) -> Iterator[str]:
    """What a machine says otherwise than a run from here has proved, and times that are yet to come; a line each."""
    for line in lines:
        noted = [note for note in notes if _run_of(note) == line.run]
        paths = {note.path for note in noted}
        if line.changed and line.after and paths and line.after not in paths:
            yield f"{_called(line)} proved {line.after}, and the machine notes {noted[-1].path} of it"
        revisions = {note.revision for note in noted if note.path == line.after}
        if line.changed and line.revision and revisions and line.revision not in revisions:
            yield f"{_called(line)} proved {line.revision}, and the machine notes {noted[-1].revision} of it"
    for note in notes:
        if (moment := _moment(note)) and moment > now + _AHEAD:
            yield f"the machine notes a deployment at {note.when}, which is yet to come"


def _proved(line: HistoryLine) -> Event:
    when, who = line.ended or line.began, line.operator
    parts = (line.run, line.after, line.revision, line.number, line.outcome, line.command)
    return Event(PROVED, when, who, *parts)


def _told(note: Note, now: datetime) -> Event:
    moment = _moment(note)
    when = note.when if moment and moment <= now + _AHEAD else None
    return Event(TOLD, when, note.who.rpartition("-")[0] or note.who, note.run, note.path, note.revision)


def _run_of(note: Note) -> str:
    return _ROLLOUT.sub("", note.run)


def _moment(note: Note) -> datetime | None:
    try:
        return datetime.strptime(note.when, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _called(line: HistoryLine) -> str:
    return f"run {line.number}" if line.number else f"run {line.run}"
