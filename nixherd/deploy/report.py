"""What a deployment notes while it goes on, and what became of it, host by host, told from these notes alone."""

import errno
import fcntl
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from nixherd.base.becoming_root import Become
from nixherd.base.errors import Exit, FleetError, worst
from nixherd.base.files import sync
from nixherd.base.terminal import line_of, say
from nixherd.deploy.numbers import deployments, give_number, runs
from nixherd.nix.log import shown

JOURNAL = "journal.jsonl"
_BEGIN = ("run", "stage")
# After the name of a run: its second rollout, say, and what goes on by a boot.
_ROLLOUT = re.compile(r"(\.\d+)?(-boot)?$")


# Stages after which a host of which nothing more was noted may run one system or the other.
UNDECIDED = ("activate", "prove", "keep", "roll back", "reboot")
# Noted of a host, whatever rollout it is in then; all else was seen in one rollout and says nothing of another.
_OF_THE_HOST = ("login_shell", "verified")


def is_of(rollout: str, fleet: str) -> bool:
    """Whether a rollout of this fleet with this id, or one that went on by a boot, was begun from here."""
    run = _ROLLOUT.sub("", rollout)
    return run in {path.name for path in runs()} and any(
        entry.get("fleet") == fleet for entry in entries(deployments() / run) if entry["event"] == "run"
    )


class Journal:
    """One run's, in `directory`, which is made; several threads may write. FleetError where it cannot be."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._ended: set[str | None] = set()
        self._torn = self._lost = False
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = os.open(directory / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            fcntl.flock(self._handle, fcntl.LOCK_SH)  # until we close it, or are dead: it is under way
            sync(directory)
            give_number(directory)
            os.write(self._handle, b"\n")  # there is room; and a line that another one could not end is ended
        except OSError as error:
            raise FleetError(
                f"{line_of(error)}: the run's journal cannot be written there, so nothing was begun; make room or let "
                "it be written, or name another place in XDG_STATE_HOME"
            ) from error

    def note(self, event: str, host: str | None = None, **values: Any) -> None:
        """Append an entry; durable once this returns; what is neither a stage nor an end, with the next one that is.

        A host's first end is its only one, until it begins in another rollout of the run. OSError when what is to be
        begun cannot be noted, which is then not to be begun; what is over is over, so of that, and of what was found or
        said, only the journal knows less.
        """
        entry = {"time": round(time.time(), 3), "event": event, "host": host, **values}
        line = json.dumps(entry, default=str) + "\n"  # in ASCII: no word in it ends the line, and any can be written
        with self._lock:
            if event == "end" and host in self._ended:
                return
            self._ended |= {host} if event == "end" else set()
            self._ended -= {host} if event == "begin" else set()
            try:
                self._append(line.encode())
                if event not in ("begin", "found", "said", "progress", "warning", "step", "nothing", "made"):
                    os.fdatasync(self._handle)
            except OSError as error:
                error.filename = str(self.directory / JOURNAL)
                self._tell_lost(error)
                if event in _BEGIN:
                    raise

    def _append(self, line: bytes) -> None:
        whole = b"\n" + line if self._torn else line
        self._torn = os.write(self._handle, whole) < len(whole)  # one write: lines of two processes do not mix
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _tell_lost(self, error: OSError) -> None:
        """Say once that entries are lost."""
        if not self._lost:
            say(f"{line_of(error)}: it cannot be written, so nothing new is begun", err=True)
        self._lost = True

    def close(self) -> None:
        os.close(self._handle)


def is_under_way(directory: Path) -> bool:
    """Whether somebody still writes a run's journal."""
    try:
        handle = os.open(directory / JOURNAL, os.O_RDONLY)
    except OSError:
        return False
    try:
        for _ in range(3):  # another look holds it for a moment
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
            time.sleep(0.01)
        return True
    finally:
        os.close(handle)


def entries(directory: Path) -> list[dict[str, Any]]:
    """All of a run's entries; a last line that a power failure has cut off is none. Empty without a journal."""
    try:
        text = (directory / JOURNAL).read_text(errors="replace")
    except FileNotFoundError:
        return []
    return list(parsed(text))


def parsed(text: str) -> Iterator[dict[str, Any]]:
    """The entries in a text; a line that was cut off is none."""
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "event" in entry:
            yield entry


class Outcome(StrEnum):
    """What became of one host, and with which status a run ends that has no worse host."""

    exit: Exit

    def __new__(cls, word: str, exit: Exit = Exit.DONE) -> "Outcome":
        outcome = str.__new__(cls, word)
        outcome._value_, outcome.exit = word, exit
        return outcome

    UNCHANGED = "unchanged", Exit.DONE
    UNCHANGED_NOT_WELL = "unchanged, not well", Exit.FAILED
    REVISION_ONLY = "revision only", Exit.DONE
    PLANNED = "planned", Exit.DONE
    COPIED = "copied", Exit.DONE
    DEPLOYED = "deployed", Exit.DONE
    DEPLOYED_NOT_WELL = "deployed, not well", Exit.FAILED
    PENDING_REBOOT = "pending reboot", Exit.DONE
    NEEDS_BOOT = "needs a boot", Exit.REMOTE
    REBOOTED = "rebooted", Exit.DONE
    LISTED = "left to its owner", Exit.DONE
    ROLLED_BACK = "rolled back", Exit.FAILED
    FAILED = "failed", Exit.REMOTE
    UNREACHABLE = "unreachable", Exit.REMOTE
    HELD = "held", Exit.FAILED
    UNKNOWN = "unknown", Exit.UNKNOWN


@dataclass(frozen=True)
class HostReport:
    """One host. `stage` is the last that it came to; `found` all that was noted of it: old, new, diff, log, …"""

    host: str
    outcome: Outcome
    stage: str | None = None
    why: str | None = None
    seconds: float | None = None
    exit: Exit = Exit.DONE
    found: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        why = (self.why or "").removeprefix(f"{self.host}: ")
        return f"{self.host}: {self.outcome}{f': {why}' if why else ''}"


@dataclass(frozen=True)
class Report:
    """A whole run. `settings` are those of the run, and what it says at its end."""

    settings: Mapping[str, Any]
    hosts: tuple[HostReport, ...]
    why: str | None = None

    @property
    def exit(self) -> Exit:
        """The run's own failure, where it has one before any host is known; else the hosts' common status."""
        if not self.hosts:
            return Exit(self.settings.get("exit", Exit.FAILED))
        return worst(each.exit for each in self.hosts)

    @property
    def summary(self) -> str:
        """`3 deployed, 1 rolled back`."""
        counts = Counter(each.outcome for each in self.hosts)
        return ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome]) or "no host"

    def to_json(self) -> dict[str, Any]:
        """The one document."""
        rows = [{**asdict(each), "exit": int(each.exit), "outcome": str(each.outcome)} for each in self.hosts]
        for row in rows:
            row |= row.pop("found")
        return {**self.settings, "summary": self.summary, "exit": int(self.exit), "why": self.why, "hosts": rows}


def report(entries: Iterable[Mapping[str, Any]]) -> Report:
    """From the journal of a run that is over, however it ended."""
    settings: dict[str, Any] = {}
    hosts: dict[str, dict[str, Any]] = {}
    hosts_of: dict[str, set[str]] = {}
    why = None
    for entry in entries:
        rest = {key: value for key, value in entry.items() if key not in ("event", "host", "time")}
        host = entry.get("host")
        match entry["event"]:
            case "run":
                settings |= rest
                for each in rest.get("hosts", ()):
                    hosts.setdefault(each, {})
            case "begin" if host:
                hosts[host] = _anew(hosts.get(host, {}))
            case "stage" if host:
                hosts.setdefault(host, {}).update(rest, since=entry["time"])
                hosts[host].setdefault("began", entry["time"])
            case "found" if host:
                hosts.setdefault(host, {}).setdefault("found", {}).update(rest)
            case "end" if host and "outcome" not in hosts.setdefault(host, {}):  # the first of a rollout counts
                hosts[host].update(rest, ended=entry["time"])
                _keep_more(hosts[host])
            case "warning":
                hosts_of.setdefault(rest["text"], set()).update(rest["hosts"])
            case "done":
                settings |= rest
                why = rest.get("why")
    settings.pop("hosts", None)
    if hosts_of:
        shown_warnings = [shown(text, sorted(ids)) for text, ids in hosts_of.items()]
        settings["warnings"] = [*settings.get("warnings", ()), *shown_warnings]
    return Report(settings, tuple(_host(name, values) for name, values in hosts.items()), why)


def _anew(values: dict[str, Any]) -> dict[str, Any]:
    """Begin another rollout of the run for a host; `before` is how the last one ended, and what was found in it."""
    ended = {name: values[name] for name in ("outcome", "why", "exit", "stage", "found") if name in values}
    before = ended if "outcome" in ended else values.get("before")
    kept = {"began": values["began"]} if "began" in values else {}
    return {**kept, "found": _of_the_host(values), "before": before}


def _of_the_host(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.get("found", {}).items() if name in _OF_THE_HOST}


def _keep_more(values: dict[str, Any]) -> None:
    """Let a rollout that found nothing to do not hide what the one before it did to the host."""
    before = values.get("before") or {}
    nothing = (Outcome.UNCHANGED, Outcome.LISTED)
    if values["outcome"] in nothing and before.get("outcome", Outcome.PLANNED) not in (*nothing, Outcome.PLANNED):
        values.update(before, found={**before.get("found", {}), **_of_the_host(values)})


def how_to_ask(host: str, become: Become = Become.SUDO) -> str:
    """The command that says what a machine has decided."""
    return f"`nixherd fact {host} --fact facts.nixos.LastDeployment --data _{become}=True`"


def _host(name: str, values: Mapping[str, Any]) -> HostReport:
    stage, found = values.get("stage"), values.get("found", {})
    if "outcome" in values:
        outcome, why = Outcome(values["outcome"]), values.get("why")
    elif stage in UNDECIDED:
        outcome = Outcome.UNKNOWN
        decides = "the machine decides by itself" if "engine" not in found else "nixos-rebuild never goes back"
        why = f"the run ended while it was at {stage}; {decides}, see {how_to_ask(name)}"
    else:
        outcome, why = Outcome.FAILED, f"the run ended before it was deployed to{f' (at {stage})' if stage else ''}"
    began, ended = values.get("began"), values.get("ended")
    seconds = round(ended - began, 1) if began and ended else None
    return HostReport(name, outcome, stage, why, seconds, Exit(values.get("exit", outcome.exit)), found)
