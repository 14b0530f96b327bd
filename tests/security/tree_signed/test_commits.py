"""Which commits count, and which repository and programs are used."""

import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.errors import FleetError
from nixherd.fleet import signatures
from nixherd.fleet.signatures import Commit, NotFollowed
from tests.properties import examples
from tests.security.tree_signed.conftest import THEY, WE, Tree, refused, toplevel

pytestmark = pytest.mark.nix


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
