"""What the code may not have: pronouns as variables, "is no …" for "is not a …", and long files."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = ("nixherd", "operations", "facts", "deploys", "lab", "bench", "pages")
PRONOUNS = {"own", "about", "asked", "said", "wanted"}
DIALECT = re.compile(r"\bis (no|none of)\b")
NIX = "there is no substituter that can build it"  # a message of Nix, to be recognized
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


def bound(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of all that is bound: parameters, variables, attributes, functions, classes, imports."""
    for node in ast.walk(tree):
        match node:
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.MatchMapping(rest=str(name)):
                yield node.lineno, name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((node.lineno, each.asname or each.name) for each in names)


def pronouns() -> Iterator[str]:
    for name in files(*CODE, endings=(".py",)):
        yield from (f"{name}:{line}: {word}" for line, word in bound(ast.parse(text_of(name))) if word in PRONOUNS)


def dialect() -> Iterator[str]:
    for name in files(*CODE, "docs", "fleet", "README.md", "CONTRIBUTING.md", "inventory.py", "nodes.py"):
        for number, line in enumerate(text_of(name).splitlines(), 1):
            if DIALECT.search(line.replace(NIX, "")):
                yield f"{name}:{number}: {line.strip()}"


def long_files() -> Iterator[str]:
    for name in files(*CODE, "fleet", "tests", endings=(".py", ".nix", ".sh")):
        if (lines := len(text_of(name).splitlines())) > LINES:
            yield f"{name}: {lines} lines"


@pytest.mark.parametrize("kind", [pronouns, dialect, long_files], ids=lambda kind: kind.__name__)
def test_there_are_none(kind: Callable[[], Iterator[str]]) -> None:
    assert list(kind()) == []


def test_what_is_bound() -> None:
    text = """
def f(own, *, said=1):
    for about in x: y = [asked for wanted in z]
    f.own = about
def said(): import a.b as asked
class about: pass
match x:
    case {"a": [wanted, *own], **said}: pass
try: pass
except E as wanted: pass
"""
    words = [f"{line} {word}" for line, word in sorted(bound(ast.parse(text))) if word in PRONOUNS]
    assert words == ["2 own", "2 said", "3 about", "3 wanted", "4 own", "5 asked", "5 said", "6 about", "8 own",
                     "8 said", "8 wanted", "10 wanted"]  # fmt: skip
