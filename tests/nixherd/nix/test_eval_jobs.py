"""Hosts evaluated side by side: what is asked of nix-eval-jobs, by real Nix, and what is made of its answers.

The program itself cannot be had here. A stand-in takes exactly the options that its --help lists, evaluates what it is
told with `nix eval`, and prints the lines that its README shows.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.nix import evaluator
from tests import nix_cli
from tests.nixherd.nix.test_commands import described
from tests.nixherd.proxmox.fleets import FLEET, HOST
from tests.shared import Shared

pytestmark = pytest.mark.nix

FLAKE = """
{
  outputs = _: {
    nixosConfigurations = let
      host = name: {
        config = {
          networking.hostName = name;
          system.build.toplevel = derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; };
        };
      };
    in {
      a = host "a";
      b = host "b";
      wrong = host (throw "no such thing");
      other = throw "nobody asked for it";
    };
  };
}
"""
PROGRAM = f"""#!{sys.executable}
import argparse, json, os, subprocess, sys
p = argparse.ArgumentParser(prog="nix-eval-jobs", allow_abbrev=False)
p.add_argument("--option", nargs=2, action="append")
for name in ("--gc-roots-dir", "--workers", "--max-memory-size", "--select", "--apply"):
    p.add_argument(name)
for name in ("--show-trace", "--flake"):
    p.add_argument(name, action="store_true")
p.add_argument("expr")
o = p.parse_args()
with open(os.environ["CALLS"], "a") as calls:
    print(o.workers, file=calls)
def evaluate(what):
    argv = ["nix", "eval", "--json", "--show-trace", "--no-write-lock-file", o.expr, "--apply", what]
    return subprocess.run(argv, capture_output=True, text=True)
for name in json.loads(evaluate(f"root: builtins.attrNames (({{o.select}}) root)").stdout):
    if name == os.environ.get("LOST"):
        continue
    done = evaluate(f"root: let job = (({{o.select}}) root).${{{{name}}}}; in "
                    "{{ inherit (job) drvPath name system; outputs.out = job.outPath; "
                    f"extraValue = ({{o.apply}}) job; }}}}".replace("${{name}}", "${{" + json.dumps(name) + "}}"))
    line = dict(attr=name, attrPath=[name])
    line |= json.loads(done.stdout) if done.returncode == 0 else dict(error=done.stderr)
    print(json.dumps(line), flush=True)
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    flake = tmp_path / "fleet"
    flake.mkdir()
    (flake / "flake.nix").write_text(FLAKE)
    for name, value in nix_cli.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    hosts = {name: replace(HOST, id=name) for name in ("a", "b", "wrong", "missing")}
    return Shared(replace(FLEET, path=str(flake), hosts=hosts), tmp_path / "token")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """With a nix-eval-jobs on PATH: how many workers each of its calls was to have."""
    program = tmp_path / "bin/nix-eval-jobs"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return lambda: (tmp_path / "calls").read_text().split() if (tmp_path / "calls").exists() else []


ALL = ("a", "b", "missing", "wrong")


def test_it_comes_to_the_same_as_nix_eval(shared: Shared, calls: Callable[[], list[str]], tmp_path: Path) -> None:
    found = {name: shared.evaluator.evaluate(ALL, name) for name in ("a", "b")}
    assert found["a"].hostname == "a"
    [workers] = calls()
    assert 1 <= int(workers) <= (os.cpu_count() or 1)
    (tmp_path / "bin/nix-eval-jobs").unlink()
    alone = Shared(shared.fleet, tmp_path / "token")
    assert {name: alone.evaluator.evaluate(("a", "b"), name) for name in ("a", "b")} == found


def test_one_that_is_wrong_or_missing_fails_alone(shared: Shared, calls: Callable[[], list[str]]) -> None:
    with pytest.raises(FleetError, match=r"flake.nix:\d+:\d+: no such thing; correct the Nix there"):
        shared.evaluator.evaluate(ALL, "wrong")
    with pytest.raises(FleetError, match=r"it has no nixosConfigurations\.missing; add it"):
        shared.evaluator.evaluate(ALL, "missing")
    assert shared.evaluator.evaluate(ALL, "b").hostname == "b"
    assert len(calls()) == 1


def test_one_that_a_worker_lost_is_evaluated_by_nix(
    shared: Shared, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOST", "a")
    assert shared.evaluator.evaluate(("a", "b"), "a").hostname == "a"
    assert len(calls()) == 1


def test_one_host_alone_is_evaluated_by_nix(shared: Shared, calls: Callable[[], list[str]]) -> None:
    assert shared.evaluator.evaluate(("a",), "a").hostname == "a"
    assert calls() == []


def test_older_ones_are_not_used() -> None:
    assert evaluator.knows_options("  --apply  Apply …\n  --select  Apply provided Nix function to …")
    assert not evaluator.knows_options("  --apply  Apply …\n")


def test_lines_as_it_prints_them(tmp_path: Path) -> None:
    job = {
        "attr": '"dev.lan"',
        "attrPath": ["dev.lan"],
        "drvPath": "/nix/store/fmbqzaq8mim1423879lhn9whs6imx5w4-nixos-system-dev.drv",
        "name": "nixos-system-dev",
        "outputs": {"out": "/nix/store/gfni9sbhhwhxxfqziq1fs3n82bvw962l-nixos-system-dev"},
        "system": "x86_64-linux",
        "extraValue": json.loads(described())["dev"],
    }
    wrong = {"attr": "web", "attrPath": ["web"], "error": "error:\n       … while calling\n\n       error: it is wrong"}
    found = evaluator.parse_jobs([json.dumps(job), json.dumps(wrong)], tmp_path)
    assert not isinstance(found["dev.lan"], FleetError)
    assert found["dev.lan"].host_id == "dev.lan"
    assert str(found["web"]) == f"{tmp_path}: Nix cannot evaluate the fleet: it is wrong"
    with pytest.raises(FleetError, match="nix-eval-jobs printed something unexpected"):
        evaluator.parse_jobs(["no JSON"], tmp_path)
