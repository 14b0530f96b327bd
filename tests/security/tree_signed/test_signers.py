"""Who may sign, and since when."""

import pytest

from nixherd.deploy.commit_policy import Gate
from nixherd.errors import Refused, Usage
from tests.security.tree_signed.conftest import THEY, WE, Tree, refused

pytestmark = pytest.mark.nix


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


def test_the_start_is_what_this_operator_has_proven(tree: Tree) -> None:
    first = tree.verify().revision
    tree.commit("of nobody", by=None)
    assert "it is not signed" in refused(tree)
    tree.commit("signed, on top of it")
    assert "of nobody': it is not signed" in refused(tree)
    with pytest.raises(Usage, match="is not a whole hash"):
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
