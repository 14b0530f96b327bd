"""The reference is as the code would make it; `make reference` writes it."""

import re

import pytest

from nixherd.cli.help import EXAMPLES
from nixherd.fleet.groups import HOST_DATA, NODE_DATA
from nixherd.fleet.schema import FIELDS, Place
from pages.markdown import ROOT
from pages.reference import DIRECTORY, PAGES, commands
from pages.reference.data import OF_HOSTS, OF_NODES, VARIABLES
from pages.reference.prose import escaped, of_docstring, table

READ = re.compile(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"")
NAMED = {"NIXHERD_CONFIG", "NIXHERD_SAFE_DIRECTORY", "XDG_CONFIG_HOME"}  # by a constant
NOT_THE_OPERATORS = {"NIXOS_ACTION", "PINNED"}  # of a program on the machine


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_is_as_the_code_makes_it(name: str) -> None:
    path = ROOT / DIRECTORY / name
    text = path.read_text() if path.exists() else ""
    assert text == PAGES[name](), f"{DIRECTORY / name} is not up to date: make reference"


def test_there_are_no_other_pages() -> None:
    assert {path.name for path in (ROOT / DIRECTORY).iterdir()} == set(PAGES), "make reference removes them"


def test_every_command_is_there_with_its_examples() -> None:
    text = "".join((ROOT / DIRECTORY / name).read_text() for name in PAGES)
    words = [each for each, _, _ in commands.commands()]
    assert len(words) > 60
    assert [each for each in words if f"# nixherd {each}\n" not in text] == []
    assert [each for each in EXAMPLES if each not in words] == []


def test_every_data_key_has_a_purpose() -> None:
    fields = {field.name for field in FIELDS[Place.HOST] if field.deploys}
    assert set(OF_HOSTS) == set(HOST_DATA) - fields
    assert set(OF_NODES) == set(NODE_DATA)


def test_every_variable_that_is_read_has_a_purpose() -> None:
    texts = [path.read_text() for path in (ROOT / "nixherd").rglob("*.py")]
    read = {name for text in texts for name in READ.findall(text)}
    assert {"FLEET", "PATH"} <= read
    assert set(VARIABLES) == (read | NAMED) - NOT_THE_OPERATORS


def test_texts_become_markdown() -> None:
    assert escaped("a|b `c|d*` <e> *f* g_h") == r"a|b `c|d*` \<e\> \*f\* g_h"
    assert table(("x",), [("a|`b|c`",)]) == "| x |\n|---|\n| a\\|`b\\|c` |"
    docstring = (
        "Do it.\n\n    $ x < y\n\n.. code:: python\n\n    {1: 2}\n\nArgs:\n    one: the first,\n        and more.\n"
    )
    assert of_docstring(docstring) == (
        "Do it.\n\n    $ x < y\n\n```python\n{1: 2}\n```\n\n- `one`: the first, and more.\n"
    )
