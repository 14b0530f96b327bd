"""A YAML text as a tree that knows where each node stands, aliases and anchors included; PyYAML's parser makes it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from nixherd.trust.secrets.rules import LOADER


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
    anchors: dict[str, Node] = field(default_factory=dict)

    def resolved(self, node: Node | None) -> Node | None:
        return self.anchors.get(node.anchor or "") if node and node.is_alias else node


def compose(text: str) -> Tree:
    """Raises yaml.YAMLError; ValueError for none or several documents, or one that is no mapping."""
    events = list(yaml.parse(text, Loader=LOADER))
    starts = [event for event in events if isinstance(event, yaml.DocumentStartEvent)]
    if len(starts) != 1:
        raise ValueError(f"it has {len(starts)} YAML documents, not one")
    nodes = iter(event for event in events if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent))
    tree = Tree(Node(0, 0))
    first = next(nodes)
    tree.root = _node(first, nodes, tree.anchors)
    if tree.root.pairs is None:
        raise ValueError("it is no mapping")
    return tree


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
