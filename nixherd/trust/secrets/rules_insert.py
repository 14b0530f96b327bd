"""How an item comes into a list of `.sops.yaml`: as its neighbours are written, with a comment as theirs."""

import re
from collections.abc import Sequence

from nixherd.trust.secrets.key_names import listed
from nixherd.trust.secrets.rules_text import RulesText
from nixherd.trust.secrets.yaml_lines import Entry
from nixherd.trust.secrets.yaml_tree import Node

_BEHIND = " # "


def insert(editor: RulesText, collection: Node, place: int, item: str, comment: str = "", above: str = "") -> None:
    """Insert an item above the one with this index, with a comment behind it or above it. Raises CannotEdit."""
    entries = listed(editor.lines, collection)
    if not entries:
        _first(editor, collection, item, comment)
    elif collection.flow:
        _in_brackets(editor, collection, entries, place, item, comment)
    else:
        _in_lines(editor, entries, place, item, comment, above)


def neighbour_of(entries: Sequence[Entry], place: int) -> Entry:
    return entries[max(place - 1, 0)]


def _in_lines(editor: RulesText, entries: Sequence[Entry], place: int, item: str, comment: str, above: str) -> None:
    lines, entry = editor.lines, neighbour_of(entries, place)
    if not entry.is_line:
        raise editor.cannot(entry.node)
    lead = lines.lead(entry.start)
    block = [f"{lead}{item}{comment}"]
    if above:
        block.insert(0, f"{lines.indent(entry.start)}# {above}")
    position = lines.end(lines.end_of(entry.node)) if place else entry.top
    editor.splice(position, position, lines.inserted(position, block))


def _first(editor: RulesText, collection: Node, item: str, comment: str) -> None:
    """Insert into `[]`: below its key, where nothing else is in its line, as a list that was emptied came to be."""
    lines, parent = editor.lines, editor.parent(collection)
    lead, rest = lines.lead(collection.start), lines.text[collection.end : lines.end(collection.end)]
    if collection.pairs is not None:
        raise editor.cannot(collection)
    if parent is None or parent.flow or rest.strip() or not re.fullmatch(r"[\w\s-]*:\s*(&\S+\s+)?", lead):
        editor.splice(collection.end - 1, collection.end - 1, item)
        return
    written = re.match(r"(&\S+\s+)?", lines.text[collection.start : collection.end])
    start = collection.start + (written.end() if written else 0)
    kept = lines.text[:start].rstrip()
    end = lines.end(collection.end)
    editor.splice(len(kept), end, editor.newline)
    editor.splice(end, end, lines.inserted(end, [f"{lines.indent(collection.start)}  - {item}{comment}"]))


def _in_brackets(
    editor: RulesText, collection: Node, entries: Sequence[Entry], place: int, item: str, comment: str
) -> None:
    text, lines = editor.text, editor.lines
    if place == 0:
        if not entries[0].is_line:
            editor.splice(entries[0].start, entries[0].start, f"{item}, ")
            return
        lead = lines.lead(entries[0].start)
        position = entries[0].top
        editor.splice(position, position, lines.inserted(position, [f"{lead}{item},{comment}"]))
        return
    entry = entries[place - 1]
    end = entry.node.end
    limit = entries[place].start if place < len(entries) else collection.end - 1
    comma = comma_in(text, end, limit)
    if not entry.is_line:
        between = text[entries[place - 2].node.end : entry.start] if place > 1 else ", "
        editor.splice(end, end, f"{between if '#' not in between and between.strip() == ',' else ', '}{item}")
        return
    lead, line_end = lines.lead(entry.start), lines.end(end)
    if line_end > limit or (comma is not None and comma >= line_end):
        editor.splice(end, end, f",{editor.newline}{lead}{item}")
    elif comma is None:
        editor.splice(end, end, ",")
        editor.splice(line_end, line_end, lines.inserted(line_end, [f"{lead}{item}{comment}"]))
    else:
        editor.splice(line_end, line_end, lines.inserted(line_end, [f"{lead}{item},{comment}"]))


def comma_in(text: str, start: int, end: int) -> int | None:
    """Return where the comma between two items is, comments passed over."""
    for found in re.compile(r"(?<=\s)#[^\n]*|,").finditer(text, start, end):
        if found[0] == ",":
            return found.start()
    return None


def behind_like(entry: Entry, name: str) -> str:
    """Return a comment behind an item, set apart as this entry's is."""
    return f"{entry.apart or _BEHIND}{name}"
