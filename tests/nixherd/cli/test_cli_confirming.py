"""A person at a terminal is shown the plan and asked, before what interrupts a fleet or destroys something."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Usage
from nixherd.cli.main import run
from nixherd.cli.output import confirm
from nixherd.deploy.numbers import runs
from nixherd.proxmox.guest.verbs import COMMANDS, VERBS
from tests.nixherd.cli.conftest import Nixherd
from tests.nixherd.cli.test_cli_deploying import FakePyinfra, begun, end, pyinfra  # noqa: F401  (fixture)
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.proxmox.dev import begin

pytestmark = pytest.mark.xdist_group("emulator")


class Answers:
    """A person at a terminal, who says this; `asked` are the questions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, says: bool) -> None:
        self.asked: list[str] = []
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        for module in ("front", "deploy", "output"):
            monkeypatch.setattr(f"nixherd.cli.{module}.can_ask", lambda: True)

        def answer(question: str, **_: Any) -> bool:
            self.asked.append(question)
            return says

        monkeypatch.setattr("click.confirm", answer)


def planned(tmp_path: Path, second: str = "planned") -> tuple[Any, ...]:
    diff = ("found", "a", {"diff": ["nginx: 1.27 → 1.28"], "size_before": 1, "size_after": 1, "reboot_for": []})
    return begun(tmp_path, "a", "b"), diff, end("a", "planned"), end("b", second)


@pytest.mark.parametrize("words", [["deploy"], ["deploy", "all"], ["reboot"]], ids=" ".join)
def test_the_whole_fleet(
    words: list[str],
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    person = Answers(monkeypatch, says=False)
    fake = pyinfra(*planned(tmp_path))
    assert run([*words, "--table"]) == 2
    assert fake.argv[1] == "--dry"
    verb, done = ("Deploy to", "deployed") if words[0] == "deploy" else ("Reboot", "rebooted")
    assert person.asked == [f"{verb} 2 of 2 hosts?"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "  nginx: 1.27 → 1.28\n" in err
    assert "2 planned (report 1)\n" in err
    assert err.endswith(f"the fleet was not {done}; nothing was changed\n")


def test_a_yes_goes_on(
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = Answers(monkeypatch, says=True)
    fake = pyinfra(*planned(tmp_path))
    run(["deploy", "--json"])
    assert (fake.argv[1], len(person.asked), len(runs())) == ("-y", 1, 2)


@pytest.mark.parametrize(
    "words",
    [["deploy", "--yes"], ["deploy", "a"], ["deploy", "--goal", "dry-activate"], ["reboot", "--dry-run"], ["plan"]],
    ids=" ".join,
)
def test_nobody_is_asked(
    words: list[str],
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = Answers(monkeypatch, says=False)
    pyinfra(*planned(tmp_path))
    assert run([*words, "--json"]) == 0
    assert (person.asked, len(runs())) == ([], 1)


def test_where_nothing_would_change_nobody_is_asked(
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = Answers(monkeypatch, says=False)
    fake = pyinfra(begun(tmp_path, "a"), end("a", "unchanged"))
    assert run(["deploy", "--json"]) == 0
    assert (fake.argv[1], person.asked) == ("-y", [])


def test_a_plan_that_does_not_begin_says_why(
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    person = Answers(monkeypatch, says=True)
    pyinfra(status=2, stderr="hosts.nix: it is not there\n")
    assert run(["deploy"]) == 2
    assert (capsys.readouterr().err, person.asked) == ("hosts.nix: it is not there\n", [])


def test_in_a_pipe_it_goes_on_as_ever(
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    tmp_path: Path,
) -> None:
    fake = pyinfra(begun(tmp_path, "a"), end("a", "deployed"))
    assert run(["deploy", "--json"]) == 0
    assert fake.argv[1] == "-y"


GC = ("step", "a", {"text": "delete 2 generations older than 30d (1, 2), and garbage", "planned": True})


@pytest.mark.parametrize("hosts", ["all", "a"])
def test_generations_that_would_go_are_shown(
    hosts: str,
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    fleet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    person = Answers(monkeypatch, says=False)
    fake = pyinfra(begun(tmp_path, "a", "b"), GC, ("end", "b", {"outcome": "unreachable", "why": "off", "exit": 4}))
    monkeypatch.setenv("FLEET", str(fleet))
    assert run(["gc", hosts]) == 2
    assert (fake.argv[1], person.asked) == ("--dry", ["Collect garbage on 1 of 2 hosts?"])
    out, err = capsys.readouterr()
    assert out == ""
    assert "a: would delete 2 generations older than 30d (1, 2), and garbage\nb: unreachable: off\n" in err
    assert err.endswith("no garbage was collected; nothing was changed\n")
    run(["gc", hosts, "--yes"])
    assert (fake.argv[1], len(person.asked)) == ("-y", 1)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["all"], ["Run it on 3 hosts?"]),
        (["*", "--exclude", "caddy", "--sudo"], ["Run it on 2 hosts?"]),
        (["dev"], []), (["dev", "caddy"], []), (["all", "--yes"], []), (["all", "--dry-run"], []),
    ],
)  # fmt: skip
def test_a_command_on_the_whole_fleet(
    words: list[str],
    asked: list[str],
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    fleet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    person = Answers(monkeypatch, says=False)
    fake = pyinfra(begun(tmp_path, "dev"))
    monkeypatch.setenv("FLEET", str(fleet))
    status = run(["exec", *words, "--", "systemctl", "restart", "x y"])
    assert person.asked == asked
    err = capsys.readouterr().err
    if asked:
        assert (status, fake.argv) == (2, [])
        hosts = "caddy, dev, proxmox-vm" if words == ["all"] else "dev, proxmox-vm: as root"
        assert err == f"{hosts}: systemctl restart 'x y'\nexec: nothing was run; nothing was changed\n"
    else:
        assert fake.argv[1] == ("--dry" if "--dry-run" in words else "-y")


def test_where_nobody_can_be_asked() -> None:
    confirm("Go on?", "it was not done", yes=False, unattended=True)
    with pytest.raises(Usage, match="it was not done: without a terminal to ask on, say --yes"):
        confirm("Go on?", "it was not done", yes=False)


def test_what_is_asked_for() -> None:
    """What loses something is, what is called by its name is not, and all else where it interrupts the guest."""
    asked = {name for name, verb in VERBS.items() if verb.asks}
    assert asked == {"destroy", "restore", "rollback", "delete_snapshot"}
    assert {name for name, verb in COMMANDS.items() if verb.asks is False} == {
        "start", "stop", "shutdown", "reboot", "suspend",
    }  # fmt: skip


@pytest.mark.parametrize(
    "words", [["destroy", "dev", "110", "--stop", "--no-backup"], ["rollback", "dev", "clean"]], ids=" ".join
)
def test_what_loses_something(
    words: list[str], nixherd: Nixherd, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(emulator)
    assert nixherd("snapshot", "dev", "clean").status == 0
    if words[0] == "rollback":
        assert nixherd("stop", "dev").status == nixherd("start", "dev").status == 0
    before, planned = emulator.changes(), nixherd(*words, "--dry-run").json["steps"]
    person = Answers(monkeypatch, says=False)
    refused = nixherd(*words)
    assert (refused.status, refused.out, person.asked) == (2, "", ["Do this?"])
    *plan, end = refused.err.splitlines()
    assert plan == [f"vm 110 (dev): would {step}" for step in planned]
    assert (
        end
        == f"vm 110 (dev): {'roll back' if words[0] == 'rollback' else 'destroy'}: not confirmed; nothing was changed"
    )
    assert emulator.changes() == before
    assert nixherd(*words, "--yes").status == 0
    assert len(person.asked) == 1
    assert emulator.changes() != before


def test_what_is_called_by_its_name(nixherd: Nixherd, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(emulator)
    person = Answers(monkeypatch, says=False)
    assert nixherd("stop", "dev").status == nixherd("start", "dev").status == nixherd("backup", "dev").status == 0
    assert person.asked == []
