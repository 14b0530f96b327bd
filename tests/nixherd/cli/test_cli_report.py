"""`nixherd report`: each run by its number, as it was shown when it ended."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from nixherd.cli.summary import cause_of, lines
from nixherd.deploy.history import new_directory
from nixherd.deploy.numbers import deployments, number_of, runs
from nixherd.deploy.report import HostReport, Journal, Outcome, Report, is_under_way, report
from tests.nixherd.cli.test_cli_deploying import FakePyinfra, begun, end, pyinfra  # noqa: F401  (fixture)

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FLEET", str(tmp_path / "fleet"))
    return tmp_path / "state" / "nixherd"


def made(*notes: tuple[str, str | None, dict[str, Any]]) -> Path:
    directory = new_directory()
    journal = Journal(directory)
    for event, host, values in notes:
        journal.note(event, host, **values)
    journal.close()
    return directory


def test_the_report_is_what_the_run_showed(
    pyinfra: Any,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pyinfra(begun(tmp_path, "a", "b"), ("begin", "a", {}), end("a", "deployed"), end("b", "unreachable", "no SSH"))
    assert run(["deploy", "--table"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "1 deployed, 1 unreachable (report 1)"
    assert f"report 1: {runs()[-1]}/report.json" in err
    assert run(["report", "1", "--table"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == out.splitlines()
    assert run(["report", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["report"], document["command"], document["exit"]) == (1, "deploy", 1)
    assert run(["report", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["number"], row["command"], row["host_count"], row["result"]) == (
        1,
        "deploy",
        2,
        "1 deployed, 1 unreachable",
    )


def test_numbers_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "1"]) == 2
    assert capsys.readouterr().err == "report 1 does not exist yet; no run has begun\n"
    assert run(["report", "--table"]) == 0
    assert capsys.readouterr().err == "no run so far\n"
    for _ in range(52):
        made()
    assert [number_of(each) for each in runs()] == list(range(3, 53))
    assert run(["report", "2"]) == 2
    assert capsys.readouterr().err == "report 2 is not kept any more; the oldest that is kept is 3\n"
    assert run(["report", "53"]) == 2
    assert capsys.readouterr().err == "report 53 does not exist yet; the newest is 52\n"
    assert run(["report", "0"]) == run(["report", "x"]) == 2


def test_a_number_comes_once(state: Path) -> None:
    """Also when the counter or all runs are lost; a run that begins again keeps its own."""
    first, second = made(), made()
    Journal(first).close()
    assert (number_of(first), number_of(second)) == (1, 2)
    (state / ".numbers/last").write_text("broken")
    assert number_of(made()) == 3
    for directory in runs():
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
    assert number_of(made()) == 4


def test_a_run_elsewhere_has_no_number(tmp_path: Path) -> None:
    Journal(tmp_path / "run").close()
    assert number_of(tmp_path / "run") is None
    assert not deployments().exists()


MANY = """
from nixherd.deploy.history import new_directory
from nixherd.deploy.report import Journal
for _ in range(10):
    Journal(new_directory()).close()
"""


@pytest.mark.process
def test_runs_at_once_get_numbers_of_their_own() -> None:
    processes = [subprocess.Popen([sys.executable, "-c", MANY], cwd=ROOT) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert sorted(number_of(each) or 0 for each in runs()) == list(range(1, 41))


def test_a_run_that_was_killed_and_one_under_way(capsys: pytest.CaptureFixture[str]) -> None:
    """What is not known is not called failed, and not well."""
    notes: list[tuple[str, str | None, dict[str, Any]]] = [
        ("run", None, {"hosts": ["a", "b"], "deploys": ["deploys/deploy.py"]}),
        ("begin", "a", {}),
        ("stage", "a", {"stage": "activate"}),
        ("end", "b", {"outcome": "unreachable", "why": "no SSH"}),
    ]
    made(*notes)
    assert run(["report", "1", "--json"]) == 0
    killed = json.loads(capsys.readouterr().out)
    assert [row["outcome"] for row in killed["hosts"]] == ["unknown", "unreachable"]
    directory = new_directory()
    journal = Journal(directory)
    for event, host, values in notes:
        journal.note(event, host, **values)
    assert is_under_way(directory)
    assert run(["report", "2", "--table"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == [
        "a  under way: activate", "b  unreachable: no SSH", "1 under way, 1 unreachable"
    ]  # fmt: skip
    assert err == "run 2 is under way: this is how far it is\n"
    journal.close()
    assert not is_under_way(directory)


def test_steps_that_pyinfra_made_are_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    made(
        ("run", None, {"hosts": ["a", "b"], "deploys": ["deploys/provision.py"]}),
        ("step", "a", {"text": "clone", "planned": False}),
        ("end", "b", {"outcome": "failed", "why": "no room", "exit": 4}),
    )
    assert run(["report", "1", "--table"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "a  unknown: how it ended is not on record", "b  failed: no room", "1 unknown, 1 failed"
    ]  # fmt: skip


# causes


def shown(*hosts: HostReport) -> list[str]:
    return [str(line) for line in lines(Report({}, hosts), dry=False, number=42)]


def test_hosts_with_one_cause_are_one_line() -> None:
    """The cause is the same but for the host's name, its address and the seconds."""
    down = [
        HostReport(f"h{n}", Outcome.UNREACHABLE, why=f"h{n}: no SSH at 10.0.0.{n} (fe80::{n}) for {n}.5 s")
        for n in range(1, 13)
    ]
    other = HostReport("x", Outcome.UNREACHABLE, why="x: its key is another")
    assert shown(*down, other, HostReport("a", Outcome.DEPLOYED)) == [
        "a  deployed",
        "12 hosts unreachable: HOST: no SSH at ADDRESS (ADDRESS) for … s",
        f"    {', '.join(sorted(each.host for each in down))}",
        "x  unreachable: x: its key is another",
        "1 deployed, 13 unreachable (report 42)",
    ]


def test_what_a_machine_logged_is_shown_for_each() -> None:
    back = [
        HostReport(name, Outcome.ROLLED_BACK, why="units failed: x", found={"log": [f"{name} broke"]}) for name in "ab"
    ]
    assert shown(*back) == [
        "a  rolled back: units failed: x", "   | a broke", "b  rolled back: units failed: x", "   | b broke",
        "2 rolled back (report 42)",
    ]  # fmt: skip


def test_a_cause_is_not_made_of_other_words() -> None:
    why = "path /nix/store/abc-nixos at 12:30 of version 1.2.3"
    assert cause_of(HostReport("abcd", Outcome.FAILED, why=why)) == why


def test_a_journal_from_before_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    directory = made(("run", None, {"hosts": ["a"]}), ("begin", "a", {}), ("end", "a", {"outcome": "deployed"}))
    (directory / "number").unlink()
    assert report([]).hosts == ()
    assert run(["report", "--table"]) == 0
    assert "1 deployed" in capsys.readouterr().out
