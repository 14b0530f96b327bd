"""Lock files as values: what moved, where that can be read about, which groups there are, what Markdown shows."""

import json
from dataclasses import replace
from typing import Any

import pytest

from nixherd.errors import FleetError, Usage
from nixherd.gate.lock.combine import Left, Outcome, markdown_of, message_of
from nixherd.gate.lock.lockfile import Group, Lock, Move, compose, groups_of, moved, moves

A, B = "a" * 40, "b" * 40


def locked(rev: str = A, time: int = 1_750_000_000, **more: Any) -> dict[str, Any]:
    return {"type": "github", "owner": "o", "repo": "r", "rev": rev, "lastModified": time, **more}


def lock(rev: str, tool: str = A, *, deep: str = A) -> Lock:
    """nixpkgs at `rev`; tool follows it, and brings a nixpkgs of its own with another name."""
    nodes = {
        "nixpkgs": {"locked": locked(rev)},
        "nixpkgs_2": {"locked": locked(deep)},
        "tool": {"inputs": {"nixpkgs": ["nixpkgs"], "stable": "nixpkgs_2"}, "locked": locked(tool)},
        "root": {"inputs": {"nixpkgs": "nixpkgs", "tool": "tool", "same": ["nixpkgs"]}},
    }
    return Lock.parse(json.dumps({"nodes": nodes, "root": "root", "version": 7}), "flake.lock")


def test_what_moved_is_the_flakes_inputs_and_what_they_bring() -> None:
    old, new = lock(A), lock(B, tool=A, deep=B)
    assert [(each.name, str(each)) for each in moves(old, new)] == [
        ("nixpkgs", "nixpkgs: aaaaaaa (2025-06-15) → bbbbbbb (2025-06-15)"),
        ("tool/stable", "tool/stable: aaaaaaa (2025-06-15) → bbbbbbb (2025-06-15)"),
    ]
    assert moved(old, new) == ["nixpkgs", "tool"]
    assert moves(old, old) == []
    back = Move(("x",), locked(A, 2_000_000_000), locked(B, 1_000_000_000))
    assert str(back).endswith("(older than before)")
    assert str(Move(("x",), None, {"type": "path", "narHash": "sha256-abcdefghij"})) == "x: none → abcdefg"
    assert str(Move(("x",), {}, None)) == "x: unknown → none"


def test_a_lock_of_two_has_each_input_as_it_is_in_its_own() -> None:
    old, new = lock(A), lock(B, tool=B, deep=B)
    mixed = compose(old, new, {"nixpkgs"})
    assert [each.name for each in moves(old, mixed)] == ["nixpkgs"]
    assert [each.name for each in moves(mixed, new)] == ["tool", "tool/stable"]
    # named as Nix names them: by the input, not by what the other file had
    assert sorted(mixed.nodes) == ["nixpkgs", "root", "stable", "tool"]
    assert mixed.nodes["root"]["inputs"] == {"nixpkgs": "nixpkgs", "same": ["nixpkgs"], "tool": "tool"}
    assert moves(new, compose(old, new, {"nixpkgs", "tool"})) == []
    assert moves(old, compose(old, new, ())) == []


@pytest.mark.parametrize(
    ("change", "link"),
    [
        ({}, f"https://github.com/o/r/compare/{A}...{B}"),
        ({"host": "git.example.org"}, f"https://git.example.org/o/r/compare/{A}...{B}"),
        ({"type": "gitlab"}, f"https://gitlab.com/o/r/-/compare/{A}...{B}"),
        ({"type": "git", "url": "https://codeberg.org/o/r.git"}, f"https://codeberg.org/o/r/compare/{A}...{B}"),
        ({"type": "git", "url": "ssh://git@github.com/o/r"}, f"https://github.com/o/r/compare/{A}...{B}"),
        # of these nobody knows
        ({"type": "git", "url": "https://git.example.org/o/r"}, None),
        ({"type": "git", "url": "file:///srv/r"}, None),
        ({"type": "tarball", "url": "https://github.com/o/r/archive/main.tar.gz"}, None),
        # and these are not what they seem
        ({"owner": "o](https://evil.example)"}, None),
        ({"host": "evil.example/x?"}, None),
        ({"repo": ".."}, None),
    ],
)
def test_what_changed_has_a_page_where_the_forge_is_known(change: dict[str, Any], link: str | None) -> None:
    assert Move(("x",), locked(A, **change), locked(B, **change)).link == link
    assert Move(("x",), locked(A), locked("c", **change)).link is None
    assert Move(("x",), locked(A, owner="other"), locked(B, **change)).link is None


def test_inputs_that_others_follow_come_first_and_groups_are_whole() -> None:
    here = lock(A)
    assert [group.name for group in groups_of(here, ())] == ["nixpkgs", "tool"]
    assert groups_of(here, ["all=tool,nixpkgs"]) == [Group("all", ("tool", "nixpkgs"))]
    assert groups_of(here, (), ["tool"]) == [Group("tool", ("tool",))]
    for wrong in ("=tool", "x=", "x=none", "x=same", "tool=nixpkgs"):
        with pytest.raises(Usage):
            groups_of(here, [wrong])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"nodes": {}, "root": "root", "version": 7}', '{"nodes": {"root": 1}, "root": "root"}']
)
def test_what_is_no_lock_file_is_said(text: str) -> None:
    with pytest.raises(FleetError, match=r"^flake\.lock: is not a lock file \("):
        Lock.parse(text, "flake.lock")
    with pytest.raises(FleetError, match="is of version 8, which is not known here"):
        Lock.parse(replace(lock(A), version=8).text(), "flake.lock")
    broken = json.loads(lock(A).text())
    broken["nodes"]["tool"]["inputs"]["stable"] = "gone"
    with pytest.raises(FleetError, match="is not a lock file"):
        Lock.parse(json.dumps(broken), "flake.lock")


def test_words_of_others_stay_text_in_markdown_and_messages() -> None:
    hostile = "x` | [click](https://evil.example)\n# now\x1b[2J ``` @everyone"
    move = Move((hostile,), locked(A), locked(B))
    outcome = Outcome(A, B, (move,), (Left(Group("tool", ("tool",)), (hostile,)),), ((hostile, hostile),))
    text = markdown_of(outcome, "main: b")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3
    assert rows[2].count("`") == 6
    assert "````text\n" in text  # its own fence is longer than theirs
    assert "\x1b" not in text
    assert not any(line.startswith("# now") for line in text.splitlines())
    message = message_of([move], [Group("tool", ("tool",))])
    assert message.splitlines()[0] == "flake.lock: update tool"
    assert "\x1b" not in message
    many = Group("g", tuple(f"an-input-of-a-long-name-{number}" for number in range(9)))
    assert message_of([move], [many]).splitlines()[0] == "flake.lock: update 9 inputs"
