"""Results that are computed once, or are at most so old, and are waited for."""

import threading
import time
from collections.abc import Callable

import pytest

from nixherd.base.errors import FleetError, Unforeseen
from nixherd.base.waiting import Once, OncePer, once_property


def result_of(once: Once[int], compute: Callable[[], int]) -> int:
    with once:
        if once.is_empty:
            once.value = compute()
        return once.value


def test_what_is_computed_once_is_waited_for() -> None:
    computed = []
    once: OncePer[str, int] = OncePer("counting")

    def slowly() -> int:
        time.sleep(0.05)
        computed.append(1)
        return len(computed)

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(result_of(once["x"], slowly))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, computed) == ([1] * 5, [1])
    assert result_of(once["y"], lambda: 9) == 9
    assert (once["x"].known, once["z"].known) == (1, None)


def test_what_failed_once_fails_for_everybody() -> None:
    tries = []
    once: Once[int] = Once("trying")

    def fail() -> int:
        tries.append(1)
        raise FleetError("no")

    for _ in range(3):
        with pytest.raises(FleetError, match=r"^no$"):
            result_of(once, fail)
    assert tries == [1]
    assert once.known is None


def test_who_waits_for_what_fails_is_told_so() -> None:
    once, began, errors = Once[int]("trying"), threading.Event(), list[str]()

    def fail() -> int:
        began.set()
        time.sleep(0.05)
        raise OSError("no")

    def ask() -> None:
        try:
            result_of(once, fail)
        except FleetError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
        began.wait()
    for thread in threads:
        thread.join()
    assert errors == ["no"] * 3


def test_a_mistake_of_ours_is_made_once() -> None:
    once: Once[int] = Once("/fleet: dividing")
    for compute in (lambda: 1 // 0, lambda: 1):
        with pytest.raises(Unforeseen, match=r"^/fleet: dividing: ZeroDivisionError: .*; this is a mistake in nixherd"):
            result_of(once, compute)


def test_what_goes_wrong_after_there_is_a_result_is_not_its_failure() -> None:
    once: Once[int] = Once("counting")
    once.value = 1
    with pytest.raises(ValueError, match="later"), once:
        raise ValueError("later")
    assert result_of(once, lambda: 2) == 1


def test_who_is_interrupted_leaves_it_to_the_next() -> None:
    once: Once[int] = Once("counting")
    with pytest.raises(KeyboardInterrupt), once:
        raise KeyboardInterrupt
    assert result_of(once, lambda: 2) == 2


def test_what_is_forgotten_is_computed_anew() -> None:
    values = iter(range(9))
    once: Once[int] = Once("counting")
    assert [result_of(once, lambda: next(values)) for _ in range(2)] == [0, 0]
    once.forget()
    assert result_of(once, lambda: next(values)) == 1
    once.value = 7
    assert result_of(once, lambda: next(values)) == 7


def test_what_is_known_lately_is_computed_again_when_it_is_old() -> None:
    values = iter(range(9))
    lately: OncePer[str, int] = OncePer("counting", 60.0)
    assert [result_of(lately["x"], lambda: next(values)) for _ in range(2)] == [0, 0]
    assert result_of(lately["y"], lambda: next(values)) == 1
    lately["x"]._seconds = 0.0
    assert result_of(lately["x"], lambda: next(values)) == 2


def test_a_failure_is_kept_no_longer_than_a_result() -> None:
    once: Once[int] = Once("dividing", 60.0)
    for _ in range(2):
        with pytest.raises(Unforeseen):
            result_of(once, lambda: 1 // 0)
    once._seconds = 0.0
    assert result_of(once, lambda: 2) == 2


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


def test_what_passes_is_for_those_who_have_waited_for_it() -> None:
    once: Once[int] = Once("asking", is_passing=lambda error: isinstance(error, OSError))
    began, tries, told = threading.Event(), list[int](), list[str]()

    def ask() -> int:
        tries.append(1)
        began.set()
        time.sleep(0.05)
        raise OSError("no answer")

    def waiting() -> None:
        try:
            result_of(once, ask)
        except FleetError as error:
            told.append(str(error))

    threads = [threading.Thread(target=waiting) for _ in range(3)]
    for thread in threads:
        thread.start()
        began.wait()
    for thread in threads:
        thread.join()
    assert (told, tries) == (["no answer"] * 3, [1])
    assert result_of(once, lambda: 2) == 2
    assert result_of(once, lambda: 3) == 2
    once.passes = True  # a result of which something is missing
    assert result_of(once, lambda: 4) == 4
