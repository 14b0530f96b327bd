"""The fleet's tree is input: what lies in it is neither our state nor git's orders nor a program to run."""

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nixherd.changeset import changing
from nixherd.deploying.gate import uncommitted
from nixherd.errors import FleetError
from nixherd.git import Repository
from tests.nix_cli import environment
from tests.nixherd.secrets.repositories import git, nobodys, repository

pytestmark = [pytest.mark.unit, pytest.mark.xdist_group("enrolment")]


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    nobodys(monkeypatch, tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    return repository(tmp_path / "fleet")


# git: what a repository says is to be run


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What is there once a program of the repository's has run."""
    return tmp_path / "it ran"


@pytest.fixture
def program(tmp_path: Path, marker: Path) -> str:
    path = tmp_path / "program"
    path.write_text(f'#!/bin/sh\necho "$0 $*" >>{shlex.quote(str(marker))}\ncat 2>/dev/null\nexit 0\n')
    path.chmod(0o755)
    return str(path)


def commit(fleet: Path, *words: str) -> None:
    git(fleet, "add", "-A")
    git(fleet, "commit", "-qm", "more", *words)


def touched(fleet: Path) -> None:
    """git has to look into the files: their times are not those that its index knows."""
    for path in fleet.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            os.utime(path, (1, 1))


def monitored(fleet: Path, program: str) -> None:
    git(fleet, "config", "core.fsmonitor", program)


def by_include(fleet: Path, program: str) -> None:
    (fleet / ".git" / "more").write_text(f'[core]\n\tfsmonitor = {program}\n[filter "x"]\n\tclean = {program}\n')
    git(fleet, "config", "include.path", "more")
    filtered(fleet, None)


def in_the_worktrees_own(fleet: Path, program: str) -> None:
    git(fleet, "config", "extensions.worktreeConfig", "true")
    git(fleet, "config", "--worktree", "core.fsmonitor", program)


def hooked(fleet: Path, program: str) -> None:
    hooks = fleet / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-index-change", "reference-transaction", "fsmonitor-watchman", "pre-commit", "post-checkout"):
        shutil.copy(program, hooks / name)


def hooked_elsewhere(fleet: Path, program: str) -> None:
    hooked(fleet, program)
    (fleet / ".git" / "hooks").rename(fleet / "hooks.d")
    git(fleet, "config", "core.hooksPath", "hooks.d")


def filtered(fleet: Path, program: str | None, kind: str = "clean", name: str = "x") -> None:
    (fleet / ".gitattributes").write_text(f"* filter={name} diff=x\n")
    commit(fleet)
    if program:
        git(fleet, "config", f"filter.{name}.{kind}", program)
        git(fleet, "config", f"filter.{name}.required", "true")


def signed_by(fleet: Path, program: str, kind: str) -> None:
    key = fleet.parent / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    git(fleet, "-c", "gpg.format=ssh", "-c", f"user.signingkey={key}", "commit", "-qS", "--allow-empty", "-m", "signed")
    git(fleet, "config", kind, program)
    git(fleet, "config", "log.showSignature", "true")


def signed_by_gpg(fleet: Path, program: str) -> None:
    made = fleet.parent / "made"
    signature = "-----BEGIN PGP SIGNATURE-----\n\nx\n-----END PGP SIGNATURE-----"
    made.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{signature}'\necho '[GNUPG:] SIG_CREATED ' >&2\n")
    made.chmod(0o755)
    git(fleet, "-c", f"gpg.program={made}", "commit", "-qS", "--allow-empty", "-m", "signed")
    git(fleet, "config", "gpg.program", program)


def shown(fleet: Path, program: str) -> None:
    filtered(fleet, None)
    for name in ("diff.external", "diff.x.command", "diff.x.textconv", "core.pager", "pager.status", "pager.log"):
        git(fleet, "config", name, program)


def of_a_submodule(fleet: Path, program: str) -> None:
    other = repository(fleet.parent / "other")
    git(fleet, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "sub")
    git(fleet, "commit", "-qm", "sub")
    for name in ("user.name", "user.email"):
        git(fleet / "sub", "config", name, "x")
    filtered(fleet / "sub", program)
    git(fleet, "commit", "-qam", "sub")
    git(fleet / "sub", "config", "core.fsmonitor", program)


def fetched(fleet: Path, program: str, url: str) -> None:
    """Objects are missing that another repository has promised."""
    for name, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": url,
        "remote.origin.uploadpack": program,
        "core.sshCommand": program,
        "protocol.allow": "always",
        "protocol.ext.allow": "always",
        "credential.helper": program,
        "core.alternateRefsCommand": program,
    }.items():
        git(fleet, "config", name, value)
    tree = git(fleet, "rev-parse", "HEAD:secrets").strip()
    (fleet / ".git" / "objects" / tree[:2] / tree[2:]).unlink()


HOSTILE: dict[str, Callable[[Path, str], None]] = {
    "core.fsmonitor": monitored,
    "include.path": by_include,
    "config.worktree": in_the_worktrees_own,
    "hooks": hooked,
    "core.hooksPath": hooked_elsewhere,
    "filter.clean": filtered,
    "filter.process": lambda fleet, program: filtered(fleet, program, "process"),
    "filter with =": lambda fleet, program: filtered(fleet, program, name="a=b.c"),
    "diff and pager": shown,
    "gpg.ssh.program": lambda fleet, program: signed_by(fleet, program, "gpg.ssh.program"),
    "gpg.program": signed_by_gpg,
    "submodule": of_a_submodule,
    "promisor by ssh": lambda fleet, program: fetched(fleet, program, "ssh://nobody@127.0.0.1/x"),
    "promisor by ext": lambda fleet, program: fetched(fleet, program, f"ext::{program} %S"),
    "promisor by path": lambda fleet, program: fetched(fleet, program, "/"),
}


def look(fleet: Path) -> None:
    """Everything that only looks, as far as it comes."""
    for act in (
        lambda each: each.changed(["."]),
        lambda each: each.changed(["hosts.nix"]),
        lambda each: each.reachable("HEAD"),
        lambda each: each.contents([each.full_head()]),
        lambda each: each.ignored(["x"]),
        lambda each: each.head(),
        lambda each: each.tracked(["hosts.nix"]),
        lambda each: each.read("diff", "HEAD"),
    ):
        try:
            found = Repository.around(fleet)
            assert found is not None
            act(found)
        except FleetError:
            continue


@pytest.mark.parametrize("kind", HOSTILE)
def test_looking_runs_nothing_that_the_repository_names(fleet: Path, program: str, marker: Path, kind: str) -> None:
    HOSTILE[kind](fleet, program)
    touched(fleet)
    marker.unlink(missing_ok=True)
    look(fleet)
    assert not marker.exists(), marker.read_text()
    (fleet / "hosts.nix").write_text((fleet / "hosts.nix").read_text() + "# mine\n")
    if not kind.startswith("promisor"):
        found = Repository.around(fleet)
        assert found is not None
        assert "hosts.nix" in found.changed(["."])
    assert not marker.exists(), marker.read_text()


def test_no_setting_that_git_knows_runs_anything(fleet: Path, program: str, marker: Path) -> None:
    """Our program as the value of every setting that git lists, but of those that have to be numbers or the like."""
    filtered(fleet, None)
    listed = subprocess.run(["git", "help", "-c"], capture_output=True, text=True, check=True).stdout.split()
    keys = {re.sub(r"<[^>]*>", "x", key).replace("*", "x") for key in listed if re.fullmatch(r"[A-Za-z0-9.<>*-]+", key)}
    switches = re.compile(r"(include|advice|color|column|grep)\.|[^.]*$")
    config = fleet / ".git" / "config"
    before = config.read_text()

    def complaint(given: Sequence[str]) -> str:
        config.write_text(before + "".join(_section(key, program) for key in given))
        for words in (("status", "--porcelain"), ("log", "-1")):
            done = subprocess.run(["git", *words], cwd=fleet, env=environment(), capture_output=True, text=True)
            if done.returncode:
                return done.stderr
        return ""

    given = sorted(key for key in keys if not switches.match(key))
    while said := complaint(given):
        named = re.search(r"(?:for|variable) '([\w.]+)'", said)
        wrong = [key for key in given if named and key.lower() == named[1].lower()] or given
        while len(wrong) > 1:
            half = wrong[: len(wrong) // 2]
            wrong = half if complaint(half) else wrong[len(half) :]
        given.remove(wrong[0])
    assert len(given) > 500
    assert marker.exists(), "git itself runs it"
    marker.unlink()
    touched(fleet)
    look(fleet)
    assert not marker.exists(), marker.read_text()
    found = Repository.around(fleet)
    assert found is not None
    assert found.changed(["."]) == []


def _section(key: str, value: str) -> str:
    first, _, rest = key.partition(".")
    middle, _, last = rest.rpartition(".")
    subsection = f' "{middle}"' if middle else ""
    return f"[{first}{subsection}]\n\t{last} = {value}\n"


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


def empty(fleet: Path) -> None:
    shutil.rmtree(fleet / ".git")
    (fleet / ".git").mkdir()


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


FAILURES = {
    of_somebody_else: "git config --global --add safe.directory",
    broken: "not a git repository",
    empty: "not a git repository",
    leading_nowhere: "not a git repository: /nonexistent",
    worked_on_elsewhere: "core.worktree",
    bare: "must be run in a work tree",
    misconfigured: "bad config line 1",
    without_an_index: "index file",
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
    with pytest.raises(FleetError, match=r"git: not on PATH, and .* is in a repository; install it"):
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
