"""What a deployment notes while it goes on, a JSON line each: whoever dies, the rest can be told from it.

An entry is `{"time": seconds since 1970, "event": …, "host": id or null, …}`. Events: `run` (what was asked for, and
of which hosts), `begin` (a host begins in a rollout of the run), `stage` (a host has come to one), `found` (what is
known of a host now, any fields), `said` (narration), `warning` (`text` and `hosts` of one of an evaluation), `step`
(one that is planned or begun: `text`, `planned`), `end` (a host's outcome and why) and `done` (the whole run's). All
but narration and steps is on the disk before it is acted on: what was found with the stage that it leads to, since a
disk can take long and every host waits. The journals of the last deployments are kept, a directory each.
"""

import errno
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

from nixherd.base.errors import FleetError
from nixherd.base.faults import line_of
from nixherd.base.files import state_home, sync
from nixherd.base.terminal import say

NAME = "journal.jsonl"
_KEPT = 50
_BEGIN = ("run", "stage")
# After the name of a run: its second rollout, say, and what goes on by a boot.
_ROLLOUT = re.compile(r"(\.\d+)?(-boot)?$")


def new_directory() -> Path:
    """For a deployment that begins now; not made yet. The oldest of many are removed."""
    for old in runs()[: -_KEPT + 1]:
        shutil.rmtree(old, ignore_errors=True)
    name = f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    candidates = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(path for each in candidates if not (path := _deployments() / each).exists())


def runs() -> list[Path]:
    """The directories of the deployments that are kept, oldest first."""
    return sorted(_deployments().glob("*"))


def is_of(rollout: str, fleet: str) -> bool:
    """Whether a rollout of this fleet with this id, or one that went on by a boot, was begun from here."""
    run = _ROLLOUT.sub("", rollout)
    return run in {path.name for path in runs()} and any(
        entry.get("fleet") == fleet for entry in entries(_deployments() / run) if entry["event"] == "run"
    )


def _deployments() -> Path:
    return state_home() / ".deployments"


class Journal:
    """One run's, in `directory`, which is made; several threads may write. FleetError where it cannot be."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._ended: set[str | None] = set()
        self._torn = self._lost = False
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = os.open(directory / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            sync(directory)
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
                if event not in ("begin", "found", "said", "warning", "step"):
                    os.fdatasync(self._handle)
            except OSError as error:
                error.filename = str(self.directory / NAME)
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


def entries(directory: Path) -> list[dict[str, Any]]:
    """All of a run's entries; a last line that a power failure has cut off is none. Empty without a journal."""
    try:
        text = (directory / NAME).read_text(errors="replace")
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
