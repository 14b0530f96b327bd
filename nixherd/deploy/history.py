"""What every run did to every host, for ever: a line each, and what is asked of them.

`STATE/.history/lines.jsonl` is appended to and never rewritten. A run's lines are told from its journal alone, so that
they can be told again: a run that was killed is appended by whoever comes next, and no journal goes before its lines
are there. `recorded` in a run's directory says that they are.
"""

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nixherd.base.errors import Exit
from nixherd.base.files import state_home, sync, write_whole
from nixherd.base.terminal import line_of, say
from nixherd.deploy.numbers import deployments, number_of, runs
from nixherd.deploy.operators import operator
from nixherd.deploy.report import HostReport, Outcome, entries, is_under_way, report

FORM = 1
"""of a line: a part that changes its meaning makes another"""
RECORDED = "recorded"
BRIEF = "brief"
"""of a run whose lines say all there is to it: such ones take no place of others"""
_KEPT = 50  # journals
_TAIL = 1 << 18  # bytes at the end of the log in which the last runs are looked for
_NOT_SEEN = (None, Exit.UNKNOWN, Exit.INTERRUPTED)  # statuses
_UNCHANGED = (Outcome.UNCHANGED, Outcome.UNCHANGED_NOT_WELL, Outcome.PLANNED, Outcome.COPIED, Outcome.LISTED)
_NOTHING_DONE = (*_UNCHANGED, Outcome.HELD, Outcome.UNREACHABLE, Outcome.NEEDS_BOOT, Outcome.FAILED)


@dataclass(frozen=True)
class HistoryLine:
    """What one run did to one host; `host` is None for a run that was about none. What was not seen is None.

    `began` and `ended` are UTC as RFC 3339 has them. `before` and `after` are store paths, `after` read back from the
    machine, as `revision` is: what it runs then, or boots next. `changed` is None where nobody knows; `of` is how many
    lines the run has.
    """

    run: str
    host: str | None
    of: int
    number: int | None = None
    command: str | None = None
    operator: str | None = None
    fleet: str | None = None
    began: str | None = None
    ended: str | None = None
    seconds: float | None = None
    outcome: str = "unknown"
    exit: int | None = None
    why: str | None = None
    stage: str | None = None
    before: str | None = None
    after: str | None = None
    revision_before: str | None = None
    revision: str | None = None
    goal: str | None = None
    changed: bool | None = None

    @property
    def is_deployment(self) -> bool:
        """Whether it was about what runs on its host, and not about something else there."""
        return bool(self.after or self.stage)

    def to_json(self) -> dict[str, Any]:
        return {"form": FORM, **asdict(self)}


_FIELDS = {each.name for each in fields(HistoryLine)}


def parsed(text: str) -> Iterator[HistoryLine]:
    """The lines in a text, each run's once for a host, the last that was written; one that was cut off is none."""
    found: dict[tuple[str, str | None], HistoryLine] = {}
    for line in text.split("\n"):
        try:
            values = json.loads(line)
            made = HistoryLine(**{name: value for name, value in values.items() if name in _FIELDS})
            found[made.run, made.host] = made
        except (ValueError, TypeError, AttributeError):
            continue
    return iter(found.values())


# From a journal


def lines_of(run: str, number: int | None, noted: Sequence[Mapping[str, Any]]) -> list[HistoryLine]:
    """What a run did, by its journal; nothing of one that only planned or asked. Pure."""
    told = next((entry for entry in noted if entry["event"] == "command"), {})
    found = report(noted)
    settings = found.settings
    if not noted or settings.get("dry") or told.get("asks") or not (told or found.hosts):
        return []
    done = next((entry for entry in reversed(noted) if entry["event"] == "done"), None)
    times = [entry["time"] for entry in noted]
    common: dict[str, Any] = {
        "run": run,
        "number": number,
        "command": told.get("command") or ", ".join(settings.get("steps") or settings.get("deploys") or ()) or None,
        "operator": told.get("who") or _person(settings.get("who")),
        "fleet": told.get("fleet") or settings.get("fleet"),
        "began": _moment(min(times)),
        "ended": _moment(done["time"] if done else max(times)),
        "goal": settings.get("goal"),
        "of": max(1, len(found.hosts)),
    }
    if not found.hosts:
        status, why, changed = (done.get(each) if done else None for each in ("exit", "why", "changed"))
        good = "unchanged" if changed is False else "done"
        outcome = "unknown" if status in _NOT_SEEN else "failed" if status else good
        return [HistoryLine(host=None, **common, outcome=outcome, exit=status, why=why, changed=changed)]
    is_rollout = any(entry["event"] in ("begin", "stage") for entry in noted)
    if is_rollout:
        return [_of_rollout(host, common, noted) for host in found.hosts]
    return [_of_steps(host.host, common, noted) for host in found.hosts]


def _of_rollout(host: HostReport, common: Mapping[str, Any], noted: Sequence[Mapping[str, Any]]) -> HistoryLine:
    values = host.found
    changed = None if host.outcome is Outcome.UNKNOWN else host.outcome not in _NOTHING_DONE
    verified = values.get("verified") or {}
    return HistoryLine(
        host=host.host,
        **{**common, "ended": _last(host.host, noted) or common["ended"]},
        seconds=host.seconds,
        outcome=str(host.outcome),
        exit=int(host.exit),
        why=host.why,
        stage=host.stage,
        before=values.get("old"),
        after=_read_back(host, changed),
        revision_before=values.get("old_revision"),
        revision=values.get("noted") or verified.get("revision"),
        changed=changed,
    )


def _read_back(host: HostReport, changed: bool | None) -> str | None:
    """What the machine said that it runs then, or, where it was left to the next boot, that it boots."""
    values, verified = host.found, host.found.get("verified") or {}
    path: str | None = values.get("profile") if host.outcome is Outcome.PENDING_REBOOT else values.get("current")
    return path or verified.get("system") or (values.get("old") if changed is False else None)


def end_of_steps(host: str, noted: Sequence[Mapping[str, Any]]) -> tuple[str, str | None, int | None]:
    """Outcome, why and exit status of a host in a run of single steps, by its journal. Pure.

    What was made of them was said when it was done; how such a run ends for a host is noted where it fails.
    """
    ours = [entry for entry in noted if entry.get("host") == host]
    events = {entry["event"] for entry in ours}
    has_ended = any(entry["event"] == "done" for entry in noted)
    if end := _end(ours):
        return str(end["outcome"]), end.get("why"), end.get("exit")
    if has_ended and "made" in events:
        return "done", None, int(Exit.DONE)
    if has_ended and "nothing" in events:
        return "unchanged", None, int(Exit.DONE)
    return "unknown", "how it ended is not on record", None


def _end(ours: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((entry for entry in ours if entry["event"] == "end"), None)


def _of_steps(host: str, common: Mapping[str, Any], noted: Sequence[Mapping[str, Any]]) -> HistoryLine:
    ours = [entry for entry in noted if entry.get("host") == host]
    made = any(entry["event"] == "made" for entry in ours)
    verified: Mapping[str, Any] = next((entry["verified"] for entry in reversed(ours) if entry.get("verified")), {})
    outcome, why, status = end_of_steps(host, noted)
    unmade = (_end(ours) or {}).get("changed", None if outcome == "unknown" else False)
    return HistoryLine(
        host=host,
        **{**common, "ended": _last(host, noted) or common["ended"]},
        outcome=outcome,
        exit=status,
        why=why,
        after=verified.get("system"),
        revision=verified.get("revision"),
        changed=True if made else unmade,
    )


def person() -> str:
    """Whoever runs this: `USER@MACHINE`."""
    return _person(operator()) or "unknown"


def _last(host: str, noted: Iterable[Mapping[str, Any]]) -> str | None:
    times = [entry["time"] for entry in noted if entry.get("host") == host]
    return _moment(max(times)) if times else None


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _person(who: str | None) -> str | None:
    """Who it was, as machines are told, without the process."""
    return who.rpartition("-")[0] or who if who else None


# Runs


def new_directory() -> Path:
    """For a run that begins now; not made yet. The oldest of many are removed, once the log has them."""
    try:
        catch_up()
    except OSError as error:
        say(f"{line_of(error)}: what earlier runs did is not in the history yet; their journals stay", err=True)
    brief = {run: (run / BRIEF).exists() for run in runs()}
    for is_brief in (True, False):
        for old in [run for run in brief if brief[run] is is_brief][: -_KEPT + 1]:
            if is_recorded(old):
                shutil.rmtree(old, ignore_errors=True)
    name = f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    same = [run.name[len(name) + 1 :] for run in runs() if f"{run.name}-".startswith(f"{name}-")]
    begun = [int(each or 1) for each in same if not each or each.isdecimal()]
    # after the last one, and not where one was that is removed by now: the history has that
    return deployments() / (f"{name}-{max(begun) + 1}" if begun else name)


# The log


def place() -> Path:
    return state_home() / ".history" / "lines.jsonl"


def all_lines() -> list[HistoryLine]:
    """Every line, oldest first; of killed runs too, unless these cannot be written now."""
    with suppress(OSError):
        catch_up()
    try:
        return [*parsed(place().read_text(encoding="utf-8", errors="replace"))]
    except FileNotFoundError:
        return []


def changes_by_host(fleet: str) -> dict[str, list[HistoryLine]]:
    """Of the fleet in a directory, by host: the runs that could change what runs there, oldest first."""
    found: dict[str, list[HistoryLine]] = {}
    for line in all_lines():
        if line.host is not None and line.fleet == fleet and line.is_deployment:
            found.setdefault(line.host, []).append(line)
    return found


def is_recorded(run: Path) -> bool:
    return (run / RECORDED).exists()


def catch_up() -> None:
    """Append what is missing of all runs that are over. OSError where it cannot be written: the journals stay."""
    for run in runs():
        if not is_recorded(run) and not is_under_way(run):
            record(run)


def record(run: Path) -> None:
    """Append a run's lines, unless they are there, and note that they are. OSError where that cannot be written."""
    lines = lines_of(run.name, number_of(run), entries(run))
    if lines:
        _append(lines)
    write_whole(run / RECORDED, "")


def _append(lines: Sequence[HistoryLine]) -> None:
    """In one write, durable when this returns; nothing where they are there already."""
    path = place()
    is_new = not path.parent.exists()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        tail = os.pread(handle, _TAIL, max(0, size - _TAIL))
        there = {(each.run, each.host) for each in parsed(tail.decode(errors="replace"))}
        missing = [each for each in lines if (each.run, each.host) not in there]
        if not missing:
            return
        text = "".join(json.dumps(each.to_json()) + "\n" for each in missing).encode()
        if tail and not tail.endswith(b"\n"):  # of somebody who was killed in it
            text = b"\n" + text
        if os.write(handle, text) < len(text):
            with suppress(OSError):
                os.ftruncate(handle, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(handle)
        if size == 0 or is_new:
            sync(path.parent)
    finally:
        os.close(handle)
