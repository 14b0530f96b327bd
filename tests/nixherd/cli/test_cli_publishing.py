"""`nixherd publish`: a signed binary cache and what it names, by real Nix."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.cli.main import run
from nixherd.trust.publish import SigningKey, read
from tests import nix_cli

pytestmark = pytest.mark.nix

# Hosts as the fleet's files need them, and systems that are one file each.
HOSTS = """
{
  a = HOST "a.lan";  # it asks by its system's own name, which is a
  b = HOST "b";
  home = { hostname = "laptop"; sshAlias = "lap"; user = "me"; publicKey = "placeholder"; homeFile = ./flake.nix; };
}
"""
HOST = (
    '{ hostname = "NAME"; user = "me"; publicKey = "placeholder"; configurationFile = ./flake.nix; '
    "homeFile = ./flake.nix; }"
)
FLAKE = """
{
  outputs = _: {
    nixosConfigurations = builtins.mapAttrs (name: text: {
      config = {
        networking.hostName = name;
        system.build.toplevel = derivation {
          inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = ["-c" text];
        };
      };
    }) { a = "echo A >$out"; b = "B"; };
  };
}
"""


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "fleet"
    directory.mkdir()
    hosts = HOSTS
    for name in ("a.lan", "b"):
        hosts = hosts.replace(f'HOST "{name}"', HOST.replace("NAME", name))
    (directory / "hosts.nix").write_text(hosts)
    (directory / "flake.nix").write_text(FLAKE.replace('b = "B"', 'b = "echo B >$out"'))
    for name, value in nix_cli.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FLEET", str(directory))
    git(directory, "init", "-q")
    commit(directory)
    return directory


@pytest.fixture
def key(tmp_path: Path) -> str:
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(nix_cli.nix("key", "generate-secret", "--key-name", "test-1"))
    return str(file)


def git(directory: Path, *words: str) -> None:
    who = ("-c", "user.name=x", "-c", "user.email=x@x")
    subprocess.run(["git", *who, *words], cwd=directory, check=True, env=nix_cli.environment())


def commit(directory: Path) -> None:
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "x")


def test_systems_are_in_the_cache_before_they_are_named(
    fleet: Path, tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "a cache"
    assert run(["publish", str(cache), "--key-file", key, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (sorted(document["published"]), document["failed"]) == (["a", "b"], {})
    public = SigningKey.read(Path(key)).public
    systems = {path.name: read(path, public, path.name, tmp_path) for path in (cache / "systems").iterdir()}
    assert {name: pointer and pointer.system for name, pointer in systems.items()} == document["published"]
    assert {pointer and pointer.revision for pointer in systems.values()} == {document["revision"]}
    assert (cache / "systems/b").stat().st_mode & 0o777 == 0o644
    name = document["published"]["a"].removeprefix("/nix/store/")[:32]
    assert "Sig: test-1:" in (cache / f"{name}.narinfo").read_text()


def test_a_host_that_is_wrong_keeps_what_it_had(
    fleet: Path, tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    publish = ["publish", str(cache), "--key-file", key]
    assert run(publish) == 0
    before = (cache / "systems/b").read_text()
    for text, said in (("exit 3", "exit code 3"), ("${throw ''no such thing''}", "no such thing")):
        (fleet / "flake.nix").write_text(FLAKE.replace('b = "B"', f'b = "{text}"').replace("echo A", f"echo A {said}"))
        commit(fleet)
        was = (cache / "systems/a").read_text()
        assert run(publish) == 1
        assert said in capsys.readouterr().err
        assert (cache / "systems/b").read_text() == before
        assert (cache / "systems/a").read_text() != was


def test_each_is_later_than_the_one_before(fleet: Path, tmp_path: Path, key: str) -> None:
    cache, signing = tmp_path / "cache", SigningKey.read(Path(key))
    publish = ["publish", str(cache), "--key-file", key, "b"]
    serials = []
    for ahead in (0, 0, 1_000_000_000):
        assert run(publish) == 0
        found = read(cache / "systems/b", signing.public, "b", tmp_path)
        assert found
        serials.append(found.serial)
        later = replace(found, serial=found.serial + ahead)
        (cache / "systems/b").write_text(signing.sign(later, tmp_path))
    assert run(publish) == 0
    found = read(cache / "systems/b", signing.public, "b", tmp_path)
    assert found
    assert found.serial == serials[-1] + 1_000_000_001
    assert serials == sorted(set(serials))
    (cache / "systems/b").write_text("serial=999999999999999\n")
    assert run(publish) == 0
    (cache / "systems/b").unlink()
    (cache / "systems/b").symlink_to("/dev/zero")
    assert run(publish) == 0
    assert not (cache / "systems/b").is_symlink()


@pytest.mark.parametrize("name", ["", "../b", "b/c", ".b", "b-", "a" * 64])
def test_a_system_without_a_name_is_told_nobody(fleet: Path, tmp_path: Path, key: str, name: str) -> None:
    text = (fleet / "flake.nix").read_text().replace("hostName = name", f'hostName = "{name}"')
    (fleet / "flake.nix").write_text(text)
    commit(fleet)
    assert run(["publish", str(tmp_path / "cache"), "--key-file", key, "a"]) == 1
    assert list((tmp_path / "cache").rglob("*")) == [tmp_path / "cache/systems"]


def test_two_systems_of_one_name_are_told_nobody(
    fleet: Path, tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (fleet / "flake.nix").write_text((fleet / "flake.nix").read_text().replace("hostName = name", 'hostName = "a"'))
    commit(fleet)
    assert run(["publish", str(tmp_path / "cache"), "--key-file", key]) == 1
    assert "b: not published: networking.hostName = a is another host's as well" in capsys.readouterr().err
    assert not list((tmp_path / "cache/systems").iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], "HOST nosuch: no host or group has this name"),
        (["a.lan", "home"], "home: only machines with NixOS pull their systems"),
        (["a.lan", "lap"], "home: only machines with NixOS pull their systems"),
        (["b,laptop"], "home: only machines with NixOS pull their systems"),
        (["home_manager"], "home: only machines with NixOS pull their systems"),
        (
            ["--key-file", "/nowhere/key"],
            "--key-file /nowhere/key: No such file or directory; `nix key generate-secret",
        ),
    ],
)
def test_wrong_input_publishes_nothing(
    fleet: Path, tmp_path: Path, key: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["publish", str(tmp_path / "cache"), "--key-file", key, *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_what_nobody_committed_is_not_published(
    fleet: Path, tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (fleet / "flake.nix").write_text(FLAKE)
    assert run(["publish", str(tmp_path / "cache"), "--key-file", key]) == 4
    assert "flake.nix: has changes that are not committed" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
