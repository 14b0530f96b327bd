"""What commands that change guests or files by themselves leave in the history."""

from pathlib import Path

import pytest

from nixherd.base.errors import FleetError, OutcomeUnknown
from nixherd.cli.recording import Recording
from nixherd.deploy.history import BRIEF, all_lines, lines_of, new_directory, place, record
from nixherd.deploy.numbers import number_of, runs
from nixherd.deploy.report import Journal, entries
from tests.nixherd.cli.conftest import Ask
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.proxmox.dev import begin

pytestmark = pytest.mark.xdist_group("emulator")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def test_what_was_done_to_a_guest_is_a_line_and_what_was_planned_is_none(
    ask: Ask, fleet: Path, emulator: Emulator
) -> None:
    begin(emulator)
    assert ask("vm", "stop", "dev", "--dry-run").status == 0
    assert all_lines() == []
    assert ask("vm", "stop", "dev").status == 0
    assert ask("vm", "stop", "dev").status == 0
    first, again = all_lines()
    assert (first.host, first.command, first.outcome, first.changed, first.exit) == ("dev", "vm stop", "done", True, 0)
    assert (again.host, again.outcome, again.changed) == ("dev", "unchanged", False)
    assert (first.fleet, first.number, again.number) == (str(fleet), 1, 2)
    shown = ask("report", "1", "--json").json
    assert (shown["command"], shown["summary"], shown["hosts"][0]["outcome"]) == ("vm stop", "done", "done")
    assert [row["run"] for row in ask("history", "dev", "--json").json] == [again.run, first.run]


def test_what_is_refused_is_none(ask: Ask, fleet: Path) -> None:
    assert ask("vm", "start", "kept").status != 0
    assert all_lines() == []


@pytest.mark.parametrize(
    ("error", "changed", "expected"),
    [
        (FleetError("it broke"), False, ("failed", False, "it broke")),
        (FleetError("it broke"), True, ("failed", True, "it broke")),
        (OutcomeUnknown("no answer", None), False, ("unknown", None, "no answer")),
        (KeyboardInterrupt(), True, ("unknown", True, "interrupted")),
        (ValueError("a fault: secret"), False, ("failed", False, "ValueError")),
    ],
)
@pytest.mark.parametrize("hosts", [("dev",), ()])
def test_how_it_ended(
    error: BaseException, changed: bool, expected: tuple[object, ...], hosts: tuple[str, ...], tmp_path: Path
) -> None:
    def act() -> None:
        with Recording(tmp_path, hosts) as recording:
            recording.begin()
            recording.changed = changed
            raise error

    with pytest.raises(type(error)):
        act()
    [line] = all_lines()
    assert (line.outcome, line.changed, line.why, line.host) == (*expected, *(hosts or (None,)))
    [run] = runs()
    assert [line] == lines_of(run.name, number_of(run), entries(run))


def test_nothing_that_began_leaves_nothing(tmp_path: Path) -> None:
    with Recording(tmp_path, ["dev"]):
        pass
    assert (runs(), all_lines()) == ([], [])


def test_one_that_was_killed_is_told_by_whoever_comes_next(tmp_path: Path) -> None:
    recording = Recording(tmp_path, ["dev"])
    recording.begin()
    assert all_lines() == []  # it is under way
    assert recording._journal is not None
    recording._journal.close()
    [line] = all_lines()
    assert (line.host, line.outcome, line.changed, line.exit) == ("dev", "unknown", None, None)


def test_they_take_no_place_of_deployments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nixherd.deploy.history._KEPT", 3)
    journal = Journal(new_directory())
    journal.note("command", command="deploy", who="me@here", fleet="/fleet", asks=False)
    journal.close()
    record(journal.directory)
    for _ in range(6):
        with Recording(tmp_path, ["dev"]) as recording:
            recording.begin()
    assert [(run / BRIEF).exists() for run in runs()] == [False, True, True, True]
    assert len(place().read_text().splitlines()) == 7


def test_a_place_that_cannot_be_written_is_said_and_nothing_begins(state: Path, tmp_path: Path) -> None:
    state.mkdir()
    (state / "nixherd").write_text("a file")
    with pytest.raises((FleetError, OSError)):
        Recording(tmp_path, ["dev"]).begin()


def test_what_was_changed_is_not_undone_by_a_history_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Recording(tmp_path, ["dev"]) as recording:
        recording.begin()
        place().parent.write_text("a file")
    assert "not in the history yet" in capsys.readouterr().err
    place().parent.unlink()
    assert [line.outcome for line in all_lines()] == ["done"]
