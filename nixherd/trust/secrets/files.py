"""Who can decrypt a secret file, read from the file itself; nothing is decrypted for it, and no key is needed.

Formats: sops keeps its metadata in a `sops` key of YAML and JSON (a binary file is JSON), flattened in dotenv files and
in a `[sops]` section of INI files. The labels are not authenticated: they say for whom sops encrypted the data key.
"""

import configparser
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from nixherd.trust.secrets.rules import load_yaml

_FLAT = re.compile(r"(?:key_groups__list_\d+__map_)?age__list_\d+__map_recipient")
_OTHERS = ("kms", "gcp_kms", "azure_kv", "hc_vault", "pgp")
_FLAT_OTHER = re.compile(rf"(?:key_groups__list_\d+__map_)?(?:{'|'.join(_OTHERS)})__list_\d+__map_.*")
_CONFLICT = re.compile(r"^(?:<{7}|={7}|>{7})(?: .*)?$", re.MULTILINE)


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


def read(path: str | PurePosixPath, content: bytes) -> Encrypted | None:
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


# What sops writes at the end of a YAML file when all of the keys are age keys: read at a glance, 200 files a tenth of a
# second earlier. The parser reads whatever is not exactly so.
_ENTRY = r" {8}- recipient: (?:age1[02-9ac-hj-np-z]{58})\n {10}enc: \|\n(?: {12}[A-Za-z0-9+/=-][A-Za-z0-9+/= -]*\n)+"
_CANONICAL = re.compile(
    rf"(?:\A|\n)sops:\n {{4}}age:\n(?P<entries>(?:{_ENTRY})+) {{4}}lastmodified: [^\n]*\n {{4}}mac: [^\n]*\n"
    r"(?: {4}(?:unencrypted_suffix|version): [^\n]*\n)+\Z"
)
_LABEL = re.compile(r"- recipient: (\S+)")


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
    others = sum(len(_list(group.get(kind))) for group in groups for kind in _OTHERS)
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
