"""Markdown files as values: their anchors, links and blocks of code, and what is wrong with their links."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
_PARSER = MarkdownIt("commonmark").enable("table")
_DROPPED = re.compile(r"[^\w\- ]")


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and our site make it; a second one of the same text gets `-1`."""
    return _DROPPED.sub("", heading.strip().lower()).replace(" ", "-")


@dataclass(frozen=True)
class Block:
    """A block of code. `info` is what follows its fence, empty for an indented one; `line`: its first one.

    `comment` is the HTML that stands directly before it.
    """

    line: int
    info: str
    text: str
    comment: str = ""


@dataclass(frozen=True)
class Page:
    """A Markdown file; `name` is its path from the repository's top."""

    name: str
    text: str

    @cached_property
    def _tokens(self) -> list[Token]:
        return _PARSER.parse(self.text)

    @property
    def anchors(self) -> list[str]:
        """What may follow # in a link to this page."""
        anchors = []
        seen = Counter[str]()
        for opening, inline in zip(self._tokens, self._tokens[1:], strict=False):
            if opening.type == "heading_open":
                texts = (each.content for each in inline.children or () if each.type in ("text", "code_inline"))
                anchor = slug("".join(texts))
                anchors.append(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
                seen[anchor] += 1
        return anchors

    @property
    def links(self) -> list[tuple[int, str]]:
        """Line and target of each link and image."""
        links = []
        line = 0
        for token in self._tokens:
            line = token.map[0] + 1 if token.map else line  # cells have the line of their row
            for child in token.children or ():
                target = child.attrGet({"link_open": "href", "image": "src"}.get(child.type, ""))
                if target is not None:
                    links.append((line, unquote(str(target))))
        return links

    @property
    def blocks(self) -> list[Block]:
        """The blocks of code, fenced and indented."""
        blocks, comment = [], ""
        for token in self._tokens:
            if token.type in ("fence", "code_block"):
                line = (token.map[0] if token.map else 0) + (2 if token.type == "fence" else 1)
                blocks.append(Block(line, token.info, token.content, comment))
            comment = token.content.strip() if token.type == "html_block" else ""
        return blocks


def tracked(*patterns: str, root: Path = ROOT) -> list[str]:
    """Return the files that git tracks or would add, without deleted ones."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in sorted(set(done.stdout.split("\0"))) if name and (root / name).is_file()]


def pages(root: Path = ROOT) -> list[Page]:
    """Return every Markdown file of the repository, but those of the fleets that are examples of tests."""
    return [Page(name, (root / name).read_text()) for name in tracked("*.md", ":!tests/fleets", root=root)]


def broken(pages: Iterable[Page], root: Path = ROOT) -> Iterator[str]:
    """Say which inner links lead nowhere: a line each, with file, line, target and what is wrong."""
    known = {page.name: page for page in pages}
    for page in known.values():
        for line, target in page.links:
            if problem := _problem(page, target, known, root):
                yield f"{page.name}:{line}: {target}: {problem}"


def _problem(page: Page, target: str, known: dict[str, Page], root: Path) -> str:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return ""
    path = (root / page.name).parent / parts.path if parts.path else root / page.name
    name = _below(path, root)
    if name is None:
        return "is outside of the repository"
    if not path.exists():
        return "does not exist"
    if parts.fragment and parts.fragment not in (known[name].anchors if name in known else ()):
        return f"{name} has no heading of that anchor"
    return ""


def _below(path: Path, root: Path) -> str | None:
    resolved = path.resolve()
    return str(resolved.relative_to(root.resolve())) if resolved.is_relative_to(root.resolve()) else None
