"""Waiting: for a thread that computes the same, for something outside, by the one loop that polls, for a program."""

import math
import re
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from nixherd.base.errors import FAILURES, DeadlineExceeded, FleetError
from nixherd.base.terminal import worded

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Once(Generic[T]):
    """One result, which whoever comes first computes in a `with` block while the others wait at its beginning:

        with once:
            if once.is_empty:
                once.value = compute()
            return once.value

    What fails in the block before there is a value is kept, and raised by each later `with`. `what` says in the words
    of a fault what was computed; after `seconds` it is computed anew, also where it went wrong. What `passes`, such as
    a failure for which `is_passing` is true, is only for those who have waited for it: who comes later computes anew.
    """

    def __init__(
        self, what: str, seconds: float = math.inf, is_passing: Callable[[BaseException], bool] = lambda error: False
    ) -> None:
        self._what, self._seconds, self._is_passing = what, seconds, is_passing
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Compute it anew when it is asked for again."""
        self._values: tuple[T, ...] = ()
        self._error: FleetError | None = None
        self._since = math.inf
        self.passes = False

    def __enter__(self) -> Self:
        came = time.monotonic()
        self._lock.acquire()
        if time.monotonic() - self._since >= self._seconds or (self.passes and came > self._since):
            self.forget()
        if self._error is not None:
            self._lock.release()
            raise self._error
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if self.is_empty and isinstance(error, FAILURES):
                self._since, self._error = time.monotonic(), worded(error, self._what)
                self.passes = self._is_passing(error)
                if self._error is not error:
                    raise self._error
        finally:
            self._lock.release()

    @property
    def is_empty(self) -> bool:
        return not self._values

    @property
    def value(self) -> T:
        return self._values[0]

    @value.setter
    def value(self, value: T) -> None:
        self._since, self._values = time.monotonic(), (value,)

    @property
    def known(self) -> T | None:
        """The result where it is computed already and went well."""
        return None if self.is_empty else self.value


class OncePer(dict[K, Once[T]]):
    """One result per key, each as `Once` has it."""

    def __init__(self, what: str, seconds: float = math.inf) -> None:
        super().__init__()
        self._what, self._seconds = what, seconds

    def __missing__(self, key: K) -> Once[T]:
        return self.setdefault(key, Once(self._what, self._seconds))  # which is atomic


class once_property(Generic[T]):
    """A property that is computed once for each object, as `Once` has it.

    One that asks another such property while it is computed uses a `Once` itself: the calls are easier to follow.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.func, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._what = f"{owner.__name__.lower()}: {name.replace('_', ' ').strip()}"
        self._slot = f"{name} once"

    def of(self, instance: object) -> Once[T]:
        """Where the result of this object is kept."""
        once: Once[T] = vars(instance).setdefault(self._slot, Once(self._what))
        return once

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object, owner: type) -> Self | T:
        if instance is None:
            return self
        with self.of(instance) as once:
            if once.is_empty:
                once.value = self.func(instance)
            return once.value


def ahead(*work: Callable[[], object]) -> None:
    """Begin in the background what will be needed soon; who needs it waits for it, and sees what became of it."""

    def quietly(each: Callable[[], object]) -> None:
        try:
            each()
        except FAILURES as error:
            worded(error, "what was begun ahead")  # raised anew where the result is needed

    for each in work:
        threading.Thread(target=quietly, args=(each,), daemon=True).start()


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


# Waiting for a program as long as it gets on

PATIENCE = 120.0  # seconds without any progress
NOISE = 16_384  # bytes that mean nothing: ssh sends and gets some to keep a connection alive, some 3,000 in PATIENCE
_EVERY = 1.0  # seconds between two looks at the program,
_EVERY_THERE = 20.0  # and at the machine
# Nix says so once and then waits for as long as it takes; whoever holds the lock has a deadline, or is Nix itself.
_LOCK = re.compile(r"waiting for (.*\block\b|exclusive access to|.* to finish)")


class Stalled(DeadlineExceeded):
    """It was ended because it did not get on."""


class Watch:
    """Raises Stalled, naming `what`, once a program has made no progress for `patience` seconds.

    `there` looks at the machine: what it returns is another text when something has happened there, and None when
    nobody knows.
    """

    def __init__(
        self, what: str, *, patience: float = PATIENCE, there: Callable[[], str | None] = lambda: None
    ) -> None:
        self.what, self.patience, self.there = what, patience, there
        self.last = ""
        self._locked = False
        self._pid, self._moved = 0, 0
        self._last_look: int | None = None  # how much had moved then; None where something has happened since
        self._seen: str | None = None
        self._since = self._looked = self._looked_there = time.monotonic()

    def heard(self, line: str) -> None:
        """A line that it said."""
        self.last = line.strip() or self.last
        self._locked, self._last_look = bool(_LOCK.search(line)), None
        self._gets_on()

    def __call__(self, pid: int) -> None:
        """Look at the program."""
        now = time.monotonic()
        if now - self._looked < min(_EVERY, self.patience / 4):
            return
        self._looked = now
        if pid != self._pid:  # it was begun anew
            self._pid, self._last_look = pid, None
            self._gets_on()
        moved = bytes_moved(pid)
        if moved is None:  # a system that does not count, or the program has ended
            return
        if not self._moved <= moved <= self._moved + NOISE:  # less: one of its children has ended
            self._moved = moved
            self._gets_on()
        burst = self._last_look is not None and moved > self._last_look + NOISE
        self._last_look = moved
        if self._locked and not burst:
            self._gets_on()
        else:
            self._locked = False
        if now - self._since > self.patience / 4:
            self._look_there(now)

    def _gets_on(self) -> None:
        self._since = time.monotonic()
        self._seen = None

    def _look_there(self, now: float) -> None:
        if now - self._looked_there >= min(_EVERY_THERE, self.patience / 4):
            seen = self.there()
            self._looked_there = time.monotonic()
            if seen is not None and self._seen is not None and seen != self._seen:
                self._gets_on()
            self._seen = seen
        if time.monotonic() - self._since > self.patience:
            last = f"; it said last: {self.last}" if self.last else ""
            raise Stalled(f"{self.what}: no progress for {self.patience:g} s, so it was ended; run it again{last}")


def bytes_moved(pid: int) -> int | None:
    """How many bytes a program and its children have read and written so far, from or to whatever; None where the
    kernel does not say."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().split("\n")
    except OSError:
        return None
    counts = dict(line.split(": ", 1) for line in lines if ": " in line)
    moved = int(counts.get("rchar", 0)) + int(counts.get("wchar", 0))
    return moved + sum(bytes_moved(child) or 0 for child in _children(pid))


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
