"""What a `.sops.yaml` says, name by name: the document and what each anchor stands for, to compare before and after.

Values are plain: texts, lists and mappings, aliases resolved, `<<` as it is written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nixherd.trust.secrets.yaml_tree import Node, Tree

_MOST = 200_000  # values, aliases resolved: far more than a fleet has, far less than memory holds
Plain = Any


@dataclass(frozen=True)
class Meaning:
    """`anchors` has by name what each definition of it stands for, in their order."""

    document: Plain
    anchors: Mapping[str, tuple[Plain, ...]]


def meaning(tree: Tree, changed: Mapping[int, Plain] | None = None) -> Meaning:
    """Return what a tree says, with other values for the nodes of these ids. ValueError for what sops would refuse."""
    sizes: dict[int, int] = {}
    if _size(tree.root, sizes) > _MOST:
        raise ValueError("its aliases repeat themselves too often")
    plain = _Plain(changed or {})
    document = plain.of(tree.root)
    anchors: dict[str, list[Plain]] = {}
    for node in tree.root.walk():
        if node.anchor and not node.is_alias:
            anchors.setdefault(node.anchor, []).append(plain.of(node))
    return Meaning(document, {name: tuple(values) for name, values in anchors.items()})


def _size(node: Node, sizes: dict[int, int]) -> int:
    if id(node) not in sizes:
        parts = [node.target] if node.target else node.children
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(node)]


class _Plain:
    def __init__(self, changed: Mapping[int, Plain]) -> None:
        self._values = dict(changed)

    def of(self, node: Node) -> Plain:
        if id(node) not in self._values:
            self._values[id(node)] = self._made(node)
        return self._values[id(node)]

    def _made(self, node: Node) -> Plain:
        if node.target:
            return self.of(node.target)
        if node.items is not None:
            return [self.of(item) for item in node.items]
        if node.pairs is None:
            return node.value
        found: dict[str, Plain] = {}
        for key, value in node.pairs:
            name = self.of(key)
            if not isinstance(name, str):
                raise ValueError("a mapping has a key that is not a text")
            if name in found:
                raise ValueError(f"{name} is there twice in one mapping")
            found[name] = self.of(value)
        return found


def mapped(value: Plain, change: Callable[[str], str | None]) -> Plain:
    """Return a value with other texts; those that become None are left out of their lists and mappings."""
    match value:
        case str():
            return change(value)
        case list():
            return [new for each in value if (new := mapped(each, change)) is not None]
        case dict():
            return {key: mapped(each, change) for key, each in value.items()}
    return value


def pruned(value: Plain) -> Plain:
    """Return a value without what is empty: to sops a list without keys is the same as none."""
    match value:
        case list():
            return [each for each in map(pruned, value) if each not in ({}, [], None)]
        case dict():
            return {key: new for key, each in value.items() if (new := pruned(each)) not in ({}, [], None, "")}
    return value
