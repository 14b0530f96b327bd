"""What became of a run is told from its journal alone, whoever died."""

import json
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Exit
from nixherd.deploy.report import Journal, Outcome, entries, report


def noted(directory: Path, *events: tuple[str, str | None, dict[str, Any]]) -> list[dict[str, Any]]:
    journal = Journal(directory / "run")
    for event, host, about in events:
        journal.note(event, host, **about)
    journal.close()
    return entries(directory / "run")


def ended(host: str, outcome: Outcome, **about: Any) -> tuple[str, str, dict[str, Any]]:
    return "end", host, {"outcome": outcome, **about}


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([Outcome.UNCHANGED], 0),
        ([Outcome.DEPLOYED, Outcome.UNCHANGED, Outcome.PENDING_REBOOT, Outcome.PLANNED], 0),
        ([Outcome.ROLLED_BACK], 1),
        ([Outcome.ROLLED_BACK, Outcome.HELD], 1),
        ([Outcome.FAILED, Outcome.UNREACHABLE], 4),
        ([Outcome.DEPLOYED, Outcome.UNREACHABLE], 1),
        ([Outcome.DEPLOYED, Outcome.UNKNOWN], 5),
        ([Outcome.ROLLED_BACK, Outcome.UNKNOWN], 5),
    ],
)
def test_the_status_of_a_run(tmp_path: Path, outcomes: list[Outcome], status: int) -> None:
    hosts = [f"h{number}" for number in range(len(outcomes))]
    events = [ended(host, outcome) for host, outcome in zip(hosts, outcomes, strict=True)]
    found = report(noted(tmp_path, ("run", None, {"hosts": hosts}), *events))
    assert found.exit == status
    assert found.to_json()["exit"] == status


def test_a_refusal_of_one_host_has_its_own_status(tmp_path: Path) -> None:
    found = report(noted(tmp_path, ("run", None, {"hosts": ["a"]}), ended("a", Outcome.FAILED, exit=2, why="no")))
    assert (found.exit, found.hosts[0].why) == (Exit.USAGE, "no")


def test_the_first_end_counts_and_all_that_was_found_is_told(tmp_path: Path) -> None:
    found = report(
        noted(
            tmp_path,
            ("run", None, {"hosts": ["a", "b"], "goal": "switch"}),
            ("stage", "a", {"stage": "reach"}),
            ("found", "a", {"old": "x"}),
            ("stage", "a", {"stage": "activate"}),
            ("found", "a", {"new": "y"}),
            ended("a", Outcome.ROLLED_BACK, why="units failed"),
            ended("a", Outcome.FAILED, why="later"),
            ended("b", Outcome.UNCHANGED),
        )
    )
    document = json.loads(json.dumps(found.to_json()))
    assert document["goal"] == "switch"
    assert document["summary"] == "1 unchanged, 1 rolled back"
    [a, b] = document["hosts"]
    assert {key: a[key] for key in ("host", "outcome", "stage", "why", "old", "new", "exit")} == {
        **{"host": "a", "outcome": "rolled back", "stage": "activate", "why": "units failed"},
        **{"old": "x", "new": "y", "exit": 1},
    }
    assert a["seconds"] is not None
    assert b["outcome"] == "unchanged"


@pytest.mark.parametrize(
    ("stage", "outcome", "said"),
    [
        (None, Outcome.FAILED, "the run ended before it was deployed to"),
        ("copy", Outcome.FAILED, "the run ended before it was deployed to (at copy)"),
        ("activate", Outcome.UNKNOWN, "the run ended while it was at activate"),
        ("prove", Outcome.UNKNOWN, "the run ended while it was at prove"),
        ("keep", Outcome.UNKNOWN, "the run ended while it was at keep"),
    ],
)
def test_a_run_that_was_killed(tmp_path: Path, stage: str | None, outcome: Outcome, said: str) -> None:
    stages = [("stage", "a", {"stage": stage})] if stage else []
    found = noted(tmp_path, ("run", None, {"hosts": ["a"]}), *stages)
    [host] = report(found).hosts
    assert (host.outcome, (host.why or "").startswith(said)) == (outcome, True)


def test_a_second_rollout_that_finds_nothing_does_not_hide_the_first(tmp_path: Path) -> None:
    """A host that was deployed to, then found unchanged by the next deploy file, was deployed to."""
    again = [("begin", "a", {}), ended("a", Outcome.UNCHANGED), ("begin", "b", {}), ended("b", Outcome.ROLLED_BACK)]
    first = [("run", None, {"hosts": ["a", "b"]}), ended("a", Outcome.DEPLOYED), ended("b", Outcome.DEPLOYED)]
    rows = {row.host: row.outcome for row in report(noted(tmp_path, *first, *again)).hosts}
    assert rows == {"a": Outcome.DEPLOYED, "b": Outcome.ROLLED_BACK}


def test_a_rollout_reports_what_was_found_in_it_and_nothing_of_the_one_before(tmp_path: Path) -> None:
    first: list[tuple[str, str | None, dict[str, Any]]] = [
        ("run", None, {"hosts": ["a"]}),
        ("found", "a", {"verified": {"root": "/dev/sda2"}}),  # by an installation, before any rollout
        ("begin", "a", {}),
        ("stage", "a", {"stage": "activate"}),
        ("found", "a", {"new": "x", "diff": ["jq"], "log": ["it is broken"], "login_shell": "prints"}),
        ended("a", Outcome.ROLLED_BACK, why="units failed"),
        ("begin", "a", {}),
    ]
    deployed = [("found", "a", {"new": "y", "current": "y"}), ended("a", Outcome.DEPLOYED)]
    of_the_host = {"verified": {"root": "/dev/sda2"}, "login_shell": "prints"}
    [row] = report(noted(tmp_path / "deployed", *first, *deployed)).hosts
    assert (row.outcome, row.why, row.stage) == (Outcome.DEPLOYED, None, None)
    assert row.found == {"new": "y", "current": "y", **of_the_host}
    unchanged = [("found", "a", {"old": "y", "new": "y"}), ended("a", Outcome.UNCHANGED)]
    [row] = report(noted(tmp_path / "unchanged", *first, *unchanged)).hosts
    assert (row.outcome, row.why, row.stage) == (Outcome.ROLLED_BACK, "units failed", "activate")
    assert row.found == {"new": "x", "diff": ["jq"], "log": ["it is broken"], **of_the_host}
    [row] = report(noted(tmp_path / "killed", *first, ("stage", "a", {"stage": "reach"}))).hosts
    assert (row.outcome, row.found) == (Outcome.FAILED, of_the_host)


def test_a_run_without_hosts_has_its_own_reason_and_warnings_name_their_hosts(tmp_path: Path) -> None:
    events: list[tuple[str, str | None, dict[str, Any]]] = [
        ("run", None, {"goal": "switch"}),
        ("done", None, {"exit": 2, "why": "no host is left"}),
    ]
    empty = report(noted(tmp_path, *events))
    assert (empty.exit, empty.why, empty.summary) == (Exit.USAGE, "no host is left", "no host")
    assert empty.to_json()["exit"] == 2
    warned: list[tuple[str, str | None, dict[str, Any]]] = [
        ended("a", Outcome.DEPLOYED),
        ("warning", None, {"text": "x is old", "hosts": ["a"]}),
    ]
    document = report(noted(tmp_path / "second", *warned)).to_json()
    assert document["hosts"][0]["outcome"] == "deployed"
    [warning] = document["warnings"]
    assert "x is old" in warning
    assert (
        str(report(noted(tmp_path / "third", ended("a", Outcome.HELD, why="b failed"))).hosts[0]) == "a: held: b failed"
    )
