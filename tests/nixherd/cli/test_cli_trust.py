"""`nixherd trust`: a key that is known and confirmed is pinned, with one commit; nothing else is."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.ssh_keys import parse_public_key
from nixherd.cli import trust as module
from nixherd.cli.main import run
from nixherd.deploy.history import all_lines
from nixherd.fleet.load import load_fleet
from tests.conftest import HOST_KEY
from tests.nixherd.cli.conftest import Ended
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.repositories import git, nobodys

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]
KEY = key("caddy").public
FINGERPRINT = parse_public_key(KEY).fingerprint
OTHER = key("other").public
TAKEN = parse_public_key(HOST_KEY).fingerprint


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_fleet: Callable[..., Path]) -> Path:
    nobodys(monkeypatch, tmp_path)
    monkeypatch.setattr(module, "key_at", lambda address, port: _unseen(address))
    (tmp_path / ".ssh").mkdir()
    directory = make_fleet()
    for words in (
        ("init", "-q"),
        ("config", "user.name", "a"),
        ("config", "user.email", "a@b"),
        ("add", "."),
        ("commit", "-qm", "the fleet"),
    ):
        git(directory, *words)
    return directory


def _unseen(address: str) -> str:
    raise OSError(f"nothing is at {address}")


def known(fleet: Path, *lines: str) -> None:
    (Path(os.environ["HOME"]) / ".ssh" / "known_hosts").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def trust(fleet: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    return lambda *words: Ended(run(["--fleet", str(fleet), "trust", *words]), *capfd.readouterr())


def test_a_known_key_is_pinned_once_its_fingerprint_is_confirmed(trust: Any, fleet: Path) -> None:
    known(fleet, f"caddy {' '.join(KEY.split()[:2])}")
    head = git(fleet, "rev-parse", "HEAD")
    asked = trust("caddy", "--json")
    assert asked.status == 2
    assert FINGERPRINT in asked.err
    assert "confirm it with --fingerprint" in asked.err
    planned = trust("caddy", "--fingerprint", FINGERPRINT, "--dry-run", "--json")
    assert (planned.status, planned.json["changed"]) == (0, False)
    assert git(fleet, "rev-parse", "HEAD") == head
    done = trust("caddy", "--fingerprint", FINGERPRINT, "--json")
    assert done.status == 0, done.err
    assert (done.json["changed"], done.json["files"]) == (True, ["hosts.nix"])
    pinned = load_fleet(fleet).hosts["caddy"].public_key
    assert pinned is not None
    assert pinned.split()[:2] == KEY.split()[:2]
    assert git(fleet, "rev-list", "--count", f"{head.strip()}..HEAD").strip() == "1"
    [line] = all_lines()
    assert (line.host, line.command, line.outcome, line.changed) == ("caddy", "trust", "done", True)
    again = trust("caddy", "--fingerprint", FINGERPRINT)
    assert (again.status, "hosts.nix pins a key of it" in again.err) == (2, True)


def test_a_key_that_it_shows_counts_only_with_its_fingerprint(
    trust: Any, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "key_at", lambda address, port: OTHER)
    wrong = trust("caddy", "--fingerprint", FINGERPRINT)
    assert wrong.status == 2
    assert f"{parse_public_key(OTHER).fingerprint} (shown at caddy)" in wrong.err
    assert load_fleet(fleet).hosts["caddy"].public_key is None
    monkeypatch.setattr(module, "key_at", lambda address, port: KEY)
    assert trust("caddy").status == 4, "on first use nothing is trusted"
    assert trust("caddy", "--fingerprint", FINGERPRINT.removeprefix("SHA256:")).status == 0


@pytest.mark.parametrize(
    ("lines", "words", "status", "line"),
    [
        ((), ("caddy",), 4, "nobody here knows a host key of it"),
        ((f"caddy {KEY}", f"cad {OTHER}"), ("caddy",), 2, "several keys are known"),
        ((f"caddy {KEY}",), ("caddy", "--fingerprint", "SHA256:nonsense"), 2, "is not a fingerprint"),
        ((f"caddy {KEY}",), ("caddy", "--fingerprint", TAKEN), 2, "no key of caddy has it"),
        ((f"caddy {KEY}",), ("caddy", "--fingerprint", FINGERPRINT, "--data", "x=1"), 2, "leave it out"),
        ((), ("caddy", "--known-hosts", "/nowhere"), 2, "no such file"),
        ((), ("proxmox-vm",), 2, "hosts.nix pins a key of it"),
        ((), ("nobody",), 2, "no host or group has this name"),
        ((f"caddy {HOST_KEY}",), ("caddy", "--fingerprint", TAKEN), 4, "this is the host key of proxmox-vm"),
    ],
)
def test_what_is_not_known_is_one_line_and_changes_nothing(
    trust: Any, fleet: Path, lines: tuple[str, ...], words: tuple[str, ...], status: int, line: str
) -> None:
    known(fleet, *lines)
    before = (fleet / "hosts.nix").read_bytes()
    ended = trust(*words)
    assert (ended.status, (fleet / "hosts.nix").read_bytes()) == (status, before), ended.err
    assert line in ended.err
    assert "Traceback" not in ended.err
