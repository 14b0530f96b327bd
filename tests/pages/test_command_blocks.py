"""Blocks of commands of the pages: which there are, which may stay out of the lab, and what of an output counts."""

import pytest

from pages.command_blocks import MOST_MARKED, command_blocks, missing, problems
from pages.markdown import Page, pages
from tests.integration.scenes import APART, SCENES, SEEN

# Of the past, made by a program, or about working on nixherd and on stacks of containers.
OTHERS = ("CHANGELOG.md", "CONTRIBUTING.md", "docs/adr/", "docs/reference/", "fleet/docker/")
PAGES = {page.name: page for page in pages() if not page.name.startswith(OTHERS)}


@pytest.mark.parametrize("name", PAGES)
def test_every_block_is_of_commands_or_of_a_known_language(name: str) -> None:
    assert list(problems(PAGES[name])) == []


def test_at_most_five_blocks_stay_out_of_the_lab_each_with_a_reason() -> None:
    marked = [block for page in PAGES.values() for block in command_blocks(page) if block.reason]
    assert len(marked) <= MOST_MARKED, [f"{block}: {block.reason}" for block in marked]
    assert all(len(block.reason.split()) > 3 for block in marked)


def test_every_page_with_commands_is_read_in_the_lab() -> None:
    """tests/integration/test_docs.py types what is not marked, page by page."""
    runs = {name for name, page in PAGES.items() if any(not block.reason for block in command_blocks(page))}
    assert runs == SCENES.keys()


def test_commands_that_are_seen_elsewhere_are_printed_there() -> None:
    lines = {
        (page.name, command.words)
        for page in PAGES.values()
        for block in command_blocks(page)
        if not block.reason
        for command in block.commands
    }
    assert {("README.md", words) for words in APART} <= lines
    for name, seen in SEEN.items():
        assert {(name, words) for words in seen} <= lines
        assert {(where, words) for words, where in seen.items()} <= lines
        assert name not in seen.values()


TEXT = """\
<!-- not in the lab: it needs a GitHub -->

    git push

```console
$ a \\
    b   # of them
one
$ for i in 1 2; do
  c
done
$ d
two

three
```

```sh
cat <<EOF
x
EOF
e
```

```nix
{ }
```
"""


def test_commands_of_blocks() -> None:
    blocks = command_blocks(Page("a.md", TEXT))
    assert [(block.line, block.reason) for block in blocks] == [(3, "it needs a GitHub"), (6, ""), (19, "")]
    assert [(command.line, command.words, command.output) for block in blocks for command in block.commands] == [
        *(
            (3, "git push", ()),
            (6, "a \\ b", ("one",)),
            (9, "for i in 1 2; do c done", ()),
            (12, "d", ("two", "three")),
        ),
        *((19, "cat <<EOF x EOF", ()), (22, "e", ())),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```fish\na\n```\n", "a.md:2: fish: neither commands (console, sh, bash) nor a known language"),
        ("```text\n$ nixherd a\n```\n", "a.md:2: text that is typed: $ nixherd a"),
        ("```text\nsudo nixherd a\n```\n", "a.md:2: text that is typed: sudo nixherd a"),
        (
            "<!-- later -->\n\n    a\n",
            "a.md:3: <!-- not in the lab: REASON --> is the only remark that a block may have",
        ),
        ("```text\na nixherd\n```\n", ""),
    ],
)
def test_a_block_that_nobody_would_run_is_named(text: str, problem: str) -> None:
    assert "".join(problems(Page("a.md", text))) == problem


@pytest.mark.parametrize(
    ("shown", "output", "line"),
    [
        (["a 1.5 s"], "a 20.75 s\n", ""),
        (["a  b"], "begin\na b\n", ""),
        (["a b"], "a c\n", "a b"),
        (["a", "c"], "a\nb\nc\n", "a (others are between)"),
        (["a", "…", "c"], "a\nb\nc\n", ""),
        (["a"], "a\nb\n", "(and nothing after it) b"),
        (["a", "…"], "a\nb\n", ""),
        (
            ["runs /nix/store/h7ih7i99…-x-26.05.lab"],
            "runs /nix/store/p9p3bv4s443cjvimnbk136ndz9fws5xi-x-26.05.lab\n",
            "",
        ),
        (["at 10.77.0.100 of dev2"], "at 10.77.0.9 of dev2\n", ""),
        (["of dev2"], "of dev3\n", "of dev2"),
        (["to 85dca585d21e0002…"], "to 95dca585d21e0003a\n", ""),
        (["deployed"], "held\n", "deployed"),
    ],
)
def test_the_shape_of_an_output(shown: list[str], output: str, line: str) -> None:
    assert missing(shown, output) == line
