"""What is said while something is waited for: what changes, and now and then that nothing has."""

import time
from collections.abc import Callable

GRACE = 2.0  # seconds in which most things come to pass, and nothing needs to be said
FIRST, LONGEST = 10.0, 300.0  # seconds of silence after which it is said that the wait goes on: longer each time
RECENT = 60.0  # seconds for which something said is still known


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
