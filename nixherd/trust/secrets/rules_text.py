"""A `.sops.yaml` that is being edited: its nodes, the splices, and the proof that nothing else changed."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from nixherd.base.errors import FleetError
from nixherd.nix.edit import Splice, spliced
from nixherd.trust.secrets.keys import Recipient, is_key, value_of
from nixherd.trust.secrets.rules import RULES, Rule, Rules, parse_rules
from nixherd.trust.secrets.yaml_lines import Lines
from nixherd.trust.secrets.yaml_meaning import Meaning, Plain, meaning
from nixherd.trust.secrets.yaml_tree import Node, Tree, compose

NOT_KEYS = (RULES, "destination_rules", "stores")
"""what stands at the top beside lists of keys"""
MERGE = "<<"
_NOT_IN_ANCHORS = re.compile(r"[^A-Za-z0-9_-]")
_NOT_PLAIN = re.compile(r"^[\s&*!|>'\"%@`#?:,\[\]{}-]|[,\[\]{}]|: |:$| #|^$")


class CannotEdit(FleetError):
    """The file is written in a way that cannot be edited faithfully; the message has what to write by hand."""


def by_words(value: Plain) -> Plain:
    """Return a value with keys as lists, however written: a text with commas, a list of such texts, one key alone."""
    match value:
        case str():
            return _keys(value) or value
        case list():
            parts = [_keys(each) if isinstance(each, str) else None for each in value]
            if value and all(parts):
                return [key for part in parts for key in part or ()]
            return [by_words(each) for each in value]
        case dict():
            return {key: by_words(each) for key, each in value.items()}
    return value


def _keys(text: str) -> list[str]:
    words = [word for word in map(value_of, text.split(",")) if word]
    return words if any(map(is_key, words)) else []


class RulesText:
    """The text, and the splices of one edit. `by_hand` ends each refusal: what to write instead."""

    def __init__(self, text: str, by_hand: str) -> None:
        self.text, self.by_hand = text, by_hand
        try:
            self.before, self.tree, self.meaning = _read(text)
        except (ValueError, yaml.YAMLError) as error:
            raise CannotEdit(f".sops.yaml: {str(error).splitlines()[0]}; correct it, or {by_hand}") from None
        self.lines = Lines(text)
        self.splices: list[Splice[str]] = []
        self.changed: dict[int, Plain] = {}
        """what nodes are to say, by their id, where that is something else than now"""
        self._definitions = [node for node in self.tree.root.walk() if node.anchor and not node.is_alias]
        self._parents = {id(child): node for node in self.tree.root.walk() for child in node.children}

    @property
    def newline(self) -> str:
        return self.lines.newline

    def splice(self, start: int, end: int, text: str = "") -> None:
        self.splices.append(Splice(start, end, text))

    def parent(self, node: Node) -> Node | None:
        return self._parents.get(id(node))

    def pair_of(self, node: Node) -> tuple[Node, tuple[Node, Node]] | None:
        """Return the mapping in which a node is a value, and the pair there."""
        parent = self.parent(node)
        pair = next((pair for pair in (parent.pairs if parent else None) or () if pair[1] is node), None)
        return (parent, pair) if parent is not None and pair is not None else None

    def plain(self, node: Node) -> Plain:
        return self.changed[id(node)] if id(node) in self.changed else meaning(Tree(node, {})).document

    @property
    def rules(self) -> Node:
        """The list of the rules; what it is if not written out as a list, nobody edits."""
        node = self.tree.root.get(RULES)
        if node is None or node.items is None:
            raise self.cannot(node or self.tree.root)
        return node

    def rule_nodes(self) -> Sequence[Node]:
        return self.rules.items or ()

    def rule_of(self, node: Node) -> int | None:
        """Return the number of the rule in which a node stands."""
        numbers = {id(rule): number for number, rule in enumerate(self.rule_nodes(), 1)}
        around: Node | None = node
        while around is not None:
            if id(around) in numbers:
                return numbers[id(around)]
            around = self.parent(around)
        return None

    def names_around(self, node: Node | None) -> list[Node]:
        """Return the nodes with an anchor in which this one is, itself among them: what changes with it."""
        found = []
        while node is not None:
            if node.anchor and not node.is_alias:
                found.append(node)
            node = self.parent(node)
        return found

    def aliases_of(self, nodes: Sequence[Node]) -> list[Node]:
        targets = {id(node) for node in nodes}
        return [node for node in self.tree.root.walk() if node.target and id(node.target) in targets]

    def named_at(self, place: int) -> dict[str, Node]:
        """Return what each anchor stands for at a place of the text."""
        return {node.anchor or "": node for node in self._definitions if node.end <= place}

    def word(self, value: str, place: int) -> str | None:
        """Return an alias that stands for a key at this place of the text; None without one."""
        named = self.named_at(place).items()
        return next((f"*{name}" for name, node in named if node.value and value_of(node.value) == value), None)

    def cannot(self, node: Node | None = None, why: str = "") -> CannotEdit:
        if node is None and not why:
            return CannotEdit(f".sops.yaml is written in a way that is not edited here; {self.by_hand}")
        where = f":{self.lines.number(node.start)}" if node else ""
        reason = why or "it is written in a way that is not edited here"
        return CannotEdit(f".sops.yaml{where}: {reason}; {self.by_hand}")

    def result(
        self,
        rules: Sequence[Rule],
        document: Plain,
        anchors: Mapping[str, tuple[Plain, ...]],
        *,
        names: Mapping[str, str] | None = None,
        but: Recipient | None = None,
        are_named: bool = True,
        seen: Callable[[Plain], Plain] = by_words,
    ) -> str:
        """Return the edited text if it says exactly this. CannotEdit if anything else would stand for something else.

        `names` of keys are as before unless given; that of `but` is not compared, nor any without `are_named`.
        `seen`: what counts of a value.
        """
        try:
            result = spliced(self.text, self.splices)
            after, _, said_after = _read(result)
        except (ValueError, yaml.YAMLError):
            raise self.cannot() from None
        same = [judged(rule) for rule in after.rules] == [judged(rule) for rule in rules]
        same = same and seen(said_after.document) == seen(document)
        same = same and _each(said_after.anchors, seen) == _each(anchors, seen)
        same = same and (not are_named or self._same_names(after, self.before.names if names is None else names, but))
        if not same:
            raise self.cannot()
        return result

    def _same_names(self, after: Rules, names: Mapping[str, str], but: Recipient | None) -> bool:
        """Tell whether everybody is called as expected; one without a name may have got one that was nobody's."""
        known = set(self.before.names.values())
        for value in (after.names.keys() | names.keys()) - {but.value if but else ""}:
            name = after.names.get(value)
            if name != names.get(value) and (value in names or name in known):
                return False
        return True


def _each(anchors: Mapping[str, tuple[Plain, ...]], seen: Callable[[Plain], Plain]) -> Mapping[str, list[Plain]]:
    found = {name: [each for value in values if (each := seen(value)) is not None] for name, values in anchors.items()}
    return {name: values for name, values in found.items() if values}


def _read(text: str) -> tuple[Rules, Tree, Meaning]:
    rules, tree = parse_rules(text), compose(text, alone=True)
    return rules, tree, meaning(tree)


def judged(rule: Rule) -> tuple[Any, ...]:
    """Return what a rule is to sops: keys of a group have no order."""
    return [frozenset(group) for group in rule.groups], replace(rule, number=0, groups=())


def scalar(value: str, quote: str | None = None) -> str:
    """Return a text as YAML, in these quotes where the others have them."""
    if quote == "'":
        return "'" + value.replace("'", "''") + "'"
    if quote == '"' or _NOT_PLAIN.search(value):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return value


def numbered(rules: Iterable[int]) -> str:
    """Return rules by their numbers, for people: `rule 1 and 3`."""
    return f"rule {' and '.join(map(str, sorted(rules)))}"


def anchor_of(name: str) -> str:
    """Return the anchor for what is called so."""
    return _NOT_IN_ANCHORS.sub("_", name)


def words_of(text: str, start: int, end: int) -> list[tuple[int, int, str]]:
    """Return the words between commas in text[start:end], blanks around them left out, each with where it is."""
    return [
        (start + found.start(1), start + found.end(1), found[1])
        for found in re.finditer(r"(?:^|,)\s*([^,]*?)\s*(?=,|$)", text[start:end])
        if found[1]
    ]


def words_in(lines: Lines, node: Node) -> list[tuple[int, int, str]] | None:
    """Return the words of a text with commas, with their places; None where it is not written as it reads."""
    start, end = node.start, lines.end_of(node)
    while found := re.compile(r"[&!]\S*\s+").match(lines.text, start, end):
        start = found.end()
    if node.style in ("'", '"'):
        start, end = start + 1, end - 1
    elif node.style in (">", "|"):
        start = lines.end(start)
    words = words_of(lines.text, start, end)
    reads = [word.strip() for word in (node.value or "").split(",") if word.strip()]
    return words if [word for _, _, word in words] == reads else None
