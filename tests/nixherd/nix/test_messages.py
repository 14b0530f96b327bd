"""Nix's errors and warnings as real Nix prints them, of a flake in a subdirectory of its repository."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.base.process import run
from nixherd.deploy.report import Journal, entries, report
from nixherd.nix.log import warnings
from tests import nix_cli
from tests.nixherd.proxmox.fleets import FLEET, HOST
from tests.shared import Shared

pytestmark = pytest.mark.nix

FLAKE = """{
  outputs = { self }: let
    system = name: {
      networking.hostName = name;
      system.build.toplevel = builtins.warn "from a module" (derivation {
        name = "nixos-system-${name}"; system = "x86_64-linux"; builder = "/bin/sh";
      });
    };
    broken = error: { config = system error; };
  in {
    nixosConfigurations = {
      web.config = system "web";
      db.config = builtins.trace "seen\\n  once" (system "db");
      warned = builtins.warn "before it fails" (throw "it fails");
      beside = broken (import ../lib/wrong.nix);
      builder = broken (import (derivation {
        name = "x"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo no zlib; exit 3" ];
      }));
      option = broken (throw
        "The option `services.opensshh' does not exist. Definition values:\\n- In `${toString ./web.nix}': true\\n\\nDid you mean `services.openssh'?");
      offline = broken (builtins.fetchurl { url = "http://127.0.0.1:9/x"; sha256 = "0000000000000000000000000000000000000000000000000000"; });
      untracked = broken (import ./new.nix);
    };
  };
}
"""  # noqa: E501
HOSTS = ("web", "db", "warned", "beside", "builder", "option", "offline", "untracked")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("repository")
    for name, text in {
        "fleet/flake.nix": FLAKE,
        "lib/wrong.nix": '\nthrow "wrong"',
        "fleet/web.nix": "{\n  services.opensshh = true;\n}",
    }.items():
        (top / name).parent.mkdir(exist_ok=True)
        (top / name).write_text(text)
    run(["git", "init", "-q", str(top)])
    run(["git", "-C", str(top), "add", "-A"])
    (top / "fleet/new.nix").write_text("{ }")
    return top


@pytest.fixture
def shared(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    for name, value in nix_cli.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NIX_CONFIG", "download-attempts = 1")
    hosts = {name: replace(HOST, id=name) for name in HOSTS}
    return Shared(replace(FLEET, path=str(repository / "fleet"), hosts=hosts), tmp_path / "token")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("beside", r"^\.\./lib/wrong\.nix:2:1: wrong; correct the Nix there$"),
        ("builder", r"^flake\.nix:\d+:\d+: .*failed with exit code 3; the builder said: no zlib; `nix log /nix/store/"),
        ("option", r"^web\.nix:2:3: the option `services\.opensshh' does not exist; did you mean services\.openssh\?$"),
        (
            "offline",
            r"/fleet: Nix cannot evaluate the fleet: .*; check that this machine reaches it, and run it again$",
        ),
        ("untracked", r"^flake\.nix:\d+:\d+: path 'fleet/new\.nix' does not exist; `git add new\.nix`, Nix sees only"),
    ],
    ids=["beside", "builder", "option", "offline", "untracked"],
)
def test_an_error_has_its_place_and_the_remedy_that_fits(shared: Shared, host: str, expected: str) -> None:
    with pytest.raises(FleetError, match=expected):
        shared.evaluator.evaluate((host,), host)


@pytest.mark.parametrize("below", ["", "fl eet/"])
def test_a_flake_that_git_does_not_know_yet_is_to_be_added(shared: Shared, tmp_path: Path, below: str) -> None:
    """`git init` and nothing more: Nix sees an empty tree then."""
    top = tmp_path / "new"
    (top / below).mkdir(parents=True)
    (top / below / "flake.nix").write_text(FLAKE)
    run(["git", "init", "-q", str(top)])
    new = Shared(replace(shared.fleet, path=str(top / below)), tmp_path / "token")
    expected = (
        rf"^flake\.nix: path '{below}flake\.nix' does not exist; `git add flake\.nix`, Nix sees only what git knows$"
    )
    with pytest.raises(FleetError, match=expected):
        new.evaluator.evaluate(("web",), "web")


def test_warnings_are_on_stderr_and_in_the_report_once_each_with_their_hosts(
    shared: Shared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared.run.journal = Journal(tmp_path / "run")
    shared.run.journal.note("run", hosts=["db", "web"], warnings=["hosts.nix: known before"])
    for host_id in ("web", "db", "web"):
        shared.evaluator.evaluate(("web", "db"), host_id)
    expected = ["trace: seen once (db)", "from a module (db, web)"]
    assert capsys.readouterr().err.splitlines() == [f"warning: {each}" for each in expected]
    assert report(entries(tmp_path / "run")).to_json()["warnings"] == ["hosts.nix: known before", *expected]


def test_what_an_evaluation_warned_of_before_it_failed_is_said_too(
    shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FleetError, match=r"^flake\.nix:\d+:\d+: it fails; correct the Nix there$"):
        shared.evaluator.evaluate(("warned",), "warned")
    assert capsys.readouterr().err == "warning: before it fails (warned)\n"


def test_nixs_own_warnings_are_left_out_and_those_of_older_ones_are_known() -> None:
    """Without builtins.warn nixpkgs traces its warnings; nix-eval-jobs prints plain lines."""
    own = {"action": "msg", "level": 1, "msg": "\x1b[35;1mwarning:\x1b[0m Git tree '/f' is dirty"}
    traced = {"action": "msg", "level": 0, "msg": "trace: \x1b[1;31mevaluation warning: x is deprecated\x1b[0m"}
    lines = [f"@nix {json.dumps(entry)}" for entry in (own, traced)]
    lines += ["trace: nixherd evaluates web", "evaluation warning: y", "warning: unknown setting 'z'"]
    assert list(warnings("\n".join(lines))) == [("x is deprecated", None), ("y", "web")]
