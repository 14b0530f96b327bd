"""What is evaluated is what was verified, in every way to the machines."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from nixherd.base.errors import FleetError, Refused, Usage
from nixherd.cli.main import run
from nixherd.deploy import plan
from nixherd.deploy.commit_policy import Gate
from nixherd.deploy.machine import Machine
from nixherd.deploy.options import Options
from nixherd.deploy.report import Journal
from nixherd.deploy.rollout import HostRun, Rollout
from nixherd.fleet.load import load_fleet
from nixherd.pyinfra_glue.context import Context
from nixherd.pyinfra_glue.inventory import inventory_beside
from tests import nix_cli
from tests.security.tree_signed.conftest import FLAKE, HOSTS, Tree, evaluator_of, refused, toplevel
from tests.shared import Shared

pytestmark = pytest.mark.nix

CHECKOUT = Path(__file__).parents[3]


def test_what_is_evaluated_is_the_commit_that_was_verified(tree: Tree) -> None:
    assert "echo first" in toplevel(tree, tree.gate(), lambda: tree.commit("pulled meanwhile", by=None))
    tree.git("reset", "-q", "--hard", "HEAD^")
    assert "echo first" in toplevel(tree, tree.gate(), lambda: (tree.path / "word").write_text("edited meanwhile"))
    assert "has changes that are not committed" in refused(tree, FleetError)
    for flag in ("--assume-unchanged", "--skip-worktree"):
        tree.git("checkout", "-q", "--", ".")
        tree.git("update-index", flag, "word", "hosts.nix")
        (tree.path / "word").write_text("hidden")
        (tree.path / "hosts.nix").write_text("{ }")
        assert "has changes that are not committed" in refused(tree, FleetError)
        tree.git("update-index", flag.replace("--", "--no-"), "word", "hosts.nix")


def test_what_is_changed_within_a_run_is_verified_too(tree: Tree) -> None:
    gate = tree.gate()
    evaluator = evaluator_of(gate, gate.verify())
    before = evaluator.flake
    tree.commit("signed")
    assert evaluator.flake == before
    evaluator.forget()
    assert evaluator.flake == before.replace(tree.git("rev-parse", "HEAD^"), tree.git("rev-parse", "HEAD"))
    tree.commit("unsigned", by=None)
    evaluator.forget()
    with pytest.raises(Refused, match="it is not signed"):
        assert evaluator.flake


def test_what_no_lock_names_is_not_looked_up(tree: Tree) -> None:
    other = tree.home / "other"
    other.mkdir()
    (other / "flake.nix").write_text("{ outputs = _: { }; }")
    text = FLAKE.replace("{ self }:", "{ self, other }:").replace(
        "{\n  outputs", f'{{ inputs.other.url = "path:{other}"; outputs', 1
    )
    (tree.path / "flake.nix").write_text(text)
    tree.commit("signed")
    assert "lock file" in refused(tree, FleetError)


def published(tree: Tree, *words: str) -> tuple[int, Mapping[str, Any]]:
    key = tree.home / "cache-key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(nix_cli.nix("key", "generate-secret", "--key-name", "test-1"))
    cache = tree.home / "cache"
    status = run(["publish", str(cache), "--key-file", str(key), "--json", *words])
    return status, {path.name: path.read_text() for path in cache.glob("systems/*")}


def test_publish_has_the_same_gate(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    required = ("--data", "require_signed=true")
    status, systems = published(tree, *required)
    assert status == 0, capsys.readouterr().err
    assert f"revision={tree.git('rev-parse', 'HEAD')}" in systems["a"]
    tree.commit("of nobody", by=None)
    tree.commit("signed, on top of it")
    assert published(tree, *required) == (3, systems)
    assert "of nobody': it is not signed" in capsys.readouterr().err
    (tree.path / "hosts.nix").write_text(HOSTS.replace("hostname", "require_signed = true; hostname"))
    tree.commit("signed, and hosts.nix says so")
    assert published(tree) == (3, systems)
    assert "of nobody': it is not signed" in capsys.readouterr().err
    assert published(tree, *required, "--allow-dirty") == (3, systems)
    assert published(tree, "--data", "allow_signers=x")[0] == 2


def test_group_data_says_it_for_every_way(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "group_data").mkdir()
    (tmp_path / "group_data/all.py").write_text("require_signed = True\n")
    assert Gate.of(tree.path, {}, [tmp_path / "group_data"], notes=True)
    assert Gate.of(tree.path, {"require_signed": "false"}, [tmp_path / "group_data"], notes=True) is None
    assert Gate.of(tree.path, {}, [], notes=True) is None
    for name in ("requireSigned", "require_singed", "required_signed"):
        (tmp_path / "group_data/all.py").write_text(f"{name} = True\n")
        with pytest.raises(Usage, match=f"{name}: nobody asks for it; write require_signed"):
            Gate.of(tree.path, {}, [tmp_path / "group_data"], notes=True)
    with pytest.raises(Usage, match="neither true nor false"):
        Gate.of(tree.path, {"require_signed": "yes please"}, [], notes=True)


def test_a_deployment_evaluates_nothing_before(tree: Tree) -> None:
    """Not even hosts.nix, of which the hosts of a run come."""
    (tree.path / "hosts.nix").write_text('throw "evaluated"')
    tree.commit("of nobody", by=None)
    pyinfra = Path(sys.executable).with_name("pyinfra")
    (tree.home / "group_data").mkdir()
    (tree.home / "group_data/all.py").write_text("require_signed = True\n")
    data, standing = ("--data", "require_signed=true"), ("--group-data", str(tree.home / "group_data"))
    for words in (("deploys/deploy.py", "--dry", *data), ("deploys/provision.py", "-y", *standing)):
        done = subprocess.run(
            [pyinfra, "inventory.py", *words],
            cwd=CHECKOUT, env=tree.environment | os.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, "of nobody': it is not signed" in done.stderr) == (3, True), done.stderr
        assert "evaluated" not in done.stderr


def test_hosts_may_require_it_and_every_run_has_the_gate(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def context() -> Context:
        entry = inventory_beside(str(tree.home / "inventory.py"))["all"][0]
        assert isinstance(entry, tuple)
        found = entry[1]["context"]
        assert isinstance(found, Context)
        return found

    assert not context().must_be_signed
    (tree.path / "hosts.nix").write_text(HOSTS.replace("hostname", "require_signed = true; hostname"))
    tree.commit("of nobody", by=None)
    with pytest.raises(Refused, match="it is not signed"):
        assert context().evaluator.flake
    tree.commit(amend=True)
    assert f"rev={tree.git('rev-parse', 'HEAD')}" in context().evaluator.flake


def test_a_host_alone_does_not_go_without(tree: Tree) -> None:
    """Group data of one group is known when the run has begun: too late to verify, and no reason to go on."""
    shared = Shared(load_fleet(tree.path), tree.home / "token")
    journal = Journal(tree.home / "journal")
    options = Options(require_signed=True)
    host = shared.fleet.hosts["a"]
    host_run = HostRun(host, options, cast(Machine, None), journal, str(tree.path), lambda: None)
    rollout = Rollout("one", journal, ("a",), {"a": host_run})
    with pytest.raises(Usage, match="require_signed holds for the whole fleet"):
        plan.require_committed(shared.evaluator.source, rollout, host_run)


def test_a_flake_by_reference_has_no_commits_to_look_at(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["deploy", "--flake", f"git+file://{tree.path}", "--data", "require_signed=true"]
    assert run(words) == 2
    assert "require_signed looks at the commits of a checkout" in capsys.readouterr().err
