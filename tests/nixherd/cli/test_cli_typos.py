"""Status 2, one line and nothing begun: for every command what docs/vm.md calls wrong usage or wrong input."""

from pathlib import Path

import click
import pytest

from nixherd.cli import run_pyinfra
from nixherd.cli.front import Front
from nixherd.cli.main import cli, run
from tests.nixherd.cli.test_cli_defaults import commands
from tests.nixherd.proxmox.conftest import Emulator, emulator  # noqa: F401  (fixture)

with click.Context(cli, obj=Front("fleet")) as _ctx:
    COMMANDS = {name: command for name, command in commands(cli, _ctx) if not isinstance(command, click.Group)}

# The words that each command needs so that it gets as far as loading the fleet.
NEEDED = {
    "check": ["--only", "definitions"],
    "enroll": ["dev"],
    "eval": ["dev", "networking.hostName"],
    "exec": ["dev", "--", "true"],
    **{name: [] for name in ("drift", "metrics", "overview", "serve")},
    "fix": ["--only", "deploy", "--dry-run"],
    "fact": ["dev", "--fact", "facts.nixos.Running"],
    **{name: ["dev"] for name in ("gc", "generations", "install", "rollback", "ssh", "trust", "why")},
    "hooks install": [],
    "lock update": [],
    "new": ["web", "--yes"],
    "page": ["PAGES"],
    "post-provision": ["dev"],
    "provision": ["dev"],
    "publish": ["CACHE", "--key-file", "KEY"],
    "retire": ["dev"],
    "secrets add-host": ["dev"],
    "secrets remove-host": ["dev"],
    "secrets edit": ["a.yaml"],
    "template create": ["--image", "local:import/a.qcow2"],
    "vm add-disk": ["dev", "scsi1", "1G"],
    "vm adopt": ["dev", "110"],
    "vm destroy": ["dev", "110"],
    "vm doctor": [],
    "vm list": [],
    "vm log": ["UPID:prom:0000C0DE:0000C0DE:66AA0000:qmstart:110:root@pam:"],
    "vm migrate": ["dev", "prom2"],
    "vm move-disk": ["dev", "scsi0", "tank"],
    "vm next-id": [],
    "vm resize": ["dev", "70G"],
    "vm restore": ["dev", "local:backup/vzdump-qemu-110-2026_01_01-00_00_00.vma.zst"],
    "vm rollback": ["dev", "clean"],
    "vm storage": [],
    "vm tasks": [],
    "vm diff": [],
}
# What loads no fleet; of a rollout pyinfra says it (tests/integration/wrong_inputs.py).
WITHOUT_FLEET = {
    "completion", "token add", "token show", "copy", "deploy", "plan", "reboot", "report", "help", "init",
}  # fmt: skip
GUESTS = {name for name, command in COMMANDS.items() if name.startswith("vm ") and {"guest", "guests"} & {
    each.name for each in command.params
}}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("PROXMOX_TOKEN_FILE", "/nowhere/token")


def words_of(name: str, tmp_path: Path) -> list[str]:
    usual = ["dev"] if name in GUESTS else []
    places = {"CACHE": str(tmp_path / "cache"), "KEY": str(tmp_path / "key")}
    return [*name.split(), *(places.get(word, word) for word in NEEDED.get(name, usual))]


def line_of(capfd: pytest.CaptureFixture[str]) -> str:
    out, err = capfd.readouterr()
    assert out == ""
    [line] = err.splitlines()
    return line


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_a_command_does_not_have(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*name.split(), "--nosuch"]) == 2
    assert line_of(capfd).startswith("Error: No such option '--nosuch'")


@pytest.mark.parametrize("group", ["", "vm", "secrets", "template", "token", "lock", "hooks"])
def test_a_command_that_does_not_exist(group: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*group.split(), "nosuch"]) == 2
    assert line_of(capfd).startswith("Error: No such command 'nosuch'")


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if any(
    isinstance(each, click.Argument) and each.required for each in command.params
)])  # fmt: skip
def test_an_argument_that_is_missing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(name.split()) == 2
    assert line_of(capfd).startswith("Error: Missing ")


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - WITHOUT_FLEET))
def test_a_fleet_that_does_not_exist(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET", "/nowhere")
    assert run(words_of(name, tmp_path)) == 2
    assert line_of(capfd) == "/nowhere: no such directory; FLEET names the directory of the fleet's flake"


def never(*words: object, **options: object) -> object:
    raise AssertionError("pyinfra was started")


TYPOS = [
    *([*name.split(), "nosuch", *NEEDED.get(name, ["dev"])[1:]] for name in sorted(GUESTS)),
    ["check", "--only", "nosuch"],
    ["check", "--without", "nosuch"],
    ["lint", "--without", "nosuch"],
    ["lint", "nosuch.nix"],
    ["fmt", "nosuch.nix"],
    ["provision", "nosuch"],
    ["post-provision", "nosuch"],
    ["post-provision", "dev", "--ip", "nosuch"],
    ["post-provision", "dev", "--vmid", "111"],
    ["retire", "nosuch"],
    ["retire", "dev", "--destroy", "110", "--keep-vm"],
    ["retire", "dev", "--purge"],
    ["new", "a b", "--yes", "--offline"],
    ["new", "web", "--yes", "--offline", "--size", "nosuch"],
    ["new", "web", "--yes", "--offline", "--key-file", "/nowhere"],
    ["new", "web", "--yes", "--offline", "--recipient", "a"],
    ["template", "create"],
    ["template", "create", "--url", "http://192.0.2.1/a.img"],
    ["token", "add", "--fingerprint", "ab" * 32],
    ["token", "add", "--endpoint", "a b", "--system-authorities"],
    ["token", "add", "--endpoint", "a", "--fingerprint", "nosuch"],
    ["lock", "update", "--group", "nosuch"],
    ["fix"],
    ["fix", "--only", "nosuch", "--yes"],
    ["fix", "--only", "deploy,nosuch", "--yes"],
    ["metrics", "--output", "metrics.txt"],
    ["deploy", "--goal", "nosuch"],
    ["deploy", "--soak", "-1"],
    ["deploy", "--rerun-failed"],
    ["deploy", "--data", "nonsense"],
    ["vm", "next-id", "nosuch"],
    ["vm", "next-id", "100", "x"],
    ["vm", "log", "nosuch"],
    ["vm", "storage", "a b"],
    ["vm", "storage", "--node", "a b"],
    ["vm", "backups", "dev", "--storage", "a b"],
    ["vm", "resize", "dev", "70"],
    ["vm", "add-disk", "dev", "scsi31", "1G"],
    ["vm", "snapshot", "dev", "a b"],
    ["vm", "snapshot", "dev", "--delete"],
    ["vm", "destroy", "dev", "111"],
    ["vm", "adopt", "dev", "111"],
    ["vm", "import", "105", "--managed", "nosuch"],
]


@pytest.mark.xdist_group("emulator")
@pytest.mark.parametrize("words", TYPOS, ids=" ".join)
def test_a_typo(
    words: list[str],
    fleet: Path,
    emulator: Emulator,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)
    monkeypatch.setattr(run_pyinfra, "run", never)
    monkeypatch.setenv("PROXMOX_TOKEN_FILE", str(token))
    monkeypatch.setenv("FLEET", str(fleet))
    assert run(words) == 2, capfd.readouterr()
    line_of(capfd)
    assert emulator.changes() == []
