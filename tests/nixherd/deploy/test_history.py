"""The history: a line per run and host, told from journals, there for ever, whole or not at all."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.deploy import history
from nixherd.deploy.history import HistoryLine, all_lines, lines_of, new_directory, parsed, place, record
from nixherd.deploy.numbers import runs
from nixherd.deploy.report import Journal

OLD, NEW = (f"/nix/store/{letter * 32}-nixos-system-dev-26.05" for letter in "ab")
COMMIT, EARLIER = "1" * 40, "2" * 40
TOLD: dict[str, Any] = {"command": "deploy", "who": "alice@desk", "fleet": "/fleet", "asks": False}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def entry(event: str, host: str | None = None, time: float = 1_800_000_000.0, **values: Any) -> dict[str, Any]:
    return {"event": event, "host": host, "time": time, **values}


def deployed(host: str, at: float = 1_800_000_010.0) -> list[dict[str, Any]]:
    return [
        entry("begin", host, at),
        entry("stage", host, at, stage="reach"),
        entry("found", host, at, old=OLD, old_revision=EARLIER),
        entry("stage", host, at + 1, stage="activate"),
        entry("stage", host, at + 2, stage="keep"),
        entry("found", host, at + 3, current=NEW, noted=COMMIT),
        entry("end", host, at + 3, outcome="deployed", why=None),
    ]


def rollout(*hosts: str, dry: bool = False, asks: bool = False) -> list[dict[str, Any]]:
    parts = [part for number, host in enumerate(hosts) for part in deployed(host, 1_800_000_010.0 + number)]
    return [
        entry("command", **{**TOLD, "asks": asks}),
        entry("run", hosts=[*hosts], steps=["deploy"], dry=dry, warnings=[], goal="switch"),
        *parts,
        entry("done", time=1_800_000_100.0, exit=0, interrupted=False, pyinfra=0),
    ]


def test_a_rollout_is_a_line_for_each_host() -> None:
    first, second = lines_of("r", 7, rollout("dev", "dev2"))
    assert first.to_json() == {
        **{"form": 1, "run": "r", "host": "dev", "of": 2, "number": 7, "command": "deploy", "operator": "alice@desk"},
        **{"fleet": "/fleet", "began": "2027-01-15T08:00:00Z", "ended": "2027-01-15T08:00:13Z", "seconds": 3.0},
        **{"outcome": "deployed", "exit": 0, "why": None, "stage": "keep", "before": OLD, "after": NEW},
        **{"goal": "switch", "revision_before": EARLIER, "revision": COMMIT, "changed": True},
    }
    assert (second.host, second.of) == ("dev2", 2)


def test_what_only_planned_or_asked_is_not_in_it() -> None:
    assert lines_of("r", 1, rollout("dev", dry=True)) == lines_of("r", 1, rollout("dev", asks=True)) == []
    assert lines_of("r", 1, []) == []


def test_a_killed_run_is_as_far_as_it_was_seen() -> None:
    whole = rollout("dev", "dev2")
    cut = whole[: next(at for at, each in enumerate(whole) if each.get("stage") == "activate") + 1]
    killed, other = lines_of("r", 1, cut)
    assert (killed.host, killed.outcome, killed.changed, killed.after) == ("dev", "unknown", None, None)
    assert (other.host, other.outcome, other.changed) == ("dev2", "failed", False)


def test_steps_of_other_commands() -> None:
    noted = [
        entry("command", **{**TOLD, "command": "gc"}),
        entry("run", hosts=["a", "b", "c", "d"], steps=[], dry=False, deploys=["x"], warnings=[]),
        entry("step", "a", text="collect", planned=False),
        entry("made", "a", text="collect"),
        entry("nothing", "b", text="nothing to do"),
        entry("end", "c", outcome="unreachable", why="no route", exit=4),
        entry("done", exit=1, interrupted=False, pyinfra=1),
    ]
    assert {each.host: (each.outcome, each.changed, each.command) for each in lines_of("r", 1, noted)} == {
        "a": ("done", True, "gc"),
        "b": ("unchanged", False, "gc"),
        "c": ("unreachable", False, "gc"),
        "d": ("unknown", None, "gc"),
    }


def test_a_run_that_did_not_come_to_a_host() -> None:
    [line] = lines_of("r", 1, [entry("command", **TOLD)])
    assert (line.host, line.outcome, line.changed, line.of) == (None, "unknown", None, 1)


def write(noted: list[dict[str, Any]]) -> Path:
    """A run's journal, as it is left by whoever is over."""
    directory = new_directory()
    journal = Journal(directory)
    for each in noted:
        journal.note(**{name: value for name, value in each.items() if name != "time"})
    journal.close()
    return directory


def test_whoever_comes_next_appends_what_a_killed_one_left() -> None:
    write(rollout("dev"))
    assert not place().exists()
    new_directory()
    assert [each.host for each in parsed(place().read_text())] == ["dev"]
    assert place().stat().st_mode & 0o777 == 0o600
    assert place().parent.stat().st_mode & 0o777 == 0o700
    assert [each.outcome for each in all_lines()] == ["deployed"]
    assert len(place().read_text().splitlines()) == 1


def test_no_journal_goes_before_its_lines_are_there(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history, "_KEPT", 2)
    with monkeypatch.context() as patch:
        patch.setattr(history, "_append", full)
        for number in range(3):
            write(rollout(f"h{number}"))
    assert len(runs()) == 3
    assert "No space left" in capfd.readouterr().err
    new_directory()
    assert len(runs()) == 1
    assert {each.host for each in all_lines()} == {"h0", "h1", "h2"}


def test_lines_come_once_although_they_are_recorded_again() -> None:
    run = write(rollout("dev"))
    for _ in range(3):
        (run / history.RECORDED).unlink(missing_ok=True)
        record(run)
    assert len(place().read_text().splitlines()) == 1


@pytest.mark.parametrize("end", [b'{"form": 1, "run": "x', b"\0\0\0", b"\xff"])
def test_what_a_killed_one_wrote_in_part_costs_no_other_line(end: bytes) -> None:
    record(write(rollout("dev")))
    with place().open("ab") as file:
        file.write(end)
    record(write(rollout("dev2")))
    assert [each.host for each in all_lines()] == ["dev", "dev2"]


def test_a_run_that_is_under_way_is_not_told_yet() -> None:
    journal = Journal(new_directory())
    journal.note("command", **TOLD)
    assert all_lines() == []
    journal.close()
    assert len(all_lines()) == 1


def test_two_that_record_at_once_give_each_line_once() -> None:
    made = [write(rollout(f"h{number}")) for number in range(6)]
    children = []
    for _ in range(3):
        if not (pid := os.fork()):
            for run in made:
                record(run)
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert sorted(each.host or "" for each in all_lines()) == [f"h{number}" for number in range(6)]
    assert len(place().read_text().splitlines()) == 6


@given(st.integers(0, 40), st.lists(st.sampled_from(["dev", "dev2", "web"]), min_size=1, max_size=3, unique=True))
def test_wherever_a_journal_ends_its_lines_are_the_same_each_time(cut: int, hosts: list[str]) -> None:
    noted = rollout(*hosts)[:cut]
    lines = lines_of("r", 1, noted)
    assert lines == lines_of("r", 1, noted)
    assert [*parsed("\n".join(json.dumps(each.to_json()) for each in lines))] == lines
    assert all(each.of == len(lines) for each in lines)
    seen = {each["host"] for each in noted if each.get("current") or each.get("old")}
    assert all(each.after is None or each.host in seen for each in lines)


@given(st.binary(max_size=300))
def test_whatever_is_in_the_log_what_can_be_read_is(noise: bytes) -> None:
    line = json.dumps(HistoryLine("r", "dev", 1).to_json())
    text = f"{line}\n{noise.decode(errors='replace')}\n{line}\n"
    assert HistoryLine("r", "dev", 1) in [*parsed(text)]


def test_the_log_can_be_made_again_from_the_journals(state: Path) -> None:
    for number in range(4):
        record(write(rollout(f"h{number}")))
    before = all_lines()
    shutil.rmtree(place().parent)
    for run in runs():
        (run / history.RECORDED).unlink()
    assert all_lines() == before
