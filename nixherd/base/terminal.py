"""The edge: what was typed, all that we say, others' words as they may be shown, and what nobody foresaw."""

import contextlib
import os
import re
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from click import echo

from nixherd.base.errors import UNFORESEEN, FleetError, FleetInvalid, Unforeseen, Usage
from nixherd.base.files import state_home

# Controls (C0, DEL, C1), formats (bidirectional overrides, zero width, tags), halves of characters, private use,
# separators of lines and paragraphs.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_KEPT = frozenset("\n\t")
_WITHOUT_KEPT = str.maketrans("", "", "\n\t")
# Private keys, as age and SSH write them: whoever put one where a public one belongs does not find it in a log as well.
_PRIVATE = re.compile(
    r"(AGE-SECRET-KEY-)(?:PQ-)?1[A-Z0-9]{6,}|(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*-----|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_MAY_BE_PRIVATE = re.compile("secret-key-|private key-", re.IGNORECASE)


GRACE = 2.0  # seconds in which most things come to pass, and nothing needs to be said
FIRST, LONGEST = 10.0, 300.0  # seconds of silence after which it is said that the wait goes on: longer each time
RECENT = 60.0  # seconds for which something said is still known
_LOG = "faults.log"
_ENOUGH = 1 << 20  # bytes; then the file begins anew
_HOMELESS = "Could not determine home directory."  # pathlib's word for ~nobody, and for a user without one
_SHOWN = 300  # characters of an exception's own text


def visible(text: object) -> str:
    r"""The text with every character that is not text as its escape (`\x1b`, `\u202e`); lines and tabs stay.

    Of a private key only the beginning is shown.
    """
    words = str(text)
    if _MAY_BE_PRIVATE.search(words):
        words = _PRIVATE.sub(lambda found: f"{found[1] or found[2]}…", words)
    if words.isascii() and words.translate(_WITHOUT_KEPT).isprintable():
        return words
    return "".join(character if _is_text(character) else _escaped(character) for character in words)


def one_line(text: object) -> str:
    """The same, on one line."""
    return visible(text).replace("\n", " ⏎ ").replace("\t", " ")


def visible_values(value: Any) -> Any:
    """The same of all texts in a document, its keys too."""
    if isinstance(value, Mapping):
        return {visible_values(key): visible_values(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [visible_values(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float)) else visible(value)


def _is_text(character: str) -> bool:
    return character in _KEPT or unicodedata.category(character) not in _HIDDEN


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def require_text(words: Sequence[str]) -> None:
    """Usage for words that no file, host or program of ours has for a name: with NUL, or bytes that are no text."""
    for number, word in enumerate(words, 1):
        if "\0" in word or any("\ud800" <= character <= "\udfff" for character in word):
            raise Usage(f"argument {number} ({word!r}) is not text (a NUL, or bytes that are no UTF-8)")


def keep_streams() -> None:
    """Let no file that we open take the place of a standard stream that is closed: others would write into it."""
    while True:
        handle = os.open(os.devnull, os.O_RDWR)
        if handle > 2:
            os.close(handle)
            return
        os.set_inheritable(handle, True)


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


class Narrator:
    """Says what is being waited for when it changes, and after 10, 20, 40 … seconds without a change that it still is.

    What is said in turns, as one look at a machine says several things, is not a change. `last` is what came last.
    `timed`: each line ends with the seconds until then.
    """

    def __init__(self, say: Callable[[str], None], *, grace: float | None = None, timed: bool = True) -> None:
        self.last = ""
        self._say, self._timed = say, timed
        self._grace = GRACE if grace is None else grace
        self._known: dict[str, float] = {}
        self._began = self._spoke = time.monotonic()
        self._pause = FIRST

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        self.last = text
        waited = now - self._began
        if waited < self._grace:
            return
        known = now - self._known.get(text, -RECENT) < RECENT
        self._known[text] = now
        if not known:
            self._pause = FIRST
        elif now - self._spoke >= self._pause:
            self._pause = min(LONGEST, self._pause * 2)
        else:
            return
        seconds = f" ({waited:.0f} s)" if self._timed else ""
        self._say(f"{'still: ' if known else ''}{text}{seconds}")
        self._spoke = now


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
    is_named = bool(error.filename) and not isinstance(error.filename, int)  # a number is an open file
    return f"{os.fsdecode(error.filename)}: {error.strerror}" if is_named else error.strerror


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
