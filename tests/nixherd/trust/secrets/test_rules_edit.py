"""Edits of `.sops.yaml`: what was meant, every other byte as it was, refused where it cannot be done like that."""

import difflib
import re

import pytest
import yaml
from hypothesis import given

from nixherd.trust.secrets.rules import Rule, parse_rules
from nixherd.trust.secrets.rules_edit import CannotEdit, add, add_rule, remove, remove_rules, replace
from tests.nixherd.trust.secrets.keys import PEOPLE, configurations, key
from tests.properties import examples

DEV, NEW = key("dev").recipient, key("dev again").recipient
DEV_KEY, NEW_KEY = key("dev").age, key("dev again").age
MANY = examples(200)


@pytest.mark.slow
@MANY
@given(configurations())
def test_whatever_is_added_replaced_and_removed_nothing_else_changes(sample: tuple[str, list[int]]) -> None:
    text, rules = sample
    before = parse_rules(text)
    added = add(text, DEV_KEY, "dev", rules, beside=[key("doc1").age])
    after = parse_rules(added)
    assert [set(rule.recipients) for rule in after.rules] == [{*rule.recipients, DEV_KEY} for rule in before.rules]
    assert only_insertions(text, added)
    assert add(added, DEV_KEY, "dev", rules) == added
    assert replace(added, DEV_KEY, NEW_KEY) == added.replace(DEV, NEW)
    assert remove(added, DEV_KEY) in (text, _in_brackets(text))
    assert yaml.safe_load(added) is not None


def _in_brackets(text: str) -> str:
    """As `age: [KEY] # note` for `age: KEY # note`: the note is what another key is called, not this one."""
    return re.sub(r"(?m)^(\s+age: )(age1\w+)( +#.*ünïcödé.*| +#x)(\r?)$", r"\1[\2]\3\4", text)


def only_insertions(before: str, after: str) -> bool:
    """Whether all of `before` is in `after`, in its order."""
    old_lines, new_lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
    matcher = difflib.SequenceMatcher(None, old_lines, new_lines, autojunk=False)
    for kind, start, end, other, stop in matcher.get_opcodes():
        if kind == "replace":
            olds, news = "".join(old_lines[start:end]), "".join(new_lines[other:stop])
            letters = iter(news)
            if not all(letter in letters for letter in olds):
                return False
        elif kind == "delete":
            return False
    return True


@examples(100)
@given(configurations())
def test_somebody_who_was_there_leaves(sample: tuple[str, list[int]]) -> None:
    text, _ = sample
    before = parse_rules(text)
    for name in PEOPLE:
        who = key(name).age
        if any(rule.recipients == (who,) for rule in before.rules):
            with pytest.raises(CannotEdit, match=r"rule \d has no recipient but"):
                remove(text, who)
            continue
        after = parse_rules(remove(text, who))
        assert [rule.recipients for rule in after.rules] == [
            tuple(each for each in rule.recipients if each != who) for rule in before.rules
        ]
        assert who.value not in remove(text, who)


def test_a_note_of_several_keys_is_not_the_name_of_the_one_that_stays() -> None:
    text = f"creation_rules:\n- path_regex: a\n  age: {DEV},{DOC1} # x\n- path_regex: b\n  age:\n  - {ADMIN} # x\n"
    assert remove(text, DEV_KEY) == text.replace(f"{DEV},{DOC1}", f"[{DOC1}]")
    assert remove(text, key("doc1").age) == text.replace(f"{DEV},{DOC1}", f"[{DEV}]")
    assert parse_rules(remove(text, DEV_KEY)).names == {ADMIN: "x"}
    other = text.replace("# x\n- path", "# of both\n- path")
    assert remove(other, DEV_KEY) == other.replace(f"{DEV},", "")


@examples(100)
@given(configurations())
def test_a_rule_goes_and_the_others_stay(sample: tuple[str, list[int]]) -> None:
    text, numbers = sample
    before = parse_rules(text)
    for number in numbers[1:]:  # without any rule it is not a configuration
        after = remove_rules(text, [number])
        assert [(rule.path_regex, rule.recipients) for rule in parse_rules(after).rules] == [
            (rule.path_regex, rule.recipients) for rule in before.rules if rule.number != number
        ]
        assert all(line in text.splitlines() for line in after.splitlines())
        assert f"# rule {number - 1}" not in after
        assert all(f"# rule {other - 1}" in after for other in numbers if other != number)


def test_what_stands_in_a_rule_for_another_is_not_taken_away() -> None:
    text = f"creation_rules:\n- path_regex: a\n  age: &all [{ADMIN}]\n- path_regex: b\n  age: *all\n"
    with pytest.raises(CannotEdit, match=r"s.yaml:3: &all stands .* used in line 5; take rule 1 out of it by hand"):
        remove_rules(text, [1])
    assert remove_rules(text, [2]) == text.partition("- path_regex: b")[0]


def test_a_key_that_a_rule_named_is_named_where_it_is_used_next() -> None:
    first = f"- path_regex: a\n  age:\n  - {DOC1} # doc1\n  - &admin {ADMIN} # the boss\n"
    text = f"creation_rules:\n{first}- path_regex: b\n  age: [*admin, {DEV}]\n- path_regex: c\n  age: *admin\n"
    assert remove_rules(text, [1]) == text.replace(first, "").replace("[*admin", f"[&admin {ADMIN}")
    assert remove_rules(text, [1, 2]) == f"creation_rules:\n- path_regex: c\n  age: &admin {ADMIN}\n"


ADMIN, DOC1 = key("admin").recipient, key("doc1").recipient


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("creation_rules: [", "expected the node content|did not find expected node"),
        ("keys: []", "the list creation_rules is missing"),
        ("", "the list creation_rules is missing"),
        (f"creation_rules:\n- age: {ADMIN[:-3]}", "is not an age recipient: mistyped or cut off"),
        (f"creation_rules:\n- path_regex: '('\n  age: {ADMIN}", "is not a regular expression"),
        (
            f"creation_rules:\n- age: &all [{ADMIN}]\n- age: *all",
            r"s.yaml:2: &all stands .* \(it is taken by rule 2\)",
        ),
        (f"creation_rules:\n- age: &all '{ADMIN}'\n", r"s.yaml:2: &all stands .* taken by nothing yet"),
        (
            f"all: &all {{age: [{ADMIN}]}}\ncreation_rules:\n- <<: *all\n",
            rf"s.yaml:3: rule 1 takes .* write `age: \[{ADMIN}, {DEV}\]",
        ),
        (f"all: &all\n- age: [{ADMIN}]\ncreation_rules:\n- key_groups: *all\n", "rule 1 takes its keys from &all"),
        (f"creation_rules: &rules\n- age: [{ADMIN}]", "&rules stands for what rule 1 has"),
        (f"creation_rules:\n- {{age: {ADMIN}, age: {DOC1}}}", "age is there twice in one mapping"),
        (f"creation_rules:\n- age: [*all]\nkeys: [&all {ADMIN}]", "found undefined alias"),
        (
            f"creation_rules:\n- key_groups:\n  - age: [{ADMIN}]\n  - age: [{DOC1}]",
            r"s.yaml:2: rule 1: no host is in .* by hand",
        ),
        (f"keys:\n- &dev {ADMIN}\ncreation_rules:\n- age: [*dev]", "the anchor &dev is another key's"),
        (f"creation_rules:\n- age: {ADMIN}\n---\ncreation_rules: []", "another YAML document follows"),
    ],
)
def test_what_cannot_be_edited_is_refused(text: str, words: str) -> None:
    with pytest.raises(CannotEdit, match=words) as caught:
        add(text, DEV_KEY, "dev", [1])
    assert "\n" not in str(caught.value)


def test_a_rule_without_keys_of_this_kind_gets_them() -> None:
    text = f"creation_rules:\n- pgp: ABCD\n- age: {ADMIN}\n"
    assert add(text, DEV_KEY, "dev", [1]) == f"creation_rules:\n- pgp: ABCD\n  age: {DEV}\n- age: {ADMIN}\n"
    assert remove(add(text, DEV_KEY, "dev", [1]), DEV_KEY) == text


def test_comments_in_brackets_stay() -> None:
    text = f"creation_rules:\n- age: [\n  {ADMIN}, # x\n  {DOC1} # y\n  ]\n"
    added = add(text, DEV_KEY, "dev", [1])
    assert added == f"creation_rules:\n- age: [\n  {ADMIN}, # x\n  {DOC1}, # y\n  {DEV} # dev\n  ]\n"
    assert remove(added, DEV_KEY) == text
    assert remove(text, key("doc1").age) == f"creation_rules:\n- age: [\n  {ADMIN} # x\n  ]\n"


def test_a_chosen_rule_only() -> None:
    text = f"creation_rules:\n- path_regex: a\n  age: {ADMIN}\n- path_regex: b\n  age: {ADMIN}\n"
    assert [DEV_KEY in rule.recipients for rule in parse_rules(add(text, DEV_KEY, "dev", [2])).rules] == [False, True]


def test_merged_groups_are_kept() -> None:
    text = f"creation_rules:\n- key_groups:\n  - merge:\n    - age: [{ADMIN}]\n    age:\n    - {DOC1} # doc1\n"
    added = add(text, DEV_KEY, "dev", [1])
    assert added == f"{text}    - {DEV} # dev\n"
    assert parse_rules(added).rules[0].recipients == (key("admin").age, key("doc1").age, DEV_KEY)


def test_of_several_key_lists_the_hosts_one_is_taken() -> None:
    people = f"  people:\n    - &admin {ADMIN}\n"
    hosts = f"  hosts:\n    - &doc1 {DOC1}\n"
    rules = "creation_rules:\n- age: [*admin, *doc1]\n"
    for lists in (people + hosts, hosts + people):
        added = add(f"keys:\n{lists}{rules}", DEV_KEY, "dev", [1], beside=[key("doc1").age])
        assert hosts + f"    - &dev {DEV}\n" in added


def test_names_come_from_anchors_and_comments() -> None:
    text = (
        f"keys:\n- &admin {ADMIN} # somebody\n# doc1\n- {DOC1}\n- {DEV} # dev\n"
        f"creation_rules:\n- age: [*admin]\n- age: {ADMIN},{DOC1} # both\n"
    )
    assert parse_rules(text).names == {ADMIN: "admin", DOC1: "doc1", DEV: "dev"}


def test_the_first_rule_wins() -> None:
    text = f"creation_rules:\n- path_regex: ^a/\n  age: {ADMIN}\n- path_regex: yaml$\n  age: {DOC1}\n- age: {DEV}\n"
    rules = parse_rules(text)
    found = [rules.rule_of(path) for path in ("a/x.yaml", "x.yaml", "x.env")]
    numbers = [rule.number for rule in found if isinstance(rule, Rule)]
    assert numbers == [1, 2, 3]


# A rule of its own


@examples(100)
@given(configurations())
def test_a_rule_is_added_for_a_file_that_it_then_is_the_rule_of(sample: tuple[str, list[int]]) -> None:
    text, _ = sample
    before = parse_rules(text)
    recipients = before.rules[0].recipients[:2]
    added = add_rule(text, "web-1.yaml", recipients, comment="web-1's own.")
    after = parse_rules(added)
    rule = after.rule_of("web-1.yaml")
    assert isinstance(rule, Rule)
    assert (rule.path_regex, rule.recipients) == ("^web-1\\.yaml$", recipients)
    assert len(after.rules) == len(before.rules) + 1
    others = [each.recipients for each in after.rules if each != rule]
    assert others == [each.recipients for each in before.rules]
    assert only_insertions(text, added)


def test_a_rule_is_written_as_its_neighbours_are() -> None:
    admin = key("admin").recipient
    text = f"""keys:
  - &admin {admin}
creation_rules:
  # Everybody's.
  - path_regex: ^common
    key_groups:
      - age:
          - *admin

  # dev's own.
  - path_regex: ^dev\\.yaml$
    key_groups:
      - age:
          - *admin
"""
    block = """
  # web's own.
  - path_regex: ^web\\.yaml$
    key_groups:
      - age:
          - *admin
"""
    assert add_rule(text, "web.yaml", [key("admin").age], comment="web's own.") == text + block
    hiding = text.replace("^dev", "yaml").replace("\\.yaml$", "")
    first, second = hiding.split("\n  # dev's own.")
    assert (
        add_rule(hiding, "web.yaml", [key("admin").age], comment="web's own.")
        == f"{first}{block}\n  # dev's own.{second}"
    )
    crlf = text.replace("\n", "\r\n")
    assert add_rule(crlf, "web.yaml", [key("admin").age], comment="web's own.") == (text + block).replace("\n", "\r\n")
    plain = f"creation_rules:\n- age: {admin}"
    added = add_rule(plain, "web.yaml", [key("admin").age], comment="")
    assert added == f"creation_rules:\n- path_regex: ^web\\.yaml$\n  age: {admin}\n- age: {admin}"


def test_the_first_rule_comes_and_the_last_goes() -> None:
    """What `nixherd secrets init` begins with where nothing is declared yet."""
    text = f"keys:\n  - &me {ADMIN}\n\ncreation_rules: []\n"
    rule = "  - path_regex: ^web\\.yaml$\n    key_groups:\n      - age:\n          - *me\n"
    with_rule = text.replace(" []", "") + rule
    assert add_rule(text, "web.yaml", [key("admin").age], comment="web's own.") == with_rule
    crlf = [each.replace("\n", "\r\n") for each in (text, with_rule)]
    assert add_rule(crlf[0], "web.yaml", [key("admin").age], comment="") == crlf[1]
    two = add_rule(with_rule, "db.yaml", [key("admin").age, key("doc1").age], comment="")
    assert two == with_rule + rule.replace("web", "db") + f"          - {DOC1}\n"
    assert [remove_rules(with_rule, [1]), remove_rules(two, [1, 2])] == [text, text]


def test_what_cannot_be_given_a_rule_is_said_with_the_rule() -> None:
    admin = key("admin").recipient
    for text in (
        f"creation_rules: [{{age: {admin}}}]",
        "creation_rules: [] # none yet",
        f"creation_rules:\n  - {{age: {admin}}}\n",
    ):
        with pytest.raises(CannotEdit, match=rf"by hand: path_regex: \^web\\.yaml\$, age: {admin}"):
            add_rule(text, "web.yaml", [key("admin").age], comment="")


# One key in its rule's line, whose comment is its name


NAMED = """creation_rules:
  # everybody's
  - path_regex: ^a
    AGE
  - AGE
    path_regex: ^b
"""
WAYS = [
    "age: KEY # the boss",
    "age:   KEY   #  the boss  ",
    "age: 'KEY' # the boss",
    'age: "KEY" #the boss',
]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("numbers", [[1], [2], [1, 2]])
def test_a_key_that_a_comment_names_keeps_it_beside_another(way: str, numbers: list[int], newline: str) -> None:
    """The comment stays at its key, which is one in a list then; and whoever comes and leaves has left no byte."""
    text = NAMED.replace("AGE", way.replace("KEY", key("admin").recipient)).replace("\n", newline)
    before = parse_rules(text)
    assert before.names == {key("admin").recipient: "the boss"}
    added = add(text, DEV_KEY, "dev", numbers, beside=[key("doc1").age])
    after = parse_rules(added)
    assert [DEV_KEY in rule.recipients for rule in after.rules] == [number in numbers for number in (1, 2)]
    assert after.names == {key("admin").recipient: "the boss", DEV: "dev"}
    assert only_insertions(text, added)
    assert remove(added, DEV_KEY) == text
    assert remove(replace(added, DEV_KEY, NEW_KEY), NEW_KEY) == text
    more = add(added, NEW_KEY, "new", numbers, beside=[key("doc1").age, DEV_KEY])
    for first, last in ((DEV_KEY, NEW_KEY), (NEW_KEY, DEV_KEY)):
        assert remove(remove(more, first), last) == text
    if len(numbers) == 2:
        assert parse_rules(remove(added, key("admin").age)).names == {DEV: "dev"}


def test_without_a_line_break_at_the_end_it_is_the_same() -> None:
    text = f"creation_rules:\n  - age: {key('admin').recipient} # the boss"
    added = add(text, DEV_KEY, "dev", [1])
    assert added.splitlines()[1:] == [
        "  - age: # one key and more",
        f"      - {key('admin').recipient} # the boss",
        f"      - {DEV} # dev",
    ]
    assert remove(added, DEV_KEY) == text


def test_a_list_that_somebody_wrote_stays_one() -> None:
    text = f"creation_rules:\n  - age:\n      - {key('admin').recipient} # the boss\n      - {DEV} # dev\n"
    assert remove(text, DEV_KEY) == text.replace(f"      - {DEV} # dev\n", "")
