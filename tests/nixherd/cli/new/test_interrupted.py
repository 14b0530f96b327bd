"""`nixherd new` that fails or is killed half-way, hooks and git."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.git import Repository
from nixherd.fleet.load import load_fleet
from nixherd.fleet.tree import Tree
from tests.nix_cli import environment
from tests.nixherd.cli.new.conftest import NEW, ROOT, Fleet
from tests.nixherd.trust.secrets.repositories import contents, git, repository
from tests.preloaded.programs import Programs

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("cli-new")]


def test_a_commit_is_of_these_files_alone_or_not_at_all(fleet: Fleet) -> None:
    (fleet.root / "notes").write_text("mine\n")
    git(fleet.root, "add", "notes")
    done = fleet.new("web", "--vmid", "150", "--purpose", "A web server", "--commit", "--yes", "--json")
    assert done.status == 0, done.err
    assert git(fleet.root, "show", "--format=%s", "--name-only").split("\n\n")[0] == "fleet: web is new"
    changed = git(fleet.root, "show", "--format=", "--name-only").split()
    assert changed == ["hosts.nix", *NEW, "vms/definitions.nix"]
    assert git(fleet.root, "status", "--porcelain") == "A  notes\n"
    hosts = fleet.root / "hosts.nix"
    hosts.write_text(hosts.read_text() + "# mine\n")
    before = fleet.state()
    refused = fleet.new("web2", "--vmid", "151", "--commit", "--yes")
    assert "hosts.nix: has changes that are not committed" in refused.err
    assert fleet.state() == before
    kept = fleet.new("web2", "--vmid", "151", "--yes")
    assert kept.status == 0
    assert hosts.read_text().endswith("}\n# mine\n")


@pytest.mark.parametrize("fails", ["add", "replace"])
def test_when_it_fails_half_way_nothing_is_left(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    """Neither files nor directories, and what somebody had staged is staged still."""
    hosts = fleet.root / "hosts.nix"
    hosts.write_text(hosts.read_text() + "# staged\n")
    git(fleet.root, "add", "hosts.nix")
    hosts.write_text(hosts.read_text() + "# not staged\n")
    before = fleet.state()

    def broken(*words: Any, **options: Any) -> None:
        raise FleetError("the disk is full")

    if fails == "add":
        monkeypatch.setattr(Repository, "add", broken)
    else:
        monkeypatch.setattr(Tree, "sync", broken)
    done = fleet.new("web", "--vmid", "150", "--secret", "x", "--yes")
    assert done.status == 4
    assert "the disk is full; every file was put back as it was" in done.err
    assert fleet.state() == before
    assert "# staged" in git(fleet.root, "diff", "--cached")


def test_interrupted_before_the_first_file_the_next_run_begins_anew(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the directory that was made for nothing gone."""

    def interrupted(*words: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Tree, "move", interrupted)
        assert fleet.new("web", "--vmid", "150", "--yes").status == 130
    assert (fleet.root / "hosts" / "web").is_dir()
    assert fleet.new("web2", "--vmid", "151", "--yes").status == 0
    assert not (fleet.root / "hosts" / "web").exists()
    assert set(load_fleet(fleet.root).hosts) == {"doc1", "igp", "dev", "web2"}


def test_ignored_files_and_a_tree_without_git(fleet: Fleet) -> None:
    (fleet.root / ".gitignore").write_text("hosts/web/\n")
    ignored = fleet.new("web", "--vmid", "150", "--yes")
    assert "hosts/web/configuration.nix: git ignores it" in ignored.err
    (fleet.root / ".git").rename(fleet.root.parent / "git")
    done = fleet.new("web", "--vmid", "150", "--yes", "--json")
    assert (done.status, load_fleet(fleet.root).vms["web"].vmid) == (0, 150)


def test_what_git_does_not_know_the_flake_would_not_see(fleet: Fleet) -> None:
    git(fleet.root, "rm", "-q", "--cached", "hosts.nix")
    before = fleet.state()
    done = fleet.new("web", "--vmid", "150", "--yes")
    assert (done.status, fleet.state()) == (4, before)
    assert "hosts.nix: git does not know it, and a flake has what git knows; git add it first" in done.err


@pytest.mark.usefixtures("commit_not_read_back")
def test_a_hook_that_takes_it_out_again_is_found_out(fleet: Fleet) -> None:
    hook = fleet.root / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    for number, (does, said) in enumerate(
        (
            (
                "sed -i s/admin/root/ hosts.nix; rm hosts/web0/disko.nix",
                "hosts.nix: web0, hosts/web0/disko.nix: was writ",
            ),
            ("git show HEAD:hosts.nix > hosts.nix", "web1 was written, but the fleet's files do not load now: vms/def"),
        )
    ):
        hook.write_text(f"#!/bin/sh\n{does}\n")
        hook.chmod(0o755)
        done = fleet.new(f"web{number}", "--vmid", f"15{number}", "--yes", "--commit")
        assert done.status != 0
        assert said in done.err, done.err
        assert "did a git hook change them?" in done.err
        git(fleet.root, "reset", "-q", "--hard", "HEAD~1")


Scaffolded = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def scaffolded(programs: Programs) -> Scaffolded:
    """Scaffolds in a process of its own, whose last effect is the one of this number."""

    def run(fleet: Path, last: int | None = None) -> subprocess.CompletedProcess[str]:
        words: list[str | Path] = ["nixherd-python", "-m", "tests.nixherd.trust.new.scaffolded", fleet]
        words += [str(last)] if last else []
        env = programs({**os.environ, **environment(), "XDG_STATE_HOME": str(fleet.parent / "state")})
        return subprocess.run(words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    return run


@pytest.mark.slow
def test_killed_while_it_is_published_the_next_run_finishes_it(scaffolded: Scaffolded, tmp_path: Path) -> None:
    """At its beginning, in the middle and just before the last file is in place."""
    whole = repository(tmp_path / "whole" / "fleet")
    old = contents(whole)
    done = scaffolded(whole)
    assert done.returncode == 0, done.stderr
    effects, new, status = int(done.stdout.split()[-1]), contents(whole), git(whole, "status", "--porcelain")
    assert effects > 5
    for point in (1, effects // 2, effects):
        fleet = repository(tmp_path / str(point) / "fleet")
        killed = scaffolded(fleet, point)
        assert killed.returncode == -9, f"{point}: {killed.stderr}"
        half = contents(fleet)
        assert half.keys() != old.keys()
        assert half["vms/definitions.nix"] == old["vms/definitions.nix"]
        for name, content in half.items():
            random = name == "secrets/web.yaml"
            assert random or content in (old.get(name), new.get(name)), (point, name)
        load_fleet(fleet)
        after = scaffolded(fleet)
        if "web: is the id of web" not in after.stderr:  # where nothing was left to do but to say so
            assert after.returncode == 0, f"killed at effect {point} of {effects}, then: {after.stderr}"
        assert {**contents(fleet), "secrets/web.yaml": b""} == {**new, "secrets/web.yaml": b""}
        assert git(fleet, "status", "--porcelain") == status
        assert [each.name for each in fleet.parent.glob("state/nixherd/.trees/*/*")] == ["lock"]
