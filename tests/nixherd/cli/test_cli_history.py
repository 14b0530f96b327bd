"""`nixherd history` and `why`: what is on record, what a machine told, and what is not known."""

import json
from pathlib import Path
from typing import Any

import pytest

from nixherd.cli import history
from nixherd.cli.front import Front
from nixherd.cli.main import run
from nixherd.deploy.history import HistoryLine, place
from nixherd.deploy.running import Running
from nixherd.fleet.models import Fleet, Host
from nixherd.fleet.revisions import Note
from nixherd.overview.document import Overview, Reach, State
from nixherd.overview.last_seen import LastSeen, SeenBefore
from nixherd.overview.machine import Seen
from tests.overviews import host, overview

OLD, NEW, OTHER = (f"/nix/store/{letter * 32}-nixos-system-dev-26.05" for letter in "abc")
COMMIT, EARLIER = "1" * 40, "2" * 40


@pytest.fixture(autouse=True)
def fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("XDG_STATE_HOME", "FLEET"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    place = str(tmp_path / "FLEET")
    hosts = {"dev": Host("dev", "dev", None, "alice", None, None, (), "x", None)}
    monkeypatch.setattr(Front, "fleet", Fleet(place, "fleet", hosts))
    return tmp_path / "FLEET"


def line(fleet: Path, number: int = 1, host: str | None = "dev", **values: Any) -> HistoryLine:
    began = f"2026-11-{number:02}T10:00:00Z"
    usual = {"began": began, "ended": began, "command": "deploy", "operator": "alice@desk", "outcome": "deployed"}
    paths = {"before": OLD, "after": NEW, "revision": COMMIT, "revision_before": EARLIER, "changed": True, "exit": 0}
    return HistoryLine(f"r{number}", host, 1, number, fleet=str(fleet), **{**usual, **paths, **values})


def on_record(*lines: HistoryLine) -> None:
    place().parent.mkdir(parents=True, exist_ok=True)
    place().write_text("".join(f"{json.dumps(each.to_json())}\n" for each in lines))


def seen(tmp_path: Path, current: str, *notes: Note) -> None:
    running = Running(current, current, "dev", "b", revision=COMMIT)
    kept = LastSeen("2026-11-30T10:00:00Z", "10.0.0.1", Seen(running, notes=notes))
    SeenBefore(tmp_path / "XDG_STATE_HOME/nixherd/fleet").keep({"dev": kept})


def told(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    ended = run([*words, "--json"])
    return ended, json.loads(capfd.readouterr().out)


def test_what_was_done_newest_first(fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    on_record(line(fleet), line(fleet, 2, outcome="failed"), line(fleet, 3, "gone"), line(fleet.parent, 4))
    assert [row["number"] for row in told(capfd, "history")[1]] == [3, 2, 1]
    assert [row["number"] for row in told(capfd, "history", "dev", "--limit", "1")[1]] == [2]
    assert [row["number"] for row in told(capfd, "history", "gone")[1]] == [3]
    assert [row["number"] for row in told(capfd, "history", "--since", "2026-11-02", "--outcome", "deployed")[1]] == [3]


def test_what_a_machine_told_of_others_is_marked(
    fleet: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    on_record(line(fleet))
    seen(tmp_path, OTHER, Note(OTHER, EARLIER, "2026-11-20T10:00:00Z", "bob@lap-7", "x"))
    rows = told(capfd, "history", "dev")[1]
    assert [(row["source"], row["operator"]) for row in rows] == [("told", "bob@lap"), ("proved", "alice@desk")]


@pytest.mark.parametrize(
    ("current", "notes", "ends", "source"),
    [
        (NEW, (), 0, "proved"),
        (OTHER, (Note(OTHER, COMMIT, "2026-11-20T10:00:00Z", "bob@lap-7", "x"),), 0, "told"),
        (OTHER, (), 5, "proved"),  # of what ran before: what brought this is not known
        (NEW, (Note(OTHER, COMMIT, "2026-11-01T10:00:00Z", "alice@desk-7", "r1"),), 1, "proved"),
    ],
)
def test_what_brought_what_runs(
    current: str, notes: tuple[Note, ...], ends: int, source: str, fleet: Path, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    on_record(line(fleet))
    seen(tmp_path, current, *notes)
    ended, document = told(capfd, "why", "dev")
    assert (ended, document["runs"], document["brought_by"]["source"]) == (ends, current, source)


def test_a_machine_that_was_never_asked_is_unknown(fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended, document = told(capfd, "why", "dev")
    assert (ended, document["runs"], document["brought_by"]) == (5, None, None)


def test_one_that_does_not_answer_now_is_said_to(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    on_record(line(fleet))
    seen(tmp_path, NEW)
    silent: Overview = overview(hosts=(host("dev", state=State.UNREACHABLE, reach=Reach(False, why="no route")),))
    monkeypatch.setattr(history, "gather", lambda *_, **__: silent)
    ended, document = told(capfd, "why", "dev", "--ask")
    assert (ended, document["not_asked"], document["runs"]) == (4, "no route", NEW)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["history", "--since", "yesterday"], "yesterday is not a day or a number of days"),
        (["history", "nosuch"], "nosuch"),
        (["why", "dev", "--diff", "run:9", OLD], "run 9 is not on record"),
        (["why", "dev", "--diff", "../x", OLD], "../x is neither a generation's number nor a store path"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    words: list[str], message: str, fleet: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    [text] = capfd.readouterr().err.splitlines()
    assert message in text
