"""`nixherd deploy`, `plan` and `reboot`: what pyinfra is told, and what is made of the journal that it leaves."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.process import Completed
from nixherd.cli import run_pyinfra
from nixherd.cli.main import run
from nixherd.deploy.numbers import runs
from nixherd.deploy.report import Journal

Note = tuple[str, str | None, dict[str, Any]]
DIFF = {"diff": ["nginx: 1.27 → 1.28"], "size_before": 1 << 30, "size_after": 1 << 30, "reboot_for": []}


class FakePyinfra:
    """Leaves this journal behind, and records how it was called."""

    def __init__(self, *notes: Note, status: int = 0, stderr: str = "") -> None:
        self.notes, self.status, self.stderr = notes, status, stderr
        self.argv: list[str] = []
        self.input: object = None

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        self.argv, self.input = list(argv), options.get("input")
        [place] = [word.partition("=")[2] for word in argv if word.startswith("journal=")]
        journal = Journal(Path(place))
        for event, host, about in self.notes:
            journal.note(event, host, **about)
        journal.close()
        return Completed("", self.stderr, self.status)

    @property
    def data(self) -> set[str]:
        return {self.argv[at + 1] for at, word in enumerate(self.argv) if word == "--data"}


@pytest.fixture
def pyinfra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., FakePyinfra]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FLEET", str(tmp_path / "fleet"))

    def fake(*notes: Note, **about: Any) -> FakePyinfra:
        made = FakePyinfra(*notes, **about)
        monkeypatch.setattr(run_pyinfra, "run", made)
        return made

    return fake


def begun(tmp_path: Path, *hosts: str, step: str = "deploy") -> Note:
    about = {"hosts": list(hosts), "steps": [step], "fleet": str(tmp_path / "fleet"), "goal": "switch"}
    return "run", None, about


def end(host: str, outcome: str, why: str | None = None) -> Note:
    return "end", host, {"outcome": outcome, "why": why}


def test_people_read_a_summary_and_ci_a_document(
    pyinfra: Callable[..., FakePyinfra], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = (
        begun(tmp_path, "a", "b", "c"),
        ("stage", "a", {"stage": "activate"}),
        ("found", "a", {"log": ["activating", "it breaks"]}),
        end("a", "rolled back", "units failed: x.service"),
        ("found", "b", {"reboot_for": ["kernel"]}),
        end("b", "deployed"),
        end("c", "unchanged"),
    )
    fake = pyinfra(*notes)
    assert run(["deploy", "a", "web", "--exclude", "d", "--goal", "test", "--soak", "5", "--table"]) == 1
    out, err = capsys.readouterr()
    assert out.replace(" (0.0 s)", "").splitlines() == [
        "c  unchanged",
        "b  deployed; needs a reboot for kernel",
        "a  rolled back: units failed: x.service",
        "   | activating",
        "   | it breaks",
        "1 unchanged, 1 deployed, 1 rolled back (report 1)",
    ]
    assert "a: activate\n" in err
    assert fake.argv[1:6] == ["-y", "--parallel", "100", "inventory.py", "deploys/deploy.py"]
    limits = [fake.argv[at + 1] for at, word in enumerate(fake.argv) if word == "--limit"]
    assert (limits, fake.argv[fake.argv.index("--exclude") + 1]) == (["a", "web"], "d")
    assert {"goal=test", "soak=5"} < fake.data
    assert not any(word.startswith(("activation_deadline", "reboot", "allow_dirty")) for word in fake.data)

    pyinfra(*notes)
    assert run(["deploy", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["exit"], document["summary"]) == (1, "1 unchanged, 1 deployed, 1 rolled back")
    assert [host["host"] for host in document["hosts"]] == ["a", "b", "c"]
    assert json.loads((runs()[-1] / "report.json").read_text()) == document


def test_a_revision_that_is_not_noted_is_said_beside_what_is_deployed(
    pyinfra: Callable[..., FakePyinfra], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = {"unnoted": "No space left on device", "noted": None}
    pyinfra(begun(tmp_path, "a"), ("found", "a", full), end("a", "deployed"))
    assert run(["deploy", "a", "--table"]) == 0
    assert "a  deployed; revision not noted: No space left on device\n" in capsys.readouterr().out


def test_a_plan_shows_hosts_with_the_same_changes_once(
    pyinfra: Callable[..., FakePyinfra], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = [begun(tmp_path, "a", "b", "c")]
    for host in ("a", "b"):
        notes += [("found", host, {**DIFF, "services": ["would restart the following units: nginx.service"]})]
    notes += [("found", "c", {**DIFF, "reboot_for": ["kernel"]}), *(end(host, "planned") for host in "abc")]
    fake = pyinfra(*notes)
    assert run(["plan", "--table"]) == 0
    assert capsys.readouterr().out.split("\n\n")[:2] == [
        "a, b:\n  nginx: 1.27 → 1.28\n  closure 1 GiB → 1 GiB\n  needs a reboot: no\n"
        "  would restart the following units: nginx.service",
        "c:\n  nginx: 1.27 → 1.28\n  closure 1 GiB → 1 GiB\n  needs a reboot: kernel\n  services unknown",
    ]
    assert fake.argv[1] == "--dry"
    fake = pyinfra(*notes)
    assert run(["plan", "--dry-copy", "--json"]) == 0
    assert (fake.argv[1], "goal=dry-activate" in fake.data) == ("-y", True)


def test_a_run_that_never_began_says_why_itself(
    pyinfra: Callable[..., FakePyinfra], capsys: pytest.CaptureFixture[str]
) -> None:
    pyinfra(status=2, stderr="--> Loading inventory...\n--limit nosuch: no host or group has this name\n")
    assert run(["deploy", "nosuch", "--json"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "--limit nosuch: no host or group has this name\n")


TRACEBACK = """\
--> Loading config...
--> An internal exception occurred:

  File "/x/pyinfra_cli/cli.py", line 731, in _set_override_data
    key, value = arg.split("=", 1)
ValueError: not enough values to unpack (expected 2, got 1)

--> The full traceback has been written to pyinfra-debug.log
"""


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("--> Loading config...\n--> pyinfra error: No deploy file: x.py\n", "pyinfra: No deploy file: x.py"),
        (TRACEBACK, "pyinfra: ValueError: not enough values to unpack (expected 2, got 1)"),
        ("--> Loading config...\nUsage: x\n\nError: Missing argument\n", "Usage: x\nError: Missing argument"),
        ("--> Loading config...\n", "pyinfra ended with status 1; its output: "),
    ],
    ids=["pyinfra's error", "a traceback", "other lines", "nothing"],
)
def test_pyinfras_own_error_is_said(
    pyinfra: Callable[..., FakePyinfra], capsys: pytest.CaptureFixture[str], stderr: str, said: str
) -> None:
    pyinfra(status=1, stderr=stderr)
    assert run(["deploy"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert "Traceback" not in err
    assert "-->" not in err
    assert (runs()[-1] / run_pyinfra.LOG).read_text() == stderr


def test_an_error_of_pyinfra_in_the_middle_is_said_beside_the_report(
    pyinfra: Callable[..., FakePyinfra], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pyinfra(begun(tmp_path, "a"), end("a", "deployed"), status=1, stderr=TRACEBACK)
    run(["deploy", "--json"])
    assert "\npyinfra: ValueError: not enough values to unpack" in "\n" + capsys.readouterr().err


@pytest.mark.parametrize("command", ["deploy", "plan", "reboot", "provision", "post-provision", "publish"])
@pytest.mark.parametrize("pair", ["nonsense", "=x", ""])
def test_data_that_is_not_a_pair_is_wrong_usage(capsys: pytest.CaptureFixture[str], command: str, pair: str) -> None:
    assert run([command, "x", "--data", pair]) == 2
    assert capsys.readouterr().err == (
        f"Error: Invalid value for '--data': {pair!r} is not NAME=VALUE; see `nixherd {command} --help`\n"
    )


def test_an_interruption_before_anything_began_is_one(
    pyinfra: Callable[..., FakePyinfra], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pyinfra()
    monkeypatch.setattr(run_pyinfra, "run_pyinfra", lambda *words, **_: (Completed("", "", 143), True))
    assert run(["deploy", "--table"]) == 130
    assert capsys.readouterr().out == "no host (report 1)\n"


def test_only_what_the_last_deployment_of_this_fleet_left(
    pyinfra: Callable[..., FakePyinfra], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pyinfra()
    assert run(["deploy", "--rerun-failed"]) == 2
    assert "no deployment of this fleet is on record here" in capsys.readouterr().err
    pyinfra(begun(tmp_path, "a", "b", "c"), end("a", "deployed"), end("b", "rolled back"), end("c", "held"))
    assert run(["deploy", "--json"]) == 1
    fake = pyinfra(begun(tmp_path, "a", step="reboot"), end("a", "left to its owner"))
    assert run(["reboot", "--json"]) == 0
    assert fake.argv[5] == "deploys/reboot.py"
    fake = pyinfra(begun(tmp_path, "b", "c"), end("b", "deployed"), end("c", "deployed"))
    assert run(["deploy", "--rerun-failed", "--json"]) == 0
    assert [word for at, word in enumerate(fake.argv) if fake.argv[at - 1] == "--limit"] == ["b", "c"]
    assert run(["deploy", "--rerun-failed"]) == 0
    assert "left no host to run again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "status", "limits"),
    [
        (["dev"], 0, ["dev"]),
        (["doc1", "dev"], 0, ["dev", "proxmox-vm"]),
        (["nixos"], 0, ["dev", "proxmox-vm"]),
        (["caddy"], 2, "--rerun-failed caddy: the last deployment failed on dev, proxmox-vm alone"),
        (["nosuch"], 2, "HOST nosuch: no host or group has this name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_those_named_of_what_the_last_deployment_left(
    pyinfra: Callable[..., FakePyinfra], make_fleet: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], named: list[str], status: int, limits: list[str] | str,
) -> None:  # fmt: skip
    fleet = make_fleet()
    monkeypatch.setenv("FLEET", str(fleet))
    about = {"hosts": ["dev", "proxmox-vm", "caddy"], "steps": ["deploy"], "fleet": str(fleet)}
    failed = [end(host, "rolled back") for host in ("dev", "proxmox-vm")]
    pyinfra(("run", None, about), end("caddy", "deployed"), *failed)
    assert run(["deploy", "--json"]) == 1
    fake = pyinfra(("run", None, {**about, "hosts": ["dev"]}), end("dev", "deployed"))
    assert run(["deploy", *named, "--rerun-failed", "--json"]) == status
    if isinstance(limits, list):
        assert [word for at, word in enumerate(fake.argv) if fake.argv[at - 1] == "--limit"] == limits
    else:
        assert fake.argv == []
        assert limits in capsys.readouterr().err


def test_a_password_goes_to_stdin_alone(
    pyinfra: Callable[..., FakePyinfra], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "word"
    given.write_text("a secret word\n")
    fake = pyinfra(begun(tmp_path, "a"), end("a", "deployed"))
    with given.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert run(["deploy", "a", "--ask-sudo-password", "--json"]) == 0
    assert fake.input == "a secret word\n"
    assert "sudo_password=stdin" in fake.data
    assert not any("secret" in word for word in fake.argv)


def test_a_flake_by_reference(pyinfra: Callable[..., FakePyinfra], tmp_path: Path) -> None:
    fake = pyinfra(begun(tmp_path, "a"), end("a", "deployed"))
    assert run(["deploy", "--flake", "github:owner/fleet/v1#a", "--json"]) == 0
    assert "flake=github:owner/fleet/v1" in fake.data
    assert fake.argv[fake.argv.index("--limit") + 1] == "a"
