"""What is shown of a run while it goes on, on a terminal of any size and in a log."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from nixherd.cli import output
from nixherd.cli.following import Heard, Lines, State, named
from nixherd.deploy.report import Outcome
from tests.security.hostile import STRINGS

ENTRIES: list[dict[str, Any]] = [
    {"time": 0.0, "event": "run", "host": None, "hosts": ["a", "b"]},
    {"time": 1.0, "event": "stage", "host": "a", "stage": "build"},
    {"time": 2.0, "event": "said", "host": "a", "text": "waits for\nx.service"},
    {"time": 3.0, "event": "progress", "host": None, "text": "1 of 2 built"},
    {"time": 5.0, "event": "end", "host": "b", "outcome": "unreachable", "why": "no SSH"},
    {"time": 6.0, "event": "end", "host": "b", "outcome": "failed", "why": "later"},
]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    monkeypatch.setattr(time, "time", made)
    return made


def test_the_table_of_a_terminal(clock: Clock) -> None:
    clock.now = 11.0
    state = State()
    for entry in ENTRIES:
        state.take(entry)
    assert state.lines(80, 24) == [
        ("a  build        10 s  waits for ⏎ x.service", "build"),
        ("b  unreachable   5 s  no SSH", "unreachable"),
        ("1 of 2 built", ""),
    ]
    state.take({"time": 9.0, "event": "stage", "host": "a", "stage": "copy"})
    assert state.lines(80, 24)[0] == ("a  copy         2 s", "copy")
    assert len(state.lines(80, 24)) == 2  # the build is over


WORDS = st.one_of(st.sampled_from(STRINGS), st.text(max_size=200), st.just("日本語" * 50))


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,20}", fullmatch=True), WORDS, min_size=1, max_size=12),
    st.integers(1, 120),
    st.integers(4, 40),
    st.sampled_from(["reach", "roll back", "evaluate"]),
)
def test_host_stage_and_time_stay(hosts: dict[str, str], width: int, height: int, stage: str) -> None:
    """Whatever a host has to say, however narrow the terminal; where it is too low, those that are at work stay."""
    state = State()
    for host, text in hosts.items():
        state.take({"time": time.time(), "event": "stage", "host": host, "stage": stage})
        state.take({"time": time.time(), "event": "said", "host": host, "text": text})
    lines = state.lines(width, height)
    needed = max(map(len, hosts)) + len(stage) + 8
    if width >= needed:
        assert all(cell_len(line) <= width for line, _ in lines)
        assert len(lines) <= height - 2
    if len(hosts) <= height - 2:
        text = "\n".join(line for line, _ in lines)
        assert all(host in text for host in hosts)
        assert text.count(stage) >= len(hosts)


def test_those_at_work_stay_where_there_is_no_room() -> None:
    state, now = State(), time.time()
    for number in range(40):
        state.take({"time": now, "event": "stage", "host": f"h{number:02}", "stage": "copy"})
        if number < 35:
            state.take({"time": now, "event": "end", "host": f"h{number:02}", "outcome": Outcome.DEPLOYED})
    lines = [line for line, _ in state.lines(80, 12)]
    assert [line[:3] for line in lines[:5]] == ["h35", "h36", "h37", "h38", "h39"]
    assert lines[-1] == "and 31 more: 31 deployed"
    assert len(lines) == 10


def test_a_log_is_told_what_is_waited_for(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """A line every half minute, not more."""
    clock.now = 6.0
    lines = Lines(State())
    for entry in ENTRIES:
        lines.take(entry)
    stages = capsys.readouterr().err.splitlines()
    assert stages == ["a: build", "a: waits for ⏎ x.service", "b: unreachable: no SSH", "b: failed: later"]
    for _ in range(100):
        clock.now += 1.0
        lines.look()
    assert capsys.readouterr().err.splitlines() == [
        f"still: build: a ({seconds} s), waits for ⏎ x.service; 1 of 2 built" for seconds in (35, 65, 95)
    ]


def test_a_log_is_not_told_each_step_of_a_build(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(State())
    for number in range(100):
        clock.now += 1.0
        lines.take({"time": clock.now, "event": "progress", "host": None, "text": f"{number} of 100 built"})
        lines.look()
    assert len(capsys.readouterr().err.splitlines()) == 10


def test_before_any_host_is_known(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(State())
    clock.now += 31.0
    lines.look()
    assert capsys.readouterr().err == "still: pyinfra is starting (31 s)\n"


def test_what_a_program_said_last(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    heard = Heard(lines.append)
    heard("clone template 9002 to vm 110")
    for _ in range(90):
        clock.now += 1.0
        heard.look()
    assert lines == ["clone template 9002 to vm 110"]
    assert capsys.readouterr().err.splitlines() == [
        f"still: clone template 9002 to vm 110 ({seconds} s)" for seconds in (30, 60, 90)
    ]


def test_one_command_is_not_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = output._Lines("vm 110 (dev)")
    lines("backing up")
    clock.now += 31.0
    lines.beat()
    lines.beat()
    assert capsys.readouterr().err.splitlines() == [
        "vm 110 (dev): backing up (0 s)",
        "vm 110 (dev): still: backing up (31 s)",
    ]


def test_many_hosts_are_a_few_names() -> None:
    assert named(["a", "b", "c", "d"]) == "a, b, c, d"
    assert named([*"abcdef"]) == "a, b, c and 3 more"
