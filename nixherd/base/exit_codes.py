"""With which status a command ends. One table for every command that we have, `pyinfra` with our inventory included."""

from collections.abc import Iterable
from enum import IntEnum

from nixherd.base.errors import EndUnknown, FleetError, FleetInvalid, NotBegun, NotWell, Refused, Unforeseen, Usage


class Exit(IntEnum):
    """The statuses, and what each means."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    REMOTE = 4
    UNKNOWN = 5
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Exit.DONE: "done, or nothing to do",
    Exit.FAILED: "some host failed, or differs from its definition",
    Exit.USAGE: "wrong usage or wrong input",
    Exit.REFUSED: "refused by the guard or for want of a signature, nothing was sent",
    Exit.REMOTE: "remote, evaluation or build failure, nothing was changed",
    Exit.UNKNOWN: "still running, or its outcome is not known",
    Exit.INTERRUPTED: "interrupted (Ctrl-C)",
}


def exit_of(error: BaseException, *, changed: bool) -> Exit:
    """The status for an error; `changed`: something had been changed before it."""
    match error:
        case KeyboardInterrupt():
            return Exit.INTERRUPTED
        case EndUnknown():
            return Exit.UNKNOWN
        case NotBegun():
            return Exit.REMOTE
        case NotWell() | Unforeseen():  # of the latter nobody knows what it left behind
            return Exit.FAILED
        case Refused() if not changed:
            return Exit.REFUSED
        case Usage() | FleetInvalid() if not changed:
            return Exit.USAGE
        case FleetError() | OSError() if not changed:
            return Exit.REMOTE
    return Exit.FAILED


def worst(exits: Iterable[Exit]) -> Exit:
    """The status of a command over several hosts: their common one; when they differ FAILED, or UNKNOWN if any is."""
    found = set(exits)
    if Exit.UNKNOWN in found:
        return Exit.UNKNOWN
    failures = found - {Exit.DONE}
    if not failures:
        return Exit.DONE
    return failures.pop() if len(found) == 1 else Exit.FAILED
