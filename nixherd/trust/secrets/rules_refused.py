"""What sops refuses of a whole `.sops.yaml` that is YAML nevertheless: a key twice, or a value of another type. Pure.

Its parser (go.yaml.in/yaml/v3) does so for the rules and what stands beside them, whichever rule a file has.
"""

import math
import re
from collections.abc import Iterator

from nixherd.trust.secrets.yaml_tree import Node, Tree

_NULL = ("", "~", "null", "Null", "NULL")
_BOOLEANS = ("true", "True", "TRUE", "false", "False", "FALSE", *"yYnN", "yes", "Yes", "YES", "on", "On", "ON")
_BOOLEANS += ("no", "No", "NO", "off", "Off", "OFF")
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)(?:0[xX](?P<x>[0-9a-fA-F]+)|0[bB](?P<b>[01]+)|0[oO]?(?P<o>[0-7]+)|(?P<d>0|[1-9]\d*))", re.A
)
_FLOAT = re.compile(r"[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?", re.A)
_BASES = {"x": 16, "b": 2, "o": 8, "d": 10}
_DIGITS = 100  # more are no number of anything
_BITS = 63
_QUOTED = ("'", '"', "|", ">")


def require_taken(text: str, tree: Tree) -> None:
    """ValueError for what sops takes no file's rule from, with the line."""
    for node, what in _wrong(tree.root):
        raise ValueError(f"line {text.count(chr(10), 0, node.start) + 1}: {what}")


def integer(text: str) -> int | None:
    """Read what the parser makes a Go int of, a fraction cut off; None for what it refuses."""
    plain = text.replace("_", "") if text[:1] in "+-.0123456789" else ""
    if len(plain) > _DIGITS:
        return None
    if found := _INTEGER.fullmatch(plain):
        digits, base = next((found[name], base) for name, base in _BASES.items() if found[name])
        number = int(f"{found['sign']}{digits}", base)
    elif _FLOAT.fullmatch(plain) and math.isfinite(float(plain)):
        number = int(float(plain))
    else:
        return None
    return number if -(1 << _BITS) <= number < 1 << _BITS else None


def _wrong(root: Node) -> Iterator[tuple[Node, str]]:
    yield from _twice(root)
    for name, is_right, kind in (("stores", "pairs", "a mapping"), ("destination_rules", "items", "a list")):
        node = root.get(name)
        if node is not None and getattr(node.resolved, is_right) is None and not _is_null(node.resolved):
            yield node, f"{name} is not {kind}, and sops refuses the file"
    waiting, seen = [rules] if (rules := root.get("creation_rules")) else [], set[int]()
    while waiting:
        node = waiting.pop().resolved
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield from _twice(node)
        waiting += node.children
        for key, value in node.pairs or ():
            plain = value.resolved
            if key.value == "mac_only_encrypted" and not (_is_null(plain) or _is_plain(plain, _BOOLEANS)):
                yield value, "mac_only_encrypted is not true or false, and sops refuses the file"
            if key.value == "shamir_threshold" and plain.style in _QUOTED:
                yield value, "shamir_threshold is a text, and sops refuses the file; write the number without quotes"


def _twice(node: Node) -> Iterator[tuple[Node, str]]:
    seen = set[str | None]()
    for key, _ in node.pairs or ():
        name = key.resolved.value
        if name in seen:
            yield key, f"{name} is there twice in one mapping, and sops refuses the file; take one out"
        seen.add(name)


def _is_plain(node: Node, words: tuple[str, ...]) -> bool:
    return node.style not in _QUOTED and node.value in words


def _is_null(node: Node) -> bool:
    return _is_plain(node, _NULL)
