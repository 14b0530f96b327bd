"""Edits of `.sops.yaml` that keep every other byte: comments, anchors, order, quoting, indentation, line ends.

Each edit is spliced into the text at the parser's marks, and the result read back: the rules must differ from those
before in exactly what was asked for. What cannot be edited like that is refused, with the lines to add by hand.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace as replaced

import yaml

from nixherd.base.errors import FleetError
from nixherd.nix.edit import Splice, spliced
from nixherd.trust.secrets.keys import Group, Recipient
from nixherd.trust.secrets.rules import Rule, Unknown, parse_rules
from nixherd.trust.secrets.yaml_tree import LOADER, Node, compose

_RULES = "creation_rules"
_DOT = r"\."  # the only character of a plain path that means more in a regular expression
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
_NOT_KEYS = (_RULES, "destination_rules", "stores")
Splices = list[Splice[str]]


class CannotEdit(FleetError):
    """The file is written in a way that cannot be edited faithfully; the message has what to write by hand."""


def add(
    text: str, recipient: Recipient, name: str, rules: Collection[int], *, beside: Collection[Recipient] = ()
) -> str:
    """The text with a recipient in the key list, where there is one, and in the rules of these numbers (from 1).

    `name` becomes its anchor or its comment, as the others have theirs. Of several key lists it comes into the one
    with most of the keys `beside`. The same text where it is there already. Raises CannotEdit.
    """
    editor = _Editor(text, f"add by hand: `- {recipient.value} # {name}` to the keys of {_list_of(rules)}")
    joined = [rule for rule in editor.before.rules if rule.number in rules and recipient not in rule.recipients]
    word = editor.add_key(recipient.value, name, {key.value for key in beside})
    for rule in joined:
        editor.add_to_rule(rule, word, recipient.value, name)
    return editor.changed({rule.number: (*rule.groups[:-1], (*rule.groups[-1], recipient)) for rule in joined})


def add_rule(text: str, path: str, recipients: Sequence[Recipient], *, comment: str) -> str:
    """The text with a rule for one file, `path` as rules see it, for these recipients, who are there already.

    It is written as its neighbour is, with the comment where that has one. It comes last, or before the first rule that
    matches the file already, which would hide it. Raises CannotEdit.
    """
    pattern = f"^{path.replace('.', _DOT)}$"
    assert _PLAIN.fullmatch(path), "made of a host's id"
    values = [key.value for key in recipients]
    editor = _Editor(text, f"add a rule by hand: path_regex: {pattern}, age: {','.join(values)}")
    other, rules = editor.before.rule_of(path), editor.before.rules
    if isinstance(other, Unknown):
        raise CannotEdit(f".sops.yaml: {other.why}; {editor.by_hand}")
    place = other.number - 1 if other else len(rules)
    editor.add_rule(place, pattern, values, comment)
    rule = Rule(0, pattern, (tuple(dict.fromkeys(recipients)),))
    expected = [*rules[:place], rule, *rules[place:]]
    return editor.edited(expected, lambda rule: (rule.path_regex, rule.groups))


def remove(text: str, recipient: Recipient) -> str:
    """The text without this recipient, in its key list and in every rule; the same text where it is not there."""
    editor = _Editor(text, f"take {recipient.value} out of it by hand")
    editor.remove(recipient.value)
    rules = [rule for rule in editor.before.rules if recipient in rule.recipients]
    changed = {rule.number: tuple(_without(group, recipient) for group in rule.groups) for rule in rules}
    if any(not all(groups) for groups in changed.values()):
        raise CannotEdit(f".sops.yaml: a rule has no recipient but {recipient.value}; name another one there first")
    return editor.changed(changed)


def remove_rules(text: str, numbers: Collection[int]) -> str:
    """The text without the rules of these numbers (from 1), each with the comment right above it. Raises CannotEdit."""
    editor = _Editor(text, f"take {_list_of(numbers)} out of it by hand")
    for number in numbers:
        editor.remove_rule(number)
    left = [rule for rule in editor.before.rules if rule.number not in numbers]
    return editor.edited(left, lambda rule: replaced(rule, number=0))


def replace(text: str, old: Recipient, new: Recipient) -> str:
    """The text with another key in this one's place, name and rules as they were."""
    editor = _Editor(text, f"write {new.value} for {old.value} by hand")
    for node in editor.tree.root.walk():
        if node.value is not None and old.value in node.value:
            found = _within(text, node, re.escape(old.value))
            editor.splices += [Splice(each.start(), each.end(), new.value) for each in found]
    return editor.changed(
        {
            rule.number: tuple(
                tuple(dict.fromkeys(new if key == old else key for key in group)) for group in rule.groups
            )
            for rule in editor.before.rules
        }
    )


def _without(group: Group, recipient: Recipient) -> Group:
    return tuple(key for key in group if key != recipient)


def _list_of(rules: Collection[int]) -> str:
    return "rule " + " and ".join(map(str, sorted(rules))) if rules else "no rule"


def _outside(text: str) -> object:
    """What the document says beside keys and rules."""
    return {key: value for key, value in yaml.load(text, Loader=LOADER).items() if key in _NOT_KEYS[1:]}


def _within(text: str, node: Node, pattern: str) -> Iterator[re.Match[str]]:
    return re.compile(pattern).finditer(text, node.start, node.end)


class _Editor:
    """Collects the splices of one edit."""

    def __init__(self, text: str, by_hand: str) -> None:
        self.text, self.by_hand = text, by_hand
        try:
            self.before, self.tree = parse_rules(text), compose(text)
        except (ValueError, yaml.YAMLError) as error:
            raise CannotEdit(f".sops.yaml: {str(error).splitlines()[0]}; correct it, or {by_hand}") from None
        self.newline = "\r\n" if "\r\n" in text else "\n"
        self.splices: Splices = []
        self._edited: set[int] = set()
        self._rules = self.tree.resolved(self.tree.root.get(_RULES))

    def changed(self, groups: Mapping[int, tuple[Group, ...]]) -> str:
        """The edited text, when the rules of these numbers have these groups in it, and no other rule differs."""
        expected = [replaced(rule, groups=groups.get(rule.number, rule.groups)) for rule in self.before.rules]
        return self.edited(expected, lambda rule: ([set(group) for group in rule.groups], replaced(rule, groups=())))

    def edited(self, expected: Sequence[Rule], meant: Callable[[Rule], object]) -> str:
        """The edited text, when what is `meant` by its rules is as expected and everything else says what it did."""
        try:
            result = spliced(self.text, self.splices)
            same = [*map(meant, parse_rules(result).rules)] == [*map(meant, expected)]
            same = same and _outside(self.text) == _outside(result)
        except (ValueError, yaml.YAMLError):
            same = False
        if not same:
            raise CannotEdit(f".sops.yaml is written in a way that is not edited here; {self.by_hand}")
        return result

    def _cannot(self, node: Node) -> CannotEdit:
        line = self.text.count("\n", 0, node.start) + 1
        return CannotEdit(f".sops.yaml:{line}: it is written in a way that is not edited here; {self.by_hand}")

    def add_key(self, recipient: str, name: str, beside: Collection[str]) -> str:
        """Put the key into the key list and return how rules name it: by an alias, or literally."""
        if (word := self._word(recipient)) != recipient:
            return word
        lists = [node for node in self._key_lists() if recipient not in [item.value for item in node.items or ()]]
        if not lists or len(lists) < len(list(self._key_lists())):
            return recipient  # the list is missing, or has no anchor
        best = max(reversed(lists), key=lambda node: sum(item.value in beside for item in node.items or ()))
        items = best.items or []
        if not any(item.anchor for item in items):
            self._append(best, recipient, name)
            return recipient
        anchor = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        if anchor in self.tree.anchors:
            raise CannotEdit(f".sops.yaml: the anchor &{anchor} is another key's; rename it, or replace its key")
        self._append(best, f"&{anchor} {recipient}", None)
        return f"*{anchor}"

    def _key_lists(self) -> Iterator[Node]:
        for key, value in self.tree.root.pairs or ():
            if key.value not in _NOT_KEYS:
                yield from (node for node in value.walk() if node.items and any(map(_is_key, node.items)))

    def add_to_rule(self, rule: Rule, word: str, recipient: str, name: str) -> None:
        node = self._age_of(rule)
        if id(node) in self._edited:
            return
        self._edited.add(id(node))
        if node.items is not None:
            self._append(node, word, None if word.startswith("*") else name)
        elif node.value is not None and node.value.strip():
            self._extend(node, recipient)
        else:
            raise self._cannot(node)

    def _age_of(self, rule: Rule) -> Node:
        """The list or text in which the rule's age keys stand."""
        rules = self._rules
        entry = self.tree.resolved((rules.items or [])[rule.number - 1]) if rules else None
        assert entry is not None, "the rules were parsed from this text"
        groups = self.tree.resolved(entry.get("key_groups"))
        if groups is not None and groups.items:
            if len(groups.items) != 1:  # with several groups a threshold decides: not a thing to guess
                raise self._cannot(groups)
            entry = self.tree.resolved(groups.items[0]) or entry
        age = self.tree.resolved(entry.get("age"))
        if age is None:
            raise self._cannot(entry)
        return age

    def _append(self, sequence: Node, word: str, name: str | None) -> None:
        """One more item; with `name` its comment, where the items before it have theirs."""
        items = sequence.items or []
        if sequence.flow:
            self._append_flow(sequence, items, word)
            return
        if not items:
            raise self._cannot(sequence)
        last = items[-1]
        begin = self._line_start(last.start)
        lead = self.text[begin : last.start]
        if not re.fullmatch(r"\s*-\s+", lead):
            raise self._cannot(last)
        end = self._line_end(last.end)
        behind = re.match(r"(\s+#+\s*)\S", self.text[last.end : end])
        above = name is not None and behind is None and self._comment_above(begin)
        comment = "" if name is None or above else f"{behind[1] if behind else ' # '}{name}"
        line = f"{lead}{word}{comment}"
        if above:
            line = f"{lead[: len(lead) - len(lead.lstrip())]}# {name}{self.newline}{line}"
        at_end = end == len(self.text) and not self.text.endswith("\n")
        self.splices.append(Splice(end, end, f"{self.newline}{line}" if at_end else f"{line}{self.newline}"))

    def _append_flow(self, sequence: Node, items: list[Node], word: str) -> None:
        if not items:
            self.splices.append(Splice(sequence.end - 1, sequence.end - 1, word))
            return
        if "#" in self.text[items[-1].end : sequence.end]:
            raise self._cannot(sequence)
        between = self.text[items[-2].end : items[-1].start] if len(items) > 1 else ", "
        end = items[-1].end
        self.splices.append(Splice(end, end, f"{', ' if '#' in between else between}{word}"))

    def _extend(self, scalar: Node, recipient: str) -> None:
        """One more key in a text with commas."""
        written = self.text[scalar.start : scalar.end]
        if scalar.style in (">", "|"):
            body = written.rstrip()
            last = body.rsplit("\n", 1)[-1]
            indent = last[: len(last) - len(last.lstrip())]
            comma = "" if body.endswith(",") else ","
            many = body.count("\n") > 1
            more = f"{comma}{self.newline}{indent}{recipient}" if many else f"{comma}{recipient}"
            end = scalar.start + len(body)
        else:
            end = scalar.end - (1 if scalar.style in ("'", '"') else 0)
            spaced = ", " if ", " in written else ","
            more = f"{'' if written.rstrip().endswith(',') else spaced}{recipient}"
        self.splices.append(Splice(end, end, more))

    def _comment_above(self, begin: int) -> bool:
        line = self.text[self._line_start(begin - 1) : begin].strip()
        return line.startswith("#")

    def _line_start(self, position: int) -> int:
        return self.text.rfind("\n", 0, max(position, 0)) + 1

    def _line_end(self, position: int) -> int:
        found = self.text.find("\n", position)
        return len(self.text) if found < 0 else found + 1

    def add_rule(self, place: int, pattern: str, recipients: Sequence[str], comment: str) -> None:
        """A rule at this place of the list (from 0), like its neighbour."""
        rules = self._rules
        items = (rules.items if rules else None) or []
        if rules is None or not items or rules.flow:
            raise self._cannot(rules or self.tree.root)
        item = items[min(place, len(items) - 1)]
        like = self.tree.resolved(item) or item
        begin = self._line_start(item.start)
        lead = self.text[begin : item.start]
        if not re.fullmatch(r"[ \t]*-[ \t]+", lead) or item.flow:
            raise self._cannot(item)
        lines = self._rule_lines(lead, like, pattern, [self._word(key) for key in recipients])
        if self._comment_above(begin):
            lines.insert(0, f"{lead[: len(lead) - len(lead.lstrip())]}# {comment}")
        block = self.newline.join(lines) + self.newline
        if place < len(items):  # above the comment that is the next one's
            while begin and self._comment_above(begin):
                begin = self._line_start(begin - 1)
            self.splices.append(Splice(begin, begin, block + (self.newline if self._is_apart(items) else "")))
            return
        end = self._line_end(item.end)
        gap = self.newline if self._is_apart(items) else ""
        at_end = end == len(self.text) and not self.text.endswith("\n")
        self.splices.append(Splice(end, end, f"{self.newline if at_end else ''}{gap}{block}"))

    def _rule_lines(self, lead: str, like: Node, pattern: str, words: Sequence[str]) -> list[str]:
        blank = " " * len(lead)
        first = f"{lead}path_regex: {pattern}"
        groups = self.tree.resolved(like.get("key_groups"))
        if groups is not None and groups.items:
            return [first, f"{blank}key_groups:", f"{blank}  - age:", *(f"{blank}      - {word}" for word in words)]
        age = self.tree.resolved(like.get("age"))
        if age is not None and age.items is not None:
            return [first, f"{blank}age:", *(f"{blank}  - {word}" for word in words)]
        keys = [self.tree.anchors[word[1:]].value or "" if word.startswith("*") else word for word in words]
        return [first, f"{blank}age: {','.join(keys)}"]

    def _word(self, recipient: str) -> str:
        """How a rule names a key that is there: by its alias, or literally."""
        return next((f"*{anchor}" for anchor, node in self.tree.anchors.items() if node.value == recipient), recipient)

    def _is_apart(self, items: Sequence[Node]) -> bool:
        """Whether blank lines stand between rules."""
        return len(items) > 1 and re.search(r"\n[ \t]*\r?\n", self.text[items[-2].end : items[-1].start]) is not None

    def remove(self, recipient: str) -> None:
        anchors = {anchor for anchor, node in self.tree.anchors.items() if node.value == recipient}

        def is_it(node: Node) -> bool:
            return node.value == recipient or (node.is_alias and node.anchor in anchors)

        for node in self.tree.root.walk():
            if node.items and any(map(is_it, node.items)):
                (self._cut_flow if node.flow else self._cut_lines)(node, is_it)
            elif node.value is not None and "," in node.value and recipient in node.value:
                self._cut_word(node, recipient)

    def remove_rule(self, number: int) -> None:
        """Its lines, the comment right above them, and the blank line that set it apart."""
        rules = self._rules
        if rules is None or not rules.items or rules.flow or number > len(rules.items):
            raise self._cannot(rules or self.tree.root)
        entry = rules.items[number - 1]
        begin = self._line_start(entry.start)
        lead = self.text[begin : entry.start]
        end = self._line_end(entry.start + len(_without_what_follows(self.text[entry.start : entry.end], lead)))
        if not re.fullmatch(r"\s*-\s+(&\S+\s+)?", lead):
            raise self._cannot(entry)
        while self._comment_above(begin):
            begin = self._line_start(begin - 1)
        above = self._line_start(begin - 1)
        is_last = not self.text[end:].strip() or not self.text[end : self._line_end(end)].strip()
        if begin and not self.text[above:begin].strip() and is_last:
            begin = above
        self.splices.append(Splice(begin, end, ""))

    def _cut_lines(self, sequence: Node, is_it: Callable[[Node], bool]) -> None:
        for item in filter(is_it, sequence.items or ()):
            begin, end = self._line_start(item.start), self._line_end(item.end)
            if not re.fullmatch(r"\s*-\s+", self.text[begin : item.start]):
                raise self._cannot(item)
            behind = "#" in self.text[item.end : end]
            if not behind and not item.anchor and not item.is_alias and self._comment_above(begin):
                begin = self._line_start(begin - 1)
            self.splices.append(Splice(begin, end, ""))

    def _cut_flow(self, sequence: Node, is_it: Callable[[Node], bool]) -> None:
        items = sequence.items or []
        for index, item in enumerate(items):
            if not is_it(item):
                continue
            start = items[index - 1].end if index else item.start
            end = items[1].start if not index and len(items) > 1 else item.end
            if "#" in self.text[start:end]:
                raise self._cannot(item)
            self.splices.append(Splice(start, end, ""))

    def _cut_word(self, scalar: Node, recipient: str) -> None:
        word = re.escape(recipient)
        found = next(_within(self.text, scalar, rf"{word}\s*,\s*|,\s*{word}"), None)
        if found is None:
            raise self._cannot(scalar)
        self.splices.append(Splice(found.start(), found.end(), ""))


def _without_what_follows(entry: str, lead: str) -> str:
    """An entry without the blank lines and comments behind it, which the parser counts to a text that is folded."""
    column = len(lead) - len(lead.lstrip())
    lines = entry.splitlines(keepends=True)
    while lines and re.match(rf"\s*$| {{0,{column}}}#", lines[-1]):
        lines.pop()
    return "".join(lines).rstrip()


def _is_key(node: Node) -> bool:
    return node.value is not None and node.value.startswith("age1")
