"""The index of the history: the same answers as the log, whatever becomes of it."""

import json
import os
from pathlib import Path

import pytest

from nixherd.deploy.history import HistoryLine, place
from nixherd.deploy.history_index import found, index_place


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    place().parent.mkdir(mode=0o700, parents=True)
    return tmp_path


def line(number: int, host: str | None = "dev", outcome: str = "deployed") -> HistoryLine:
    began = f"2026-11-{number:02}T10:00:00Z"
    return HistoryLine(f"run{number:02}", host, 1, number, fleet="/fleet", began=began, outcome=outcome)


def append(*lines: HistoryLine) -> None:
    with place().open("a") as file:
        file.writelines(f"{json.dumps(each.to_json())}\n" for each in lines)


def numbers(**how: object) -> list[int | None]:
    return [each.number for each in found(**how)]  # type: ignore[arg-type]


def test_by_host_time_outcome_and_number_newest_first() -> None:
    append(line(1), line(2, "web"), line(3, outcome="failed"), line(4, None))
    assert numbers() == [4, 3, 2, 1]
    assert numbers(hosts=["dev"]) == [3, 1]
    assert numbers(hosts=["dev", "web"], limit=2) == [3, 2]
    assert numbers(since="2026-11-02T00:00:00Z", outcomes=["deployed"]) == [4, 2]
    assert numbers(number=2) == [2]
    assert numbers(fleet="/other") == []
    assert found(number=3) == [line(3, outcome="failed")]


def test_what_is_appended_is_there_at_once() -> None:
    append(line(1))
    assert numbers() == [1]
    append(line(2))
    assert numbers() == [2, 1]
    with place().open("a") as file:
        file.write('{"form": 1, "run": "torn"')
    assert numbers() == [2, 1]
    with place().open("a") as file:
        file.write("\n")
    append(line(3))
    assert numbers() == [3, 2, 1]


@pytest.mark.parametrize("damage", ["removed", "noise", "empty", "truncated", "old form"])
def test_an_index_that_is_lost_or_damaged_is_made_again(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    append(line(1), line(2))
    assert numbers() == [2, 1]
    index = index_place()
    for beside in index.parent.glob("index.sqlite-*"):
        beside.unlink()
    match damage:
        case "removed":
            index.unlink()
        case "noise":
            index.write_bytes(os.urandom(5000))
        case "empty":
            index.write_bytes(b"")
        case "truncated":
            index.write_bytes(index.read_bytes()[:3000])
        case "old form":
            monkeypatch.setattr("nixherd.deploy.history_index.FORM", 2)
    assert numbers() == [2, 1]
    append(line(3))
    assert numbers() == [3, 2, 1]
    assert index.stat().st_mode & 0o077 == 0


def test_another_log_is_read_anew() -> None:
    append(line(1), line(2))
    assert numbers() == [2, 1]
    place().unlink()
    assert numbers() == []
    append(line(5))
    assert numbers() == [5]


def test_where_it_cannot_be_written_the_log_answers() -> None:
    append(line(1))
    index_place().mkdir()
    assert numbers() == [1]
