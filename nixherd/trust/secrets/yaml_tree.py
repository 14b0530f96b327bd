"""YAML as nodes with their places in the text, for edits; and as plain values whose scalars are texts, as written.

sops reads keys as texts: a fingerprint of digits is not a number, and a date is not a date.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

# libyaml where PyYAML was built with it: ten times as fast, with the same marks.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONFLICT = re.compile(r"^(?:<{7}|={7}|>{7})(?: .*)?\r?$", re.MULTILINE)
_ANCHOR = re.compile(r"&[^\s,\]}]+")
_ALIAS = re.compile(r"\*([^\s,\]}]+)")
_DEEP = "it has lists in lists, too deep to be read"
_TAGS = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")


class _TextLoader(LOADER):  # type: ignore[misc]
    """Reads every scalar but null as the text that is written there."""


def _refused(loader: Any, node: yaml.Node) -> Any:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    what = f"the tag {tag} is not read; write the value alone"
    raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)


for _tag in ("int", "float", "bool", "timestamp", "binary"):  # where somebody writes it, as nothing here implies it
    _TextLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _refused)
_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _TAGS]
    for first, resolvers in LOADER.yaml_implicit_resolvers.items()
}


def load_yaml(text: str) -> Any:
    """Return the first document, scalars as texts or None. ValueError says what is wrong, and in which line."""
    loader = _TextLoader(text)
    try:
        return loader.get_data() if loader.check_data() else None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{_problem(text, error)}") from None
    except RecursionError:
        raise ValueError(_DEEP) from None
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {str(error).splitlines()[0]}") from None
    finally:
        loader.dispose()


def _problem(text: str, error: yaml.MarkedYAMLError) -> str:
    """What the parser says, in words where it has none for people."""
    mark = error.problem_mark
    if error.problem == "second occurrence" and mark is not None:
        found = _ANCHOR.match(text, mark.index)
        return f"the anchor {found[0] if found else ''} stands here a second time; give each key a name of its own"
    if mark is not None and text[mark.index : mark.index + 1] == "\t":
        return "a tab, where YAML takes spaces only"
    if isinstance(error, (yaml.scanner.ScannerError, yaml.parser.ParserError)):
        return f"no YAML: {error.problem}; correct it there"
    if mark is not None and (alias := _ALIAS.match(text, mark.index)):
        return f"found undefined alias *{alias[1]}: no &{alias[1]} is above it"
    return error.problem or "no YAML"


def require_merged(text: str) -> None:
    """ValueError where git left the marks of a conflict in it."""
    if found := _CONFLICT.search(text):
        raise ValueError(f"line {text.count(chr(10), 0, found.start()) + 1}: a merge was left unfinished there")


@dataclass(eq=False)
class Node:
    """A node at text[start:end]. Scalars have `value`, sequences `items`, mappings `pairs`.

    Aliases have an anchor and its `target`: the same name may stand for something else further down.
    """

    start: int
    end: int
    anchor: str | None = None
    value: str | None = None
    style: str | None = None
    flow: bool = False
    is_alias: bool = False
    target: "Node | None" = None
    items: list["Node"] | None = None
    pairs: list[tuple["Node", "Node"]] | None = None

    def get(self, key: str) -> "Node | None":
        """What a mapping has under the key."""
        return next((value for name, value in self.pairs or () if name.value == key), None)

    @property
    def children(self) -> list["Node"]:
        return [*(self.items or ()), *(node for pair in self.pairs or () for node in pair)]

    @property
    def resolved(self) -> "Node":
        """What stands here: for an alias its target."""
        return self.target or self

    def walk(self) -> Iterator["Node"]:
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass
class Tree:
    """`root` is the document's mapping; `anchors` are the nodes that aliases stand for."""

    root: Node
    anchors: dict[str, Node]


def compose(text: str, *, alone: bool = False) -> Tree:
    """Return the first document, as sops reads it; `alone`: no other may follow.

    Raise yaml.YAMLError; ValueError where there is none, where it is not a mapping, or where another follows.
    """
    events = yaml.parse(text, Loader=LOADER)
    nodes: list[yaml.Event] = []
    for event in events:
        if isinstance(event, yaml.DocumentEndEvent):
            break
        if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            nodes.append(event)
    if not nodes:
        raise ValueError("it is empty")
    if alone and any(isinstance(event, yaml.DocumentStartEvent) for event in events):
        raise ValueError("another YAML document follows, which sops does not read")
    anchors: dict[str, Node] = {}
    waiting = iter(nodes)
    try:
        root = _node(next(waiting), waiting, anchors)
    except RecursionError:
        raise ValueError(_DEEP) from None
    if root.pairs is None:
        raise ValueError("it is not a mapping")
    return Tree(root, anchors)


def _places(event: yaml.Event) -> tuple[int, int]:
    assert event.start_mark is not None, "the parser marks every event"
    assert event.end_mark is not None
    return event.start_mark.index, event.end_mark.index


def _node(event: yaml.Event, events: Iterator[yaml.Event], anchors: dict[str, Node]) -> Node:
    start, end = _places(event)
    if isinstance(event, yaml.AliasEvent):
        target = anchors.get(event.anchor or "")
        line = event.start_mark.line + 1 if event.start_mark else 0
        if target is None:
            raise ValueError(f"line {line}: nothing is named &{event.anchor} above *{event.anchor}")
        if target.end < 0:
            raise ValueError(f"line {line}: *{event.anchor} stands in what it stands for")
        return Node(start, end, anchor=event.anchor, is_alias=True, target=target)
    assert isinstance(event, yaml.NodeEvent)
    node = Node(start, end, anchor=event.anchor)
    if event.anchor:
        anchors[event.anchor] = node
    if isinstance(event, yaml.ScalarEvent):
        node.value, node.style = event.value, event.style
        return node
    assert isinstance(event, yaml.CollectionStartEvent)
    node.flow, node.end = bool(event.flow_style), -1  # known when it ends
    children: list[Node] = []
    for child in events:
        if isinstance(child, yaml.CollectionEndEvent):
            # A block ends where the next token begins; what is its own ends with its last node.
            node.end = _places(child)[1] if node.flow or not children else children[-1].end
            break
        children.append(_node(child, events, anchors))
    if isinstance(event, yaml.SequenceStartEvent):
        node.items = children
    else:
        node.pairs = list(zip(children[::2], children[1::2], strict=True))
    return node
