"""Lines and comments around the nodes of a YAML text, for whoever splices it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from nixherd.trust.secrets.yaml_tree import Node

_COMMENT = re.compile(r"#+\s*(.*?)\s*$")


@dataclass(frozen=True, slots=True)
class Lines:
    """A text by its lines. Positions are offsets into it."""

    text: str

    @property
    def newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def start(self, position: int) -> int:
        """Return where the line of a position begins."""
        return self.text.rfind("\n", 0, max(position, 0)) + 1

    def end(self, position: int) -> int:
        """Return where the next line begins."""
        found = self.text.find("\n", position)
        return len(self.text) if found < 0 else found + 1

    def number(self, position: int) -> int:
        """Return the number of a line, from 1."""
        return self.text.count("\n", 0, position) + 1

    def lead(self, start: int) -> str:
        """Return what stands before a position in its line."""
        return self.text[self.start(start) : start]

    def indent(self, start: int) -> str:
        """Return the blanks that the line of a position begins with."""
        lead = self.lead(start)
        return lead[: len(lead) - len(lead.lstrip())]

    def is_item(self, start: int) -> bool:
        """Tell whether a dash alone stands before a position in its line."""
        return re.fullmatch(r"[ \t]*-[ \t]+", self.lead(start)) is not None

    def is_blank(self, begin: int) -> bool:
        return not self.text[begin : self.end(begin)].strip()

    def is_comment(self, begin: int) -> bool:
        return self.text[begin : self.end(begin)].lstrip().startswith("#")

    def above(self, begin: int) -> int | None:
        """Return where the line above begins."""
        return self.start(begin - 1) if begin else None

    def comments_above(self, begin: int) -> list[tuple[int, str]]:
        """Return the comments that end right above a line, the nearest first, each with where its line begins."""
        found = []
        while (above := self.above(begin)) is not None and self.is_comment(above):
            found.append((above, _text_of(self.text[above:begin])))
            begin = above
        return found

    def behind(self, position: int) -> re.Match[str] | None:
        """Match a comment behind what ends here, in the same line: what sets it apart, and its text."""
        rest = self.text[position : self.end(position)]
        return re.match(r"(?:[ \t]*,)?(?P<apart>[ \t]+#+[ \t]*)(?P<text>\S.*?)[ \t\r]*\n?$", rest)

    def end_of(self, node: Node) -> int:
        """Return where a node ends, without comments and blank lines, which the parser counts to a folded text."""
        last = node
        while not last.flow and last.children:
            last = last.children[-1]
        if last.style not in (">", "|"):
            return last.end
        column = len(self.indent(node.start))
        kept = self.text[node.start : last.end].splitlines(keepends=True)
        while len(kept) > 1 and re.match(rf"\s*$|[ \t]{{0,{column}}}#", kept[-1]):
            kept.pop()
        return node.start + len("".join(kept).rstrip())

    def cut(self, begin: int, end: int) -> tuple[int, int]:
        """Return whole lines to be cut; at the end of a text without a last newline the one before goes instead."""
        if end == len(self.text) and begin and not self.text.endswith("\n"):
            begin -= len(self.newline) if self.text[:begin].endswith(self.newline) else 1
        return begin, end

    def inserted(self, position: int, lines: list[str]) -> str:
        """Return the text of whole lines that come in where a line begins, or at the end."""
        block = self.newline.join(lines)
        if position == len(self.text) and position and not self.text.endswith("\n"):
            return self.newline + block
        return block + self.newline


def _text_of(line: str) -> str:
    found = _COMMENT.search(line.strip())
    return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class Entry:
    """An item of a list or a mapping, with its comments.

    `start` is where it begins, `begin` where its lines do, with the comments that are its; `top` is above headings too.
    `note` is its comment above, `behind` the one behind it, `apart` what sets that apart. A line by itself: `is_line`.
    """

    node: Node
    key: str | None
    start: int
    begin: int
    top: int
    note: str
    behind: str
    heading: str
    is_apart: bool
    is_line: bool
    apart: str = ""

    @property
    def name(self) -> str:
        """What it is called: by an anchor, by its key in a mapping, by a comment."""
        return self.node.anchor or self.key or self.behind or self.note


IsHeading = Callable[[str, Entry, "Entry | None"], bool]
"""judges a comment above an entry, knowing the one that follows without a comment of its own and without a gap"""


def entries_of(lines: Lines, collection: Node, is_heading: IsHeading) -> list[Entry]:
    """Return the entries of a list or a mapping in their order."""
    parts: list[tuple[Node, str | None, int]] = [(item, None, item.start) for item in collection.items or ()]
    parts += [(value, name.value, name.start) for name, value in collection.pairs or ()]
    bare = [_bare(lines, collection, *part) for part in parts]
    followers = [each if each.is_line and not each.is_apart and each.top == each.begin else None for each in bare]
    return [_judged(lines, *pair, is_heading) for pair in zip(bare, [*followers, None][1:], strict=True)]


def _bare(lines: Lines, collection: Node, node: Node, key: str | None, start: int) -> Entry:
    begin = lines.start(start)
    has_dash = collection.items is not None and not collection.flow
    is_line = lines.is_item(start) if has_dash else not lines.lead(start).strip()
    above = lines.comments_above(begin) if is_line else []
    top = above[-1][0] if above else begin
    over = lines.above(top)
    is_apart = is_line and over is not None and lines.is_blank(over)
    match = lines.behind(lines.end_of(node)) if not node.children else None
    alone = match is not None and (is_line or collection.items is None)
    behind, apart = (match["text"], match["apart"]) if match and alone else ("", "")
    return Entry(node, key, start, begin, top, "", behind, "", is_apart, is_line, apart)


def _judged(lines: Lines, entry: Entry, follower: Entry | None, is_heading: IsHeading) -> Entry:
    begin, note = entry.begin, ""
    above = lines.comments_above(entry.begin) if entry.is_line else []
    for place, comment in above:
        if is_heading(comment, entry, follower):
            break
        begin, note = place, comment
    heading = next((comment for place, comment in above if place < begin), "") if begin > entry.top else ""
    return replace(entry, begin=begin, note=note, heading=heading)
