"""What may only become less: pronouns as variables, "is no …" for "is not a …", and long files.

tests/shrinking.json says how often each file may have them. More fails; so does fewer, until the list is made again:

    python -m tests.test_words             # lowers what has become less
    python -m tests.test_words --moved     # after a move of files or a merge: as they are now, unless a sum would grow
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTS = ROOT / "tests/shrinking.json"
CODE = ("nixherd", "operations", "facts", "deploys", "lab", "bench")
PRONOUNS = {"own", "about", "asked", "said", "wanted"}
DIALECT = re.compile(r"\bis (no|none of)\b")
LINES = 400  # of a source file


def files(*directories: str, endings: tuple[str, ...] = ("",)) -> list[str]:
    """The tracked files below these directories, and files named."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *directories],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in done.stdout.split("\0") if name.endswith(endings) and name and (ROOT / name).is_file()]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(errors="replace")


def bound(tree: ast.AST) -> Iterator[str]:
    """The names of a module's parameters and of what is assigned in it, as often as they are bound."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.name


def pronouns() -> dict[str, int]:
    """Local variables and parameters, by file, that are called by a pronoun or a participle."""
    names = files(*CODE, endings=(".py",))
    return {name: sum(each in PRONOUNS for each in bound(ast.parse(text_of(name)))) for name in names}


def dialect() -> dict[str, int]:
    """Lines, by file, with "is no …" or "is none of …": "is not a …" is English."""
    names = files(*CODE, "docs", "fleet", "README.md", "CONTRIBUTING.md", "inventory.py", "nodes.py")
    return {name: sum(bool(DIALECT.search(line)) for line in text_of(name).splitlines()) for name in names}


def long_files() -> dict[str, int]:
    """One for each source file that has more than 400 lines."""
    names = files(*CODE, "fleet", "tests", endings=(".py", ".nix", ".sh"))
    return {name: int(len(text_of(name).splitlines()) > LINES) for name in names}


COUNTED: dict[str, Callable[[], dict[str, int]]] = {
    "pronouns": pronouns,
    "is no": dialect,
    "over 400 lines": long_files,
}


def count(kind: str) -> dict[str, int]:
    return {name: number for name, number in sorted(COUNTED[kind]().items()) if number}


def judge(kind: str, now: dict[str, int], allowed: dict[str, int]) -> list[str]:
    """What is wrong, a line each; empty where a list says exactly what is there."""
    more = [
        f"{name}: {number} {kind}, {allowed.get(name, 0)} allowed"
        for name, number in now.items()
        if number > allowed.get(name, 0)
    ]
    fewer = [
        f"{name}: {now.get(name, 0)} {kind}, fewer than the {number} allowed; run python -m tests.test_words"
        for name, number in allowed.items()
        if now.get(name, 0) < number
    ]
    return [*more, *fewer]


@pytest.mark.parametrize("kind", COUNTED)
def test_it_only_becomes_less(kind: str) -> None:
    assert judge(kind, count(kind), json.loads(LISTS.read_text())[kind]) == []


def test_more_and_fewer_are_said() -> None:
    assert judge("x", {"a": 2, "b": 1}, {"a": 1, "b": 1, "gone": 3}) == [
        "a: 2 x, 1 allowed",
        "gone: 0 x, fewer than the 3 allowed; run python -m tests.test_words",
    ]


def test_what_is_bound() -> None:
    tree = ast.parse("def f(own, *, said=1):\n    for about in x: y = [asked for wanted in z]\n    f.own = about")
    assert sorted(PRONOUNS.intersection(bound(tree))) == ["about", "own", "said", "wanted"]


def shrunk(kind: str, now: dict[str, int], allowed: dict[str, int], moved: bool) -> dict[str, int]:
    """The next list. Raises ValueError where it would be longer."""
    if moved and sum(now.values()) > sum(allowed.values()):
        raise ValueError(f"{kind}: {sum(now.values())} now, {sum(allowed.values())} allowed")
    return now if moved else {name: least for name in now if (least := min(now[name], allowed.get(name, 0)))}


def test_a_list_grows_by_no_way() -> None:
    assert shrunk("x", {"a": 2, "new": 1}, {"a": 3, "gone": 1}, moved=False) == {"a": 2}
    assert shrunk("x", {"a": 2, "new": 1}, {"a": 3, "gone": 1}, moved=True) == {"a": 2, "new": 1}
    with pytest.raises(ValueError, match="x: 5 now, 4 allowed"):
        shrunk("x", {"a": 2, "new": 3}, {"a": 3, "gone": 1}, moved=True)


def listed() -> dict[str, dict[str, int]]:
    """The lists as they are, or as they were on the side that another branch is merged into."""
    try:
        lists: dict[str, dict[str, int]] = json.loads(LISTS.read_text())
    except json.JSONDecodeError:
        words = ["git", "show", f":2:{LISTS.relative_to(ROOT)}"]
        lists = json.loads(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    return lists


if __name__ == "__main__":
    before = listed()
    try:
        lists = {kind: shrunk(kind, count(kind), before[kind], "--moved" in sys.argv[1:]) for kind in COUNTED}
    except ValueError as longer:
        sys.exit(f"{longer}; nothing was written")
    LISTS.write_text(json.dumps(lists, indent=1) + "\n")
    for kind, entries in lists.items():
        print(f"{kind}: {sum(entries.values())} in {len(entries)} files")
