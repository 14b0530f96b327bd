"""Runs by number: each gets the next one when it begins, and keeps it; two that begin at once get two."""

import os
from collections.abc import Iterator
from pathlib import Path

from nixherd.base.files import lock, state_home, write_whole

_NUMBER = "number"
_SECOND = 15  # characters of a run's name that say when it began


def deployments() -> Path:
    """Where each run has a directory."""
    return state_home() / ".deployments"


def runs() -> list[Path]:
    """The directories of the runs that are kept, oldest first."""
    return sorted(deployments().glob("*"), key=lambda run: (run.name[:_SECOND], number_of(run) or 0, run.name))


def number_of(run: Path) -> int | None:
    """Return a run's number; None where it has none (one of an older nixherd), or it cannot be read."""
    try:
        return int((run / _NUMBER).read_text())
    except (OSError, ValueError):
        return None


def give_number(run: Path) -> None:
    """Give a run its number, unless it has one. OSError where it cannot be written.

    The last one given is counted beside the runs, so that none comes twice when the oldest runs are removed.
    """
    if run.parent != deployments() or number_of(run) is not None:
        return
    counter = state_home() / ".numbers"
    held = lock(counter / "lock", wait=True)
    try:
        number = max((_last(counter / "last"), *_kept()), default=0) + 1
        write_whole(counter / "last", f"{number}\n")
        write_whole(run / _NUMBER, f"{number}\n")
    finally:
        os.close(held)


def last_number() -> int:
    """Return the number that was given last; 0 where none was."""
    return max((_last(state_home() / ".numbers" / "last"), *_kept()), default=0)


def _last(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _kept() -> Iterator[int]:
    return (number for run in runs() if (number := number_of(run)) is not None)
