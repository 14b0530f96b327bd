"""Colours for outcomes: on a terminal that has them, for people who want them."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from nixherd.base.errors import Exit
from nixherd.base.terminal import is_terminal, one_line, put
from nixherd.deploy.report import Outcome

GREEN, YELLOW, RED, MAGENTA, BOLD = "32", "33", "31", "35", "1"
_OF_EXIT = {Exit.DONE: GREEN, Exit.UNKNOWN: MAGENTA}
COLOURS: Mapping[str, str] = {
    **{str(outcome): _OF_EXIT.get(outcome.exit, RED) for outcome in Outcome},
    **dict.fromkeys((Outcome.HELD, Outcome.NEEDS_BOOT, Outcome.PENDING_REBOOT), YELLOW),
    **dict.fromkeys(("ok", "OK", "running", "in service"), GREEN),
    **dict.fromkeys(("warning", "RUNNING", "paused", "interrupted"), YELLOW),
    **dict.fromkeys(("not encrypted", "no rule", "absent"), RED),
    "not visible": MAGENTA,
}
"""by the word that says what became of something, or how it is"""


def has_colours(*, err: bool = False) -> bool:
    """Whether there are to be colours on stdout, or on stderr: by the terminal, NO_COLOR (no-color.org) and TERM."""
    stream = sys.stderr if err else sys.stdout
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, word: str, *, err: bool = False) -> str:
    """Give a text that may be shown the colour of an outcome, where there are colours and it has one."""
    colour = COLOURS.get(word)
    return painted(text, colour, err=err) if colour else text


def painted(text: str, colour: str, *, err: bool = False) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if has_colours(err=err) else text


@dataclass(frozen=True)
class Line:
    """A line for people, the middle of which is a word that says what became of something."""

    before: str
    outcome: str
    after: str = ""

    def __str__(self) -> str:
        return f"{self.before}{self.outcome}{self.after}"

    def put(self, *, err: bool = False) -> None:
        """Say it."""
        before, word, after = map(one_line, (self.before, self.outcome, self.after))
        put(f"{before}{coloured(word, self.outcome, err=err)}{after}", err=err)
