"""Words that others wrote, as they may be shown: nothing in them moves a cursor, hides, recolours or reorders.

Machines, the hypervisor, Nix and the fleet's files say what they like. Whatever leaves us for a terminal, a log, a
report or a page goes through here.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any

# Controls (C0, DEL, C1), formats (bidirectional overrides, zero width, tags), halves of characters, private use,
# separators of lines and paragraphs.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_KEPT = frozenset("\n\t")


def visible(text: object) -> str:
    r"""The text with every character that is not text as its escape (`\x1b`, `\u202e`); lines and tabs stay."""
    words = str(text)
    if words.isascii() and words.isprintable():
        return words
    return "".join(character if _is_text(character) else _escaped(character) for character in words)


def one_line(text: object) -> str:
    """The same, on one line."""
    return visible(text).replace("\n", " ⏎ ").replace("\t", " ")


def visible_values(value: Any) -> Any:
    """The same of all texts in a document, its keys too."""
    if isinstance(value, Mapping):
        return {visible_values(key): visible_values(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [visible_values(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float)) else visible(value)


def _is_text(character: str) -> bool:
    return character in _KEPT or unicodedata.category(character) not in _HIDDEN


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
