"""The edge: everything that we say leaves through here, as `nixherd.base.display` lets it.

Results on stdout, the rest on stderr.
"""

import contextlib
import os
import sys
from typing import IO

from click import echo

from nixherd.base.display import one_line, visible
from nixherd.base.errors import FleetInvalid


def say(text: object, *, err: bool = False) -> None:
    """Say one line: a result on stdout, or something beside the results on stderr. No word in it makes another line."""
    put(one_line(text), err=err)


def say_text(text: str, *, err: bool = False) -> None:
    """Say what has lines of its own: a document."""
    put(visible(text), err=err)


def say_error(error: BaseException) -> None:
    """Say what went wrong: a line for each finding."""
    for line in error.findings if isinstance(error, FleetInvalid) else (error,):
        say(line, err=True)


def put(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Write what is visible already, colours of our own included.

    What is under way is not stopped because nobody reads (any more); a result that cannot be written is an OSError.
    """
    try:
        echo(text, err=err, nl=nl)
    except BrokenPipeError:
        _silence(sys.stderr if err else sys.stdout)
    except OSError:
        if not err:
            raise


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether a person reads this stream; a closed one is None."""
    return stream is not None and not stream.closed and stream.isatty()


def say_any_character() -> None:
    """Let a character that the terminal's encoding lacks be an escape, and no failure after the work was done."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def let_go() -> bool:
    """Write what is still to be written; whether it could be. For the end of a program.

    Python itself would try again what a full disk refused, complain, and end with status 120.
    """
    is_written = True
    for stream in (sys.stdout, sys.stderr):
        if stream is None or stream.closed:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            is_written = is_written and stream is sys.stderr
            _silence(stream)
    return is_written


def _silence(stream: IO[str]) -> None:
    """Let nothing more be written there: nobody reads it, and Python would complain about it at the end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
