"""`nixherd publish`: a signed binary cache and what it names, by real Nix."""

import json
import subprocess
from pathlib import Path

import pytest

from nixherd.cli.main import run
from tests import nix_cli

pytestmark = pytest.mark.unit

# Hosts as the fleet's files need them, and systems that are one file each.
HOSTS = """
{
  a = HOST "a.lan";
  b = HOST "b";
  home = { hostname = "home"; user = "me"; publicKey = "placeholder"; homeFile = ./flake.nix; };
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


def git(directory: Path, *words: str) -> None:
    who = ("-c", "user.name=x", "-c", "user.email=x@x")
    subprocess.run(["git", *who, *words], cwd=directory, check=True, env=nix_cli.environment())


def commit(directory: Path) -> None:
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "x")


def test_systems_are_in_the_cache_before_they_are_named(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, cache = tmp_path / "key", tmp_path / "a cache"
    key.write_text(nix_cli.nix("key", "generate-secret", "--key-name", "test-1"))
    assert run(["publish", str(cache), "--key-file", str(key), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (sorted(document["published"]), document["failed"]) == (["a", "b"], {})
    systems = {path.name: path.read_text() for path in (cache / "systems").iterdir()}
    assert systems == {"a.lan": f"{document['published']['a']}\n", "b": f"{document['published']['b']}\n"}
    assert (cache / "systems/b").stat().st_mode & 0o777 == 0o644
    name = document["published"]["a"].removeprefix("/nix/store/")[:32]
    assert "Sig: test-1:" in (cache / f"{name}.narinfo").read_text()


def test_a_host_that_is_wrong_keeps_what_it_had(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    assert run(["publish", str(cache)]) == 0
    before = (cache / "systems/b").read_text()
    for text, said in (("exit 3", "exit code 3"), ("${throw ''no such thing''}", "no such thing")):
        (fleet / "flake.nix").write_text(FLAKE.replace('b = "B"', f'b = "{text}"').replace("echo A", f"echo A {said}"))
        commit(fleet)
        was = (cache / "systems/a.lan").read_text()
        assert run(["publish", str(cache)]) == 1
        assert said in capsys.readouterr().err
        assert (cache / "systems/b").read_text() == before
        assert (cache / "systems/a.lan").read_text() != was


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], "HOST nosuch: no host or group has this name"),
        (["--key-file", "/nonexistent"], "--key-file /nonexistent: no such file; `nix key generate-secret"),
    ],
)
def test_wrong_input_publishes_nothing(
    fleet: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["publish", str(tmp_path / "cache"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_what_nobody_committed_is_not_published(
    fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fleet / "flake.nix").write_text(FLAKE)
    assert run(["publish", str(tmp_path / "cache")]) == 4
    assert "flake.nix: has changes that are not committed" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
