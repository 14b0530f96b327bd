"""Who may read a secret file by `.sops.yaml`, and who can by the file itself; nothing is decrypted for it."""

import configparser
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

import yaml

from nixherd.ssh.age import is_recipient

CONFIG = ".sops.yaml"
# libyaml where PyYAML was built with it: ten times as fast, with the same marks.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_OTHERS_IN_RULES = ("pgp", "kms", "gcp_kms", "azure_keyvault", "azure_kv", "hc_vault", "hc_vault_transit_uri")
_COMMENT = re.compile(r"#+\s*(.*?)\s*$")
_NAMED = re.compile(r"(?:&(?P<anchor>[^\s,\[\]{}]+)\s+)?[\"']?(?P<key>age1[02-9ac-hj-np-z]{58})[\"']?")
_FLAT = re.compile(r"(?:key_groups__list_\d+__map_)?age__list_\d+__map_recipient")
_OTHERS_IN_FILES = ("kms", "gcp_kms", "azure_kv", "hc_vault", "pgp")
_FLAT_OTHER = re.compile(rf"(?:key_groups__list_\d+__map_)?(?:{'|'.join(_OTHERS_IN_FILES)})__list_\d+__map_.*")
_CONFLICT = re.compile(r"^(?:<{7}|={7}|>{7})(?: .*)?$", re.MULTILINE)
# What sops writes at the end of a YAML file when all of the keys are age keys: read at a glance, 200 files a tenth of a
# second earlier. The parser reads whatever is not exactly so.
_ENTRY = r" {8}- recipient: (?:age1[02-9ac-hj-np-z]{58})\n {10}enc: \|\n(?: {12}[A-Za-z0-9+/=-][A-Za-z0-9+/= -]*\n)+"
_CANONICAL = re.compile(
    rf"(?:\A|\n)sops:\n {{4}}age:\n(?P<entries>(?:{_ENTRY})+) {{4}}lastmodified: [^\n]*\n {{4}}mac: [^\n]*\n"
    r"(?: {4}(?:unencrypted_suffix|version): [^\n]*\n)+\Z"
)
_LABEL = re.compile(r"- recipient: (\S+)")


@dataclass(frozen=True, slots=True)
class Rule:
    """A creation rule, the age recipients in their order. `groups` is the number of its key groups, 0 without any.

    `others`: it names keys of other kinds as well.
    """

    number: int
    path_regex: str | None
    recipients: tuple[str, ...]
    groups: int = 0
    others: bool = False

    def matches(self, path: str) -> bool:
        """`path` is relative to the configuration's directory."""
        return self.path_regex is None or re.search(self.path_regex, path) is not None

    def is_named_after(self, host_id: str) -> bool:
        """Whether a host's id is in its path_regex, as a whole word: dev is not dev2."""
        return re.search(rf"(?<![\w-]){re.escape(host_id)}(?![\w-])", self.path_regex or "") is not None

    @property
    def label(self) -> str:
        return f"rule {self.number}" + (f" ({self.path_regex})" if self.path_regex else " (every file)")


@dataclass(frozen=True, slots=True)
class Rules:
    """The whole configuration. `names` maps a recipient to what an anchor or a comment calls it."""

    rules: tuple[Rule, ...]
    names: Mapping[str, str] = field(default_factory=dict)

    def rule_of(self, path: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.matches(path)), None)

    @property
    def recipients(self) -> tuple[str, ...]:
        """Everybody whom a rule names, each once."""
        return tuple(dict.fromkeys(recipient for rule in self.rules for recipient in rule.recipients))


def parse_rules(text: str) -> Rules:
    """ValueError says what is wrong, and in which line."""
    document = load_yaml(text)
    if not isinstance(document, Mapping) or not isinstance(document.get("creation_rules"), list):
        raise ValueError("the list creation_rules is missing; sops would find no rule for any file")
    found = (_rule(number, entry) for number, entry in enumerate(document["creation_rules"], 1))
    return Rules(tuple(found), names_of(text))


def load_yaml(text: str) -> Any:
    """ValueError says what is wrong, and in which line."""
    try:
        return yaml.load(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem or 'no YAML'}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {str(error).splitlines()[0]}") from None


def _rule(number: int, entry: Any) -> Rule:
    where = f"rule {number}"
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} is not a mapping; write `- path_regex: …` with `age: …` or `key_groups: …` below it")
    pattern = entry.get("path_regex")
    if pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(f"{where}: path_regex {pattern!r} is not a regular expression: {error}") from None
    groups = entry.get("key_groups") or []
    if not isinstance(groups, list) or not all(isinstance(group, Mapping) for group in groups):
        raise ValueError(f"{where}: key_groups is not a list of mappings")
    merged = [each for group in groups for each in _with_merged(group)]
    sources = merged or [entry]
    recipients = [key for source in sources for key in recipients_of(source.get("age"), where)]
    others = any(source.get(kind) for source in sources for kind in _OTHERS_IN_RULES)
    return Rule(number, pattern, tuple(dict.fromkeys(recipients)), len(groups), others)


def _with_merged(group: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A key group and those that it takes in by `merge`."""
    yield group
    for each in group.get("merge") or ():
        if isinstance(each, Mapping):
            yield from _with_merged(each)


def recipients_of(value: Any, where: str) -> list[str]:
    """The keys of an `age:` entry: a list, or one text with commas between them. ValueError for what is not a key."""
    if value is None:
        return []
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list):
        raise ValueError(f"{where}: age is neither a list nor a text")
    keys = [str(word).strip() for word in words if str(word).strip()]
    for key in keys:
        if key.startswith("age1") and not is_recipient(key) and not key.startswith("age1yubikey"):
            raise ValueError(f"{where}: {key} is not an age recipient: mistyped or cut off")
    return keys


# Names


def names_of(text: str) -> dict[str, str]:
    """What each key is called: by its anchor, by the comment behind it, or by the comment on the line before."""
    found: dict[str, str] = {}
    before = ""
    for line in text.splitlines():
        keys = list(_NAMED.finditer(line))
        for match in keys:
            behind = _COMMENT.search(line, match.end()) if len(keys) == 1 else None
            name = match["anchor"] or (behind[1] if behind else "") or (before if len(keys) == 1 else "")
            if name and (match["anchor"] or match["key"] not in found):
                found[match["key"]] = name
        comment = _COMMENT.fullmatch(line.strip())
        before = comment[1] if comment else ""
    return found


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


class Format(StrEnum):
    """How sops reads a file; the value is the word of its `--input-type`."""

    YAML = "yaml"
    JSON = "json"
    DOTENV = "dotenv"
    INI = "ini"
    BINARY = "binary"

    @classmethod
    def of(cls, path: str | PurePosixPath) -> "Format":
        """By the extension, as sops does; whatever has none of these is binary."""
        return _BY_EXTENSION.get(PurePosixPath(path).suffix, cls.BINARY)


_BY_EXTENSION = {
    ".yaml": Format.YAML,
    ".yml": Format.YAML,
    ".json": Format.JSON,
    ".env": Format.DOTENV,
    ".ini": Format.INI,
}


@dataclass(frozen=True, slots=True)
class Encrypted:
    """What a file says of itself: its age recipients in their order, and how many keys of other kinds there are."""

    recipients: tuple[str, ...]
    others: int = 0


def read_file(path: str | PurePosixPath, content: bytes) -> Encrypted | None:
    """The recipients of a file, or None when it is not encrypted. ValueError says why it cannot be read."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        if Format.of(path) is Format.BINARY:
            return None
        raise ValueError("it is not UTF-8 text") from None
    if conflict := _CONFLICT.search(text):
        raise ValueError(f"line {text.count(chr(10), 0, conflict.start()) + 1}: a merge was left unfinished there")
    return _READERS[Format.of(path)](text)


def _yaml(text: str) -> Encrypted | None:
    return _canonical(text) or _tree(load_yaml(text))


def _canonical(text: str) -> Encrypted | None:
    found = _CANONICAL.search(text, max(text.rfind("\nsops:\n"), 0))
    return Encrypted(tuple(_LABEL.findall(found["entries"]))) if found else None


def _json(text: str) -> Encrypted | None:
    try:
        return _tree(json.loads(text))
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None


def _binary(text: str) -> Encrypted | None:
    """Encrypted it is JSON with `data` and `sops`; what it was before may be anything."""
    try:
        return _tree(json.loads(text))
    except ValueError:
        return None


def _dotenv(text: str) -> Encrypted | None:
    lines = (line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = {key.strip().removeprefix("sops_"): value for key, _, value in lines if key.strip().startswith("sops_")}
    return _flat(found)


def _ini(text: str) -> Encrypted | None:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise ValueError(f"it is not an INI file: {str(error).splitlines()[0]}") from None
    return _flat(dict(parser["sops"])) if parser.has_section("sops") else None


_READERS = {
    Format.YAML: _yaml,
    Format.JSON: _json,
    Format.BINARY: _binary,
    Format.DOTENV: _dotenv,
    Format.INI: _ini,
}


def _tree(document: Any) -> Encrypted | None:
    if not isinstance(document, Mapping) or not isinstance(document.get("sops"), Mapping):
        return None
    sops = document["sops"]
    if "mac" not in sops and "lastmodified" not in sops:
        return None
    groups = [sops, *_list(sops.get("key_groups"))]
    entries = [entry for group in groups for entry in _list(group.get("age"))]
    others = sum(len(_list(group.get(kind))) for group in groups for kind in _OTHERS_IN_FILES)
    try:
        return Encrypted(tuple(str(entry["recipient"]) for entry in entries), others)
    except KeyError:
        raise ValueError("its metadata has an age entry without a recipient") from None


def _flat(found: Mapping[str, str]) -> Encrypted | None:
    if "mac" not in found and "lastmodified" not in found:
        return None
    # The lines stand in any order; the numbers in them are the entries'.
    keys = sorted(filter(_FLAT.fullmatch, found), key=lambda key: [int(number) for number in re.findall(r"\d+", key)])
    recipients = (found[key].strip().strip('"') for key in keys)
    others = {key.rpartition("__map_")[0] for key in found if _FLAT_OTHER.fullmatch(key)}
    return Encrypted(tuple(recipients), len(others))


def _list(value: Any) -> Sequence[Mapping[str, Any]]:
    """The mappings of a list; sops writes null where there are none."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
