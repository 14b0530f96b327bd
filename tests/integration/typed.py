"""Commands typed at a terminal, one after the other, as somebody follows a page; the directory and exports last."""

import codecs
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

COLUMNS, ROWS = 80, 24
DEADLINE = 600.0  # seconds for one command: a sign that it waits for an answer that nobody gives
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ASKS = re.compile(r"\[(y/N|Y/n)\](:| ) ?$")
_HAS_DEFAULT = re.compile(r"\[[^\]\n]*\]: $")
# A shell of each command's own: what it leaves behind is kept in files, so that the next goes on from there.
_SCRIPT = """
if [ -e "$0/exports" ]; then unset $(compgen -e) && . "$0/exports"; fi
[ ! -e "$0/directory" ] || cd "$(cat "$0/directory")"
set -a  # variables stay, too
eval "$1"
status=$?
export -p >"$0/exports"
pwd >"$0/directory"
exit $status
"""

Answers = Sequence[tuple[str, str]]
"""Ends of output, and what is typed when the output ends so. Each is used once, in this order."""


@dataclass
class Terminal:
    """Where somebody types; `inside` makes an argv into one that runs where the commands are to run.

    A question with [y/N] is answered with y, one with a default by Enter.
    """

    state: Path
    inside: Callable[[list[str]], list[str]]
    environment: Callable[[], Mapping[str, str]]

    def forget(self) -> None:
        """Begin anew: in the directory where a terminal opens, with nothing exported."""
        shutil.rmtree(self.state, ignore_errors=True)

    def type(self, command: str, answers: Answers = (), deadline: float = DEADLINE) -> tuple[int, str]:
        """Return the command's status and all that the terminal showed."""
        self.state.mkdir(exist_ok=True)
        ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        argv = self.inside(["bash", "--norc", "-c", _SCRIPT, str(self.state), command])
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv],
            stdin=theirs, stdout=theirs, stderr=theirs,
            env={**self.environment(), "TERM": "dumb", "COLUMNS": str(COLUMNS), "PS1": "$ "},
        )  # fmt: skip
        os.close(theirs)
        try:
            output = _shown(ours, list(answers), time.monotonic() + deadline)
            return process.wait(30), _ESCAPES.sub("", output).replace("\r\n", "\n")
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def _shown(terminal: int, answers: list[tuple[str, str]], end: float) -> str:
    """Read to the end, and answer what asks."""
    output, seen = "", 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 0.2)[0]:
            if answer := _answer(output[seen:], answers):
                os.write(terminal, answer.encode())
                seen = len(output)
            continue
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # all have closed it
            return output
        if not data:
            return output
        output += decoder.decode(data)
    raise AssertionError(f"not ended within the deadline, after:\n{output}")


def _answer(tail: str, answers: list[tuple[str, str]]) -> str:
    if answers and tail.endswith(answers[0][0]):
        return answers.pop(0)[1]
    if _ASKS.search(tail):
        return "y\n"
    return "\n" if _HAS_DEFAULT.search(tail) else ""
