"""With which status a command ends. One table for every command that we have, `pyinfra` with our inventory included."""

from collections.abc import Iterable
from enum import IntEnum

from nixherd.base.errors import EndUnknown, FleetError, FleetInvalid, NotBegun, NotWell, Refused, Unforeseen, Usage


class Exit(IntEnum):
    """The statuses, and what each means."""

    meaning: str

    def __new__(cls, status: int, meaning: str = "") -> "Exit":
        member = int.__new__(cls, status)
        member._value_, member.meaning = status, meaning
        return member

    DONE = 0, "done, or nothing to do"
    FAILED = 1, "some host failed, or differs from its definition"
    USAGE = 2, "wrong usage or wrong input"
    REFUSED = 3, "refused by the guard or for want of a signature, nothing was sent"
    REMOTE = 4, "remote, evaluation or build failure, nothing was changed"
    UNKNOWN = 5, "still running, or its outcome is not known"
    INTERRUPTED = 130, "interrupted (Ctrl-C)"


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
