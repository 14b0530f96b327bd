"""Docstrings and help texts as Markdown."""

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"[\\*<>\[\]]|(?<!\w)_|_(?!\w)")
_CODE = re.compile(r"(`+)(.+?)\1")
_LITERAL_BLOCK = re.compile(r"(?m)^\.\. code:: (\w+)\n\n((?:    .*\n?|\n)+)")
_ARGUMENT = re.compile(r"    (\w+): ")
CELL = "\\|"  # ends no cell, in code neither
NOTE = "*Made from the code by `make reference`; changes here are overwritten.*"


def escaped(text: str) -> str:
    """Return plain text as Markdown; what is between backticks stays code."""
    parts = []
    position = 0
    for match in _CODE.finditer(text):
        parts += [_SPECIAL.sub(r"\\\g<0>", text[position : match.start()]), match[0]]
        position = match.end()
    return "".join([*parts, _SPECIAL.sub(r"\\\g<0>", text[position:])])


def code(text: str) -> str:
    return f"`{text}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already, but for `|`; nothing for no rows."""
    lines = [f"| {' | '.join(cell.replace('|', CELL) for cell in row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]) if lines else ""


def joined(parts: Iterable[str]) -> str:
    """Return a page of these parts, without those that are empty."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def of_docstring(text: str) -> str:
    """Return a cleaned docstring: paragraphs, indented blocks, `.. code::` of reStructuredText, a list of arguments."""
    text, _, arguments = text.partition("\nArgs:\n")
    blocks = []
    position = 0
    for match in _LITERAL_BLOCK.finditer(text):
        body = "\n".join(line[4:] for line in match[2].strip("\n").split("\n"))
        blocks += [*_paragraphs(text[position : match.start()]), f"```{match[1]}\n{body}\n```"]
        position = match.end()
    blocks += _paragraphs(text[position:])
    return joined([*blocks, _arguments(arguments)])


def _paragraphs(text: str) -> list[str]:
    return [
        paragraph if paragraph.startswith("    ") else escaped(paragraph)
        for paragraph in re.split(r"\n\s*\n", text.strip("\n"))
    ]


def _arguments(text: str) -> str:
    """Return a list item for each argument; its description may have several lines."""
    items: list[str] = []
    for line in text.splitlines():
        if match := _ARGUMENT.match(line):
            items.append(f"- `{match[1]}`: {escaped(line[match.end() :].strip())}")
        elif items and line.strip():
            items[-1] += f" {escaped(line.strip())}"
    return "\n".join(items)
