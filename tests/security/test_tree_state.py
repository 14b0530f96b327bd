"""The fleet's tree is input: what lies in it is neither our state nor git's orders nor a program to run."""

import contextlib
import functools
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nixherd.deploy.commit_policy import uncommitted
from nixherd.errors import FleetError
from nixherd.fleet import tree as trees
from nixherd.fleet.changeset import Done, changing, interrupted
from nixherd.fleet.git import Repository
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet
from nixherd.fleet.tree import Temporary, Tree, opened, read
from nixherd.install.hardware import configuration_path
from nixherd.session import Session
from nixherd.templating import render_foreign
from nixherd.trust.enrol import Wanted, documented
from nixherd.trust.overview import render
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.repositories import contents, git, nobodys, repository

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


def without_a_commit(fleet: Path) -> None:
    shutil.rmtree(fleet / ".git" / "objects")
    (fleet / ".git" / "objects").mkdir()


FAILURES = {
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


# State: what lies in the tree is none of ours


PUBLISHED = {"hosts.nix": "# changed\n", "vms/definitions.nix": "# changed\n", "docs/new.md": "new\n"}


def publish(fleet: Path, *, files: Mapping[str, str] = PUBLISHED, commit: bool = True, message: str = "ours") -> Done:
    with changing(fleet) as changes:
        changes.resume(print)
        seen = {path: read(fleet, path) for path in files}
        for path, text in files.items():
            changes.stage(path, text.encode())
        changes.require_committable(list(files), commit=commit)
        return changes.publish(seen, message, commit=commit, say=print)


def refused(act: Callable[[], object], words: str) -> None:
    with pytest.raises(FleetError, match=words) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_a_tracked_link_in_the_place_of_state_empties_nothing(fleet: Path, tmp_path: Path) -> None:
    """And a committed journal makes no commit, a committed lock that is a link truncates nothing."""
    precious = tmp_path / "precious"
    (precious / "sub").mkdir(parents=True)
    for name in ("one", "sub/two", "lock", ".gitignore"):
        (precious / name).write_text("dear")
    (fleet / ".nixherd").symlink_to(precious)
    commit(fleet)
    assert publish(fleet).commit
    assert {path.name: path.read_text() for path in precious.rglob("*") if path.is_file()} == dict.fromkeys(
        ("one", "two", "lock", ".gitignore"), "dear"
    )
    assert (fleet / ".nixherd").is_symlink()


def test_a_committed_journal_is_no_journal(fleet: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("dear")
    place = fleet / ".nixherd"
    (place / "staged").mkdir(parents=True)
    (place / "staged" / "hosts.nix").write_text("{ }\n")
    (place / "lock").symlink_to(tmp_path / "target")
    swap = ["hosts.nix", sum_of(fleet / "hosts.nix"), sum_of(place / "staged" / "hosts.nix")]
    journal = {"message": "theirs", "commit": True, "began": 0, "files": [swap]}
    (place / "journal.json").write_text(json.dumps(journal))
    git(fleet, "add", "-Af")
    git(fleet, "commit", "-qm", "state")
    before = contents(fleet)
    assert not interrupted(fleet)
    with changing(fleet) as changes:
        assert changes.resume(print) is None
    assert contents(fleet) == before
    assert (tmp_path / "target").read_text() == "dear"
    assert git(fleet, "log", "--format=%s").split() == ["state", "the", "fleet"]


def sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hosts_is_a_link(fleet: Path, elsewhere: Path) -> None:
    (fleet / "hosts.nix").rename(elsewhere / "hosts.nix")
    (fleet / "hosts.nix").symlink_to(elsewhere / "hosts.nix")


def hosts_is_a_link_inside(fleet: Path, elsewhere: Path) -> None:
    (fleet / "hosts.nix").rename(fleet / "real.nix")
    (fleet / "hosts.nix").symlink_to("real.nix")


def a_directory_is_a_link(fleet: Path, elsewhere: Path) -> None:
    shutil.copytree(fleet / "vms", elsewhere / "vms")
    shutil.rmtree(fleet / "vms")
    (fleet / "vms").symlink_to(elsewhere / "vms")


def a_directory_to_be_is_a_link(fleet: Path, elsewhere: Path) -> None:
    (fleet / "docs").symlink_to(elsewhere)


def a_link_to_nowhere(fleet: Path, elsewhere: Path) -> None:
    (fleet / "docs").mkdir()
    (fleet / "docs" / "new.md").symlink_to(elsewhere / "new.md")


def a_pipe(fleet: Path, elsewhere: Path) -> None:
    (fleet / "docs").mkdir()
    os.mkfifo(fleet / "docs" / "new.md")


@pytest.mark.parametrize(
    "kind",
    [
        hosts_is_a_link,
        hosts_is_a_link_inside,
        a_directory_is_a_link,
        a_directory_to_be_is_a_link,
        a_link_to_nowhere,
        a_pipe,
    ],
)
def test_no_link_is_followed(fleet: Path, tmp_path: Path, kind: Callable[[Path, Path], None]) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kind(fleet, elsewhere)
    commit(fleet, "--allow-empty")
    before, there, head = contents(fleet, pipes=False), contents(elsewhere), git(fleet, "rev-parse", "HEAD")
    refused(lambda: publish(fleet), r"(hosts\.nix|vms|docs|docs/new\.md): is (a symbolic link; only files|no file)")
    assert (contents(fleet, pipes=False), contents(elsewhere), git(fleet, "rev-parse", "HEAD")) == (before, there, head)
    assert git(fleet, "status", "--porcelain").strip() in ("", "?? docs/")


def test_a_link_that_is_put_there_meanwhile_leads_nowhere(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the last moment: after every check, right before the first file is replaced."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(fleet / "vms", elsewhere)
    before = contents(elsewhere)
    move = Tree.move

    def swapped(self: Tree, temporary: Temporary) -> None:
        if not (fleet / "vms").is_symlink():
            (fleet / "vms").rename(fleet / "was")
            (fleet / "vms").symlink_to(elsewhere)
        move(self, temporary)

    monkeypatch.setattr(Tree, "move", swapped)
    refused(lambda: publish(fleet), "vms: is a symbolic link")
    assert contents(elsewhere) == before


@pytest.mark.parametrize(
    "path",
    [
        ".git/hooks/post-commit",
        ".git/config",
        ".GIT/config",
        ".Git /x",
        "sub/.git/config",
        ".g\u200cit/config",
        "git~1/config",
        "../elsewhere",
        "/etc/nixherd",
        "docs/../../x",
        "",
        "a\0b",
    ],
)
def test_nothing_outside_or_of_gits_is_written(fleet: Path, path: str) -> None:
    before = contents(fleet / ".git")
    refused(lambda: publish(fleet, files={path: "x"}), "belongs to git|is no path below")
    assert contents(fleet / ".git") == before


NAMES = ["a", "b", "file", "link", "pipe", "inner", ".git", ".GIT", "..", ".", "", "~", ".nixherd", "x\n", "-x"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5))
def test_whatever_the_path_is_nothing_elsewhere_changes(parts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        outside, root = Path(name, "outside"), Path(name, "root")
        for place in (outside / "a" / "b", root / "a" / "b", root / ".git" / "a", root / "a" / "inner" / ".git" / "a"):
            place.mkdir(parents=True)
            (place / "file").write_text("dear")
        for place, target in (
            (root / "link", outside),
            (root / "a" / "link", root / ".git"),
            (root / "b", outside / "a"),
        ):
            place.symlink_to(target)
        (root / "a" / "file").symlink_to(outside / "a" / "b" / "file")
        os.mkfifo(root / "a" / "pipe")
        guarded = [outside, root / ".git", root / "a" / "inner" / ".git"]

        def seen() -> object:
            return [contents(each) for each in guarded], sorted(Path(name).iterdir())

        before = seen()
        path = "/".join(parts)
        with opened(root) as tree:
            for act in (
                tree.read,
                tree.stat,
                tree.require_writable,
                lambda each: tree.replace(each, b"x"),
                tree.remove,
            ):
                with contextlib.suppress(FleetError, OSError):
                    act(path)
        assert seen() == before
        assert not list(root.glob(TEMPORARIES))


def test_an_enrolment_does_not_write_where_git_is(fleet: Path) -> None:
    wanted = Wanted(load_fleet(fleet), None)
    refused(lambda: documented(wanted, ".git/hooks/post-commit"), "belongs to git")
    (fleet / "docs").mkdir()
    (fleet / "docs" / "machines.md").symlink_to("/etc/hostname")
    refused(lambda: documented(wanted, "docs/machines.md"), r"docs/machines\.md: is a symbolic link")


# State: whose it is


def killed(fleet: Path, after: int, *, identity: str | None = None) -> None:
    """A run that is killed after it has replaced so many files."""
    script = f"""
import os
from pathlib import Path
from nixherd.fleet import tree as trees
from nixherd.fleet.tree import Tree
from tests.security.test_tree_state import publish
left, move = {after}, Tree.move
def moved(self, temporary):
    global left
    if not left:
        os.kill(os.getpid(), 9)
    left -= 1
    move(self, temporary)
Tree.move = moved
identity = {identity!r}
if identity:
    trees.identity = lambda root: identity
publish(Path({str(fleet)!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


CHECKOUT = Path(__file__).parents[2]
TEMPORARIES = "**/.nixherd-*.tmp"


def test_a_killed_run_is_finished_also_after_the_tree_was_moved(fleet: Path, tmp_path: Path) -> None:
    killed(fleet, 1)
    assert interrupted(fleet)
    moved = fleet.rename(tmp_path / "moved")
    assert interrupted(moved)
    publish(moved, files={"other": "x"})
    assert git(moved, "log", "--format=%s").split("\n")[:2] == ["ours", "ours"]
    assert {path: (moved / path).read_text() for path in PUBLISHED} == PUBLISHED
    assert git(moved, "status", "--porcelain") == ""
    assert not list(moved.glob(TEMPORARIES))


def test_another_tree_never_gets_a_journal(fleet: Path, tmp_path: Path) -> None:
    """A new clone at the path of the one in which a run was killed."""
    killed(fleet, 1)
    shutil.rmtree(fleet)
    git(tmp_path, "clone", "-q", str(repository(tmp_path / "origin")), "fleet")
    before = contents(fleet)
    assert not interrupted(fleet)
    with changing(fleet) as changes:
        assert changes.resume(print) is None
    assert contents(fleet) == before


def test_a_journal_of_which_nothing_has_happened_is_thrown_away(
    fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file system does not say when a directory was made, a clone at the same path might get the same inode."""
    monkeypatch.setattr(trees, "identity", lambda root: "the same")
    killed(fleet, 0, identity="the same")
    assert interrupted(fleet)
    shutil.rmtree(fleet)
    repository(fleet)
    with changing(fleet) as changes:
        assert changes.resume(print) is None
    assert git(fleet, "log", "--format=%s") == "the fleet\n"
    assert not interrupted(fleet)


def test_what_the_journal_does_not_know_is_never_put_in_place(fleet: Path, tmp_path: Path) -> None:
    killed(fleet, 1)
    [staged] = (tmp_path / "state").glob("nixherd/.trees/*/staged")
    (staged / "vms" / "definitions.nix").write_text("# something else\n")
    before = git(fleet, "show", "HEAD:hosts.nix")
    refused(lambda: publish(fleet), r"vms/definitions\.nix: is damaged; every file was put back as it was")
    assert (fleet / "hosts.nix").read_text() == before
    assert git(fleet, "status", "--porcelain") == ""
    assert not list(fleet.glob(TEMPORARIES))


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_is_left_without_a_journal_makes_nothing_dirty_and_goes(fleet: Path, tmp_path: Path, after: int) -> None:
    """In CI the state directory is gone with the job, and the tree may not be."""
    killed(fleet, after)
    left = [str(path.relative_to(fleet)) for path in fleet.glob(TEMPORARIES)]
    assert left
    shutil.rmtree(tmp_path / "state")
    changed = (
        sorted(PUBLISHED)[:0] if not after else [row[3:] for row in git(fleet, "status", "--porcelain").splitlines()]
    )
    assert len(changed) == after
    assert sorted(uncommitted(str(fleet))) == sorted(
        path for each in changed for path in ([each] if not each.endswith("/") else [f"{each}new.md"])
    )
    git(fleet, "checkout", "-q", ".")
    git(fleet, "clean", "-qfd", "docs")
    (fleet / ".git" / "info" / "exclude").write_text("")  # nor for us where git was not told
    assert uncommitted(str(fleet)) == []
    assert publish(fleet).commit
    assert not list(fleet.glob(TEMPORARIES))
    assert git(fleet, "status", "--porcelain") == ""


def test_what_git_tracks_is_never_taken_for_ours(fleet: Path, tmp_path: Path) -> None:
    """Nor what is no file, nor what belongs to somebody else, nor what only looks like it."""
    name = ".nixherd-0123456789abcdef.tmp"
    (tmp_path / "target").write_text("dear")
    tracked = fleet / "hosts" / name
    tracked.write_text("dear")
    git(fleet, "add", "-f", str(tracked))
    git(fleet, "commit", "-qm", "theirs")
    (fleet / "vms" / name).symlink_to(tmp_path / "target")
    (fleet / name).mkdir()
    (fleet / name / "file").write_text("dear")
    (fleet / "secrets" / ".nixherd-mine.tmp").write_text("dear")
    ours = fleet / "secrets" / name
    ours.write_text("x")
    others = fleet / "secrets" / "sub" / name
    others.write_text("x")
    if os.geteuid() == 0:
        os.chown(others, 4242, 4242)
    with changing(fleet):
        pass
    assert tracked.read_text() == "dear"
    assert (tmp_path / "target").read_text() == "dear"
    assert (fleet / "vms" / name).is_symlink()
    assert (fleet / name / "file").read_text() == "dear"
    assert (fleet / "secrets" / ".nixherd-mine.tmp").exists()
    assert not ours.exists()
    assert others.exists() == (os.geteuid() == 0)
    (fleet / ".git").rename(tmp_path / "git")
    ours.write_text("x")
    with changing(fleet):
        assert not ours.exists(), "without a repository as well"


@pytest.mark.parametrize("link", ["info", "exclude"])
def test_gits_own_list_is_not_written_through_a_link(fleet: Path, tmp_path: Path, link: str) -> None:
    """`.git/info/exclude`, which has git overlook what a killed run leaves."""
    info = fleet / ".git" / "info"
    shutil.rmtree(info, ignore_errors=True)
    (tmp_path / "exclude").write_text("dear")
    if link == "info":
        info.symlink_to(tmp_path)
    else:
        info.mkdir()
        (info / "exclude").symlink_to(tmp_path / "exclude")
    assert publish(fleet).commit
    assert (tmp_path / "exclude").read_text() == "dear"


def test_gits_own_list_is_added_to_once(fleet: Path) -> None:
    path = fleet / ".git" / "info" / "exclude"
    path.parent.mkdir(exist_ok=True)
    path.write_text("*.mine")
    publish(fleet)
    publish(fleet, files={"docs/new.md": "newer\n"})
    assert path.read_text() == "*.mine\n# what a killed nixherd may leave\n.nixherd-*.tmp\n"


@pytest.mark.parametrize("below", ["", "vms"])
def test_the_state_directory_is_not_in_the_tree(fleet: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    """Whoever can push a commit could put a journal there."""
    monkeypatch.setenv("XDG_STATE_HOME", str(fleet / below / "state"))
    refused(lambda: publish(fleet), "is inside of .*; XDG_STATE_HOME has to be outside of the fleet")
    monkeypatch.setenv("XDG_STATE_HOME", "state")  # relative, which is none
    monkeypatch.chdir(fleet)
    assert publish(fleet).commit
    assert not (fleet / "state").exists()


def test_state_that_others_can_write_is_refused(fleet: Path, tmp_path: Path) -> None:
    publish(fleet)
    [place] = (tmp_path / "state").glob("nixherd/.trees/*")
    place.chmod(0o777)
    refused(lambda: publish(fleet), "is no directory that only we can write")


def test_somebody_with_another_state_directory_is_kept_out(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with changing(fleet):
        monkeypatch.setenv("XDG_STATE_HOME", str(fleet.parent / "another"))
        refused(lambda: publish(fleet), "another run is changing this fleet's files")


def test_state_and_tree_may_be_on_different_file_systems(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(tempfile.mkdtemp(dir="/dev/shm"))
    if place.stat().st_dev == fleet.stat().st_dev:
        pytest.skip("/dev/shm is no file system of its own here")
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    try:
        (fleet / "hosts.nix").chmod(0o640)
        killed(fleet, 1)
        publish(fleet, files={"other": "x"})
        assert {path: (fleet / path).read_text() for path in PUBLISHED} == PUBLISHED
        assert (fleet / "hosts.nix").stat().st_mode & 0o777 == 0o640
        assert git(fleet, "status", "--porcelain") == ""
    finally:
        shutil.rmtree(place)


def test_hardware_is_not_written_through_a_link(fleet: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("dear")
    (fleet / "hosts" / "hardware-configuration.nix").symlink_to(tmp_path / "target")
    git(fleet, "add", "-A")
    session = Session(load_fleet(fleet), Path("/nonexistent"))
    for wanted in (True, "hosts/hardware-configuration.nix", "hosts/../hosts/hardware-configuration.nix"):
        refused(lambda wanted=wanted: configuration_path(session, "dev", wanted), "is a symbolic link")
    refused(lambda: configuration_path(session, "dev", ".git/config"), "belongs to git")


# Templates


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "is unsafe"),
        ("{{ guest.__globals__ }}", "is unsafe"),
        ("{{ hosts[0]|attr('__class__') }}", "is unsafe"),
        ("{{ '{0.__class__}'.format(endpoint) }}", "is unsafe"),
        ("{{ hosts[0].extra.update({'x': 1}) }}", "no attribute 'update'"),
        ("{% include '/etc/passwd' %}", "it cannot include /etc/passwd: there is nothing that it may read"),
        ("{% import '/etc/passwd' as x %}", "it cannot include /etc/passwd"),
        ("{% extends '../../etc/passwd' %}", "it cannot include"),
        ("{{ range(10 ** 9) | list }}", "Range too big"),
        ("{{ 'x' * 10 ** 10 }}", "MiB of memory"),
        ("{{ 'x' | center(10 ** 10) }}", "MiB of memory"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "it goes round in circles"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ hosts() }}", "'list' object is not callable"),
        ("{{ spec(guest, '__globals__') }}", "spec\\(\\) knows cores, memory and disk"),
        ("{% for %}", "line 1: "),
    ],
)
def test_templates_are_rendered_in_a_sandbox(fleet: Path, template: str, words: str) -> None:
    (fleet / "own.j2").write_text(template)
    refused(lambda: render(load_fleet_once(fleet), "own.j2"), f"own\\.j2: .*{words}")


@functools.cache
def load_fleet_once(fleet: Path) -> Fleet:
    return load_fleet(fleet)


def test_a_template_that_never_ends_is_ended(fleet: Path) -> None:
    loop = "{% for each in range(99999) %}" * 3 + "{% endfor %}" * 3
    refused(lambda: render_foreign("commit_message", loop, dict), "commit_message: takes (more than|too long)")


@pytest.mark.parametrize("place", ["link.j2", "elsewhere/own.j2", ".git/description", "../own.j2"])
def test_a_template_is_a_file_of_the_fleet(fleet: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "own.j2").write_text("x")
    (fleet / "link.j2").symlink_to("/etc/passwd")
    (fleet / "elsewhere").symlink_to(tmp_path)
    refused(lambda: render(load_fleet(fleet), place), "is a symbolic link|belongs to git|is no path below")
