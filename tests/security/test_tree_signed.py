"""Whoever can push a commit: where signatures are required nothing of it is evaluated, built, published or deployed.

With git, ssh-keygen and Nix themselves. The attacker pushes what he likes, also who may sign; in some he has handed
over the whole repository, its settings and objects included.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.cli.front import CHECKOUT
from nixherd.cli.main import run
from nixherd.deploy import plan
from nixherd.deploy.commit_policy import Gate, Verified
from nixherd.deploy.journal import Journal
from nixherd.deploy.machine import Machine
from nixherd.deploy.options import Options
from nixherd.deploy.run import HostRun, ReachedToPull, Rollout
from nixherd.errors import FleetError, Refused, Usage
from nixherd.fleet import signatures
from nixherd.fleet.load import load_fleet
from nixherd.fleet.signatures import Commit, NotFollowed
from nixherd.nix.evaluator import Evaluator
from nixherd.pyinfra_glue.context import Context
from nixherd.pyinfra_glue.inventory import inventory_beside
from nixherd.run import Run
from tests import nix_cli
from tests.properties import examples
from tests.shared import Shared

pytestmark = pytest.mark.nix

HOSTS = """
{
  a = {
    hostname = "a"; user = "me"; publicKey = "placeholder"; configurationFile = ./flake.nix; homeFile = ./flake.nix;
  };
}
"""
FLAKE = """
{
  outputs = { self }: {
    nixosConfigurations.a.config = {
      networking.hostName = "a";
      system.build.toplevel = derivation {
        name = "a"; system = "x86_64-linux"; builder = "/bin/sh";
        args = ["-c" "echo ${builtins.readFile ./word} >$out"];
      };
    };
  };
}
"""
WE, THEY = "us", "them"


@dataclass
class Tree:
    """A fleet's checkout, who may sign it, and keys of us and of others."""

    path: Path
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def signers(self) -> Path:
        return self.home / ".config/nixherd/allowed_signers"

    def git(self, *words: str, at: str | None = None, input: str | None = None, **more: str) -> str:
        date = {"GIT_AUTHOR_DATE": at, "GIT_COMMITTER_DATE": at} if at else {}
        done = subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "gpg.format=ssh", *words],
            cwd=self.path, env={**self.environment, **date, **more}, input=input, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, word: str = "", by: str | None = WE, *, at: str | None = None, amend: bool = False) -> str:
        """A commit of all that differs, with this word in the system; signed, or by nobody."""
        if word:
            (self.path / "word").write_text(word)
        self.git("add", "-A")
        return self._made(
            "commit", *(["--amend"] if amend else []), "-q", "--allow-empty", "-m", word or "x", by=by, at=at
        )

    def merge(self, *others: str, by: str | None = WE) -> str:
        self.git("merge", "-q", "--no-commit", "--no-ff", "-s", "ours" if len(others) == 1 else "octopus", *others)
        return self._made("commit", "-q", "--allow-empty", "-m", f"merge of {len(others)}", by=by)

    def _made(self, *words: str, by: str | None, at: str | None = None) -> str:
        key = ["-c", f"user.signingkey={self.home / by}"] if by else []
        self.git(*key, *words, *(["-S"] if by else ["--no-gpg-sign"]), at=at)
        return self.git("rev-parse", "HEAD")

    def may_sign(self, *who: str, options: str = 'namespaces="git"', file: Path | None = None) -> Path:
        file = file or self.signers
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{each}@x {options} {(self.home / f'{each}.pub').read_text()}" for each in who))
        return file

    def gate(self, **data: Any) -> Gate:
        gate = Gate.of(self.path, {"require_signed": True, **data}, [], notes=True)
        assert gate
        return gate

    def verify(self, **data: Any) -> Verified:
        return self.gate(**data).verify()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A fleet of one signed commit, which has not been deployed yet."""
    tree = Tree(tmp_path / "fleet", tmp_path, {**nix_cli.environment(), "HOME": str(tmp_path)})
    tree.path.mkdir()
    for name, value in tree.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FLEET", str(tree.path))
    for who in (WE, THEY):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / who], check=True)
    tree.may_sign(WE)
    (tree.path / "hosts.nix").write_text(HOSTS)
    (tree.path / "flake.nix").write_text(FLAKE)
    tree.git("init", "-q", "-b", "main")
    tree.commit("first")
    return tree


def refused(tree: Tree, kind: type[FleetError] = Refused, **data: Any) -> str:
    with pytest.raises(kind) as caught:
        tree.verify(**data)
    [line] = str(caught.value).splitlines()
    return line


# Who may sign


def test_a_commit_does_not_say_who_may_sign_it(tree: Tree) -> None:
    tree.verify()
    inside = tree.may_sign(WE, THEY, file=tree.path / "allowed_signers")
    tree.commit("theirs, with a file that lets them", by=THEY)
    assert "its signature is by nobody who may" in refused(tree)
    (tree.home / "link").symlink_to(inside)
    for place in (str(inside), str(tree.home / "link"), str(tree.path / ".git/x")):
        assert "lies in the tree whose commits it is to judge" in refused(tree, allowed_signers=place)
    with pytest.raises(Usage, match="would lie in the tree"):
        tree.gate(allowed_signers="allowed_signers")


def test_the_signers_file_is_the_operators_own(tree: Tree) -> None:
    for mode in (0o666, 0o664):
        tree.signers.chmod(mode)
        assert "others may change it" in refused(tree)
    tree.signers.unlink()
    assert "allowed_signers: missing; write who may sign" in refused(tree)


def test_another_work_tree_of_the_repository_is_the_tree_too(tree: Tree) -> None:
    tree.git("worktree", "add", "-q", str(tree.home / "other"))
    inside = tree.may_sign(WE, file=tree.path / "signers")
    elsewhere = Gate.of(tree.home / "other", {"require_signed": True, "allowed_signers": str(inside)}, [], notes=False)
    assert elsewhere
    with pytest.raises(Refused, match="lies in the tree"):
        elsewhere.verify()


@pytest.mark.parametrize(
    ("options", "may"),
    [
        ('namespaces="git"', True),
        ("", True),
        ('namespaces="file"', False),
        ('valid-before="20250101"', False),
        ('valid-after="20900101"', False),
        ('valid-after="20000101"', True),
    ],
)
def test_a_key_counts_for_what_the_file_says(tree: Tree, options: str, may: bool) -> None:
    tree.may_sign(WE, options=options)
    if options.startswith("valid-after"):
        tree.commit("from the future", at="2095-01-01T00:00:00Z")
    if may:
        tree.verify()
    else:
        assert "by nobody who may" in refused(tree)


def test_a_key_that_is_valid_no_more_cannot_sign_into_the_past(tree: Tree) -> None:
    while_it_was = tree.commit("proven", at="2026-05-01T12:00:00Z", amend=True)
    tree.may_sign(WE, options='valid-before="20260601"')
    assert tree.verify().revision == while_it_was
    tree.may_sign(WE, options='valid-before="20260401"')
    tree.commit("stolen", at="2026-03-01T12:00:00Z")
    assert "by nobody who may" in refused(tree)
    tree.may_sign(WE, options='valid-before="20260601"')
    tree.verify()


def test_nor_on_a_branch_that_began_while_it_was_valid(tree: Tree) -> None:
    old = tree.commit("old", at="2026-01-01T12:00:00Z", amend=True)
    tree.commit("proven", at="2026-05-01T12:00:00Z")
    tree.may_sign(WE)
    tree.verify()
    tree.git("checkout", "-q", "-b", "side", old)
    (tree.path / "side").write_text("")
    tree.commit("stolen", by=THEY, at="2026-02-01T12:00:00Z")
    tree.git("checkout", "-q", "main")
    tree.merge("side")
    ours, theirs = ((tree.home / f"{each}.pub").read_text() for each in (WE, THEY))
    for until, may in (("20260401", False), ("20260601", True)):
        tree.signers.write_text(f'us@x {ours}them@x valid-before="{until}" {theirs}')
        if may:
            tree.verify()
        else:
            assert "stolen': its signature is by nobody who may" in refused(tree)


def test_a_key_that_was_removed_signs_no_more(tree: Tree) -> None:
    tree.may_sign(WE, THEY)
    tree.commit("theirs", by=THEY)
    tree.verify()
    tree.may_sign(WE)
    tree.verify()  # proven while they might
    tree.commit("theirs as well", by=THEY)
    assert "'" + tree.git("rev-parse", "HEAD")[:12] + " theirs as well'" in refused(tree)


# From where


def test_the_start_is_what_this_operator_has_proven(tree: Tree) -> None:
    first = tree.verify().revision
    tree.commit("of nobody", by=None)
    assert "it is not signed" in refused(tree)
    tree.commit("signed, on top of it")
    assert "of nobody': it is not signed" in refused(tree)
    with pytest.raises(Usage, match="is no whole hash"):
        tree.gate(signed_from="HEAD")
    for word in (first[:12], first.upper(), f"{first}\n", "main", "", 1):
        with pytest.raises(Usage):
            tree.gate(signed_from=word)


def test_without_a_start_every_commit_counts(tree: Tree) -> None:
    tree.commit("x", by=None, amend=True)
    vouched = tree.commit("y", by=None)
    tree.commit("z")
    assert "(and 1 more)" in refused(tree)
    assert "say signed_from=HASH" in refused(tree)
    tree.verify(signed_from=vouched)
    tree.verify()


def test_an_older_one_is_refused_unless_told(tree: Tree) -> None:
    older = tree.git("rev-parse", "HEAD")
    newer = tree.commit("newer")
    tree.verify()
    tree.git("checkout", "-q", older)
    assert f"the last commit, {older[:12]}, does not follow {newer[:12]}, which was proven here before" in refused(tree)
    tree.commit("another line")
    assert "does not follow" in refused(tree)
    tree.verify(signed_from=older)
    tree.verify()


def test_what_was_proven_by_others_signers_is_not_proven(tree: Tree) -> None:
    theirs = tree.may_sign(WE, THEY, file=tree.home / "juniors")
    tree.commit("theirs", by=THEY)
    tree.verify(allowed_signers=str(theirs))
    assert "by nobody who may" in refused(tree)


def test_a_plan_proves_nothing_for_later(tree: Tree) -> None:
    gate = Gate.of(tree.path, {"require_signed": "true"}, [], notes=False)
    assert gate
    gate.verify()
    assert not (tree.home / "state/nixherd/.proven").exists()


# Merges


def test_side_commits_count(tree: Tree) -> None:
    tree.verify()
    for number, by in enumerate((WE, None, WE)):
        tree.git("checkout", "-q", "-b", f"side{number}", "main")
        (tree.path / f"file{number}").write_text("")
        tree.commit(by=by)
    tree.git("checkout", "-q", "main")
    tree.merge("side0")
    tree.verify()
    before = tree.git("rev-parse", "HEAD")
    tree.merge("side1")
    assert "it is not signed" in refused(tree)
    tree.git("reset", "-q", "--hard", before)
    tree.merge("side1", "side2")
    assert "it is not signed" in refused(tree)


def test_a_merge_counts_itself(tree: Tree) -> None:
    tree.verify()
    tree.git("checkout", "-q", "-b", "side")
    tree.commit()
    tree.git("checkout", "-q", "main")
    tree.git("merge", "-q", "--no-commit", "--no-ff", "side")
    (tree.path / "word").write_text("neither side has it")
    tree.git("add", "-A")
    tree.git("commit", "-q", "--no-gpg-sign", "-m", "evil merge")
    assert "evil merge': it is not signed" in refused(tree)


def test_a_side_that_began_before_the_start_is_told_from_what_was_proven(tree: Tree) -> None:
    old = tree.git("rev-parse", "HEAD")
    tree.commit("by nobody, long ago", by=None)
    start = tree.commit("and since then signed")
    tree.verify(signed_from=start)
    tree.git("checkout", "-q", "-b", "side", old)
    (tree.path / "side").write_text("")
    tree.commit()
    tree.git("checkout", "-q", "main")
    tree.merge("side")
    tree.verify()
    tree.git("checkout", "-q", "-b", "bad", old)
    (tree.path / "bad").write_text("")
    tree.commit(by=None)
    tree.git("checkout", "-q", "main")
    tree.merge("bad")
    assert "it is not signed" in refused(tree)


DAG = st.lists(st.tuples(st.sets(st.integers(1, 6), max_size=3), st.booleans()), min_size=1, max_size=12)


@examples(300)
@given(DAG, st.integers(0, 11), st.integers(0, 11), st.booleans())
def test_which_commits_count(shape: list[tuple[set[int], bool]], at: int, to: int, has_start: bool) -> None:
    """All that the head follows and the start does not, parents first, in graphs of every kind."""
    made: list[Commit] = []
    for index, (back, _) in enumerate(shape):
        parents = tuple(made[index - each].id for each in sorted(back) if each <= index)
        made.append(Commit(f"{index:040x}", parents, index, "", None, b""))
    known = {each.id: each for each in made}

    def reach(id: str) -> set[str]:
        return {id}.union(*(reach(parent) for parent in known[id].parents))

    head, start = made[to % len(made)].id, made[at % len(made)].id if has_start else None
    follows = start is None or start in reach(head)
    try:
        found = [each.id for each in signatures.since(start, head, lambda ids: {id: known.get(id) for id in ids})]
    except NotFollowed:
        assert not follows
        return
    assert follows
    assert sorted(found) == sorted(reach(head) - (reach(start) if start else set()))
    for place, id in enumerate(found):
        assert not set(known[id].parents) & set(found[place:])


# A repository that was handed over


def test_replaced_and_grafted_commits_are_what_they_were(tree: Tree) -> None:
    first = tree.verify().revision
    bad = tree.commit("bad", by=None)
    good = tree.commit(amend=True)
    tree.git("reset", "-q", "--hard", bad)
    tree.git("replace", bad, good)
    assert "it is not signed" in refused(tree)
    tree.git("replace", "-d", bad)
    tree.git("replace", "--graft", bad)
    assert "it is not signed" in refused(tree)
    tree.git("replace", "-d", bad)
    tree.commit("signed, on top of it")
    grafted = f"{tree.git('rev-parse', 'HEAD')} {first}\n"
    (tree.path / ".git/info").mkdir(exist_ok=True)
    (tree.path / ".git/info/grafts").write_text(grafted)
    assert "bad': it is not signed" in refused(tree)


def test_an_object_that_is_not_what_its_name_says(tree: Tree) -> None:
    """The file that was signed, by its name, with what nobody signed: git looks at the name alone, Nix at both."""
    word = tree.git("rev-parse", f"{tree.verify().revision}:word")
    hostile = tree.git("hash-object", "-w", "--stdin", input="hostile")
    there, other = (tree.path / ".git/objects" / each[:2] / each[2:] for each in (word, hostile))
    there.unlink()
    there.write_bytes(other.read_bytes())
    assert tree.git("status", "--porcelain") == ""
    assert tree.git("show", "HEAD:word") == "hostile"
    shutil.rmtree(tree.home / ".cache", ignore_errors=True)  # where Nix has it from before
    with pytest.raises(FleetError, match="object hash mismatch"):
        toplevel(tree, tree.gate())


def test_a_commit_that_is_another_one(tree: Tree) -> None:
    tree.verify()
    bad, good = tree.commit("bad", by=None), tree.git("rev-parse", "HEAD^")
    objects = tree.path / ".git/objects"
    there, other = (objects / each[:2] / each[2:] for each in (bad, good))
    there.unlink()
    there.write_bytes(other.read_bytes())
    with pytest.raises(FleetError):
        tree.verify()


def test_a_shallow_clone_does_not_hide_what_came_before(tree: Tree) -> None:
    tree.commit("of nobody", by=None)
    tree.commit("signed")
    clone = tree.home / "shallow"
    tree.git("clone", "-q", "--depth", "1", f"file://{tree.path}", str(clone))
    shallow = Tree(clone, tree.home, tree.environment)
    assert "git fetch --unshallow" in refused(shallow)


def test_a_shallow_clone_is_enough_where_the_operator_vouches_for_what_it_begins_with(tree: Tree) -> None:
    """As CI checks out: Nix would not take a commit of it."""
    last = tree.commit("last")
    clone = tree.home / "shallow"
    tree.git("clone", "-q", "--depth", "1", f"file://{tree.path}", str(clone))
    shallow = Tree(clone, tree.home, tree.environment)
    verified = shallow.verify(signed_from=last)
    assert (verified.revision, (verified.path / "word").read_text()) == (last, "last")
    later = shallow.commit("later")
    verified = shallow.verify()
    assert (verified.revision, (verified.path / "word").read_text()) == (later, "later")


def test_no_program_of_the_repository_says_what_is_well(tree: Tree) -> None:
    tree.commit("theirs", by=THEY)
    yes = tree.home / "yes"
    yes.write_text(f'#!/bin/sh\ntouch {tree.home}/ran\necho "Good \\"git\\" signature for us@x with ED25519 key x"\n')
    yes.chmod(0o755)
    for name in ("gpg.ssh.program", "gpg.program", "gpg.openpgp.program", "gpg.ssh.defaultKeyCommand"):
        tree.git("config", name, str(yes))
    for name, value in {"gpg.ssh.allowedSignersFile": "/dev/null", "log.showSignature": "true"}.items():
        tree.git("config", name, value)
    assert "by nobody who may" in refused(tree)
    assert not (tree.home / "ran").exists()


def test_the_environment_leads_to_no_other_repository(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = tree.home / "signed"
    tree.git("clone", "-q", str(tree.path), str(signed))
    tree.commit("of nobody", by=None)
    for name, value in {
        "GIT_DIR": signed / ".git",
        "GIT_WORK_TREE": signed,
        "GIT_OBJECT_DIRECTORY": signed / ".git/objects",
        "GIT_INDEX_FILE": signed / ".git/index",
        "GIT_NAMESPACE": "x",
        "GIT_CEILING_DIRECTORIES": tree.home,
    }.items():
        with monkeypatch.context() as patched:
            patched.setenv(name, str(value))
            assert "of nobody': it is not signed" in refused(tree)


def test_other_signatures_are_none(tree: Tree) -> None:
    first = tree.verify().revision
    content = tree.git("cat-file", "commit", tree.commit("signed"))
    header, _, message = content.partition("\n\n")
    signature = header[header.index("gpgsig ") :]
    for case, data in {
        content.replace("signed", "signed otherwise"): "by nobody who may",
        content.replace("SSH SIGNATURE", "PGP SIGNATURE"): "not by an SSH key",
        f"{header}\n{signature}\n\n{message}\n": "more than one signature",
        f"{header}\nparent {first}\n\n{message}\n": "not in git's own form",
        f"{header}\ntree {tree.git('rev-parse', first + '^{tree}')}\n\n{message}\n": "not in git's own form",
    }.items():
        made = tree.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", input=case)
        tree.git("update-ref", "refs/heads/main", made)
        assert data in refused(tree)


# What is evaluated


def toplevel(tree: Tree, gate: Gate, then: Any = lambda: None) -> str:
    """What the flake comes to, with something that happens after the gate."""
    verified = gate.verify()
    evaluator = evaluator_of(gate, verified)
    evaluator.source = verified
    then()
    return Path(evaluator.evaluate(("a",), "a").toplevel_drv).read_text()


def evaluator_of(gate: Gate, verified: Verified) -> Evaluator:
    fleet = verified.fleet(gate.fleet)
    return Evaluator(fleet, Run(fleet.id), gate.verify)


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


# Every way by which it gets to machines


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
        plan.plan(shared.evaluator, rollout, host_run, ReachedToPull("127.0.0.1"), ("a",))


def test_a_flake_by_reference_has_no_commits_to_look_at(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["deploy", "--flake", f"git+file://{tree.path}", "--data", "require_signed=true"]
    assert run(words) == 2
    assert "require_signed looks at the commits of a checkout" in capsys.readouterr().err
