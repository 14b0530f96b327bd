"""YAML as nodes with their places in the text, for edits; and as plain values whose scalars are texts, as written.

sops reads keys as texts: a fingerprint of digits is not a number, and a date is not a date.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

# libyaml where PyYAML was built with it: ten times as fast, with the same marks.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAGS = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")


class _TextLoader(LOADER):  # type: ignore[misc]
    """Reads every scalar but null as the text that is written there."""


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
        raise ValueError(f"{line}{error.problem or 'no YAML'}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {str(error).splitlines()[0]}") from None
    finally:
        loader.dispose()


@dataclass(eq=False)
class Node:
    """A node at text[start:end]. Scalars have `value`, sequences `items`, mappings `pairs`, aliases only an anchor."""

    start: int
    end: int
    anchor: str | None = None
    value: str | None = None
    style: str | None = None
    flow: bool = False
    is_alias: bool = False
    items: list["Node"] | None = None
    pairs: list[tuple["Node", "Node"]] | None = None

    def get(self, key: str) -> "Node | None":
        """What a mapping has under the key."""
        return next((value for name, value in self.pairs or () if name.value == key), None)

    def walk(self) -> Iterator["Node"]:
        yield self
        for child in [*(self.items or ()), *(node for pair in self.pairs or () for node in pair)]:
            yield from child.walk()


@dataclass
class Tree:
    """`root` is the document's mapping; `anchors` are the nodes that aliases stand for."""

    root: Node
    anchors: dict[str, Node]

    def resolved(self, node: Node | None) -> Node | None:
        return self.anchors.get(node.anchor or "") if node and node.is_alias else node


def compose(text: str) -> Tree:
    """Raises yaml.YAMLError; ValueError for none or several documents, or one that is not a mapping."""
    events = list(yaml.parse(text, Loader=LOADER))
    starts = [event for event in events if isinstance(event, yaml.DocumentStartEvent)]
    if len(starts) != 1:
        raise ValueError(f"it has {len(starts)} YAML documents, not one")
    nodes = iter(event for event in events if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent))
    anchors: dict[str, Node] = {}
    root = _node(next(nodes), nodes, anchors)
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
        return Node(start, end, anchor=event.anchor, is_alias=True)
    assert isinstance(event, yaml.NodeEvent)
    node = Node(start, end, anchor=event.anchor)
    if event.anchor:
        anchors[event.anchor] = node
    if isinstance(event, yaml.ScalarEvent):
        node.value, node.style = event.value, event.style
        return node
    assert isinstance(event, yaml.CollectionStartEvent)
    node.flow = bool(event.flow_style)
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
