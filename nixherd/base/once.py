"""Results that several threads share: the first caller computes, the others wait, and a failure is each caller's."""

import math
import threading
import time
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from nixherd.base.errors import FAILURES, FleetError
from nixherd.base.faults import worded

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
