"""What nobody foresaw: a line for whoever runs us, and all of it in a file for whoever mends it."""

import os
import time
import traceback
from contextlib import suppress
from pathlib import Path

from nixherd.base.display import visible
from nixherd.base.errors import UNFORESEEN, FleetError, Unforeseen, Usage
from nixherd.base.files import state_home

_LOG = "faults.log"
_ENOUGH = 1 << 20  # bytes; then the file begins anew
_HOMELESS = "Could not determine home directory."  # pathlib's word for ~nobody, and for a user without one
_SHOWN = 300  # characters of an exception's own text


def worded(error: BaseException, what: str) -> FleetError:
    """The error in words for the operator; `what` says what was being done, and for whom.

    One that is meant for people is that already. Any other is a fault of ours, and is kept in full.
    """
    if isinstance(error, FleetError):
        return error
    if isinstance(error, OSError):
        return FleetError(line_of(error))
    if isinstance(error, RuntimeError) and str(error) == _HOMELESS:
        return Usage(f"{what}: the home directory does not exist; write the path out, or set HOME")
    shown = f"{type(error).__name__}: {' '.join(str(error).split())[:_SHOWN]}".removesuffix(": ")
    fault = Unforeseen(f"{what}: {shown}; this is a mistake in nixherd, not yours: {_kept(error, what)}")
    fault.__cause__ = error
    return fault


def foreseen(error: BaseException, what: str) -> None:
    """Return where the error is one that the world may cause; raise it in words where it is a fault of ours."""
    if isinstance(error, (Unforeseen, *UNFORESEEN)):
        raise worded(error, what) from error


def line_of(error: OSError) -> str:
    """What the system shown, and of which file."""
    if error.strerror is None:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror


def _kept(error: BaseException, what: str) -> str:
    """Write all of it down; where, and what to do with it."""
    lines = visible("".join(traceback.format_exception(error)))
    text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} pid {os.getpid()}: {visible(what)}\n{lines}\n"
    try:
        path = state_home() / _LOG
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _append(path, text)
    except (OSError, RuntimeError) as refused:  # RuntimeError: without a home
        why = line_of(refused) if isinstance(refused, OSError) else refused
        return f"please report it (its details cannot be written down: {why})"
    return f"please report it with its details in {path}"


def _append(path: Path, text: str) -> None:
    with suppress(FileNotFoundError):
        if path.stat().st_size > _ENOUGH:
            path.unlink()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        os.write(handle, text.encode())  # one write: those of two hosts do not mix
    finally:
        os.close(handle)
