"""Which options the modules of a fleet set and declare, read from their text: no Nix runs, nothing is evaluated.

`modules` follows the imports of a fleet's own files; `settings` and `declarations` walk a module's syntax tree through
what configurations are written with: `config = …`, mkIf, mkMerge, mkDefault, optionalAttrs, `//`, let, with, if.
What is behind a name or a call of the fleet's own is not seen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tree_sitter import Node

from lab.options.names import is_attribute, parts
from nixherd.nix.syntax import parse

_SETS = ("attrset_expression", "rec_attrset_expression")
_MODULE = {
    "imports",
    "options",
    "config",
    "_file",
    "_class",
    "key",
    "disabledModules",
    "meta",
    "freeformType",
    "_module",
}
# The functions that a definition goes through, and which of their arguments is the definition.
_THROUGH = {
    **dict.fromkeys(("mkIf", "mkOverride", "mkOrder", "optionalAttrs"), 1),
    **dict.fromkeys(("mkDefault", "mkForce", "mkBefore", "mkAfter", "mkOptionDefault", "mkVMOverride", "mkMerge"), 0),
}
_DECLARES = ("mkOption", "mkEnableOption", "mkPackageOption")
ANY = "${…}"


@dataclass(frozen=True)
class Said:
    """Something at a place of a file: `path` are the attributes, with ANY for one that is only known when evaluated."""

    path: tuple[str, ...]
    file: Path
    line: int


def modules(start: Path) -> Iterator[Path]:
    """The file and what it imports by path literals, each once."""
    waiting, seen = [start], set()
    while waiting:
        file = waiting.pop()
        file = file / "default.nix" if file.is_dir() else file
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        yield file
        for path, value in _bindings(_module(_root(file))):
            if path == ("imports",):
                for node in _descendants(value, "path_expression"):
                    waiting.append((file.parent / _text(node)).resolve())


def settings(file: Path) -> Iterator[Said]:
    """Every option that the module sets, as deep as its sets are written out."""
    for path, value in _bindings(_module(_root(file))):
        if path[0] == "config":
            yield from _leaves(path[1:], value, file)
        elif path[0] not in _MODULE:
            yield from _leaves(path, value, file)


def declarations(file: Path) -> Iterator[Said]:
    """Every option that the module declares."""
    for path, value in _bindings(_module(_root(file))):
        if path[0] == "options":
            yield from _leaves(path[1:], value, file)


def unknown(setting: Said, table: Mapping[str, object]) -> bool:
    """Whether `said` sets nothing that is in the tree `table` (`tree`): no option, none above one, none below one."""
    nodes: list[Mapping[str, object]] = [table]
    for at, part in enumerate(setting.path):
        if any("" in node and _takes(node[""], setting.path[at:], len(node) == 1) for node in nodes):
            return False
        nodes = [
            child
            for node in nodes
            for name, child in node.items()
            if isinstance(child, Mapping) and (name == part or part == ANY or is_attribute(name))
        ]
        if not nodes:
            return True
    return False


def _takes(kind: object, below: Sequence[str], alone: bool) -> bool:
    """Whether a type (lab/options/types.py) takes any attribute at `below`; `alone`: no option is listed below it."""
    if not below or kind in ("any", "attrs"):
        return True
    if kind == "submodule":
        return alone
    if not isinstance(kind, list):
        return False
    name, inner = kind[0], kind[1]
    if name in ("attrsOf", "lazyAttrsOf"):
        return _takes(inner, below[1:], alone)
    if name in ("nullOr", "either"):
        return any(_takes(one, below, alone) for one in (inner if name == "either" else [inner]))
    return bool(name == "open")


def tree(kinds: Mapping[str, object]) -> dict[str, object]:
    """Options by name and type as nested mappings, the type at the attribute ""."""
    root: dict[str, object] = {}
    for name, kind in kinds.items():
        level: dict[str, object] = root
        for part in parts(name):
            level = level.setdefault(part, {})  # type: ignore[assignment]
        level[""] = kind
    return root


def _root(file: Path) -> Node:
    return parse(file.read_bytes())


def _module(node: Node) -> Node | None:
    """The set that a module is, below its function, lets and withs."""
    while node is not None and node.type not in _SETS:
        inner = node.child_by_field_name("body") or node.child_by_field_name("expression")
        node = inner or next((child for child in node.named_children if child.type != "comment"), None)  # type: ignore[assignment]
    return node


def _bindings(node: Node | None) -> Iterator[tuple[tuple[str, ...], Node]]:
    """The attributes of a set as they are written: path and value."""
    for group in node.named_children if node is not None else []:
        if group.type != "binding_set":
            continue
        for binding in group.named_children:
            attrpath, value = binding.child_by_field_name("attrpath"), binding.child_by_field_name("expression")
            if binding.type == "binding" and attrpath is not None and value is not None:
                yield tuple(_attribute(child) for child in attrpath.named_children), value


def _attribute(node: Node) -> str:
    if node.type == "identifier":
        return _text(node)
    if node.type == "string_expression" and not _descendants(node, "interpolation"):
        return _text(node)[1:-1]
    return ANY


def _leaves(path: tuple[str, ...], node: Node, file: Path) -> Iterator[Said]:
    """What the value at `path` sets, each with all its attributes."""
    if node.type in _SETS:
        empty = True
        for more, value in _bindings(node):
            empty = False
            yield from _leaves((*path, *more), value, file)
        if empty and path:
            yield Said(path, file, node.start_point[0] + 1)
    elif inner := list(_inner(node)):
        for each in inner:
            yield from _leaves(path, each, file)
    elif path:
        yield Said(path, file, node.start_point[0] + 1)


def _inner(node: Node) -> Iterator[Node]:
    """The values that this one stands for, where the text says so."""
    if node.type in ("parenthesized_expression", "with_expression", "let_expression"):
        inner = node.child_by_field_name("body") or node.child_by_field_name("expression")
        if inner is not None:
            yield inner
    elif node.type == "if_expression":
        yield from filter(None, (node.child_by_field_name("consequence"), node.child_by_field_name("alternative")))
    elif node.type == "binary_expression" and node.child_by_field_name("operator").type == "//":  # type: ignore[union-attr]
        yield from filter(None, (node.child_by_field_name("left"), node.child_by_field_name("right")))
    elif node.type == "apply_expression":
        arguments: list[Node] = []
        called: Node | None = node
        while called is not None and called.type == "apply_expression":
            arguments.insert(0, called.child_by_field_name("argument"))  # type: ignore[arg-type]
            called = called.child_by_field_name("function")
        name = _text(called).rpartition(".")[2] if called is not None else ""
        which = _THROUGH.get(name)
        if which is not None and which < len(arguments):
            content = arguments[which]
            yield from content.named_children if name == "mkMerge" and content.type == "list_expression" else [content]


def _descendants(node: Node, kind: str) -> list[Node]:
    found = [node] if node.type == kind else []
    for child in node.named_children:
        found += _descendants(child, kind)
    return found


def _text(node: Node | None) -> str:
    return node.text.decode() if node is not None and node.text is not None else ""
