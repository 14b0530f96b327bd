"""A recipient comes into `.sops.yaml`: into the list of keys that holds hosts, and into rules, each for itself.

What another name stands for stays: a list that others take by its name is not made longer, but for the list of hosts
where just those rules take it that the host joins.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nixherd.trust.secrets.key_names import is_of_hosts, is_of_people, like_others, listed, place_of
from nixherd.trust.secrets.keys import FIELDS, Kind, Recipient, is_key, value_of
from nixherd.trust.secrets.rules import Rule
from nixherd.trust.secrets.rules_insert import behind_like, insert, neighbour_of
from nixherd.trust.secrets.rules_text import (
    MERGE,
    NOT_KEYS,
    CannotEdit,
    RulesText,
    anchor_of,
    numbered,
    scalar,
    words_in,
)
from nixherd.trust.secrets.yaml_lines import Entry
from nixherd.trust.secrets.yaml_meaning import meaning
from nixherd.trust.secrets.yaml_tree import Node

MORE = "and more"
"""the end of the comment behind a list that was written out of an alias: `[*a, *b] # *all and more`"""
ONE = f"one key {MORE}"
"""the comment behind the word of a list that was written out of one key, whose own comment names it"""


class Adding:
    """One recipient's way into rules. `hosts` are the other machines, by their recipients."""

    def __init__(self, editor: RulesText, recipient: Recipient, name: str, hosts: Mapping[Recipient, str]) -> None:
        self.editor, self.recipient, self.name = editor, recipient, name
        self.hosts = {key.value: host_id for key, host_id in hosts.items() if key != recipient}
        self._anchor: tuple[str, int] | None = None
        self._is_named = False
        self._by_list: set[int] = set()
        self._may_change: set[str] = set()
        self._groups: dict[int, int] = {}

    def join(self, rules: Collection[Rule]) -> str:
        """Return the text with the recipient in these rules, of which it is in none."""
        if self.recipient.kind not in (Kind.AGE, Kind.PGP):  # others are more than a text
            raise self.editor.cannot()
        self._groups = {rule.number: self._group_of(rule) for rule in rules}
        self._list(set(self._groups))
        for number, index in self._groups.items():
            if number not in self._by_list:
                self._add_to(number, index)
        return self._proven(self._groups)

    def _proven(self, joined: Mapping[int, int]) -> str:
        editor, before = self.editor, self.editor.before
        now = meaning(editor.tree, editor.changed)
        anchors = {
            name: now.anchors[name] if name in self._may_change else values
            for name, values in editor.meaning.anchors.items()
        }
        if self._anchor:
            anchors[self._anchor[0]] = (self.recipient.value,)
        expected = [_with(rule, joined.get(rule.number), self.recipient) for rule in before.rules]
        return editor.result(expected, now.document, anchors, but=self.recipient)

    # The list of keys

    def _list(self, joined: Collection[int]) -> None:
        """Put it into the list of keys that holds hosts, where there is one that may be changed."""
        lists = list(self._key_lists())
        if any(value_of(entry.node.value or "") == self.recipient.value for _, each in lists for entry in each):
            self._is_named = self.recipient.value in self.editor.before.names
            return
        chosen = self._chosen(lists)
        if chosen is None or not self._may_grow(chosen[0], joined):
            return
        node, entries = chosen
        known = [index for index, entry in enumerate(entries) if _value(entry) in self.hosts]
        self._put(node, entries, place_of(entries, known), [entries[index] for index in known])

    def _key_lists(self) -> Iterator[tuple[Node, list[Entry]]]:
        for key, value in self.editor.tree.root.pairs or ():
            if key.value in NOT_KEYS:
                continue
            for node in value.walk():
                values = [*(node.items or ()), *(value for name, value in node.pairs or () if name.value not in FIELDS)]
                if any(is_key(each.value) for each in values):
                    yield node, listed(self.editor.lines, node)

    def _chosen(self, lists: Sequence[tuple[Node, list[Entry]]]) -> tuple[Node, list[Entry]] | None:
        """Return the list with most of the hosts, otherwise one that is called so, never one of people."""
        best = max(reversed(lists), key=lambda each: self._count(each[1]), default=None)
        if best is None or self._count(best[1]):
            return best
        labels = [(each, self._label(each[0])) for each in lists]
        of_hosts = [each for each, label in labels if is_of_hosts(label)]
        others = [each for each, label in labels if not is_of_people(label)]
        return next(reversed(of_hosts or others), None)

    def _count(self, entries: Sequence[Entry]) -> int:
        return sum(_value(entry) in self.hosts for entry in entries)

    def _label(self, node: Node) -> str:
        words = []
        while (parent := self.editor.parent(node)) is not None:
            words += [key.value or "" for key, value in parent.pairs or () if value is node]
            node = parent
        return " ".join(words)

    def _may_grow(self, node: Node, joined: Collection[int]) -> bool:
        """Tell whether a list may grow: without a name, or with one of hosts that just these rules take it by."""
        around = self.editor.names_around(node)
        if around and not is_of_hosts(f"{around[0].anchor} {self._label(node)}"):
            return False
        users = self.editor.aliases_of(around)
        rules = {self.editor.rule_of(alias) for alias in users}
        if not rules <= set(joined) or any(map(self.editor.names_around, users)):
            return False
        self._by_list = {number for number in rules if number is not None}
        self._may_change = {each.anchor or "" for each in around}
        return True

    def _put(self, node: Node, entries: Sequence[Entry], place: int, hosts: Sequence[Entry]) -> None:
        neighbour = neighbour_of(entries, place)
        models = hosts or (entries if len(entries) > 1 else ())
        label = self._like(hosts, lambda entry: entry.key or "", entries) if node.pairs is not None else ""
        value = scalar(self.recipient.value, neighbour.node.style if neighbour.node.style in ("'", '"') else None)
        item, comment, above = value, "", ""
        if any(entry.node.anchor for entry in entries):
            anchor = anchor_of(self._like(hosts, lambda entry: entry.node.anchor or "", entries))
            if anchor in self.editor.tree.anchors:
                raise self.editor.cannot(
                    self.editor.tree.anchors[anchor],
                    f"the anchor &{anchor} is another key's; rename it, or replace its key",
                )
            item = f"&{anchor}{self._apart(neighbour, anchor)}{value}"
            self._anchor = (anchor, neighbour.start)
            if models and all(entry.behind == entry.node.anchor for entry in models):
                comment = behind_like(neighbour, anchor)
            if models and all(entry.note for entry in models):
                above = self.name
        elif node.pairs is None:
            comment, above = self._comment(neighbour, hosts, entries)
            self._is_named = bool(comment or above) and neighbour.is_line
        if label:
            item = f"{label}: {item}"
        self.editor.changed[id(node)] = _inserted(self.editor.plain(node), place, self.recipient.value, label)
        insert(self.editor, node, place, item, comment, above)

    def _like(self, hosts: Sequence[Entry], word: Callable[[Entry], str], entries: Sequence[Entry]) -> str:
        others = {self.hosts[_value(entry)]: word(entry) for entry in hosts if word(entry)}
        return like_others(self.name, others, [name for entry in entries if (name := word(entry))])

    def _apart(self, neighbour: Entry, anchor: str) -> str:
        """Return what stands between an anchor and its key: as in the neighbour's line."""
        written = re.match(r"(&\S+)(\s+)", self.editor.text[neighbour.node.start : neighbour.node.end])
        if written is None or len(written[2]) == 1 or written[2].strip(" "):
            return written[2] if written else " "
        return " " * max(1, len(written[0]) - len(anchor) - 1)

    def _comment(self, neighbour: Entry, hosts: Sequence[Entry], entries: Sequence[Entry]) -> tuple[str, str]:
        """Return the name as a comment behind the key, or above it."""
        if neighbour.note and not neighbour.behind:
            return "", self._like(hosts, lambda entry: entry.note, entries)
        return behind_like(neighbour, self._like(hosts, lambda entry: entry.behind, entries)), ""

    # Rules

    def _group_of(self, rule: Rule) -> int:
        """Return the index of the key group that hosts are in, of several; otherwise that of the only one."""
        having = [index for index, group in enumerate(rule.groups) if any(key.value in self.hosts for key in group)]
        if len(rule.groups) < 2:
            return 0
        if len(having) == 1:
            return having[0]
        node = self.editor.rule_nodes()[rule.number - 1]
        many = "hosts are in several of its" if having else "no host is in any of its"
        key = f"`- {self.recipient.value} # {self.name}`"
        why = f"rule {rule.number}: {many} {len(rule.groups)} key groups, {rule.threshold} of which decrypt together"
        self.editor.by_hand = f"add {key} to the {self.recipient.kind} keys of one group by hand"
        raise self.editor.cannot(node, why)

    def _add_to(self, number: int, index: int) -> None:
        editor = self.editor
        rule = editor.rule_nodes()[number - 1]
        self._require_unnamed(rule, number, rule)
        groups = _pair(rule, "key_groups")
        if groups is not None and groups.resolved.items:
            self._require_unnamed(groups, number, rule)
            group = (groups.items or [])[index]
            self._require_unnamed(group, number, rule)
            rule_or_group = self._with_hosts(group, number, rule)
        else:
            self._require_unmerged(rule, "key_groups", number, rule)
            rule_or_group = rule
        self._add_field(rule_or_group, number, rule)

    def _with_hosts(self, group: Node, number: int, rule: Node) -> Node:
        """Return the part of a group in which hosts are: itself, or one that it merges, written out there."""
        merge = _pair(group, "merge")
        parts = [part for part in (merge.items if merge else None) or () if part.pairs is not None]
        field = self.recipient.kind.value
        for part in [group, *parts]:
            keys = _pair(part, field)
            if keys is not None and any(value_of(key.resolved.value or "") in self.hosts for key in keys.items or ()):
                return part
        return group

    def _require_unnamed(self, node: Node, number: int, rule: Node) -> None:
        """CannotEdit where something else would change with a node: it has a name, or is what a name stands for."""
        if node.target is not None:
            raise self._taken(node.target, number, rule)
        if around := self.editor.names_around(node):
            raise self._defined(around[0], number)

    def _taken(self, named: Node, number: int, rule: Node) -> CannotEdit:
        """The refusal where a rule takes its keys from elsewhere: with a list for this rule alone."""
        editor, line = self.editor, self.editor.lines.number(named.start)
        groups = editor.before.rules[number - 1].groups
        keys = [key for key in groups[self._groups[number]] if key.kind is self.recipient.kind] if groups else []
        words = [editor.word(key.value, rule.start) or scalar(key.value) for key in keys]
        written = f"{self.recipient.kind}: [{', '.join([*words, scalar(self.recipient.value)])}]"
        where = f"rule {number}"
        if len(groups) > 1:
            written, where = f"- {written}", f"key group {self._groups[number] + 1} of rule {number}"
        elif isinstance(plain := editor.plain(rule), dict) and "key_groups" in {**plain, **_merged(plain)}:
            written = f"key_groups: [{{{written}}}]"
        editor.by_hand = f"write `{written}` for {where} by hand"
        why = f"rule {number} takes its keys from &{named.anchor} (line {line}), which others may take as well"
        return editor.cannot(rule, why)

    def _defined(self, named: Node, number: int) -> CannotEdit:
        """The refusal where a name stands for what is in the rule itself, or around it."""
        editor = self.editor
        rules = {editor.rule_of(alias) for alias in editor.aliases_of([named])} - {number, None}
        users = numbered(each for each in rules if each) if rules else "nothing yet"
        key = f"`- {self.recipient.value} # {self.name}`"
        editor.by_hand = f"add {key} to it by hand if it may stand for that too, or give rule {number} keys of its own"
        why = f"&{named.anchor} stands for what rule {number} has, and would stand for more (it is taken by {users})"
        return editor.cannot(named, why)

    def _word(self, place: int) -> str:
        """Return how a rule at this place names the recipient: by its alias, or literally."""
        if self._anchor and self._anchor[1] < place:
            return f"*{self._anchor[0]}"
        return self.editor.word(self.recipient.value, place) or scalar(self.recipient.value)

    def _add_field(self, mapping: Node, number: int, rule: Node) -> None:
        field = self.recipient.kind.value
        keys = _pair(mapping, field)
        if keys is None:
            self._require_unmerged(mapping, field, number, rule)
            self._new_field(mapping, field)
        elif keys.target is not None:
            self._write_out(keys, keys.target)
        elif keys.anchor:
            raise self._defined(keys, number)
        elif keys.items is not None:
            self._append(keys)
        else:
            self._extend(keys)

    def _require_unmerged(self, mapping: Node, field: str, number: int, rule: Node) -> None:
        merged = _pair(mapping, MERGE)
        sources = (merged.items or [merged]) if merged is not None else ()
        if any(_pair(source.resolved, field) for source in sources):
            raise self._taken(next(each.target or each for each in sources), number, rule)

    def _append(self, keys: Node) -> None:
        entries = listed(self.editor.lines, keys)
        known = [index for index, entry in enumerate(entries) if _value(entry) in self.hosts]
        place = place_of(entries, known)
        word, comment, above = self._word(keys.start), "", ""
        if entries and not word.startswith("*"):
            neighbour = neighbour_of(entries, place)
            quote = neighbour.node.style if neighbour.node.style in ("'", '"') else None
            word = scalar(self.recipient.value, quote)
            if neighbour.note or neighbour.behind or not (self._is_named or self._anchor):
                comment, above = self._comment(neighbour, [entries[index] for index in known], entries)
                self._is_named = self._is_named or neighbour.is_line
        self.editor.changed[id(keys)] = _inserted(self.editor.plain(keys), place, self.recipient.value)
        insert(self.editor, keys, place, word, comment, above)

    def _extend(self, keys: Node) -> None:
        """One more key in a text with commas."""
        editor = self.editor
        words = words_in(editor.lines, keys)
        if not words:
            raise editor.cannot(keys)
        if len(words) == 1 and (entry := self._named_behind(keys)) is not None:
            self._make_list(keys, entry)
            return
        end = words[-1][1]
        between = editor.text[words[-2][1] : words[-1][0]] if len(words) > 1 else ","
        editor.splice(end, end, f"{between}{self.recipient.value}")
        editor.changed[id(keys)] = f"{keys.value},{self.recipient.value}"

    def _named_behind(self, keys: Node) -> Entry | None:
        """Return the entry of one key that stands alone in its line, where the comment behind it is its name."""
        editor, parent = self.editor, self.editor.parent(keys)
        if parent is None or parent.flow or keys.style in (">", "|"):
            return None
        entry = next((each for each in listed(editor.lines, parent) if each.node is keys), None)
        is_its = entry is not None and entry.behind == editor.before.names.get(value_of(keys.value or ""), "")
        return entry if is_its and entry is not None and entry.behind else None

    def _make_list(self, keys: Node, entry: Entry) -> None:
        """Make a list of one key, with its comment, and the recipient."""
        editor, lines, parent = self.editor, self.editor.lines, self.editor.parent(keys)
        word = next(name for name, value in (parent.pairs if parent else None) or () if value is keys)
        lead = f"{' ' * (word.start - lines.start(word.start))}  - "
        item = self._word(keys.start)
        if not item.startswith("*"):
            item = f"{scalar(self.recipient.value, keys.style or None)}{behind_like(entry, self.name)}"
            self._is_named = True
        end = lines.end(keys.end)
        editor.splice(keys.start, keys.start, f"# {ONE}{editor.newline}{lead}")
        editor.splice(end, end, lines.inserted(end, [f"{lead}{item}"]))
        editor.changed[id(keys)] = [keys.value, self.recipient.value]

    def _write_out(self, alias: Node, target: Node) -> None:
        """Write out what an alias stands for, in its place alone, with one key more."""
        editor, lines = self.editor, self.editor.lines
        parent = editor.parent(alias)
        behind = editor.text[alias.end : lines.end(alias.end)].strip()
        if parent is None or parent.flow or (behind and not behind.startswith("#")):
            raise editor.cannot(alias)
        if target.items is None:
            keys = [word.strip() for word in (target.value or "").split(",")]
        else:
            keys = [value_of(item.resolved.value or "") for item in target.items]
        keys = [key for key in keys if key]
        words = [editor.word(key, alias.start) or scalar(key) for key in keys]
        written = f"[{', '.join([*words, self._word(alias.start)])}] # *{alias.anchor} {MORE}"
        editor.splice(alias.start, alias.end, written)
        editor.changed[id(alias)] = [*keys, self.recipient.value]

    def _new_field(self, mapping: Node, field: str) -> None:
        """Write `age: …` where a rule or a group has keys of other kinds alone."""
        editor, lines = self.editor, self.editor.lines
        pairs = mapping.pairs or []
        if not pairs:
            raise editor.cannot(mapping)
        name, value = next((pair for pair in reversed(pairs) if pair[0].value in FIELDS), pairs[-1])
        word = self._word(name.start)
        is_text = value.resolved.items is None and value.resolved.pairs is None
        if mapping.flow:
            editor.splice(value.end, value.end, f", {field}: [{word}]")
        else:
            indent = " " * (name.start - lines.start(name.start))
            end = lines.end(lines.end_of(value))
            if is_text:
                block = [f"{indent}{field}: {scalar(self.recipient.value)}"]
            else:
                lead = lines.lead(value.items[0].start) if value.items and not value.flow else f"{indent}  - "
                block = [f"{indent}{field}:", f"{lead}{word}"]
            editor.splice(end, end, lines.inserted(end, block))
        plain = dict(editor.plain(mapping))
        plain[field] = self.recipient.value if is_text and not mapping.flow else [self.recipient.value]
        editor.changed[id(mapping)] = plain


def _with(rule: Rule, index: int | None, recipient: Recipient) -> Rule:
    if index is None:
        return rule
    groups = list(rule.groups) or [()]
    groups[index] = (*groups[index], recipient)
    return replace(rule, groups=tuple(groups))


def _merged(plain: Mapping[str, Any]) -> dict[str, Any]:
    taken = plain.get(MERGE) or []
    return {name: value for part in (taken if isinstance(taken, list) else [taken]) for name, value in part.items()}


def _pair(mapping: Node, name: str) -> Node | None:
    return mapping.get(name) if mapping.pairs is not None else None


def _value(entry: Entry) -> str:
    return value_of(entry.node.resolved.value or "")


def _inserted(plain: object, place: int, value: str, label: str = "") -> object:
    if isinstance(plain, dict):
        pairs = list(plain.items())
        return dict([*pairs[:place], (label, value), *pairs[place:]])
    assert isinstance(plain, list)
    return [*plain[:place], value, *plain[place:]]
