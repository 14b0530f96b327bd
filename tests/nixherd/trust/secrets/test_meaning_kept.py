"""Whatever an edit does to `.sops.yaml`, no name in it stands for something else: by a reader of its own, and sops."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nixherd.trust.secrets.keys import Recipient, age
from nixherd.trust.secrets.rules_edit import CannotEdit, add, remove, replace
from nixherd.trust.secrets.yaml_meaning import meaning
from nixherd.trust.secrets.yaml_tree import compose
from tests.nixherd.trust.secrets.keys import key
from tests.nixherd.trust.secrets.layouts.layout import KINDS, NEW, Layout
from tests.nixherd.trust.secrets.layouts.library import LAYOUTS
from tests.nixherd.trust.secrets.layouts.test_library import encrypted
from tests.nixherd.trust.secrets.test_layouts_edit import added
from tests.properties import examples

PEOPLE, HOSTS = ("alice", "bob"), ("web", "db")
EVERYBODY = (*PEOPLE, *HOSTS)
MAIL, AGAIN = key("mail").age, key("mail again").age


def anchored(text: str) -> tuple[yaml.Node, dict[str, list[yaml.Node]]]:
    """The document, and the nodes that each anchor stands for, by PyYAML's composer alone."""
    found: dict[str, list[yaml.Node]] = {}
    loader = yaml.SafeLoader(text)
    compose_node = loader.compose_node

    def noted(parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = loader.peek_event()  # type: ignore[no-untyped-call]
        node = compose_node(parent, index)
        if not isinstance(event, yaml.AliasEvent) and getattr(event, "anchor", None) and node is not None:
            found.setdefault(event.anchor, []).append(node)
        return node

    loader.compose_node = noted  # type: ignore[method-assign]
    root = loader.get_single_node()
    assert root is not None
    return root, found


def named(text: str) -> dict[str, list[Any]]:
    """What each anchor stands for."""
    return {name: [_value(node) for node in nodes] for name, nodes in anchored(text)[1].items()}


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(each) for each in node.value]
    if isinstance(node, yaml.MappingNode):
        return [(_value(name), _value(each)) for name, each in node.value]
    return node.value


def keys_of(text: str) -> list[list[Counter[str]]]:
    """The keys of each rule, group by group, by PyYAML alone."""
    rules = yaml.load(text, Loader=yaml.CSafeLoader)["creation_rules"]
    return [[Counter(set(_keys(group))) for group in rule.get("key_groups") or [rule]] for rule in rules]


def _keys(group: dict[str, Any]) -> list[str]:
    value = group.get("age") or []
    words = value if isinstance(value, list) else [value]
    merged = [each for part in group.get("merge") or [] for each in _keys(part)]
    return [*merged, *(word.strip() for each in words for word in each.split(",") if word.strip())]


@st.composite
def shared(draw: st.DrawFn) -> str:
    """A configuration in which lists, groups and rules have names, and take from each other by them."""
    flow = draw(st.booleans())
    lines = ["keys:"]
    names = ["", "hosts", "people", "all"]
    lists: list[str] = []
    for number in range(draw(st.integers(1, 2))):
        anchor = draw(st.sampled_from(names))
        names = [name for name in names if name != anchor or not name]
        members = EVERYBODY if number else draw(st.sampled_from([PEOPLE, HOSTS, EVERYBODY]))
        lines.append(f"  {anchor or 'keys'}{number}:{f' &{anchor}' if anchor else ''}")
        for name in members:
            is_new = f"&{name} " not in "\n".join(lines)
            lines.append(f"    - {f'&{name} {key(name).recipient}' if is_new else f'*{name}'}")
        lists += [anchor] if anchor else []
    for name in EVERYBODY:
        if f"&{name} " not in "\n".join(lines):
            lines += [f"  {name}: &{name} {key(name).recipient}"]
    lines.append("creation_rules:")
    rules: list[str] = []
    for number in range(draw(st.integers(1, 4))):
        who = draw(st.lists(st.sampled_from(EVERYBODY), min_size=1, unique=True))
        anchor = f"&r{number} " if draw(st.integers(0, 5)) == 0 else ""
        lines.append(f"  - {anchor}" if anchor else f"  - path_regex: ^f{number}")
        if anchor:
            lines.append(f"    path_regex: ^f{number}")
        lines += _fields(
            draw, who, lists, rules, flow=flow, inner=f"&l{number} " if draw(st.integers(0, 5)) == 0 else ""
        )
        rules += [f"r{number}"] if anchor else []
    return "\n".join(lines) + draw(st.sampled_from(["\n", ""]))


def _fields(
    draw: st.DrawFn, who: list[str], lists: list[str], rules: list[str], *, flow: bool, inner: str
) -> list[str]:
    words = [f"*{name}" for name in who]
    written = f"[{', '.join(words)}]"
    forms = [
        "list",
        "text",
        "scalar",
        "groups",
        "merge",
        *(["alias", "taken"] if lists else []),
        *(["rule"] if rules else []),
    ]
    match draw(st.sampled_from(forms)):
        case "list" if not flow:
            return [f"    age: {inner}".rstrip(), *(f"      - {word}" for word in words)]
        case "text":
            return [f"    age: {','.join(key(name).recipient for name in who)}"]
        case "scalar":
            return [f"    age: {words[0]} # somebody"]
        case "merge":
            return [
                "    key_groups:",
                "      - merge:",
                f"          - age: {written}",
                f"        age: {inner}{written}",
            ]
        case "groups":
            return [
                "    key_groups:",
                f"      - age: {inner}{written}",
                f"      - age: [*{draw(st.sampled_from(EVERYBODY))}]",
            ]
        case "alias":
            return [f"    age: *{draw(st.sampled_from(lists))}"]
        case "taken":
            return ["    key_groups:", f"      - age: *{draw(st.sampled_from(lists))}"]
        case "rule":
            return [f"    <<: *{draw(st.sampled_from(rules))}"]
    return [f"    age: {inner}{written}"]


@examples(200)
@given(shared(), st.sets(st.integers(1, 4), min_size=1), st.booleans())
def test_no_name_stands_for_something_else(text: str, rules: set[int], is_known: bool) -> None:
    hosts: dict[Recipient, str] = {key(name).age: name for name in HOSTS} if is_known else {}
    before, said = keys_of(text), named(text)
    try:
        after = add(text, MAIL, "mail", rules, beside=hosts)
    except CannotEdit:
        return
    now = named(after)
    new = {name for name in now if name not in said}
    assert new <= {"mail"}
    assert all(now[name] == said[name] for name in said if name != "hosts")
    if now.get("hosts") != said.get("hosts"):
        assert all(MAIL.value in keys for keys in _takers(text, after))
    for number, (old, groups) in enumerate(zip(before, keys_of(after), strict=True), 1):
        gained = [groups[index] - old[index] for index in range(len(old))]
        assert all(not old[index] - groups[index] for index in range(len(old)))
        already = any(MAIL.value in group for group in old)
        assert sum(gained, Counter()) == Counter({MAIL.value: 1} if number in rules and not already else {})
    assert remove(after, MAIL) == text
    assert replace(after, MAIL, AGAIN) == after.replace(MAIL.value, AGAIN.value)


def _takers(before: str, after: str) -> list[Counter[str]]:
    """The keys, afterwards, of the rules that took the list of hosts by its name before; another list may be equal."""
    root, found = anchored(before)
    rules = next(value for name, value in root.value if name.value == "creation_rules")
    now = keys_of(after)
    taken = [number for number, rule in enumerate(rules.value) if _takes(rule, found["hosts"][0])]
    return [sum(now[number], Counter()) for number in taken]


def _takes(rule: yaml.Node, hosts: yaml.Node) -> bool:
    """Whether its `age`, or that of a rule which is merged into it, is this very node."""
    fields = {name.value: value for name, value in rule.value}
    if "age" in fields:
        return fields["age"] is hosts
    return "<<" in fields and _takes(fields["<<"], hosts)


@examples(150)
@given(shared(), st.sampled_from(EVERYBODY))
def test_who_leaves_is_nowhere_and_nobody_else_is_touched(text: str, name: str) -> None:
    gone = key(name).recipient
    try:
        after = remove(text, age(gone))
    except CannotEdit:
        return
    assert gone not in after
    expected = [[Counter({each: 1 for each in group if each != gone}) for group in groups] for groups in keys_of(text)]
    assert keys_of(after) == expected
    assert set(named(text)) - {name} >= set(named(after))


def test_aliases_of_aliases_are_not_followed_for_ever() -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))
    text = f"a0: &a0 [x]\n{levels}\ncreation_rules:\n- age: {key('web').recipient}\n"
    with pytest.raises(CannotEdit, match="its aliases repeat themselves too often"):
        add(text, MAIL, "mail", [1])
    with pytest.raises(CannotEdit, match="stands in what it stands for"):
        add(f"a: &a [*a]\ncreation_rules:\n- age: {key('web').recipient}\n", MAIL, "mail", [1])
    with pytest.raises(ValueError, match="too often"):
        meaning(compose(text))


@pytest.mark.nix
@pytest.mark.parametrize("name", ["threshold", "shared-hosts", "shared-list", "merge-groups", "comments-above", "crlf"])
def test_sops_encrypts_for_whom_joined(name: str, tmp_path: Path) -> None:
    layout: Layout = LAYOUTS[name]
    (tmp_path / ".sops.yaml").write_bytes(added(layout).encode())
    for path, number in layout.paths.items():
        if number is None or set(" ".join(layout.rules[number - 1].groups).split()) & set(KINDS):
            continue
        done = encrypted(tmp_path, path)
        assert done.returncode == 0, done.stderr
        metadata = json.loads(done.stdout)["sops"]
        parts = metadata.get("key_groups") or [metadata]
        having = [entry["recipient"] for part in parts for entry in part["age"]].count(key(NEW).recipient)
        assert having == (number in layout.joins), path
