"""What leaves `.sops.yaml`: a recipient everywhere, or whole rules, with the comments that are theirs alone."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from nixherd.trust.secrets.key_names import is_rules_heading, listed
from nixherd.trust.secrets.keys import FIELDS, Group, Recipient, is_key, value_of
from nixherd.trust.secrets.rules import RULES, Rule, group_keys
from nixherd.trust.secrets.rules_add import MORE, ONE
from nixherd.trust.secrets.rules_insert import comma_in
from nixherd.trust.secrets.rules_text import NOT_KEYS, RulesText, by_words, words_in
from nixherd.trust.secrets.yaml_lines import Entry, entries_of
from nixherd.trust.secrets.yaml_meaning import Plain, pruned
from nixherd.trust.secrets.yaml_tree import Node

_WITH_KEYS = (*FIELDS, "merge")
_MAPPED = ("kms", "gcp_kms", "hckms", "azure_keyvault")  # kinds whose keys are mappings in a key group


class Cutting:
    """One recipient's way out of the whole file."""

    def __init__(self, editor: RulesText, recipient: Recipient) -> None:
        self.editor, self.recipient = editor, recipient
        self._gone: set[int] = set()
        self._later: list[Node] = []

    def leave(self) -> str:
        editor = self.editor
        for rule in editor.before.rules:
            self._require_others(rule)
        places = [node for node in editor.tree.root.walk() if self._is_it(node)]
        self._gone = {id(node) for node in places}
        for collection in editor.tree.root.walk():
            if collection.items is not None:
                self._cut_items(collection, [item for item in collection.items if id(item) in self._gone])
            for key, value in collection.pairs or ():
                if id(value) in self._gone:
                    self._cut_value(collection, key, value)
            if collection.value is not None and "," in collection.value:
                self._cut_words(collection)
        return self._proven()

    def _proven(self) -> str:
        editor, value = self.editor, self.recipient.value
        rules = [
            replace(rule, groups=tuple(self._without(group) for group in rule.groups)) for rule in editor.before.rules
        ]
        anchors = {
            name: tuple(new for each in values if (new := self._dropped(each)) is not None)
            for name, values in editor.meaning.anchors.items()
        }
        names = {key: name for key, name in editor.before.names.items() if key != value}
        document = self._dropped(editor.meaning.document)
        return editor.result(rules, document, anchors, names=names, seen=lambda plain: pruned(by_words(plain)) or None)

    def _require_others(self, rule: Rule) -> None:
        for index, group in enumerate(rule.groups, 1):
            if set(group) == {self.recipient}:
                where = f"key group {index} of rule {rule.number}" if len(rule.groups) > 1 else f"rule {rule.number}"
                self.editor.by_hand = "name another one there first"
                node = self.editor.rule_nodes()[rule.number - 1]
                raise self.editor.cannot(node, f"{where} has no recipient but {self.recipient.value}")

    def _without(self, group: Group) -> Group:
        return tuple(key for key in group if key != self.recipient)

    def _dropped(self, plain: Plain) -> Plain:
        """Return a value without the recipient; None where it is nothing else."""
        match plain:
            case str() if value_of(plain) == self.recipient.value:
                return None
            case str() if "," in plain and any(map(is_key, plain.split(","))):
                return ",".join(
                    word for each in plain.split(",") if value_of(word := each.strip()) != self.recipient.value
                )
            case list():
                return [new for each in plain if (new := self._dropped(each)) is not None]
            case dict():
                return None if self._is_mapped(plain) else {key: self._dropped(each) for key, each in plain.items()}
        return plain

    def _is_mapped(self, plain: dict[str, Any]) -> bool:
        if self.recipient.kind not in _MAPPED:
            return False
        try:
            return [*group_keys({self.recipient.kind.value: [plain]})] == [self.recipient]
        except ValueError:
            return False

    def _is_it(self, node: Node) -> bool:
        target = node.resolved
        if target.pairs is not None and self.recipient.kind in _MAPPED:
            plain = self.editor.plain(target)
            return isinstance(plain, dict) and self._is_mapped(plain)
        return target.value is not None and value_of(target.value) == self.recipient.value

    # Lists

    def _cut_items(self, collection: Node, items: Sequence[Node]) -> None:
        if not items:
            return
        if len(items) == len(collection.items or ()):
            self._empty(collection)
            return
        entries = {id(entry.node): entry for entry in listed(self.editor.lines, collection)}
        if not collection.flow:
            self._unlist(collection, items)
            for item in items:
                cut_lines(self.editor, entries[id(item)])
            return
        if self._fold(collection, items):
            return
        for run in _runs(collection.items or [], items):
            cut_of_brackets(self.editor, collection, [entries[id(item)] for item in run], entries)

    def _fold(self, collection: Node, items: Sequence[Node]) -> bool:
        """Write an alias again where a list was written out of it for somebody who leaves."""
        editor = self.editor
        behind = re.match(rf" # \*([^\s,\[\]{{}}]+) {MORE}(?=\s|$)", editor.text[collection.end :])
        target = editor.named_at(collection.start).get(behind[1]) if behind else None
        if behind is None or target is None:
            return False
        rest = [value_of(item.resolved.value or "") for item in collection.items or () if item not in items]
        kept = self._dropped(editor.plain(target))
        if ([kept] if isinstance(kept, str) else kept) != rest:
            return False
        editor.splice(collection.start, collection.end + behind.end(), f"*{behind[1]}")
        return True

    def _unlist(self, collection: Node, items: Sequence[Node]) -> None:
        """Write one key again, with its comment, where a list was made of it for those who leave."""
        editor, first = self.editor, (collection.items or [])[0]
        if len(collection.items or ()) != len(items) + 1 or first in items:
            return
        made = re.compile(rf":[ \t]*(# {ONE}[ \t]*\r?\n[ \t]*-[ \t]+)")
        inside = editor.pair_of(collection)
        found = made.match(editor.text, inside[1][0].end) if inside is not None else None
        if found is not None and found.end() == first.start:
            editor.splice(found.start(1), found.end())

    def _empty(self, collection: Node) -> None:
        """Cut a list that has nobody any more: with its word, in a rule; otherwise `[]` stays."""
        editor, inside = self.editor, self.editor.pair_of(collection)
        if inside is not None and inside[1][0].value in _WITH_KEYS:
            self._cut_value(inside[0], *inside[1])
            return
        if collection.flow:
            editor.splice(_inner(editor, collection), collection.end - 1)
            return
        if inside is None or inside[1][0].value in NOT_KEYS:
            raise editor.cannot(collection)
        for entry in listed(editor.lines, collection):
            cut_lines(editor, entry)
        leave_brackets(editor, collection)

    def _cut_value(self, mapping: Node, key: Node, value: Node) -> None:
        editor, pairs = self.editor, mapping.pairs or []
        if key.value in _WITH_KEYS:
            rest = [name for name, each in pairs if each is not value and name.value in _WITH_KEYS]
            parent = editor.parent(mapping)
            if not rest and parent is not None and parent.items is not None and len(pairs) == 1:
                if len(parent.items) == 1:
                    self._empty(parent)
                else:
                    self._cut_items(parent, [mapping])
                return
        elif editor.rule_of(mapping) is not None or (value.is_alias and not self._is_listed(mapping)):
            raise editor.cannot(value)
        cut_pair(editor, mapping, key, value)

    def _is_listed(self, mapping: Node) -> bool:
        return all(is_key(value.resolved.value) for _, value in mapping.pairs or ())

    def _cut_words(self, node: Node) -> None:
        editor = self.editor
        words = words_in(editor.lines, node)
        if words is None:
            if any(value_of(word) == self.recipient.value for word in (node.value or "").split(",")):
                raise editor.cannot(node)
            return
        kept = [value_of(word) != self.recipient.value for _, _, word in words]
        if all(kept):
            return
        if not any(kept):
            inside = editor.pair_of(node)
            if inside is None:
                raise editor.cannot(node)
            self._cut_value(inside[0], *inside[1])
            return
        if kept.count(True) == 1 and self._would_name(node):
            editor.splice(node.start, editor.lines.end_of(node), f"[{words[kept.index(True)][2]}]")
            return
        last = max(index for index, keeps in enumerate(kept) if keeps)
        for index, (start, _, _) in enumerate(words):
            if not kept[index] and index < last:
                editor.splice(start, words[index + 1][0])
        if last < len(words) - 1:
            editor.splice(words[last][1], words[-1][1])

    def _would_name(self, node: Node) -> bool:
        """Tell whether a comment behind several keys would be the name of the one that stays, and is another's."""
        found = self.editor.lines.behind(self.editor.lines.end_of(node))
        return found is not None and not node.anchor and found["text"] in self.editor.before.names.values()


def _inner(editor: RulesText, collection: Node) -> int:
    return editor.text.index("[", collection.start) + 1


def _runs(items: Sequence[Node], gone: Sequence[Node]) -> list[list[Node]]:
    runs: list[list[Node]] = []
    before = False
    for item in items:
        is_gone = item in gone
        if is_gone and not before:
            runs.append([])
        if is_gone:
            runs[-1].append(item)
        before = is_gone
    return runs


# Places


def cut_lines(editor: RulesText, entry: Entry) -> None:
    """Cut an entry with its lines and its comments, and the blank line that set it apart if it stood by itself."""
    lines = editor.lines
    if not entry.is_line:
        raise editor.cannot(entry.node)
    begin, end = entry.begin, lines.end(lines.end_of(entry.node))
    above = lines.above(begin)
    is_alone = above is not None and lines.is_blank(above) and (end == len(lines.text) or lines.is_blank(end))
    if is_alone and above is not None and not entry.heading:
        begin = above
    editor.splice(*lines.cut(begin, end))


def leave_brackets(editor: RulesText, collection: Node) -> None:
    """Write `[]` behind the word of a list, all of whose lines are cut."""
    inside = editor.pair_of(collection)
    head = inside and re.compile(r"[^\S\n]*:([^\S\n]*&\S+)?").match(editor.text, inside[1][0].end)
    if not head:
        raise editor.cannot(collection)
    editor.splice(head.end(), head.end(), " []")


def cut_pair(editor: RulesText, mapping: Node, key: Node, value: Node) -> None:
    """Cut a pair of a mapping."""
    lines, pairs = editor.lines, mapping.pairs or []
    index = next(index for index, pair in enumerate(pairs) if pair[0] is key)
    end = lines.end_of(value)
    if mapping.flow:
        if index:
            editor.splice(pairs[index - 1][1].end, value.end)
        else:
            editor.splice(key.start, pairs[1][0].start if len(pairs) > 1 else value.end)
        return
    if not lines.lead(key.start).strip():
        entry = next((each for each in listed(lines, mapping) if each.node is value), None)
        begin = entry.begin if entry else lines.start(key.start)
        editor.splice(*lines.cut(begin, lines.end(end)))
        return
    if len(pairs) < 2 or index or "#" in editor.text[end : pairs[1][0].start]:
        raise editor.cannot(key)
    editor.splice(key.start, pairs[1][0].start)


def cut_of_brackets(editor: RulesText, collection: Node, run: Sequence[Entry], entries: dict[int, Entry]) -> None:
    """Cut items that follow each other in `[…]`, others staying."""
    text, lines, items = editor.text, editor.lines, collection.items or []
    first = next(index for index, item in enumerate(items) if item is run[0].node)
    last = first + len(run) - 1
    limit = items[last + 1].start if last + 1 < len(items) else collection.end - 1
    comma = comma_in(text, items[last].end, limit)
    end = comma + 1 if comma is not None else items[last].end
    line_end = lines.end(end)
    rest = text[end:line_end].strip()
    if all(entry.is_line for entry in run) and line_end <= limit + 1 and (not rest or rest.startswith("#")):
        editor.splice(run[0].begin, line_end)
        if comma is None:
            before = comma_in(text, items[first - 1].end, items[first].start)
            assert before is not None, "items have commas between them"
            editor.splice(before, before + 1)
        return
    start, end = (items[first - 1].end, items[last].end) if first else (items[first].start, limit)
    if "#" in text[start:end]:
        raise editor.cannot(items[first])
    editor.splice(start, end)


# Rules


def cut_rule(editor: RulesText, number: int) -> None:
    """Cut a rule with its lines, the comment that is its, and the blank line that set it apart."""
    lines, rules = editor.lines, editor.rules
    items = rules.items or []
    if rules.flow or not 0 < number <= len(items):
        raise editor.cannot(rules)
    entry = entries_of(lines, rules, is_rules_heading)[number - 1]
    begin, end = entry.begin, lines.end(lines.end_of(entry.node))
    if not lines.is_item(entry.start):
        raise editor.cannot(entry.node)
    above = lines.above(begin)
    is_last = not lines.text[end:].strip() or lines.is_blank(end)
    if above is not None and lines.is_blank(above) and is_last and not entry.heading:
        begin = above
    editor.splice(*lines.cut(begin, end))


def _moved(editor: RulesText, named: Node, gone: Collection[int]) -> bool:
    """Write what a name stands for at its first use that stays; tell whether there is one."""
    alias = next((each for each in editor.aliases_of([named]) if id(each) not in gone), None)
    if alias is None:
        return False
    if named.value is None or "\n" in editor.text[named.start : named.end]:
        raise editor.cannot(
            named, f"&{named.anchor} stands for what is here, and is used in line {editor.lines.number(alias.start)}"
        )
    editor.splice(alias.start, alias.end, editor.text[named.start : named.end])
    return True


def without_rules(editor: RulesText, numbers: Collection[int]) -> str:
    """Return the text without these rules; a key that is named in one of them gets its name where it is used next."""
    for number in sorted(numbers):
        cut_rule(editor, number)
    if len(editor.rules.items or ()) == len(numbers) > 0:
        leave_brackets(editor, editor.rules)
    gone = {id(node) for number in numbers for node in editor.rule_nodes()[number - 1].walk()}
    anchors: dict[str, list[Plain]] = {}
    for node in editor.tree.root.walk():
        if node.anchor and not node.is_alias and (id(node) not in gone or _moved(editor, node, gone)):
            anchors.setdefault(node.anchor, []).append(editor.plain(node))
    document = {**editor.meaning.document}
    document[RULES] = [rule for number, rule in enumerate(document[RULES], 1) if number not in numbers]
    left = [rule for rule in editor.before.rules if rule.number not in numbers]
    return editor.result(left, document, {name: tuple(each) for name, each in anchors.items()}, are_named=False)
