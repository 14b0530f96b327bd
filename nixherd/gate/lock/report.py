"""What moved, for people: a commit's message, and Markdown for a summary of a CI or a pull request.

Words of others (an input's lock, a builder's last words) are shown as text, whatever they hold.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nixherd.display import one_line
from nixherd.gate.lock.groups import Group
from nixherd.gate.lock.lockfile import Move, shown

if TYPE_CHECKING:
    from nixherd.gate.lock.combine import Outcome

_WIDE = 72  # characters of a subject


def message_of(moves: Sequence[Move], groups: Sequence[Group]) -> str:
    """A commit's message: what moved, and from where to where."""
    names = [input for group in groups for input in group.inputs]
    subject = f"flake.lock: update {', '.join(names)}"
    if len(subject) > _WIDE:
        subject = f"flake.lock: update {len(names)} inputs"
    paragraphs = [subject, "\n".join(_lines(moves))]
    # git takes a line that begins with # for a comment, where the operator's settings have it edit messages
    return re.sub(r"^#", " #", "\n\n".join(each for each in paragraphs if each), flags=re.MULTILINE) + "\n"


def _lines(moves: Iterable[Move]) -> Iterable[str]:
    for move in moves:
        nested = len(move.path) > 1
        yield f"{'  ' if nested else ''}- {one_line(move)}"
        if move.link and not nested:
            yield f"  {move.link}"


def markdown_of(outcome: "Outcome", ended: str) -> str:
    """The whole outcome; `ended` is what became of it, in a line."""
    parts = ["# flake.lock", one_line(ended)]
    if outcome.moves:
        parts.append("\n".join(["| input | before | now | |", "|---|---|---|---|", *map(_row, outcome.moves)]))
    for left in outcome.left:
        parts.append(f"## Left behind: {_code(str(left.group))}\n\nIt stops at the gate:\n\n{_block(left.reasons)}")
    for input, why in outcome.unknown:
        parts.append(f"## Unknown: {_code(input)}\n\nNobody can tell, and it is as it was:\n\n{_block([why])}")
    return "\n\n".join(parts) + "\n"


def _row(move: Move) -> str:
    link = f"[compare]({move.link})" if move.link else ""
    older = "older than before " if move.is_older else ""
    return f"| {_code(move.name)} | {_code(shown(move.old))} | {_code(shown(move.new))} | {older}{link} |"


def _code(text: str) -> str:
    return "`" + re.sub(r"[`|\\\n]", "_", one_line(text)) + "`"


def _block(lines: Iterable[str]) -> str:
    text = "\n".join(one_line(line) for line in lines)
    fence = "`" * max(3, 1 + max((len(each) for each in re.findall(r"`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"
