"""What came to a machine: a run's proof is never overruled by its word, and what contradicts that is told."""

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nixherd.deploy.history import HistoryLine
from nixherd.deploy.timeline import PROVED, TOLD, contradictions, last, timeline
from nixherd.fleet.revisions import Note

OLD, NEW, OTHER = (f"/nix/store/{letter * 32}-nixos-system-dev-26.05" for letter in "abc")
COMMIT, EARLIER = "1" * 40, "2" * 40
NOW = datetime(2026, 12, 1, tzinfo=UTC)


def line(run: str = "20261130T100000-1", **values: Any) -> HistoryLine:
    usual = {"number": 7, "operator": "alice@desk", "ended": "2026-11-30T10:00:09Z", "outcome": "deployed"}
    return HistoryLine(run, "dev", 1, **{**usual, "after": NEW, "revision": COMMIT, "changed": True, **values})


def note(path: str, run: str, when: str = "2026-11-30T10:00:08Z", revision: str | None = COMMIT) -> Note:
    return Note(path, revision, when, "bob@lap-12", run)


def test_a_deployment_of_ours_comes_once_as_it_was_proved() -> None:
    events = timeline([line()], [note(OLD, "x", "2026-11-29T10:00:00Z"), note(NEW, "20261130T100000-1.2")], NOW)
    assert [(each.source, each.path, each.who) for each in events] == [
        (TOLD, OLD, "bob@lap"),
        (PROVED, NEW, "alice@desk"),
    ]
    assert list(contradictions([line()], [note(NEW, "20261130T100000-1")], NOW)) == []


def test_what_runs_was_brought_by_another_operator() -> None:
    theirs = note(OTHER, "y", "2026-11-30T12:00:00Z", EARLIER)
    found = last([line()], [note(NEW, "20261130T100000-1"), theirs], OTHER, NOW)
    assert found is not None
    assert (found.source, found.who, found.revision, found.number) == (TOLD, "bob@lap", EARLIER, None)


def test_what_a_run_proved_is_not_overruled() -> None:
    liar = note(NEW, "z", "2026-11-30T23:00:00Z", EARLIER)
    found = last([line()], [liar], NEW, NOW)
    assert found is not None
    assert (found.source, found.revision) == (PROVED, COMMIT)


def test_another_path_and_another_revision_of_the_same_run_contradict_it() -> None:
    [path] = contradictions([line()], [note(OTHER, "20261130T100000-1-boot")], NOW)
    assert path == f"run 7 proved {NEW}, and the machine notes {OTHER} of it"
    [revision] = contradictions([line()], [note(NEW, "20261130T100000-1", revision=EARLIER)], NOW)
    assert revision == f"run 7 proved {COMMIT}, and the machine notes {EARLIER} of it"


def test_a_specialisation_is_noted_beside_its_system() -> None:
    notes = [note(OTHER, "20261130T100000-1"), note(NEW, "20261130T100000-1")]
    assert list(contradictions([line()], notes, NOW)) == []


def test_a_time_that_is_yet_to_come_is_told_and_not_believed() -> None:
    future = note(NEW, "z", "2036-01-01T00:00:00Z")
    [text] = contradictions([], [future], NOW)
    assert "yet to come" in text
    assert [each.when for each in timeline([], [future], NOW)] == [None]


def test_without_a_note_of_what_runs_the_last_one_from_here_is_all_that_is_known() -> None:
    found = last([line()], [], OTHER, NOW)
    assert found is not None
    assert (found.path, found.source) == (NEW, PROVED)
    assert last([], [], OTHER, NOW) is None


def test_a_reboot_is_not_the_deployment_that_brought_what_it_boots() -> None:
    rebooted = line("r2", outcome="rebooted", revision=None, number=8)
    found = last([line(outcome="pending reboot"), rebooted], [], NEW, NOW)
    assert found is not None
    assert (found.number, found.revision) == (7, COMMIT)
    alone = last([rebooted], [], NEW, NOW)
    assert alone is not None
    assert alone.number == 8


PATHS, RUNS = st.sampled_from([OLD, NEW, OTHER]), st.sampled_from(["r1", "r2", "r3"])
LINES = st.lists(st.builds(line, RUNS, after=PATHS | st.none(), changed=st.booleans() | st.none()), max_size=4)
WHEN = st.sampled_from(["2026-11-30T10:00:08Z", "2036-01-01T00:00:00Z", "never"])
NOTES = st.lists(st.builds(note, PATHS, RUNS, WHEN, st.sampled_from([COMMIT, EARLIER, None])), max_size=4)


@given(LINES, NOTES, PATHS | st.none())
def test_told_never_takes_the_place_of_proved(lines: list[HistoryLine], notes: list[Note], current: str | None) -> None:
    events = timeline(lines, notes, NOW)
    assert [each for each in events if each.source == PROVED] == [
        each for each in timeline(lines, [], NOW) if each.source == PROVED
    ]
    ours = {each.run for each in lines}
    assert all(each.run not in ours for each in events if each.source == TOLD)
    proved = next((each for each in reversed(lines) if each.changed is not False), None)
    found = last(lines, notes, current, NOW)
    if proved and proved.after == current:
        assert found is not None
        assert found.source == PROVED
