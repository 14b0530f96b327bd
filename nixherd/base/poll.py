"""The one loop that waits: look, pause for longer each time, look again, until a deadline."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between two looks, in seconds: `first`, then `factor` times as long each time, at most `longest`."""

    first: float
    longest: float
    factor: float = 1.5


class Poll:
    """An iterator over looks. Each item is the number of seconds waited so far; the first is 0 and comes at once.

    It ends after a last look at the deadline, and `soon()` makes the next pause short again.
    """

    def __init__(
        self,
        seconds: float,
        backoff: Backoff,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        # looked up now, not at import: tests put a clock of their own in the place of `time`
        self._clock, self._sleep = clock or time.monotonic, sleep or time.sleep
        self._backoff, self._seconds = backoff, seconds
        self._began, self._pause, self._looked = self._clock(), backoff.first, False

    @property
    def waited(self) -> float:
        """Seconds since the waiting began."""
        return self._clock() - self._began

    @property
    def left(self) -> float:
        """Seconds until the deadline, 0 when it has passed."""
        return max(0.0, self._seconds - self.waited)

    def soon(self) -> None:
        """Make the next pause the first one again: something has changed."""
        self._pause = self._backoff.first

    def pause(self) -> bool:
        """Sleep until the next look; False, at once, when the deadline has passed."""
        left = self.left
        if left > 0:
            pause = min(self._pause, left)
            self._pause = min(self._backoff.longest, self._pause * self._backoff.factor)
            self._sleep(pause)
        return left > 0

    def __iter__(self) -> "Poll":
        return self

    def __next__(self) -> float:
        if self._looked and not self.pause():
            raise StopIteration
        self._looked = True
        return self.waited


def poll(seconds: float, backoff: Backoff) -> Poll:
    """Look now and again for `seconds`, with the pauses of `backoff`, and once more at the deadline.

    `for waited in poll(60, Backoff(0.1, 2)): …` with a `return` where the end is seen; what follows the loop is for the
    deadline that has passed.
    """
    return Poll(seconds, backoff)
