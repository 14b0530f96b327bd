"""Edits of Nix files that people write: one attribute set, added or removed, every other byte as it was.

The places come from the syntax tree (tree-sitter-nix), and the work is on bytes, so that line ends and comments in any
encoding stay. The tree says where something stands, not what it means: whoever edits evaluates the file before and
after.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import AnyStr, Generic

from tree_sitter import Node

from nixherd.base.errors import FleetError
from nixherd.nix.syntax import Path, bound, depth_of, inside_of, name_of, names_written, parse, text_of, walk

_SETS = ("attrset_expression", "rec_attrset_expression")
_DEEP = 100  # names that stand for each other end here
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*")
_KEYWORDS = ("assert", "else", "if", "in", "inherit", "let", "or", "rec", "then", "with")


@dataclass(frozen=True, slots=True)
class Splice(Generic[AnyStr]):
    """`text` instead of what is from `start` up to `end`."""

    start: int
    end: int
    text: AnyStr


def spliced(source: AnyStr, splices: Iterable[Splice[AnyStr]]) -> AnyStr:
    """The text with all of them done. ValueError when two of them overlap."""
    result, position = source[:0], 0
    for each in sorted(splices, key=lambda splice: (splice.start, splice.end)):
        if each.start < position:
            raise ValueError("two changes are to be made at one place")
        result, position = result + source[position : each.start] + each.text, each.end
    return result + source[position:]


class CannotEdit(FleetError):
    """The file does not say this in a way that can be edited; the message has the line, and what to do by hand."""


def attribute_name(name: str) -> str:
    """Return the name as it is written in a set."""
    if _IDENTIFIER.fullmatch(name) and name not in _KEYWORDS:
        return name
    return '"' + re.sub(r'(["\\]|\$\{)', r"\\\1", name) + '"'


@dataclass(frozen=True, slots=True)
class NixText:
    """A Nix file; `name` is for messages. Each edit returns the new bytes, or raises CannotEdit where it is unclear."""

    name: str
    source: bytes

    def set(self, path: Path, value: str) -> bytes:
        """Set one attribute's value, an expression; it is added to its set where it is missing."""
        root = self._root(f"write `{_dotted(path)} = {value};`")
        bindings = self._bindings(root, path)
        if len(bindings) > 1:
            raise self._cannot(bindings[1][0], f"{_dotted(path)} is there twice; leave one of them")
        if bindings:
            node, rest = bindings[0]
            expression = node.child_by_field_name("expression")
            if rest or expression is None or node.type != "binding":
                raise self._cannot(node, f"{_dotted(path)} is not written here by itself; write {value} for it by hand")
            return self._spliced([Splice(expression.start_byte, expression.end_byte, value.encode())])
        return self._spliced([self._insertion(root, path, [f"{attribute_name(path[-1])} = {value};"])])

    def written(self, path: Path) -> str | None:
        """Return an attribute's expression as it is written; None where it is not written out by itself."""
        bindings = self._bindings(self._root("write it"), path)
        if len(bindings) != 1 or bindings[0][1] or bindings[0][0].type != "binding":
            return None
        value = bindings[0][0].child_by_field_name("expression")
        if value is None:
            return None
        return self.source[value.start_byte : value.end_byte].decode(errors="surrogateescape")

    def mentions(self, path: Path) -> bool:
        """Tell whether the file sets an attribute, or something below it."""
        root = self._root(f"look for {_dotted(path)}")
        return bool(self._bindings(root, path)) or any(True for _ in self._parts(root, path))

    def add(self, path: Path, lines: Sequence[str], *, comment: str = "") -> bytes:
        """Add an entry: the lines of its expression, those after the first indented relative to its name.

        The comment, a line, comes above it where the entry has lines of its own.
        """
        first, *rest = lines
        root = self._root(f"add `{_dotted(path)} = {' '.join(line.strip() for line in lines)};`")
        if self.mentions(path):
            raise CannotEdit(f"{self.name}: {_dotted(path)} is there already")
        text = [f"{attribute_name(path[-1])} = {first}", *rest]
        text[-1] += ";"
        return self._spliced([self._insertion(root, path, text, comment)])

    def remove(self, path: Path) -> bytes:
        """Remove an entry with the comment right above it, however many bindings make it up.

        One that is inherited from a `let` goes there too, where nothing else uses it.
        """
        root = self._root(f"remove {_dotted(path)}")
        bindings = self._bindings(root, path)
        if wrong := next((node for node, rest in bindings if rest), None):
            raise self._cannot(wrong, f"{_dotted(path)} is not written here by itself; remove it by hand")
        nodes = [node for node, _ in bindings]
        nodes += [binding for node in nodes if (binding := self._inherited(root, node, path[-1]))]
        nodes += self._parts(root, path)
        if not nodes:
            raise CannotEdit(f"{self.name}: {_dotted(path)} does not exist, so it cannot be removed")
        return self._spliced([self._cut_of(node, path[-1], nodes) for node in nodes])

    def _inherited(self, root: Node, node: Node, name: str) -> Node | None:
        """Return the binding that an `inherit` takes a name from, where nothing else uses it."""
        value = self._variable(node, name) if node.type == "inherit" else None
        uses = [each for each in walk(root) if each.type in ("variable_expression", "inherited_attrs")]
        names = [text_of(each) for use in uses for each in (use.children if use.type == "inherited_attrs" else (use,))]
        return value.parent if value is not None and names.count(name) == 1 else None

    def line_of(self, path: Path) -> int | None:
        """Return the line of an attribute, or of the innermost set around it that is written out; None without one.

        Raise CannotEdit where the text cannot be read here.
        """
        root = self._root(f"look for {_dotted(path)}")
        for depth in range(len(path), 0, -1):
            for node in (*(node for node, _ in self._bindings(root, path[:depth])), *self._parts(root, path[:depth])):
                return int(node.start_point[0]) + 1
        return None

    # Finding

    def _root(self, remedy: str) -> Node:
        tree = parse(self.source)
        if tree.has_error:
            # Nix may well take it: whoever edits has had it evaluated
            wrong = min((node for node in walk(tree) if node.is_error or node.is_missing), key=_length, default=tree)
            raise self._cannot(wrong, f"nixherd cannot edit this form; {remedy} by hand")
        root = tree.child_by_field_name("expression")
        if root is None:
            raise CannotEdit(f"{self.name}: there is nothing in it")
        return root

    def _bindings(self, expression: Node, path: Path) -> list[tuple[Node, Path]]:
        """Return the bindings that set `path`, with the rest of the path that is not written out.

        An empty rest is the attribute itself; another one means that its set comes from something computed.
        """
        for literal in self._literals(expression):
            bindings: list[tuple[Node, Path]] = []
            for binding, names in bound(literal):
                if names != path[: len(names)]:
                    continue
                rest = path[len(names) :]
                value = binding.child_by_field_name("expression")
                if not rest:
                    bindings.append((binding, ()))
                elif binding.type != "binding" or value is None:
                    inner = self._variable(binding, names[-1])
                    bindings += self._bindings(inner, rest) if inner else [(binding, rest)]
                elif self._literals(value):
                    bindings += self._bindings(value, rest)
                else:
                    bindings.append((binding, rest))
            if bindings:
                return bindings
        return []

    def _parts(self, expression: Node, path: Path) -> Iterator[Node]:
        """Return bindings such as `dev.user = …` of the path `dev`."""
        for literal in self._literals(expression):
            for binding, names in bound(literal):
                value = binding.child_by_field_name("expression")
                if len(names) > len(path) and names[: len(path)] == path:
                    yield binding
                elif names == path[: len(names)] and len(names) < len(path) and value is not None:
                    yield from self._parts(value, path[len(names) :])

    def _literals(self, expression: Node | None, depth: int = 0) -> list[Node]:
        """Return the sets that an expression is made of, as far as they are written out; those that win come first."""
        if expression is None or depth > _DEEP:
            return []
        match expression.type:
            case "attrset_expression" | "rec_attrset_expression":
                return [expression]
            case "let_expression" | "with_expression" | "assert_expression":
                return self._literals(expression.child_by_field_name("body"), depth + 1)
            case "parenthesized_expression":
                return self._literals(expression.child_by_field_name("expression"), depth + 1)
            case "binary_expression":
                operator = expression.child_by_field_name("operator")
                if operator is None or operator.type != "//":
                    return []
                sides = (expression.child_by_field_name(side) for side in ("right", "left"))
                return [literal for side in sides for literal in self._literals(side, depth + 1)]
            case "variable_expression":
                return self._literals(self._variable(expression, text_of(expression)), depth + 1)
        return []

    def _variable(self, node: Node, name: str) -> Node | None:
        """Return what a name stands for at this node, when a `let` or a `rec` set around it says so."""
        around = node.parent
        while around is not None and around.type != "function_expression":
            if around.type in ("let_expression", "rec_attrset_expression"):
                for binding, names in bound(around):
                    value = binding.child_by_field_name("expression")
                    if names == (name,) and value is not None and binding.type == "binding" and value != node:
                        return value
            around = around.parent
        return None

    def _cannot(self, node: Node, why: str) -> CannotEdit:
        return CannotEdit(f"{self.name}:{node.start_point[0] + 1}: {why}")

    # Writing

    def _spliced(self, splices: list[Splice[bytes]]) -> bytes:
        return spliced(self.source, splices)

    @property
    def _newline(self) -> bytes:
        return b"\r\n" if b"\r\n" in self.source else b"\n"

    def _insertion(self, root: Node, path: Path, lines: list[str], comment: str = "") -> Splice[bytes]:
        """Return where and how a new binding, whose first line begins with the last name of the path, comes in."""
        above = [f"# {comment}"] if comment else []
        parents = [root] if len(path) == 1 else self._values(root, path[:-1])
        sets = [literal for parent in parents for literal in self._literals(parent)]
        if sets:
            return self._into(max(sets, key=lambda literal: len(list(bound(literal)))), [*above, *lines])
        parts = list(self._parts(root, path[:-1]))
        if not parts:
            raise CannotEdit(f"{self.name}: {_dotted(path[:-1])} is not written out there; add `{lines[0]}` by hand")
        lead = b".".join(names_written(parts[-1])[: depth_of(parts[-1], path[:-1])])
        first = f"{lead.decode(errors='surrogateescape')}.{lines[0]}"
        return self._after(parts[-1], [*above, first, *lines[1:]], apart=False)

    def _values(self, root: Node, path: Path) -> list[Node]:
        bindings = [binding for binding, rest in self._bindings(root, path) if not rest]
        nodes = [each.child_by_field_name("expression") for each in bindings if each.type == "binding"]
        nodes += [self._variable(each, path[-1]) for each in bindings if each.type != "binding"]
        return [node for node in nodes if node is not None]

    def _into(self, literal: Node, lines: list[str]) -> Splice[bytes]:
        bindings = [binding for binding, _ in bound(literal)]
        if bindings:
            between = self.source[bindings[-2].end_byte : bindings[-1].start_byte] if len(bindings) > 1 else b""
            return self._after(bindings[-1], lines, apart=re.search(rb"\n[ \t]*\r?\n", between) is not None)
        opened, close = inside_of(literal), literal.end_byte - 1
        if b"\n" not in self.source[opened:close]:
            return self._into_line(literal, lines)
        begin = self._line_start(close)
        indent = self.source[begin:close]
        if not indent.strip():
            place = begin
            while place > opened and not self.source[self._line_start(place - 1) : place].strip():
                place = self._line_start(place - 1)
            # a comment that stands there is about the set, not about what comes
            apart = self._comment_above(place) is not None
            gap = self._newline if apart else b""
            return Splice(place, place, gap + self._block(indent + b"  ", lines) + self._newline)
        indent = self._indent_of(literal)
        return Splice(close, close, self._newline + self._block(indent + b"  ", lines) + self._newline + indent)

    def _into_line(self, literal: Node, lines: list[str]) -> Splice[bytes]:
        """Insert into a set without entries that is written in one line, perhaps with a comment in it."""
        opened, close = inside_of(literal), literal.end_byte - 1
        inside = self.source[opened:close].rstrip()
        in_a_line = _in_a_line(lines) if inside or len(lines) == 1 else None
        if in_a_line is not None and inside:
            return Splice(opened + len(inside), opened + len(inside), b" " + in_a_line)
        if in_a_line is not None:
            return Splice(opened, close, b" " + in_a_line + b" ")
        opened += len(inside)
        indent = self._indent_of(literal)
        return Splice(opened, close, self._newline + self._block(indent + b"  ", lines) + self._newline + indent)

    def _after(self, binding: Node, lines: list[str], *, apart: bool) -> Splice[bytes]:
        """Insert behind a binding and the comment on its last line; in a line with others as the others are."""
        end = binding.end_byte
        line_end = self.source.find(b"\n", end)
        rest = self.source[end : len(self.source) if line_end < 0 else line_end]
        before = self.source[self._line_start(binding.start_byte) : binding.start_byte]
        if before.strip() or not _only_comment(rest):
            in_a_line = _in_a_line(lines)
            if in_a_line is None:
                return Splice(end, end, self._newline + self._block(self._indent_of(binding), lines))
            return Splice(end, end, b" " + in_a_line)
        blank = self._newline if apart else b""
        block = blank + self._block(self._indent_of(binding), lines)
        return Splice(line_end + 1, line_end + 1, block + self._newline)

    def _block(self, indent: bytes, lines: list[str]) -> bytes:
        return self._newline.join(indent + _bytes(line) if line else b"" for line in lines)

    def _cut_of(self, node: Node, name: str, nodes: Sequence[Node]) -> Splice[bytes]:
        """Cut what sets this name: a binding, its part in an `inherit`, or all that is in a set."""
        attrs = node.child_by_field_name("attrs") if node.type != "binding" else None
        if attrs is not None and len(attrs.children_by_field_name("attr")) > 1:
            attr = next(each for each in attrs.children_by_field_name("attr") if name_of(each) == name)
            start = attr.start_byte
            while self.source[start - 1 : start].isspace():
                start -= 1
            return Splice(start, attr.end_byte, b"")
        around = node.parent.parent if node.parent else None
        if around is not None and around.type in _SETS and len(nodes) == 1:
            begin, end, cut = inside_of(around), around.end_byte - 1, self._cut(node)
            rest = self.source[begin : cut.start] + self.source[cut.end : end]
            if b"\n" in self.source[begin:end] and not rest.strip():
                return Splice(begin, end, b"")
        return self._cut(node)

    def _cut(self, node: Node) -> Splice[bytes]:
        """Cut a binding with its lines, its comment above, and the blank line that set it apart."""
        start, end = node.start_byte, node.end_byte
        begin = self._line_start(start)
        line_end = self.source.find(b"\n", end)
        line_end = len(self.source) if line_end < 0 else line_end + 1
        if self.source[begin:start].strip() or not _only_comment(self.source[end:line_end]):
            while self.source[start - 1 : start] in (b" ", b"\t"):
                start -= 1
            return Splice(start, end, b"")
        while (above := self._comment_above(begin)) is not None:
            begin = above
        above = self._line_before(begin)
        line_above = None if above is None else self.source[above:begin].strip()
        next_line = self.source[line_end:].split(b"\n", 1)[0].strip()
        if above is not None and line_above == b"" and (not next_line or next_line.startswith((b"}", b"in"))):
            begin = above
        elif line_above and line_above.endswith((b"{", b"let")) and not next_line and line_end < len(self.source):
            line_end = self.source.find(b"\n", line_end) + 1 or len(self.source)
        return Splice(begin, line_end, b"")

    def _comment_above(self, begin: int) -> int | None:
        """Return where a comment begins that ends on the line before, with nothing else on its lines."""
        above = self._line_before(begin)
        if above is None:
            return None
        line = self.source[above:begin].strip()
        if line.startswith(b"#"):
            return above
        if not line.endswith(b"*/"):
            return None
        opening = self.source.rfind(b"/*", 0, begin)
        if opening < 0 or b"*/" in self.source[opening:begin].strip()[:-2]:
            return None
        start = self._line_start(opening)
        return None if self.source[start:opening].strip() else start

    def _line_start(self, position: int) -> int:
        return self.source.rfind(b"\n", 0, position) + 1

    def _line_before(self, begin: int) -> int | None:
        return self._line_start(begin - 1) if begin else None

    def _indent_of(self, node: Node) -> bytes:
        line = self.source[self._line_start(node.start_byte) : node.start_byte]
        return line[: len(line) - len(line.lstrip())]


def _length(node: Node) -> int:
    return int(node.end_byte - node.start_byte)


def _only_comment(rest: bytes) -> bool:
    """Tell whether what follows on a line is nothing, or one comment that ends there."""
    rest = rest.strip()
    return not rest or rest.startswith(b"#") or (rest.startswith(b"/*") and rest.find(b"*/") == len(rest) - 2)


def _bytes(line: str) -> bytes:
    """Encode a line as it was read, whatever its encoding."""
    return line.encode(errors="surrogateescape")


def _in_a_line(lines: Sequence[str]) -> bytes | None:
    """Join lines into one, without comments above; None where something needs lines (a comment, a text)."""
    entry = [line.strip() for line in lines if line.strip()]
    while len(entry) > 1 and entry[0].startswith("#"):
        del entry[0]
    tree = parse(b"{\n" + _bytes("\n".join(entry)) + b"\n}")
    if any(node.type in ("comment", "indented_string_expression") for node in walk(tree)):
        return None
    return _bytes(" ".join(entry))


def _dotted(path: Path) -> str:
    return ".".join(map(attribute_name, path))
