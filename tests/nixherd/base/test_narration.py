"""What is said while something is waited for."""

import time

import pytest

from nixherd.base import terminal
from nixherd.base.terminal import Narrator


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_what_changes_is_said_and_less_and_less_often_that_nothing_does(clock: list[float]) -> None:
    lines: list[str] = []
    say = Narrator(lines.append)
    for _ in range(300):
        for text in ("waiting for cloud-init", "accepts none of our keys"):
            say(text)
        clock[0] += 1
    assert lines == [
        "waiting for cloud-init (2 s)",
        "accepts none of our keys (2 s)",
        *(f"still: waiting for cloud-init ({seconds} s)" for seconds in (12, 32, 72, 152)),
    ]
    assert say.last == "accepts none of our keys"
    say("the guest has no address yet")
    assert lines[-1] == "the guest has no address yet (300 s)"


def test_what_comes_back_after_a_while_is_a_change(clock: list[float]) -> None:
    lines: list[str] = []
    say = Narrator(lines.append, grace=0, timed=False)
    for text in ("off", "on", "off"):
        say(text)
        clock[0] += terminal.RECENT
    assert lines == ["off", "on", "off"]


def test_what_is_over_soon_is_not_said(clock: list[float]) -> None:
    lines: list[str] = []
    Narrator(lines.append)("soon")
    assert lines == []
