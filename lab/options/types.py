"""Derives from an option's type, in the words of Nix' manual, which values it accepts.

The result is a word or a list that `lab/nixpkgs/lib/modules/known.nix` turns into a type:
"bool", ["listOf", TYPE], ["attrsOf", TYPE], ["nullOr", TYPE], ["either", [TYPE, …]], ["enum", [VALUE, …]],
["separated", STRING], ["between", LOW, HIGH], ["matching", PATTERN], ["open", TYPE], "submodule", …
What the words do not tell (formats of one program, types with a text of their own) is "any".
"""

import json
import re
from collections.abc import Iterator
from typing import Any

Type = Any

_WORDS = {
    "boolean": "bool",
    "string": "str",
    "signed integer": "int",
    "integer": "int",
    "floating point number": "float",
    "absolute path": "path",
    "absolute path not in the Nix store": "path",
    "path not in the Nix store": "path",
    "package": "package",
    "null": "null",
    "submodule": "submodule",
    "attribute set": "attrs",
    "unsigned integer, meaning >=0": "unsigned",
    "positive integer, meaning >0": "positive",
    "non-empty string": "nonEmptyStr",
    "(optionally newline-terminated) single-line string": "singleLineStr",
    "Concatenated string": ["separated", ""],
}
_PREFIXES = {
    "list of ": "listOf",
    "attribute set of ": "attrsOf",
    "lazy attribute set of ": "lazyAttrsOf",
    "open submodule of ": "open",
    "function that evaluates to a(n) ": "functionTo",
}
_BETWEEN = re.compile(
    r"(?:integer between|\d+ bit (?:un)?signed integer; between) (-?\d+) and (-?\d+) \(both inclusive\)"
)
_ENUM = re.compile(r'(?:"(?:[^"\\]|\\.)*"|-?\d+|true|false|null)(?:, (?:"(?:[^"\\]|\\.)*"|-?\d+|true|false|null))*')


def parse(text: str) -> Type:
    """Return the type that `text` describes."""
    if "string matching the pattern " in text:
        return _matching(text)
    alternatives = _split(_bare(text))
    if alternatives is None:
        return "any"
    if len(alternatives) == 1:
        return _single(alternatives[0])
    # converted types accept the value before the conversion as well
    alternatives[-1] = alternatives[-1].removesuffix(" convertible to it")
    kinds = [parse(alternative) for alternative in alternatives]
    rest = [kind for kind in kinds if kind != "null"]
    if "any" in rest or not rest:
        return "any"
    several = rest[0] if len(rest) == 1 else ["either", rest]
    return ["nullOr", several] if "null" in kinds else several


def _single(text: str) -> Type:
    if text in _WORDS:
        return _WORDS[text]
    for prefix, name in _PREFIXES.items():
        if text.startswith(prefix):
            return [name, parse(text.removeprefix(prefix))]
    if match := _BETWEEN.fullmatch(text):
        return ["between", int(match[1]), int(match[2])]
    if text.startswith("strings concatenated with "):
        return ["separated", json.loads(text.removeprefix("strings concatenated with "))]
    if text.startswith("non-empty "):
        inner = parse(text.removeprefix("non-empty "))
        return ["nonEmptyListOf", inner[1]] if isinstance(inner, list) and inner[0] == "listOf" else "any"
    values = text.removeprefix("one of ") if text.startswith("one of ") else ""
    if match := re.fullmatch(r"value (.*) \(singular enum\)", text):
        values = match[1]
    return ["enum", json.loads(f"[{values}]")] if values and _ENUM.fullmatch(values) else "any"


def _matching(text: str) -> Type:
    """Match a pattern that may contain parentheses and any word: it is accepted only where nothing can follow it."""
    for prefix, wrap in (("null or ", "nullOr"), ("list of ", "listOf"), ("attribute set of ", "attrsOf"), ("", "")):
        before = f"{prefix}string matching the pattern "
        if text.startswith(before):
            pattern = text.removeprefix(before)
            kind: Type = "any" if " or " in pattern else ["matching", pattern]
            return [wrap, kind] if wrap and kind != "any" else kind
    return "any"


def _bare(text: str) -> str:
    """Remove parentheses around the whole text."""
    while text.startswith("(") and _closing(text, 0) == len(text) - 1:
        text = text[1:-1]
    return text


def _closing(text: str, start: int) -> int | None:
    """Return where the parenthesis that opens at `start` closes."""
    return next((at for at, depth in _depths(text, start) if depth == 0), None)


def _split(text: str) -> list[str] | None:
    """Split at every " or " outside of quotes and parentheses; None if these do not match."""
    *places, (end, left_open) = _depths(text, 0)
    if left_open:
        return None
    cuts = [at for at, depth in places if depth == 0 and text.startswith(" or ", at)]
    return [text[begin:at] for begin, at in zip([0, *(at + 4 for at in cuts)], [*cuts, end], strict=True)]


def _depths(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Yield each position outside of quotes and the parenthesis depth after it; an open quote at the end adds one."""
    depth, quoted, at = 0, False, start
    while at < len(text):
        letter = text[at]
        if quoted:
            at += letter == "\\"
            quoted = letter != '"'
        elif letter == '"':
            quoted = True
        else:
            depth += (letter == "(") - (letter == ")")
            yield at, depth
        at += 1
    yield at, depth + quoted
