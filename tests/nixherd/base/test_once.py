"""Results that are computed once, or are at most so old, and are waited for."""

import threading
import time

import pytest

from nixherd.base.errors import FleetError, Unforeseen
from nixherd.base.once import Lately, Once, OncePer, once_property


def test_what_is_computed_once_is_waited_for() -> None:
    computed = []
    once: OncePer[str, int] = OncePer("counting")

    def slowly() -> int:
        time.sleep(0.05)
        computed.append(1)
        return len(computed)

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(once("x", slowly))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, computed) == ([1] * 5, [1])
    assert once("y", lambda: 9) == 9
    assert (once.known("x"), once.known("z")) == (1, None)


def test_what_failed_once_fails_for_everybody() -> None:
    tries = []
    once: Once[None] = Once("trying")

    def fail() -> None:
        tries.append(1)
        raise FleetError("no")

    for _ in range(3):
        with pytest.raises(FleetError, match=r"^no$"):
            once(fail)
    assert tries == [1]
    assert once.known is None


def test_a_mistake_of_ours_is_made_once() -> None:
    once: Once[float] = Once("/fleet: dividing")
    for compute in (lambda: 1 / 0, lambda: 1.0):
        with pytest.raises(Unforeseen, match=r"^/fleet: dividing: ZeroDivisionError: .*; this is a mistake in nixherd"):
            once(compute)


def test_what_is_forgotten_is_computed_anew() -> None:
    values = iter(range(9))
    once: Once[int] = Once("counting")
    assert [once(lambda: next(values)) for _ in range(2)] == [0, 0]
    once.forget()
    assert once(lambda: next(values)) == 1
    once.set(7)
    assert once(lambda: next(values)) == 7


def test_what_is_known_lately_is_computed_again_when_it_is_old() -> None:
    values = iter(range(9))
    lately: Lately[str, int] = Lately("counting", 60.0)
    assert [lately("x", lambda: next(values)) for _ in range(2)] == [0, 0]
    assert lately("y", lambda: next(values)) == 1
    lately._seconds = 0.0
    assert lately("x", lambda: next(values)) == 2


def test_a_property_is_computed_once_for_each_object() -> None:
    class Counter:
        number = 0

        @once_property
        def counted(self) -> int:
            """What was counted."""
            self.number += 1
            return self.number

    one, other = Counter(), Counter()
    assert [one.counted, one.counted, other.counted, one.number] == [1, 1, 1, 1]
    Counter.counted.of(one).forget()
    assert (one.counted, Counter.counted.__doc__) == (2, "What was counted.")
