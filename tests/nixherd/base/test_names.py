"""One pattern a kind of name, one path of the host key, one name of the definitions: nobody writes them again."""

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from nixherd.base import names
from nixherd.base.ssh_keys import HOST_KEY, HOST_KEY_FILE
from nixherd.fleet.models import DEFINITIONS

ROOT = Path(__file__).parents[3]
PATTERNS = {name: value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}


def constants(holding: Collection[str]) -> Iterator[tuple[str, str]]:
    """The strings of the product's files, of those alone that have one of these texts in them."""
    for path in (
        path for package in ("nixherd", "operations", "facts", "deploys") for path in (ROOT / package).rglob("*.py")
    ):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if any(each in text for each in holding) else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield str(path.relative_to(ROOT)), node.value


def test_each_is_written_once() -> None:
    once = {
        HOST_KEY: "nixherd/base/ssh_keys.py",
        HOST_KEY_FILE: "nixherd/base/ssh_keys.py",
        DEFINITIONS: "nixherd/fleet/models.py",
    }
    once |= dict.fromkeys(PATTERNS.values(), "nixherd/base/names.py")
    assert [(file, text) for file, text in constants(once) if once.get(text, file) != file] == []


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("VMID", ("100", "999999999"), ("99", "1000000000", "0100", "１００")),
        ("NODE", ("pve", "p-1", "a" * 63), ("-pve", "pve-", "p_1", "a" * 64, "pve\n", "")),
        ("HOSTNAME", ("web_1.lan", "web"), ("web.", ".lan", "a" * 254, "web\n")),
        ("STORAGE", ("local-lvm", "a1"), ("a", "1a", "local.", "local/x")),
        ("SNAPSHOT", ("ab", "before_2"), ("a", "2nd", "a b", "a" * 41)),
        ("HOST_ID", ("web1", "_x", "a.b"), ("-a", ".a", "a b", "")),
        ("USER", ("root", "_me", "a-b"), ("1a", "-a", "a b", "ä")),
    ],
)
def test_what_each_kind_may_be(kind: str, good: tuple[str, ...], bad: tuple[str, ...]) -> None:
    assert [each for each in good if not names.is_a(PATTERNS[kind], each)] == []
    assert [each for each in bad if names.is_a(PATTERNS[kind], each)] == []
