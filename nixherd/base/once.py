"""Results that several threads share: the first caller computes, the others wait, and a failure is each caller's."""

import math
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, overload

from nixherd.base.errors import FAILURES, FleetError
from nixherd.base.faults import worded

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True)
class _Failed:
    error: FleetError


class OncePer(Generic[K, T]):
    """One result per key. `what` says in the words of a fault what was computed."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._results: dict[K, Any] = {}
        self._locks: dict[K, threading.Lock] = {}

    def __call__(self, key: K, compute: Callable[[], T]) -> T:
        with self._locks.setdefault(key, threading.Lock()):  # setdefault is atomic
            if key not in self._results:
                self._results[key] = _attempt(key, compute, self._what)
            result: T = _result(self._results[key])
        return result

    def known(self, key: K) -> T | None:
        """The result where it is computed already and went well."""
        result = self._results.get(key)
        return None if isinstance(result, _Failed) else result

    def set(self, key: K, value: T) -> None:
        self._results[key] = value

    def forget(self) -> None:
        """Compute everything anew when it is asked for again."""
        self._results.clear()


class Once(Generic[T]):
    """One result."""

    def __init__(self, what: str) -> None:
        self._only: OncePer[None, T] = OncePer(what)

    def __call__(self, compute: Callable[[], T]) -> T:
        return self._only(None, compute)

    @property
    def known(self) -> T | None:
        """The result where it is computed already and went well."""
        return self._only.known(None)

    def set(self, value: T) -> None:
        self._only.set(None, value)

    def forget(self) -> None:
        self._only.forget()


class once_property(Generic[T]):
    """A property that is computed once for each object, as `Once` has it."""

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
        return self if instance is None else self.of(instance)(lambda: self.func(instance))


class Lately(Generic[K, T]):
    """One result per key that is at most `seconds` old, also that it went wrong."""

    def __init__(self, what: str, seconds: float) -> None:
        self._what, self._seconds = what, seconds
        self._results: dict[K, tuple[float, Any]] = {}
        self._locks: dict[K, threading.Lock] = {}

    def __call__(self, key: K, compute: Callable[[], T]) -> T:
        with self._locks.setdefault(key, threading.Lock()):
            when, result = self._results.get(key, (-math.inf, None))
            if time.monotonic() - when >= self._seconds:
                result = _attempt(key, compute, self._what)
                self._results[key] = (time.monotonic(), result)
        value: T = _result(result)
        return value


def ahead(*work: Callable[[], object]) -> None:
    """Begin in the background what will be needed soon; who needs it waits for it, and sees what became of it."""

    def quietly(each: Callable[[], object]) -> None:
        try:
            each()
        except FAILURES as error:
            worded(error, "what was begun ahead")  # raised anew where the result is needed

    for each in work:
        threading.Thread(target=quietly, args=(each,), daemon=True).start()


def _attempt(key: Hashable, compute: Callable[[], T], what: str) -> "T | _Failed":
    try:
        return compute()
    except FAILURES as error:
        return _Failed(worded(error, what))


def _result(result: Any) -> Any:
    if isinstance(result, _Failed):
        raise result.error
    return result
