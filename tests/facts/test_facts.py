"""What facts make of a machine's words: a file per case, and each command run for real by sh.

The cases of `module.Fact` lie in the directory of that name, in the form of pyinfra's own: of `command` comes `output`,
which becomes `fact`. pyinfra-testing itself is not used: importing it patches everything for gevent, pytest included.
"""

import hashlib
import importlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyinfra.api.exceptions import FactProcessError

from nixherd.facts.age import HostKey, Recipient
from nixherd.facts.home_manager import Home
from nixherd.facts.machine import Machine
from nixherd.facts.nixos import CurrentSystem, FailedUnits, Generations, LastDeployment, NeedsReboot, Running
from nixherd.facts.sops import Secrets

HERE = Path(__file__).parent
CASES = [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in sorted(HERE.glob("*.*/*.yaml"))]


@pytest.mark.parametrize("path", CASES)
def test_case(path: Path) -> None:
    module, _, name = path.parent.name.partition(".")
    fact = getattr(importlib.import_module(f"nixherd.facts.{module}"), name)()
    case = yaml.safe_load(path.read_text())
    if "command" in case:
        assert fact.command() == case["command"]
    assert fact.process(case["output"].splitlines()) == case["fact"]


def read(fact: Any) -> Any:
    """What the fact says of this very machine."""
    command = fact.command()
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=True)
    lines = done.stdout.splitlines()
    return fact.process(lines) if lines else fact.default()


def test_this_machine_says_what_it_is() -> None:
    machine = read(Machine())
    assert machine["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert machine["hostname"] == Path("/proc/sys/kernel/hostname").read_text().strip()
    assert machine["jobs"] == {}
    assert all(len(mac) == 17 for mac in machine["macs"])


@pytest.mark.skipif(Path("/run/current-system").exists(), reason="this machine runs NixOS")
def test_a_machine_without_nixos_has_no_current_system() -> None:
    assert read(CurrentSystem()) is None
    assert read(Running()) is None
    assert read(Generations()) == []
    assert read(NeedsReboot()) is None
    assert read(LastDeployment()) is None


def test_a_home_that_was_never_activated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    home = read(Home())
    assert home["current"] is None
    assert home["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (tmp_path / "nix/profiles").mkdir(parents=True)
    (tmp_path / "generation").mkdir()
    (tmp_path / "nix/profiles/home-manager-1-link").symlink_to(tmp_path / "generation")
    (tmp_path / "nix/profiles/home-manager").symlink_to("home-manager-1-link")
    assert read(Home())["current"] == str(tmp_path / "generation")


def test_a_machine_that_is_not_there_is_unknown() -> None:
    assert Machine().default() is None
    assert CurrentSystem().default() is None
    assert Running().default() is None
    assert FailedUnits().default() == []
    assert Generations().default() == []


@pytest.mark.parametrize(
    ("fact", "output", "complaint"),
    [
        (Machine(), [], "no macs, id, variant, .* in what the machine says of itself"),
        (Machine(), ["sh: 1: printf: Permission denied"], "no macs, id"),
        (Running(), ["current=/nix/store/x", "sudo=free"], "no hostname, boot_id in what the machine says"),
        (Home(), ["current="], "no revision, user, hostname, boot_id in what the home says"),
        (CurrentSystem(), ["/nix/store/x", "/nix/store/x"], "no path, hostname in what the machine says"),
        (Generations(), ["system-1-link", "one word"], r"a line is not `PROFILE-NUMBER-link PATH TIME`: one word"),
        (Generations(), ["x", "/p/system-x-link /nix/store/x now"], "a line is not `PROFILE-NUMBER-link PATH TIME`"),
    ],
)
def test_what_cannot_be_read_is_an_error(fact: Any, output: list[str], complaint: str) -> None:
    with pytest.raises(FactProcessError, match=complaint):
        fact.process(output)


# Keys and secrets


def ran(command: str, root: Path) -> list[str]:
    """What a command prints where `root` stands for the machine's directories that it names."""
    command = command.replace("/run/secrets", f"{root}/run/secrets")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=True)
    return [line.replace(str(root), "") for line in done.stdout.splitlines()]


def test_secrets_are_hashed_with_their_salt_and_never_shown(tmp_path: Path) -> None:
    generation = tmp_path / "run" / "secrets.d" / "7"
    (generation / "wifi").mkdir(parents=True)
    (generation / "api_token").write_text("xyzzy")
    (generation / "api_token").chmod(0o400)
    (generation / "wifi" / "pass word").write_text("hunter2")
    (tmp_path / "run" / "secrets").symlink_to("secrets.d/7")
    lines = ran(Secrets().command(salt="ab12"), tmp_path)
    found = Secrets().process(lines)
    assert found is not None
    assert sorted(found) == ["/run/secrets/api_token", "/run/secrets/wifi/pass word"]
    token = found["/run/secrets/api_token"]
    assert token["hash"] == hashlib.sha256(b"ab12xyzzy").hexdigest()
    assert (token["mode"], token["size"]) == ("400", 5)
    assert not any("xyzzy" in line or "hunter2" in line for line in lines)
    unsalted = Secrets().process(ran(Secrets().command(), tmp_path))
    assert unsalted is not None
    assert unsalted["/run/secrets/api_token"]["hash"] == hashlib.sha256(b"xyzzy").hexdigest()


def test_a_machine_without_secrets_has_none(tmp_path: Path) -> None:
    assert Secrets().process(ran(Secrets().command(), tmp_path)) == {}
    assert Secrets().default() is None  # which is not a machine without any


def test_secrets_that_cannot_be_seen_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "secrets").mkdir(parents=True)
    tool = tmp_path / "find"
    tool.write_text("#!/bin/sh\necho find: /run/secrets/7: Permission denied >&2; exit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(FactProcessError, match=r"not all of its secrets can be seen: find: .*Permission denied"):
        Secrets().process(ran(Secrets().command(), tmp_path))


def test_a_salt_is_nothing_else() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        Secrets().command(salt="$(reboot)")


@pytest.mark.parametrize("fact", [HostKey, Recipient])
def test_a_machine_without_a_key_has_none(fact: Any, tmp_path: Path) -> None:
    missing = tmp_path / "it's not there.pub"
    assert (
        subprocess.run(["sh", "-c", fact().command(path=str(missing))], capture_output=True, check=True).stdout == b""
    )
    assert fact().default() is None


def test_the_machines_own_tool_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, tool = tmp_path / "key.pub", tmp_path / "ssh-to-age"
    key.write_text("ssh-ed25519 AAAA")
    tool.write_text('#!/bin/sh\necho "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    done = subprocess.run(["sh", "-c", Recipient().command(path=str(key))], capture_output=True, text=True, check=True)
    assert done.stdout == f"-i {key}\n"


@pytest.mark.parametrize(
    ("fact", "lines"),
    [
        (HostKey(), ["-----BEGIN OPENSSH PRIVATE KEY-----", "x"]),
        (Recipient(), ["ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAgCA"]),
        (Recipient(), ["age1notone"]),
        (Secrets(), ["nixherd-secrets", "no such line", "nixherd-secrets-end"]),
        (Secrets(), ["sudo: a password is required"]),
        (Secrets(), ["nixherd-secrets"]),
        (Secrets(), ["nixherd-secrets", "1.why=stat: denied", "nixherd-secrets-end"]),
        (Secrets(), ["nixherd-secrets", "1.1.path=/run/secrets/x", "nixherd-secrets-end"]),
        (Secrets(), ["nixherd-secrets", "1.1.path=/run/secrets/x", "1.1.is=absent", "nixherd-secrets-end"]),
    ],
)
def test_other_words_about_keys_are_refused(fact: Any, lines: list[str]) -> None:
    with pytest.raises(FactProcessError):
        fact.process(lines)
