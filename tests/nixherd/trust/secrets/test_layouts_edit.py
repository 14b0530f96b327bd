"""Edits of all layouts: exactly the lines that the library says, or refused; nothing else stands for something else."""

import difflib

import pytest

from nixherd.trust.secrets.keys import Kind, Recipient
from nixherd.trust.secrets.rules import Rule, parse_rules
from nixherd.trust.secrets.rules_edit import CannotEdit, add, remove, remove_rules, replace
from nixherd.trust.secrets.yaml_meaning import meaning
from nixherd.trust.secrets.yaml_tree import compose
from tests.nixherd.trust.secrets.layouts.layout import KEYS, KINDS, NEW, Layout, written
from tests.nixherd.trust.secrets.layouts.library import LAYOUTS


def recipient(label: str) -> Recipient:
    return Recipient(Kind(KINDS.get(label, "age")), KEYS[label])


def some(*, exact: str) -> pytest.MarkDecorator:
    """Those layouts in which this edit is done."""
    chosen = {name: layout for name, layout in LAYOUTS.items() if getattr(layout, exact) is not None}
    return pytest.mark.parametrize("layout", chosen.values(), ids=chosen)


ALL = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
MAIL = recipient(NEW)


def added(layout: Layout) -> str:
    hosts = {recipient(label): host for label, host in layout.hosts.items()}
    return add(layout.text, MAIL, NEW, layout.joins, beside=hosts)


def difference(before: str, after: str) -> tuple[list[str], list[str], int]:
    """Lines that are gone, lines that are new, and the number of the line above the first new one."""
    gone, new, place = [], [], 0
    matcher = difflib.SequenceMatcher(None, before.split("\n"), after.split("\n"), autojunk=False)
    for kind, start, end, other, stop in matcher.get_opcodes():
        if kind != "equal":
            gone += before.split("\n")[start:end]
            new += after.split("\n")[other:stop]
            place = place or other
    return [line.rstrip("\r") for line in gone], [line.rstrip("\r") for line in new], place


def groups(rule: Rule) -> list[set[Recipient]]:
    return [set(group) for group in rule.groups]


@some(exact="added")
def test_a_host_joins(layout: Layout) -> None:
    after = added(layout)
    _, new, place = difference(layout.text, after)
    assert new == [written(line) for line in layout.added or ()]
    assert after.split("\n")[place - 1].startswith(written(layout.below))
    assert after.count("\r\n") == (after.count("\n") if "\r\n" in layout.text else 0)
    for old, rule in zip(parse_rules(layout.text).rules, parse_rules(after).rules, strict=True):
        joins = rule.number in layout.joins
        assert len(groups(rule)) == max(len(groups(old)), joins)
        assert set(rule.recipients) == {*old.recipients, *([MAIL] if joins else [])}


@some(exact="added")
def test_what_joined_leaves_with_the_same_bytes(layout: Layout) -> None:
    assert remove(added(layout), MAIL) == layout.text


@some(exact="added")
def test_who_has_joined_does_not_join_again(layout: Layout) -> None:
    after = added(layout)
    hosts = {recipient(label): host for label, host in layout.hosts.items()}
    assert add(after, MAIL, NEW, layout.joins, beside=hosts) == after


@some(exact="added")
def test_a_new_key_has_the_old_ones_place(layout: Layout) -> None:
    after, again = added(layout), recipient("mail again")
    assert replace(after, MAIL, again) == after.replace(MAIL.value, again.value)
    assert remove(replace(after, MAIL, again), again) == layout.text


@some(exact="added")
def test_nobody_else_is_called_otherwise(layout: Layout) -> None:
    after = added(layout)
    before, names = parse_rules(layout.text).names, dict(parse_rules(after).names)
    names.pop(MAIL.value, None)
    assert names == before
    anchors = meaning(compose(layout.text)).anchors
    changed = {name for name, values in meaning(compose(after)).anchors.items() if anchors.get(name, values) != values}
    assert changed <= {"hosts"}


@ALL
def test_what_cannot_be_done_says_what_to_write(layout: Layout) -> None:
    if layout.added is not None:
        return
    with pytest.raises(CannotEdit, match=written(layout.refusal)) as caught:
        added(layout)
    assert "\n" not in str(caught.value)
    assert MAIL.value in str(caught.value)


@some(exact="removed")
def test_a_host_leaves(layout: Layout) -> None:
    web = recipient("web")
    after = remove(layout.text, web)
    gone, new, _ = difference(layout.text, after)
    lines = [line.rstrip("\r") for line in layout.text.split("\n")]
    expected = [written(line) for line in layout.removed or ()]
    assert new == [line for line in expected if line not in lines]
    assert [line for line in gone if line in expected] == [line for line in expected if line in lines]
    assert all(
        line in expected or web.value in line or "*" in line or {line.rstrip(","), f"{line} []"} & {*new}
        for line in gone
    )
    assert web.value not in after
    for old, rule in zip(parse_rules(layout.text).rules, parse_rules(after).rules, strict=True):
        assert groups(rule) == [group - {web} for group in groups(old)]
    names = dict(parse_rules(layout.text).names)
    names.pop(web.value, None)
    assert parse_rules(after).names == names


@ALL
def test_everybody_is_replaced_and_back(layout: Layout) -> None:
    for label, value in KEYS.items():
        if recipient(label) not in parse_rules(layout.text).known or label in KINDS:
            continue
        after = replace(layout.text, recipient(label), recipient("mail again"))
        assert after == layout.text.replace(value, KEYS["mail again"])
        assert replace(after, recipient("mail again"), recipient(label)) == layout.text


@pytest.mark.parametrize(
    "layout", [each for each in LAYOUTS.values() if each.name != "flow"], ids=lambda each: each.name
)
def test_a_rule_leaves(layout: Layout) -> None:
    before = parse_rules(layout.text).rules
    for rule in before[1:]:
        after = remove_rules(layout.text, [rule.number])
        assert [each.groups for each in parse_rules(after).rules] == [each.groups for each in before if each != rule]
