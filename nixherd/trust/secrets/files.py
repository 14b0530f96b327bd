"""Who can decrypt a file, by the file itself: sops' metadata in each of its formats. Nothing is decrypted."""

import configparser
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from nixherd.trust.secrets.keys import IN_FILES, Group, Recipient, age, of_entry
from nixherd.trust.secrets.rules_refused import integer
from nixherd.trust.secrets.yaml_tree import load_yaml, require_merged

_VALUE = re.compile(rb"ENC\[AES256_GCM,data:[A-Za-z0-9+/=]*,iv:[A-Za-z0-9+/=]+,tag:")
_DIGITS = 9
_ENCRYPTED = "ENC[AES256_GCM,"
# What sops writes at the end of a YAML file when all of the keys are age keys: read at a glance, 200 files a tenth of a
# second earlier. The parser reads whatever is not exactly so.
_ENTRY = r" {8}- recipient: (?:age1[02-9ac-hj-np-z]{58})\n {10}enc: \|\n(?: {12}[A-Za-z0-9+/=-][A-Za-z0-9+/= -]*\n)+"
_CANONICAL = re.compile(
    rf"(?:\A|\n)sops:\n {{4}}age:\n(?P<entries>(?:{_ENTRY})+) {{4}}lastmodified: [^\n]*\n {{4}}mac: [^\n]*\n"
    r"(?: {4}(?:unencrypted_suffix|version): [^\n]*\n)+\Z"
)
_ONE = re.compile(_ENTRY)
_LABEL = re.compile(r"- recipient: (\S+)")
_STEP = re.compile(r"__(map|list)_")
_BEFORE_SECTIONS = "\0"  # an INI file may begin without a section


class Format(StrEnum):
    """How sops reads a file; the value is the word of its `--input-type`."""

    YAML = "yaml"
    JSON = "json"
    DOTENV = "dotenv"
    INI = "ini"
    BINARY = "binary"

    @classmethod
    def of(cls, path: str | PurePosixPath) -> "Format":
        """By the end of its name, as sops does, so `.env` is a dotenv file; whatever has none of these is binary."""
        name = PurePosixPath(path).name
        return next((kind for ending, kind in _BY_EXTENSION.items() if name.endswith(ending)), cls.BINARY)


_BY_EXTENSION = {
    ".yaml": Format.YAML,
    ".yml": Format.YAML,
    ".json": Format.JSON,
    ".env": Format.DOTENV,
    ".ini": Format.INI,
}


@dataclass(frozen=True, slots=True)
class Encrypted:
    """What a file says of itself: its key groups in their order, and how many of them it takes (1 for one group).

    `encrypts_nothing`: not one of its values is encrypted, though the file has been through sops.
    """

    groups: tuple[Group, ...]
    threshold: int = 1
    encrypts_nothing: bool = False

    def groups_are(self, groups: Sequence[Group]) -> bool:
        """Whether it has these key groups, in this order."""
        return self.groups == tuple(groups) or [*map(set, self.groups)] == [*map(set, groups)]

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """Everybody in any group, each once."""
        return tuple(dict.fromkeys(chain.from_iterable(self.groups)))


def read_file(path: str | PurePosixPath, content: bytes) -> Encrypted | None:
    """The recipients of a file, or None when it is not encrypted. ValueError says why it cannot be read."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        if Format.of(path) is Format.BINARY:
            return None
        raise ValueError("it is not UTF-8 text") from None
    require_merged(text)
    try:
        sops = _READERS[Format.of(path)](text)
        found = sops if sops is None or isinstance(sops, Encrypted) else _metadata(sops, text)
    except RecursionError:
        raise ValueError("it has lists in lists, too deep to be read") from None
    if found is None and was_encrypted(path, content):
        raise ValueError("it is cut off: values are encrypted, and what sops writes at its end is missing; restore it")
    return found


def with_first(content: bytes, keys: Collection[Recipient]) -> bytes:
    """Return the file with the entries of these keys before the others: sops tries all in the order of the file.

    Unchanged where they are first already, and where the file is not a YAML file for age keys alone as sops writes it.
    """
    text, values = content.decode(), {key.value for key in keys}
    found = _canonical_in(text)
    entries = _ONE.findall(found["entries"]) if found else []
    ordered = sorted(entries, key=lambda entry: entry.split(maxsplit=3)[2] not in values)
    if found is None or ordered == entries:
        return content
    return f"{text[: found.start('entries')]}{''.join(ordered)}{text[found.end('entries') :]}".encode()


def was_encrypted(path: str | PurePosixPath, content: bytes) -> bool:
    """Whether sops has encrypted values in it; what it writes at the end may be missing."""
    return Format.of(path) is not Format.BINARY and _VALUE.search(content) is not None


def _yaml(text: str) -> Mapping[str, Any] | Encrypted | None:
    return _canonical(text) or _tree(load_yaml(text))


def _canonical(text: str) -> Encrypted | None:
    found = _canonical_in(text)
    if found is None:
        return None
    return Encrypted((tuple(map(age, _LABEL.findall(found["entries"]))),), encrypts_nothing=_encrypts_nothing(text))


def _canonical_in(text: str) -> re.Match[str] | None:
    return _CANONICAL.search(text, max(text.rfind("\nsops:\n"), 0))


def _json(text: str) -> Mapping[str, Any] | None:
    try:
        return _tree(json.loads(text, parse_int=str))
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None


def _binary(text: str) -> Mapping[str, Any] | None:
    """Encrypted it is JSON with `data` and `sops`; what it was before may be anything."""
    try:
        return _tree(json.loads(text, parse_int=str))
    except ValueError:
        return None


def _dotenv(text: str) -> Mapping[str, Any] | None:
    lines = (line.partition("=") for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = {key.strip().removeprefix("sops_"): value for key, _, value in lines if key.strip().startswith("sops_")}
    return _unflattened(found)


def _ini(text: str) -> Mapping[str, Any] | None:
    parser = configparser.RawConfigParser(
        strict=False, allow_no_value=True, delimiters=("=",), default_section=_BEFORE_SECTIONS
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(f"[{_BEFORE_SECTIONS}]\n{text}")
    except configparser.Error as error:
        raise ValueError(f"it is not an INI file: {str(error).splitlines()[0]}") from None
    if not parser.has_section("sops"):
        return None
    return _unflattened({key: parser["sops"][key] for key in parser["sops"] if key not in parser.defaults()})


_READERS = {
    Format.YAML: _yaml,
    Format.JSON: _json,
    Format.BINARY: _binary,
    Format.DOTENV: _dotenv,
    Format.INI: _ini,
}


def _tree(document: Any) -> Mapping[str, Any] | None:
    """The metadata of a whole document."""
    if not isinstance(document, Mapping) or not isinstance(document.get("sops"), Mapping):
        return None
    sops: Mapping[str, Any] = document["sops"]
    return sops


def _unflattened(found: Mapping[str, str | None]) -> Mapping[str, Any]:
    """The metadata of a format without nesting: `age__list_0__map_recipient` (stores/flatten.go)."""
    root: dict[str, Any] = {}
    for key, value in found.items():
        words = _STEP.split(key)
        node = root
        for word in words[:-1:2]:
            inner = node.setdefault(word, {})
            node = inner if isinstance(inner, dict) else {}
        node[words[-1]] = (value or "").strip().strip('"')
    return {key: _listed(value) for key, value in root.items()}


def _listed(node: Any) -> Any:
    """Lists for what has numbers for keys; the lines stand in any order."""
    if not isinstance(node, dict):
        return node
    if node and all(key.isdecimal() and len(key) <= _DIGITS for key in node):
        return [_listed(node[key]) for key in sorted(node, key=int)]
    return {key: _listed(value) for key, value in node.items()}


def _metadata(sops: Mapping[str, Any], text: str) -> Encrypted | None:
    if "mac" not in sops and "lastmodified" not in sops:
        return None
    groups = [_group(sops)] if any(_list(sops.get(word)) for word in IN_FILES) else []
    groups = groups or [_group(group) for group in _list(sops.get("key_groups"))]
    threshold = str(sops.get("shamir_threshold") or 0)
    number = integer(threshold)
    if number is None or (len(groups) > 1 and number < 0):
        raise ValueError(f"its metadata has the threshold {threshold[:_DIGITS]!r}")
    needed = (number or len(groups)) if len(groups) > 1 else 1
    return Encrypted(tuple(groups), needed, _encrypts_nothing(text))


def _group(group: Mapping[str, Any]) -> Group:
    keys = []
    for word in IN_FILES:
        for entry in _list(group.get(word)):
            try:
                keys.append(of_entry(word, entry))
            except KeyError as error:
                article = "an" if word[0] in "ah" else "a"
                raise ValueError(f"its metadata has {article} {word} entry without a {error.args[0]}") from None
    return tuple(keys)


def _encrypts_nothing(text: str) -> bool:
    return text.count(_ENCRYPTED) <= 1  # its MAC is encrypted


def _list(value: Any) -> Sequence[Mapping[str, Any]]:
    """The mappings of a list; sops writes null where there are none."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
