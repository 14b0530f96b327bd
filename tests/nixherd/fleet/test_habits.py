"""Each fleet of tests/fleets loads as it is, or one line says what to add, with which it does."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import nix_cli
from tests.habits import FLEETS, HABITS, INPUTS, Copy, Habit, named
from tests.nixherd.fleet.test_any_fleet import Counted, flake, people

__all__ = ["flake", "people"]
pytestmark = pytest.mark.nix
Shown = Callable[..., str]

_SHARED = tuple((FLEETS / name).read_text() for name in ("machine.nix", "home.nix"))


@pytest.fixture(scope="module")
def stand_ins() -> Path:
    """Before a test has a cache of its own."""
    return nix_cli.stand_ins()


@pytest.fixture
def copy(
    stand_ins: Path,
    habit: Habit,
    flake: Counted,
    programs: Callable[[dict[str, str]], dict[str, str]],
) -> Copy:
    """The habit's fleet, each configuration of which says when it is evaluated."""
    environment = programs(dict(os.environ))

    def run(words: Sequence[str], directory: Path) -> None:
        done = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"

    copy = habit.copied(flake.directory.with_name(habit.name), stand_ins, run, _traced)
    flake.directory = copy.directory
    return copy


def _traced(text: str) -> str:
    return f'builtins.trace "EVALUATED it" (\n{text})\n' if text in _SHARED else text


def test_there_is_a_word_about_every_fleet() -> None:
    there = {path.name for path in FLEETS.iterdir() if path.is_dir()} - {INPUTS.name}
    assert there == {*named(HABITS)}
    assert len(HABITS) >= 30


@pytest.mark.parametrize("habit", HABITS, ids=named(HABITS))
def test_it_loads_or_says_what_to_add(
    habit: Habit,
    copy: Copy,
    flake: Counted,
    people: Shown,
) -> None:
    if habit.line:
        lines = _lines(habit, flake, people)
        found = [match for line in lines if (match := re.fullmatch(habit.line, line))]
        assert len(found) == 1, "\n".join(lines)
        [match] = found
        if not habit.added:
            return
        habit.added(copy, match)
        copy.commit()
        time.sleep(0.05)  # what was changed this very moment is not remembered
    if habit.below:
        above = people("nixherd", "--fleet", str(copy.top), "hosts")
        assert re.fullmatch(rf"2 .*; name its directory: FLEET={copy.directory}\n", above), above
    flake.forget()
    shown = people("nixherd", "hosts", "--json")
    assert sorted(row["host"] for row in _rows(shown)) == [*habit.hosts], shown
    assert flake.evaluated == []
    if habit.line:
        assert not re.search(habit.line, shown)
    else:
        assert all(f"skipped {name}: " in shown for name in habit.skipped), shown
    fleet, evaluator = flake.completed(*habit.hosts, whole=True)
    for name, host in fleet.hosts.items():
        if pattern := habit.wrong.get(name):
            assert re.fullmatch(pattern, host.unread or ""), host.unread
            continue
        assert host.unread is None, host.unread
        assert evaluator.evaluate(habit.hosts, name).toplevel.startswith("/nix/store/")
        if reached := habit.reached.get(name):
            assert (host.user, host.port, host.addresses) == reached


def _lines(habit: Habit, flake: Counted, people: Shown) -> list[str]:
    """What a fleet says before anything is added, line by line: of a list, and of each host."""
    shown = people("nixherd", "hosts", "--json")
    assert flake.evaluated == []
    status, _, rest = shown.partition(" ")
    if status != "0":
        assert rest.count("\n") == 1, f"that is one line:\n{rest}"
        return rest.splitlines()
    names = sorted(row["host"] for row in _rows(shown))
    fleet, _ = flake.completed(*names, whole=True)
    return [*rest.splitlines(), *(fleet.hosts[name].unread or "" for name in names)]


def _rows(shown: str) -> list[dict[str, Any]]:
    assert shown.startswith("0 "), shown
    rows: list[dict[str, Any]] = json.JSONDecoder().raw_decode(shown[2:])[0]
    return rows
