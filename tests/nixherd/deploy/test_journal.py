"""What is noted is there afterwards, whoever died, and nobody else can read it."""

import os
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.deploy.history import new_directory
from nixherd.deploy.numbers import runs
from nixherd.deploy.report import JOURNAL, Journal, entries, is_of


def test_what_was_found_is_on_the_disk_before_anything_is_done_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: list[list[str]] = []
    journal = Journal(tmp_path / "run")
    sync = os.fdatasync

    def synced(handle: int) -> None:
        sync(handle)
        on_disk.append([str(entry.get("stage", entry["event"])) for entry in entries(tmp_path / "run")])

    monkeypatch.setattr(os, "fdatasync", synced)
    journal.note("stage", "a", stage="reach")
    journal.note("found", "a", old="/nix/store/x")
    journal.note("said", text="0 of 1 built")
    assert on_disk == [["reach"]]
    journal.note("stage", "a", stage="activate")
    journal.note("end", "a", outcome="deployed")
    journal.close()
    assert on_disk[1:] == [["reach", "found", "said", "activate"], ["reach", "found", "said", "activate", "end"]]


def test_a_host_ends_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    for host, outcome in (("a", "rolled back"), ("a", "unknown"), ("b", "deployed")):
        journal.note("end", host, outcome=outcome)
    journal.close()
    assert [(each["host"], each["outcome"]) for each in entries(tmp_path / "run")] == [
        ("a", "rolled back"),
        ("b", "deployed"),
    ]


def test_whose_a_run_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    directory = new_directory()
    journal = Journal(directory)
    journal.note("run", hosts=["a"])
    journal.note("run", fleet="/fleet")
    journal.close()
    assert is_of(directory.name, "/fleet")
    assert not is_of(directory.name, "/another")
    assert not is_of("20250101T000000-1", "/fleet")


def test_a_line_that_was_cut_off_is_none(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    journal.note("run", hosts=["a"])
    journal.close()
    with (tmp_path / "run" / JOURNAL).open("a") as file:
        file.write('{"time": 1, "event": "end", "ho')
    assert [entry["event"] for entry in entries(tmp_path / "run")] == ["run"]
    assert entries(tmp_path / "none") == []


def test_journals_are_private_and_the_oldest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    place = tmp_path / "nixherd/.deployments"
    for number in range(60):
        (place / f"20250101T0000{number:02}-1").mkdir(parents=True)
    directory = new_directory()
    assert len(runs()) == 49
    assert runs()[0].name == "20250101T000011-1"
    Journal(directory).close()
    assert runs()[-1] == directory
    assert (directory.stat().st_mode & 0o777, (directory / JOURNAL).stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_full_disk_lets_nothing_new_begin_and_ends_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that was written in part is ended by the next one; the loss is said once."""
    journal, write = Journal(tmp_path / "run"), os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:5]))
    with pytest.raises(OSError, match="No space left"):
        journal.note("stage", "a", stage="activate")
    journal.note("end", "a", outcome="deployed")  # it is over: only the journal knows less
    monkeypatch.setattr(os, "write", write)
    journal.note("stage", "b", stage="reach")
    journal.close()
    assert [(entry["event"], entry["host"]) for entry in entries(tmp_path / "run")] == [("stage", "b")]
    assert capsys.readouterr().err.count("it cannot be written, so nothing new is begun") == 1


def test_where_no_journal_can_be_nothing_is_begun(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FleetError, match="the run's journal cannot be written there, so nothing was begun"):
        Journal(tmp_path / "file" / "run")
