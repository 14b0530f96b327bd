"""Waiting with growing pauses until a deadline, on a clock of the test's own."""

import pytest

from nixherd.base.waiting import Backoff, Poll, poll


class FakeClock:
    """A clock that moves when somebody sleeps, and by what each look takes."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def poll(self, seconds: float, backoff: Backoff) -> Poll:
        return Poll(seconds, backoff, lambda: self.now, self.sleep)


def test_the_first_look_is_at_once_and_the_pauses_grow_to_the_longest() -> None:
    clock = FakeClock()
    assert list(clock.poll(10, Backoff(1, 4, 2))) == [0, 1, 3, 7, 10]
    assert clock.pauses == [1, 2, 4, 3], "the last pause ends at the deadline, where there is one more look"


def test_a_look_that_takes_longer_than_the_deadline_is_the_last_one() -> None:
    clock = FakeClock()
    looks = 0
    for _ in clock.poll(5, Backoff(1, 1)):
        looks += 1
        clock.now += 6
    assert (looks, clock.pauses) == (1, [])


@pytest.mark.parametrize("seconds", [0.0, -3.0])
def test_without_time_there_is_one_look(seconds: float) -> None:
    clock = FakeClock()
    assert list(clock.poll(seconds, Backoff(1, 1))) == [0]
    assert clock.pauses == []


def test_soon_makes_the_next_pause_short_again() -> None:
    clock = FakeClock()
    waits = clock.poll(100, Backoff(1, 50, 10))
    for waited in waits:
        if waited == 11:
            waits.soon()
        if waited > 11:
            break
    assert clock.pauses == [1, 10, 1]


def test_waited_and_left_are_read_from_the_clock() -> None:
    clock = FakeClock()
    waits = clock.poll(8, Backoff(3, 3))
    next(waits), next(waits)
    assert (waits.waited, waits.left) == (3, 5)
    clock.now += 20
    assert waits.left == 0


def test_poll_uses_the_real_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr("nixherd.base.waiting.time.monotonic", lambda: clock.now)
    monkeypatch.setattr("nixherd.base.waiting.time.sleep", clock.sleep)
    assert list(poll(2, Backoff(1, 1))) == [0, 1, 2]
