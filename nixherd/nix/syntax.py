"""The syntax tree of a Nix file, by tree-sitter-nix: what is bound where. What it means only an evaluation tells."""

from collections.abc import Iterator

import tree_sitter_nix
from tree_sitter import Language, Node, Parser

from nixherd.nix.lexer import known_forms

_LANGUAGE = Language(tree_sitter_nix.language())

Path = tuple[str, ...]
"""an attribute's names, from the outermost set on"""


def parse(source: bytes) -> Node:
    """Parse a file; its root node tells whether it `has_error`, which is not to say that Nix would refuse it.

    Where the grammar lacks a form that Nix has, the tree is of one like it: places hold, the text of a node may not.
    """
    root = Parser(_LANGUAGE).parse(source).root_node
    if not root.has_error:
        return root
    other = Parser(_LANGUAGE).parse(known_forms(source)).root_node
    return root if other.has_error else other


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it, in their order; without recursion, for a file may be of any depth."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def text_of(node: Node) -> str:
    return (node.text or b"").decode("latin-1")


def bound(literal: Node) -> Iterator[tuple[Node, Path]]:
    """Yield the bindings of a set or a `let`, with what each binds; those whose names are computed are left out."""
    for child in literal.children:
        if child.type != "binding_set":
            continue
        for binding in child.children_by_field_name("binding"):
            if binding.type == "binding":
                path = binding.child_by_field_name("attrpath")
                names = [name_of(attr) for attr in path.children_by_field_name("attr")] if path else []
                if names and None not in names:
                    yield binding, tuple(name for name in names if name is not None)
            else:
                attrs = binding.child_by_field_name("attrs")
                for attr in attrs.children_by_field_name("attr") if attrs else ():
                    if (name := name_of(attr)) is not None:
                        yield binding, (name,)


def name_of(attr: Node) -> str | None:
    """Return an attribute's name; None when it is computed or has escapes."""
    if attr.type == "identifier":
        return _utf8(attr)
    if attr.type != "string_expression":
        return None
    inner = [child for child in attr.children if child.type != '"']
    if any(child.type != "string_fragment" for child in inner):
        return None
    return "".join(map(_utf8, inner))


def _utf8(node: Node) -> str:
    return (node.text or b"").decode(errors="replace")


def inside_of(literal: Node) -> int:
    """Return where the inside of a set begins."""
    return next(child for child in literal.children if child.type == "{").end_byte


def names_written(binding: Node) -> list[bytes]:
    path = binding.child_by_field_name("attrpath")
    return [attr.text or b"" for attr in path.children_by_field_name("attr")] if path else []


def depth_of(binding: Node, path: Path) -> int:
    """Return how many names of the binding's own path lead to `path`."""
    names = next(names for each, names in bound(binding.parent.parent) if each == binding)  # type: ignore[union-attr,arg-type]
    for depth in range(len(names), 0, -1):
        if path[-depth:] == names[:depth]:
            return depth
    return 0
