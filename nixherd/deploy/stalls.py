"""Whether a program that copies still gets on: bytes that it moves, words that it says, locks that it waits for.

A clock alone would end a large copy over a slow line. What counts are bytes that the program reads or writes
(/proc/PID/io), lines on its stderr, and where it waits for what the machine does by itself (which fetches from its own
caches without a word), what Nix's processes do there.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

from nixherd.errors import DeadlineExceeded

PATIENCE = 120.0  # seconds without any progress
NOISE = 16_384  # bytes that mean nothing: ssh sends and gets some to keep a connection alive, some 3,000 in PATIENCE
_EVERY = 1.0  # seconds between two looks at the program,
_EVERY_THERE = 20.0  # and at the machine
# Nix says so once and then waits for as long as it takes; whoever holds the lock has a deadline, or is Nix itself.
_LOCK = re.compile(r"waiting for (.*\block\b|exclusive access to|.* to finish)")

LOOK_THERE = (
    "for p in /proc/[0-9]*; do read -r c <$p/comm && case $c in nix*) cat $p/stat $p/io;; esac; done 2>/dev/null; true"
)
"""Prints what changes while a process of Nix does anything on a machine"""


class Stalled(DeadlineExceeded):
    """It was ended because it did not get on."""


class Watch:
    """Raises Stalled, naming `what`, once a program has made no progress for `patience` seconds.

    `there` looks at the machine: what it returns is another text when something has happened there, and None when
    nobody knows.
    """

    def __init__(
        self, what: str, *, patience: float = PATIENCE, there: Callable[[], str | None] = lambda: None
    ) -> None:
        self.what, self.patience, self.there = what, patience, there
        self.last = ""
        self._locked = False
        self._pid, self._moved = 0, 0
        self._last_look: int | None = None  # how much had moved then; None where something has happened since
        self._seen: str | None = None
        self._since = self._looked = self._looked_there = time.monotonic()

    def heard(self, line: str) -> None:
        """A line that it said."""
        self.last = line.strip() or self.last
        self._locked, self._last_look = bool(_LOCK.search(line)), None
        self._gets_on()

    def __call__(self, pid: int) -> None:
        """Look at the program."""
        now = time.monotonic()
        if now - self._looked < min(_EVERY, self.patience / 4):
            return
        self._looked = now
        if pid != self._pid:  # it was begun anew
            self._pid, self._last_look = pid, None
            self._gets_on()
        moved = bytes_moved(pid)
        if moved is None:  # a system that does not count, or the program has ended
            return
        if not self._moved <= moved <= self._moved + NOISE:  # less: one of its children has ended
            self._moved = moved
            self._gets_on()
        burst = self._last_look is not None and moved > self._last_look + NOISE
        self._last_look = moved
        if self._locked and not burst:
            self._gets_on()
        else:
            self._locked = False
        if now - self._since > self.patience / 4:
            self._look_there(now)

    def _gets_on(self) -> None:
        self._since = time.monotonic()
        self._seen = None

    def _look_there(self, now: float) -> None:
        if now - self._looked_there >= min(_EVERY_THERE, self.patience / 4):
            seen = self.there()
            self._looked_there = time.monotonic()
            if seen is not None and self._seen is not None and seen != self._seen:
                self._gets_on()
            self._seen = seen
        if time.monotonic() - self._since > self.patience:
            last = f"; it said last: {self.last}" if self.last else ""
            raise Stalled(f"{self.what}: no progress for {self.patience:g} s, so it was ended; run it again{last}")


def bytes_moved(pid: int) -> int | None:
    """How many bytes a program and its children have read and written so far, from or to whatever; None where the
    kernel does not say."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().split("\n")
    except OSError:
        return None
    counts = dict(line.split(": ", 1) for line in lines if ": " in line)
    own = int(counts.get("rchar", 0)) + int(counts.get("wchar", 0))
    return own + sum(bytes_moved(child) or 0 for child in _children(pid))


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
