"""Which repository the fleet is in, if any: what git itself would follow is not always it."""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.deploy.commit_policy import uncommitted
from nixherd.fleet.changeset import changing
from nixherd.fleet.git import Repository
from tests.nixherd.trust.secrets.repositories import git, repository
from tests.security.tree_state.conftest import commit, empty, hooked, monitored, publish, touched

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


# git: which repository, if any


def dirty(fleet: Path) -> Path:
    (fleet / "hosts.nix").write_text((fleet / "hosts.nix").read_text() + "# mine\n")
    return fleet


@pytest.fixture
def clean_elsewhere(tmp_path: Path) -> Path:
    return repository(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "names",
    [
        ("GIT_DIR",),
        ("GIT_DIR", "GIT_WORK_TREE"),
        ("GIT_WORK_TREE",),
        ("GIT_INDEX_FILE",),
        ("GIT_CEILING_DIRECTORIES",),
        ("GIT_CONFIG_PARAMETERS",),
        ("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_0", "GIT_CONFIG_VALUE_0"),
        ("GIT_EXEC_PATH",),
        ("GIT_NAMESPACE",),
        ("GIT_OBJECT_DIRECTORY",),
        ("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS"),
    ],
)
def test_the_environment_names_no_other_repository(
    fleet: Path, clean_elsewhere: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    values = {
        "GIT_DIR": str(clean_elsewhere / ".git"),
        "GIT_WORK_TREE": str(clean_elsewhere),
        "GIT_INDEX_FILE": str(clean_elsewhere / ".git" / "index"),
        "GIT_CEILING_DIRECTORIES": str(fleet.parent),
        "GIT_CONFIG_PARAMETERS": f"'core.worktree'='{clean_elsewhere}'",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.worktree",
        "GIT_CONFIG_VALUE_0": str(clean_elsewhere),
    }
    for name in names:
        monkeypatch.setenv(name, values.get(name, "1"))
    assert uncommitted(str(dirty(fleet))) == ["hosts.nix"]
    with changing(fleet) as changes, pytest.raises(FleetError, match=r"hosts\.nix: has changes that are not committed"):
        changes.require_committable(["hosts.nix"], commit=True)


def test_a_commit_is_made_here_whatever_the_environment_says(
    fleet: Path, clean_elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the owner's hook and an agent's key, as git does."""
    hook = fleet / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f'#!/bin/sh\necho "$OPERATOR $SSH_AUTH_SOCK" >{shlex.quote(str(fleet.parent / "hook"))}\n')
    hook.chmod(0o755)
    key, agent = fleet.parent / "key", fleet.parent / "agent"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    process = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        monkeypatch.setenv("OPERATOR", "us")
        for name, value in {"GIT_DIR": ".git", "GIT_WORK_TREE": "", "GIT_INDEX_FILE": ".git/index"}.items():
            monkeypatch.setenv(name, str(clean_elsewhere / value))
        until(agent.exists)
        subprocess.run(["ssh-add", "-q", key], check=True)
        key.unlink()  # the agent alone has it
        for name, value in {
            "commit.gpgsign": "true",
            "gpg.format": "ssh",
            "user.signingkey": f"{key}.pub",
        }.items():
            git(fleet, "config", name, value)
        found = Repository.around(dirty(fleet))
        assert found is not None
        made = found.commit(["hosts.nix"], "mine")
    finally:
        process.kill()
        process.wait()
    monkeypatch.undo()
    assert (fleet.parent / "hook").read_text() == f"us {agent}\n"
    assert git(fleet, "log", "-1", "--format=%h %s").split() == [made, "mine"]
    assert "gpgsig -----BEGIN SSH SIGNATURE" in git(fleet, "cat-file", "commit", "HEAD")
    assert git(clean_elsewhere, "log", "--format=%s").split("\n") == ["the fleet", ""]


def until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be so")


def of_somebody_else(fleet: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing owners needs root")
    for path in (fleet, fleet / ".git"):
        os.chown(path, 4242, 4242)


def broken(fleet: Path) -> None:
    (fleet / ".git" / "HEAD").write_text("nonsense\n")


def leading_nowhere(fleet: Path) -> None:
    (fleet / ".git").rename(fleet.parent / "away")
    (fleet / ".git").write_text("gitdir: /nonexistent\n")


def worked_on_elsewhere(fleet: Path) -> None:
    git(fleet, "config", "core.worktree", str(repository(fleet.parent / "clean")))


def bare(fleet: Path) -> None:
    git(fleet, "config", "core.bare", "true")


def misconfigured(fleet: Path) -> None:
    (fleet / ".git" / "config").write_text("[core\n")


def without_an_index(fleet: Path) -> None:
    (fleet / ".git" / "index").write_bytes(b"nonsense")


def of_the_future(fleet: Path) -> None:
    git(fleet, "config", "core.repositoryFormatVersion", "99")


def without_a_commit(fleet: Path) -> None:
    shutil.rmtree(fleet / ".git" / "objects")
    (fleet / ".git" / "objects").mkdir()


FAILURES: dict[Callable[[Path], None], str] = {
    of_somebody_else: "git config --global --add safe.directory",
    broken: "not a git repository",
    empty: "not a git repository",
    leading_nowhere: "not a git repository: /nonexistent",
    worked_on_elsewhere: "core.worktree",
    bare: "must be run in a work tree",
    misconfigured: "bad config line 1",
    without_an_index: "index file",
    without_a_commit: "git: bad object HEAD",
    of_the_future: "Expected git repo version <= 1, found 99",
}


@pytest.mark.parametrize("kind", FAILURES)
def test_git_that_fails_is_not_clean(fleet: Path, kind: Callable[[Path], None]) -> None:
    kind(dirty(fleet))
    for act in (lambda: uncommitted(str(fleet)), lambda: uncommitted(str(fleet / "hosts")), lambda: _commits(fleet)):
        with pytest.raises(FleetError) as caught:
            act()
        assert FAILURES[kind] in str(caught.value)
        assert "\n" not in str(caught.value)


def _commits(fleet: Path) -> None:
    with changing(fleet) as changes:
        changes.require_committable(["hosts.nix"], commit=False)


def test_a_repository_below_the_top_of_another_is_not_taken_for_it(fleet: Path) -> None:
    """A directory that looks like a bare repository, committed into another one; and an inner one that is broken."""
    inner = fleet / "hosts"
    shutil.copytree(fleet / ".git", inner, dirs_exist_ok=True)
    git(inner, "config", "--file", "config", "core.bare", "true")
    with pytest.raises(FleetError, match=r"safe\.bareRepository"):
        Repository.around(inner)
    shutil.rmtree(inner)
    (inner / ".git").mkdir(parents=True)
    with pytest.raises(FleetError, match=r"hosts/\.git: git does not use it"):
        Repository.around(inner)


def test_without_git_only_what_is_in_no_repository_is_clean(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(FleetError, match="git: no such program on PATH; install it"):
        uncommitted(str(fleet))
    (tmp_path / "plain").mkdir()
    assert Repository.around(tmp_path / "plain") is None


def test_worktrees_submodules_and_links_are_repositories(fleet: Path, tmp_path: Path) -> None:
    git(fleet, "worktree", "add", "-q", str(tmp_path / "worktree"))
    (tmp_path / "link").symlink_to(fleet)
    for each in (tmp_path / "worktree", tmp_path / "link", fleet / "secrets"):
        found = Repository.around(each)
        assert found is not None
        assert found.changed(["."]) == []
    git(fleet, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(fleet), "sub")
    git(fleet, "commit", "-qm", "sub")
    (fleet / "sub" / "hosts.nix").write_text("{ }\n")
    found = Repository.around(fleet)
    assert found is not None
    assert found.changed(["."]) == ["sub/hosts.nix"]


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_what_git_was_told_not_to_look_at_is_looked_at(fleet: Path, flag: str) -> None:
    git(fleet, "update-index", flag, "hosts.nix", "vms/definitions.nix")
    assert uncommitted(str(fleet)) == []
    dirty(fleet)
    assert git(fleet, "status", "--porcelain") == ""
    assert uncommitted(str(fleet)) == ["hosts.nix"]
    (fleet / "a\nb").write_text("x")
    commit(fleet)
    git(fleet, "update-index", flag, "a\nb")
    assert sorted(uncommitted(str(fleet))) == ["a\nb", "hosts.nix"]


def test_without_a_commit_nothing_of_the_repository_runs_at_all(fleet: Path, program: str, marker: Path) -> None:
    monitored(fleet, program)
    hooked(fleet, program)
    publish(fleet, commit=False)
    assert not marker.exists(), marker.read_text()
    assert " A docs/new.md" in git(fleet, "-c", "core.hooksPath=/dev/null", "status", "--porcelain")


def test_the_operators_own_filter_counts(fleet: Path, program: str) -> None:
    """git-lfs is set up in ~/.gitconfig: without it every file of its kind would be taken for changed."""
    upper = fleet.parent / "upper"
    upper.write_text("#!/bin/sh\ntr a-z A-Z\n")
    upper.chmod(0o755)
    git(fleet.parent, "config", "--file", "gitconfig", "filter.x.clean", str(upper))
    (fleet / ".gitattributes").write_text("*.note filter=x\n")
    (fleet / "a.note").write_text("some words\n")
    subprocess.run(["git", "-C", fleet, "add", "-A"], check=True)
    git(fleet, "commit", "-qm", "note")
    git(fleet, "config", "filter.x.clean", program)
    touched(fleet)
    found = Repository.around(fleet)
    assert found is not None
    assert found.changed(["."]) == []
