"""The fleet's tree is input: what a repository says is to be run does not run."""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.fleet.git import Repository
from tests.nix_cli import environment
from tests.nixherd.trust.secrets.repositories import git, repository
from tests.security.tree_state.conftest import commit, hooked, monitored, touched

pytestmark = [pytest.mark.nix, pytest.mark.xdist_group("enrolment")]


def by_include(fleet: Path, program: str) -> None:
    (fleet / ".git" / "more").write_text(f'[core]\n\tfsmonitor = {program}\n[filter "x"]\n\tclean = {program}\n')
    git(fleet, "config", "include.path", "more")
    filtered(fleet, None)


def in_the_worktrees_own(fleet: Path, program: str) -> None:
    git(fleet, "config", "extensions.worktreeConfig", "true")
    git(fleet, "config", "--worktree", "core.fsmonitor", program)


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
    looks: tuple[Callable[[Repository], object], ...] = (
        lambda each: each.changed(["."]),
        lambda each: each.changed(["hosts.nix"]),
        lambda each: each.reachable("HEAD"),
        lambda each: each.contents([each.full_head()]),
        lambda each: each.ignored(["x"]),
        lambda each: each.head(),
        lambda each: each.tracked(["hosts.nix"]),
        lambda each: each.read("diff", "HEAD"),
    )
    for act in looks:
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
    while output := complaint(given):
        named = re.search(r"(?:for|variable) '([\w.]+)'", output)
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
