"""What TAB offers beside commands: hosts, groups, guests, files, storages and snapshots; without any other effect."""

import re
import threading
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from nixherd.cli import completion
from nixherd.cli.completion import Named
from nixherd.cli.main import cli
from nixherd.proxmox.client import Client
from tests.nixherd.cli.conftest import Nixherd
from tests.nixherd.proxmox.conftest import Emulator
from tests.security.test_output import LEAVES


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "PATIENCE", 60.0)


def offered(*words: str, capfd: pytest.CaptureFixture[str] | None = None) -> list[str]:
    """What is offered for the last word; nothing is said beside that."""
    items = ShellComplete(cli, {}, "nixherd", "_NIXHERD_COMPLETE").get_completions([*words[:-1]], words[-1])
    assert capfd is None or capfd.readouterr() == ("", "")
    return [item.value for item in items if item.type == "plain"]


def test_hosts_and_groups(nixherd: Nixherd, emulator: Emulator, capfd: pytest.CaptureFixture[str]) -> None:
    assert {"dev", "caddy", "all", "nixos", "managed"} <= {*offered("deploy", "", capfd=capfd)}
    assert offered("deploy", "dev", "--exclude", "cadd") == ["caddy"]
    assert offered("exec", "dev,cadd") == ["dev,caddy"]
    assert "all" not in offered("ssh", "")
    assert offered("ssh", "d") == offered("provision", "d") == offered("retire", "d") == ["dev"]
    assert emulator.requests() == []


def test_facts() -> None:
    assert offered("fact", "dev", "--fact", "facts.nixos.R") == ["facts.nixos.Revision", "facts.nixos.Running"]


def test_storages_and_snapshots_are_read_and_nothing_else(
    nixherd: Nixherd, emulator: Emulator, capfd: pytest.CaptureFixture[str]
) -> None:
    assert nixherd("clone", "dev").status == 0
    assert nixherd("snapshot", "dev", "clean").status == 0
    before = len(emulator.requests())
    capfd.readouterr()
    assert offered("vm", "rollback", "dev", "c", capfd=capfd) == ["clean"]
    assert offered("vm", "snapshot", "DEV", "") == ["clean"]
    assert offered("vm", "rollback", "dev", "x") == offered("vm", "rollback", "nosuch", "") == []
    storages = offered("vm", "storage", "", capfd=capfd)
    assert storages == offered("vm", "move-disk", "dev", "scsi0", "")
    assert storages == ["nvmeprom"]  # as far as the token sees them
    assert {each["method"] for each in emulator.requests()[before:]} == {"GET"}


def test_a_protected_guest_is_read_as_any_other(nixherd: Nixherd) -> None:
    assert offered("vm", "snapshot", "kept", "") == []
    assert offered("vm", "snapshot", "doc1", "") == []


def test_nothing_is_asked_without_a_token(
    nixherd: Nixherd, emulator: Emulator, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    text = token.read_text()
    token.write_text("nonsense")
    assert offered("vm", "storage", "", capfd=capfd) == []
    token.unlink()
    assert offered("vm", "storage", "", capfd=capfd) == offered("vm", "rollback", "dev", "", capfd=capfd) == []
    assert emulator.requests() == []
    token.write_text(text)
    token.chmod(0o600)
    assert offered("vm", "storage", "nv") == ["nvmeprom"]


def test_a_slow_hypervisor_is_not_waited_for(nixherd: Nixherd, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    def slow(*_: Any) -> Any:
        assert answers.wait(60)
        return []

    monkeypatch.setattr(completion, "PATIENCE", 0.05)
    monkeypatch.setattr(Client, "storages", slow)
    assert offered("vm", "storage", "") == []
    assert not answers.is_set()
    answers.set()


def test_secret_files_from_the_fleets_directory(nixherd: Nixherd, fleet: Path) -> None:
    directory = fleet / "secrets"
    directory.mkdir(exist_ok=True)
    (directory / ".sops.yaml").write_text("creation_rules: []\n")
    for name in ("web.yaml", "db.env", "$(touch x).yaml", "-rf.yaml"):
        (directory / name).write_text("sops:\n  version: 3.9\n")
    (directory / "README.md").write_text("plain\n")
    (fleet / "other.yaml").write_text("sops: no rule is for it\n")
    assert offered("secrets", "edit", "") == ["secrets/-rf.yaml", "secrets/db.env", "secrets/web.yaml"]
    assert offered("secrets", "edit", "secrets/w") == ["secrets/web.yaml"]


@pytest.mark.parametrize("words", [("deploy",), ("ssh",), ("vm", "start"), ("vm", "storage"), ("secrets", "edit")])
def test_nothing_is_offered_or_said_without_a_fleet(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEET", str(tmp_path / "nowhere"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert offered(*words, "", capfd=capfd) == []
    assert [*tmp_path.iterdir()] == []


def test_every_name_of_a_host_a_storage_or_a_file_is_completed() -> None:
    """A new parameter is, too: by its metavar."""
    without = {
        f"{' '.join(path)} {param.name}"
        for path, command in LEAVES.items()
        for param in command.params
        if re.search(
            r"\b(HOST|GROUP|STORAGE|FILE|DIR)\b", f"{param.metavar or param.make_metavar(click.Context(command))}"
        )
        and type(param.type) is click.types.StringParamType
    }
    assert without == {
        "copy flake",
        "deploy flake",
        "plan flake",
        "reboot flake",
        "lock update only",
        "token add endpoint",
    }
    assert any(isinstance(param.type, Named) for param in LEAVES["ssh",].params)
