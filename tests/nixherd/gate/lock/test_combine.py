"""Which groups go together, by what a gate says of each tree; trees, git and Nix are stand-ins here."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from nixherd.base.errors import FleetError
from nixherd.gate.lock.combine import Combiner, Outcome, TreeGate, Verdict
from nixherd.gate.lock.lockfile import Group, Lock
from nixherd.gate.lock.place import CommitRefused, Place

NAMES = ("a", "b", "c")
YES, NO, NOBODY_KNOWS = Verdict(True), Verdict(False, ("no",)), Verdict(False, ("not done",), answered=False)


def lock(moved: Sequence[str] = ()) -> Lock:
    nodes: dict[str, Any] = {name: {"locked": {"rev": "new" if name in moved else "old"}} for name in NAMES}
    nodes["root"] = {"inputs": {name: name for name in NAMES}}
    return Lock.parse(json.dumps({"nodes": nodes, "root": "root", "version": 7}), "flake.lock")


class Tree:
    """A place without files: what is locked in it is what was written last; a commit is named by what moved in it."""

    fleet = None

    def __init__(self) -> None:
        self.head = "base"
        self.written = lock()
        self.refused: tuple[str, ...] = ()

    @property
    def git(self) -> "Tree":
        return self

    def full_head(self) -> str:
        return self.head

    def at(self, commit: str) -> None:
        self.head, self.written = commit, lock()

    def lock(self, what: str) -> Lock:
        return lock(NAMES) if what.endswith("updated") else lock()

    def write(self, locked: Lock) -> None:
        self.written = locked

    def update_inputs(self, groups: Sequence[Group]) -> dict[str, str]:
        return {}

    def why_inconsistent(self) -> str | None:
        return None

    def commit(self, message: str, *, signed: bool) -> str:
        moved = self.moved
        if set(moved) & set(self.refused):
            raise CommitRefused("git commit: the hook does not like it")
        self.head = moved
        return moved

    def differs(self) -> list[str]:
        return []

    @property
    def moved(self) -> str:
        return "".join(name for name in NAMES if self.written.nodes[name]["locked"]["rev"] == "new")


class Gate:
    def __init__(self, tree: Tree, says: Callable[[str], Verdict]) -> None:
        self.tree, self.says, self.asked = tree, says, list[str]()

    def judge(self, fleet: object, left: float) -> Verdict:
        self.asked.append(self.tree.moved)
        return self.says(self.tree.moved)


@pytest.fixture
def combine() -> Callable[..., tuple[Outcome, list[str]]]:
    def run(says: Callable[[str], Verdict], refused: tuple[str, ...] = (), **more: Any) -> tuple[Outcome, list[str]]:
        tree = Tree()
        tree.refused = refused
        gate = Gate(tree, says)
        combiner = Combiner(cast(Place, tree), cast(TreeGate, gate), "base", "main", False, lambda line: None, **more)
        return combiner.update([Group(name, (name,)) for name in NAMES]), gate.asked

    return run


def brief(outcome: Outcome) -> tuple[str | None, list[str], dict[str, str]]:
    return outcome.commit, [left.group.name for left in outcome.left], dict(outcome.unknown)


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (lambda moved: YES, ("abc", [], {})),
        (lambda moved: NO if "b" in moved else YES, ("ac", ["b"], {})),
        # a gate that does not end for one of them has not judged it: nobody is blamed, and it does not go
        (lambda moved: NOBODY_KNOWS if "b" in moved else YES, ("ac", [], {"b": "not done"})),
        (lambda moved: NOBODY_KNOWS if moved == "abc" else NO if "b" in moved else YES, ("ac", [], {"b": "not done"})),
        # two that go only with each other stay when they are not said to be a group; all break; two only break together
        (lambda moved: NO if ("a" in moved) != ("b" in moved) or "c" in moved else YES, (None, ["a", "b", "c"], {})),
        (lambda moved: NO if moved else YES, (None, ["a", "b", "c"], {})),
        (lambda moved: NO if "ab" in moved else YES, ("ac", ["b"], {})),
        # b needs a, and a comes after it in no order
        (lambda moved: NO if ("b" in moved and "c" not in moved) or "a" in moved else YES, ("bc", ["a"], {})),
    ],
)
def test_what_goes_and_what_is_said_of_the_rest(
    combine: Callable[..., tuple[Outcome, list[str]]], says: Callable[[str], Verdict], expected: object
) -> None:
    outcome, asked = combine(says)
    assert brief(outcome) == expected
    assert len(asked) == len(set(asked)), "one tree is judged once"


def test_a_gate_that_cannot_answer_about_the_branch_itself_is_said(
    combine: Callable[..., tuple[Outcome, list[str]]],
) -> None:
    with pytest.raises(FleetError, match=r"^the gate gives no answer, about main as it is neither: not done$"):
        combine(lambda moved: NOBODY_KNOWS)
    with pytest.raises(FleetError, match=r"^main itself stops at the gate, so nothing is updated: no$"):
        combine(lambda moved: NO)


def test_a_hook_that_refuses_one_commit_keeps_no_other(combine: Callable[..., tuple[Outcome, list[str]]]) -> None:
    outcome, asked = combine(lambda moved: YES, refused=("b",))
    assert brief(outcome) == ("ac", [], {"b": "git commit: the hook does not like it"})
    assert asked == ["", "a", "ac"]
    outcome, _ = combine(lambda moved: YES, refused=NAMES)
    assert brief(outcome) == (None, [], dict.fromkeys(NAMES, "git commit: the hook does not like it"))


def test_when_the_time_is_over_what_has_passed_goes_on(
    combine: Callable[..., tuple[Outcome, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    outcome, asked = combine(lambda moved: NO if "c" in moved else YES, until=4.5)
    assert asked == ["abc", "", "a"]
    why = "no time was left to ask the gate"
    assert brief(outcome) == ("a", [], {"b": why, "c": why})
    outcome, asked = combine(lambda moved: YES, until=0.0)
    assert (asked, brief(outcome)) == ([], (None, [], dict.fromkeys(NAMES, why)))


def test_what_was_judged_is_what_is_merged(
    combine: Callable[..., tuple[Outcome, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tree, "full_head", lambda self: "another")
    with pytest.raises(FleetError, match="the gate left HEAD at another: what it judged is not what would be merged"):
        combine(lambda moved: YES)
    monkeypatch.setattr(Tree, "why_inconsistent", lambda self: "lock file changes are required")
    with pytest.raises(FleetError, match=r"^flake\.lock of main: does not fit its flake\.nix, or .*required; `nix"):
        combine(lambda moved: YES)
