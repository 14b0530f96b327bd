"""Edits of `.sops.yaml` that keep every other byte: comments, anchors, order, quoting, indentation, line ends.

Each edit is spliced into the text at the parser's marks, and the result read back: rules, the rest of the document, and
what every anchor stands for differ in exactly what was meant. What cannot be edited like that is refused, with the
rule, the line, and what to write by hand.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from nixherd.trust.secrets.keys import FIELDS, Kind, Recipient, by_kind, value_of
from nixherd.trust.secrets.rules import RULES, Rule, Unknown, parse_rules, path_regex_of
from nixherd.trust.secrets.rules_add import Adding
from nixherd.trust.secrets.rules_cut import Cutting, without_rules
from nixherd.trust.secrets.rules_insert import insert
from nixherd.trust.secrets.rules_text import CannotEdit, RulesText, numbered, scalar, words_in
from nixherd.trust.secrets.yaml_meaning import mapped
from nixherd.trust.secrets.yaml_tree import Node

__all__ = ["CannotEdit", "add", "add_rule", "remove", "remove_rules", "replace"]


def add(
    text: str,
    recipient: Recipient,
    name: str,
    rules: Collection[int],
    *,
    beside: Mapping[Recipient, str] | Collection[Recipient] = (),
) -> str:
    """Return the text with a recipient in the list of keys, where there is one, and in the rules of these numbers.

    Numbers are from 1. `name` is a host's id; its anchor or comment is made as those of the other hosts, which are
    `beside` with their ids. The same text where it is there already. Raise CannotEdit.
    """
    numbers = numbered(rules) if rules else "no rule"
    editor = RulesText(text, f"add by hand: `- {recipient.value} # {name}` to the keys of {numbers}")
    joined = [rule for rule in editor.before.rules if rule.number in rules and recipient not in rule.recipients]
    hosts = beside if isinstance(beside, Mapping) else {key: editor.before.names.get(key.value, "") for key in beside}
    return Adding(editor, recipient, name, hosts).join(joined)


def add_rule(text: str, path: str, recipients: Sequence[Recipient], *, comment: str) -> str:
    """Return the text with a rule for one file, `path` as rules see it, for these recipients.

    It is written as its neighbour is, with the comment where that has one. It comes last, or before the first rule that
    matches the file already, which would hide it. Raise CannotEdit.
    """
    pattern = path_regex_of(path)
    keys = "; ".join(f"{kind}: {','.join(values)}" for kind, values in by_kind(recipients).items())
    editor = RulesText(text, f"add a rule by hand: path_regex: {pattern}, {keys}")
    other, rules = editor.before.rule_of(path), editor.before.rules
    if isinstance(other, Unknown):
        raise editor.cannot(why=other.why)
    if any(key.kind not in (Kind.AGE, Kind.PGP) for key in recipients):
        raise editor.cannot()
    place = other.number - 1 if other else len(rules)
    written = _add_rule(editor, place, pattern, recipients, comment)
    expected = [*rules[:place], Rule(0, pattern, (tuple(dict.fromkeys(recipients)),)), *rules[place:]]
    document = {**editor.meaning.document}
    document[RULES] = [*document[RULES][:place], written, *document[RULES][place:]]
    return editor.result(expected, document, editor.meaning.anchors)


def remove(text: str, recipient: Recipient) -> str:
    """Return the text without this recipient, in its list of keys and in every rule; the same where it is not there."""
    return Cutting(RulesText(text, f"take {recipient.value} out of it by hand"), recipient).leave()


def remove_rules(text: str, numbers: Collection[int]) -> str:
    """Return the text without the rules of these numbers, each with the comment that is its. Raise CannotEdit.

    The last rule goes where the list of keys names somebody still, for whom the next one can be.
    """
    numbers = set(numbers)
    rules = numbered(numbers)
    editor = RulesText(text, f"take {rules} out of it by hand")
    result = without_rules(editor, numbers)
    if numbers and not parse_rules(result).known:
        editor.by_hand = "add another one first, or remove that file and its secrets by hand (git rm)"
        raise editor.cannot(why=f"without {rules} it has none, and no file of it could be encrypted any more")
    return result


def replace(text: str, old: Recipient, new: Recipient) -> str:
    """Return the text with another key in this one's place, name and rules as they were."""
    editor = RulesText(text, f"write {new.value} for {old.value} by hand")
    if old.kind is not new.kind:
        raise editor.cannot(why=f"{old.value} is of {old.kind}, {new.value} of {new.kind}")

    def swapped(value: str) -> str:
        words = [new.value if value_of(word) == old.value else word.strip() for word in value.split(",")]
        return ",".join(words) if any(word == new.value for word in words) else value

    for node in editor.tree.root.walk():
        if node.value is None or swapped(node.value) == node.value:
            continue
        for start, end, word in words_in(editor.lines, node) or ():
            if value_of(word) == old.value:
                editor.splice(start, end, new.value)
    rules = [_replaced(rule, old, new) for rule in editor.before.rules]
    anchors = {name: tuple(mapped(each, swapped) for each in values) for name, values in editor.meaning.anchors.items()}
    names = {new.value if value == old.value else value: name for value, name in editor.before.names.items()}
    return editor.result(rules, mapped(editor.meaning.document, swapped), anchors, names=names)


def _replaced(rule: Rule, old: Recipient, new: Recipient) -> Rule:
    groups = (tuple(dict.fromkeys(new if key == old else key for key in group)) for group in rule.groups)
    return dataclasses.replace(rule, groups=tuple(groups))


# A rule


def _add_rule(
    editor: RulesText, place: int, pattern: str, recipients: Sequence[Recipient], comment: str
) -> dict[str, object]:
    """Write a rule at this place of the list (from 0), like its neighbour; return what it says."""
    lines, rules = editor.lines, editor.rules
    items = rules.items or []
    if not items and rules.flow:
        return _first_rule(editor, pattern, recipients)
    if not items or rules.flow:
        raise editor.cannot(rules)
    item = items[min(place, len(items) - 1)]
    begin, lead = lines.start(item.start), lines.lead(item.start)
    if not lines.is_item(item.start) or item.flow:
        raise editor.cannot(item)
    position = lines.start(item.start) if place < len(items) else lines.end(lines.end_of(item))
    block, written = _rule_lines(editor, lead, item.resolved, pattern, recipients, position)
    has_comment = bool(lines.comments_above(begin))
    if has_comment:
        block.insert(0, f"{lines.indent(item.start)}# {comment}")
    gap = [""] if _is_apart(editor, items) else []
    if place < len(items):  # above the comment that is the next one's
        above = lines.comments_above(begin)
        position = above[-1][0] if above else begin
        editor.splice(position, position, lines.inserted(position, [*block, *gap]))
    else:
        editor.splice(position, position, lines.inserted(position, [*gap, *block]))
    return written


def _first_rule(editor: RulesText, pattern: str, recipients: Sequence[Recipient]) -> dict[str, object]:
    """Write a rule into `creation_rules: []`; return what it says."""
    keys = {kind.value: values for kind, values in by_kind(recipients).items()}
    block = [f"path_regex: {scalar(pattern)}", "    key_groups:"]
    lead = "      - "
    for kind, values in keys.items():
        names = (editor.word(value, editor.rules.start) or scalar(value) for value in values)
        block += [f"{lead}{kind}:", *(f"          - {name}" for name in names)]
        lead = "        "
    insert(editor, editor.rules, 0, editor.newline.join(block))
    return {"path_regex": pattern, "key_groups": [keys]}


def _is_apart(editor: RulesText, items: Sequence[Node]) -> bool:
    """Tell whether blank lines stand between rules."""
    lines = editor.lines
    return len(items) > 1 and any(
        not line.strip() for line in editor.text[lines.end(lines.end_of(items[-2])) : items[-1].start].splitlines()[:-1]
    )


def _rule_lines(
    editor: RulesText, lead: str, like: Node, pattern: str, recipients: Sequence[Recipient], place: int
) -> tuple[list[str], dict[str, object]]:
    blank, keys = " " * len(lead), {kind.value: values for kind, values in by_kind(recipients).items()}
    words = {kind: [editor.word(value, place) or scalar(value) for value in values] for kind, values in keys.items()}
    first = f"{lead}path_regex: {scalar(pattern)}"
    groups = like.get("key_groups")
    if groups is not None and groups.resolved.items:
        group = groups.resolved.items[0]
        dash = blank + "  - "
        if not groups.is_alias and not groups.flow and editor.lines.is_item(group.start):
            dash = editor.lines.lead(group.start)
        block = _fields(editor, group.resolved, dash, words)
        return [first, f"{blank}key_groups:", *block], {"path_regex": pattern, "key_groups": [dict(keys)]}
    if any(value.resolved.items is not None for name, value in like.pairs or () if name.value in FIELDS):
        return [first, *_fields(editor, like, blank, words)], {"path_regex": pattern, **keys}
    texts = {kind: ",".join(values) for kind, values in keys.items()}
    return [first, *(f"{blank}{kind}: {text}" for kind, text in texts.items())], {"path_regex": pattern, **texts}


def _fields(editor: RulesText, like: Node, lead: str, words: Mapping[str, Sequence[str]]) -> list[str]:
    """Write lists of keys as those of a rule or a group are; the first in a line that begins with `lead`."""
    lines, indent = editor.lines, " " * len(lead)
    lists = [value for name, value in like.pairs or () if name.value in FIELDS and value.items]
    block: list[str] = []
    for kind, names in words.items():
        head = indent if block else lead
        if lists and lists[0].flow:
            block.append(f"{head}{kind}: [{', '.join(names)}]")
            continue
        first = lists[0].items[0].start if lists and lists[0].items else None
        item = lines.lead(first) if first is not None and lines.is_item(first) else f"{indent}  - "
        block += [f"{head}{kind}:", *(f"{item}{name}" for name in names)]
    return block
