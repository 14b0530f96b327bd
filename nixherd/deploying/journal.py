"""What a deployment notes while it goes on, a JSON line each: whoever dies, the rest can be told from it.

An entry is `{"time": seconds since 1970, "event": …, "host": id or null, …}`. Events: `run` (what was asked for, and
of which hosts), `stage` (a host has come to one), `found` (what is known of a host now, any fields), `said`
(narration), `end` (a host's outcome and why) and `done` (the whole run's). All but narration is on the disk before it
is acted on: what was found with the stage that it leads to, since a disk can take long and every host waits. The
journals of the last deployments are kept, a directory each.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path
from typing import Any

from nixherd.files import state_home, sync

NAME = "journal.jsonl"
_KEPT = 50


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


def is_of(run: str, fleet: str) -> bool:
    """Whether a deployment of this fleet with this id was begun from here."""
    return run in {path.name for path in runs()} and any(
        entry.get("fleet") == fleet for entry in entries(_deployments() / run) if entry["event"] == "run"
    )


def _deployments() -> Path:
    return state_home() / ".deployments"


class Journal:
    """One run's, in `directory`, which is made; several threads may write."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self._handle = os.open(directory / NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._ended: set[str | None] = set()
        sync(directory)

    def note(self, event: str, host: str | None = None, **about: Any) -> None:
        """Append an entry; durable once this returns, what was found or said with the next one that is neither.

        A host's first end is its only one.
        """
        entry = {"time": round(time.time(), 3), "event": event, "host": host, **about}
        line = json.dumps(entry, default=str) + "\n"  # in ASCII: no word in it ends the line, and any can be written
        with self._lock:
            if event == "end" and host in self._ended:
                return
            self._ended |= {host} if event == "end" else set()
            os.write(self._handle, line.encode())  # one write: lines of two processes do not mix
            if event not in ("found", "said"):
                os.fdatasync(self._handle)

    def close(self) -> None:
        os.close(self._handle)


def entries(directory: Path) -> list[dict[str, Any]]:
    """All of a run's entries; a last line that a power failure has cut off is none. Empty where there is no journal."""
    try:
        text = (directory / NAME).read_text(errors="replace")
    except FileNotFoundError:
        return []
    return list(_parsed(text))


def _parsed(text: str) -> Iterator[dict[str, Any]]:
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "event" in entry:
            yield entry
