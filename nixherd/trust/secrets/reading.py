"""What is a secret, of the files that belong to one `.sops.yaml`, and what each file says of itself."""

import json
import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.fleet.tree import Tree
from nixherd.trust.secrets.files import Encrypted, Format, read_file, was_encrypted
from nixherd.trust.secrets.places import Layout, from_fleet
from nixherd.trust.secrets.rules import Rule, Rules
from nixherd.trust.secrets.yaml_tree import load_yaml

# Beside the secrets people keep notes, public keys, programs, Nix expressions, and what age itself has encrypted.
_NO_SECRETS = (".md", ".nix", ".pub", ".example", ".lock", ".sh", ".py", ".age", ".gpg", ".asc")
_NOTES = re.compile(r"(?i)(README|LICEN[CS]E|COPYING)\b.*|\.git.*|\.?sops\.ya?ml|\.editorconfig|\.envrc")
_ABSENT = "git has it, and this sparse checkout has not; `git sparse-checkout disable`, or add its directory"
_OF_LFS = b"version https://git-lfs.github.com/spec/"
# No file is called so: a rule for it is for every file of its kind, and says nothing of what is a secret.
_ANY = tuple(f"{place}zqxjv{suffix}" for place in ("", "zqxjv/") for suffix in ("", ".yaml", ".yml", ".json", ".env"))


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A secret. `problem` says why it cannot be read.

    `is_foreign`: sops has not written it, so it is plain text. `is_empty`: it has no value that could be encrypted.
    """

    path: str
    encrypted: Encrypted | None = None
    problem: str | None = None
    is_foreign: bool = False
    is_empty: bool = False


Kind = tuple[str, int]


class Meaning:
    """What the rules in a directory mean to be secrets. The directory and the fleet's are from the repository's top."""

    def __init__(self, rules: Rules, directory: str, fleet: str) -> None:
        self.rules = rules
        self.catch_all = [rules.rule_of(path) for path in _ANY]
        is_above = f"{fleet}/".startswith(f"{directory}/") or directory == "."
        self.is_for_secrets = not is_above and "secret" in posixpath.basename(directory).lower()

    def could_be(self, below: str) -> bool:
        """Whether a file of this path could be a secret, in plain text or encrypted."""
        if below.endswith(_NO_SECRETS) or _NOTES.fullmatch(posixpath.basename(below)):
            return False
        rule = self.rules.rule_of(below)
        return self.is_for_secrets or (isinstance(rule, Rule) and rule not in self.catch_all)


class Reading:
    """Reads the files that belong to one configuration, and tells which are secrets.

    Those are what sops has encrypted, wherever it is; and in plain text what a rule names by more than its kind and a
    Nix file names as well, or what is beside encrypted files of the same rule, or in a directory called so. In a
    directory that is for secrets, with a `.sops.yaml` of its own, that is every file but notes.
    """

    def __init__(self, root: Path, layout: Layout, directory: str, rules: Rules, tree: Tree) -> None:
        self.root, self.layout, self.directory, self.rules, self.tree = root, layout, directory, rules, tree
        self.nix = list[bytes]()
        """the texts that may name files"""
        self.top = root.resolve()
        for _ in Path(layout.prefix).parts:
            self.top = self.top.parent
        self.meaning = Meaning(rules, directory, layout.prefix)

    def done(self) -> tuple[tuple[SecretFile, ...], dict[str, bytes]]:
        """The secrets, and the contents of those that could be read, by path below the directory."""
        contents = dict[str, bytes]()
        read = (self._file(path, contents) for path in self.layout.files_of(self.directory))
        files = [file for file in read if file is not None]
        beside = {self._kind(file.path) for file in files if file.encrypted}
        secrets = [file for file in files if file.encrypted or not file.is_foreign or self._is_wanted(file, beside)]
        return tuple(secrets), {file.path: contents[file.path] for file in secrets if file.path in contents}

    def _file(self, path: str, contents: dict[str, bytes]) -> SecretFile | None:
        """A file that may be a secret, its content put beside; None for any other."""
        below = posixpath.relpath(f"/{path}", f"/{self.directory}")
        is_meant, place = self.meaning.could_be(below), self.top / path
        if place.is_symlink():  # what it leads to in this repository is looked at there
            if not is_meant or self.top in place.resolve().parents:
                return None
            return SecretFile(below, problem="it is a link that leads out of the fleet's directory", is_foreign=True)
        try:
            content = self.tree.read(from_fleet(path, self.layout.prefix))
        except FleetError as error:
            shown = self.root / from_fleet(path, self.layout.prefix)
            problem = str(error).removeprefix(f"{shown}: ")
            if isinstance(error.__cause__, PermissionError):  # what it is is not known: it may be encrypted
                return SecretFile(below, problem=str(error.__cause__.strerror)) if is_meant else None
            return SecretFile(below, problem=problem, is_foreign=True) if is_meant else None
        if content is None and path in self.layout.absent and isinstance(self.rules.rule_of(below), Rule):
            return SecretFile(below, problem=_ABSENT, is_foreign=not is_meant)
        if content is None:  # git knows it, and it is gone
            return None
        if path.endswith(".nix"):
            self.nix.append(content)
        if is_meant and content.startswith(_OF_LFS):
            return SecretFile(below, problem="what is here is Git LFS' pointer to it; `git lfs pull`")
        is_likely = _is_likely(content) or (is_meant and was_encrypted(below, content))
        if not (is_likely or is_meant):
            return None
        contents[below] = content
        try:
            encrypted = read_file(below, content)
        except ValueError as error:
            return SecretFile(below, problem=str(error), is_foreign=not is_likely)
        if encrypted is None and not is_meant:
            return None
        is_empty = not content.strip()
        if encrypted is not None and encrypted.encrypts_nothing:
            is_empty = _has_no_value(below, content)
        return SecretFile(below, encrypted, is_foreign=encrypted is None, is_empty=is_empty)

    def _is_wanted(self, file: SecretFile, beside: Collection[Kind]) -> bool:
        """Whether a file that sops has not written is taken for a secret."""
        name = posixpath.basename(file.path).encode()
        is_called_so = self.meaning.is_for_secrets or "secret" in posixpath.dirname(file.path).lower()
        return is_called_so or self._kind(file.path) in beside or any(name in text for text in self.nix)

    def _kind(self, below: str) -> Kind:
        """Where a file is, and which rule it has."""
        rule = self.rules.rule_of(below)
        return posixpath.dirname(below), rule.number if isinstance(rule, Rule) else 0


def holds_encrypted(layout: Layout, directory: str, tree: Tree) -> bool:
    """Whether a file that belongs to the `.sops.yaml` of a directory looks like one that sops has encrypted."""
    for path in layout.files_of(directory):
        try:
            if _is_likely(tree.read(from_fleet(path, layout.prefix)) or b""):
                return True
        except FleetError:  # a link
            continue
    return False


def _is_likely(content: bytes) -> bool:
    return b"sops" in content and b"lastmodified" in content


def _has_no_value(path: str, content: bytes) -> bool:
    """Whether there is nothing in an encrypted file but sops' metadata, and keys without a value."""
    text = content.decode(errors="replace")
    match Format.of(path):
        case Format.YAML | Format.JSON | Format.BINARY:
            document = load_yaml(text) if Format.of(path) is Format.YAML else json.loads(text, parse_int=str)
            return not any(_has_values(value) for key, value in document.items() if key != "sops")
        case Format.DOTENV:
            return not any(line.partition("=")[2] for line in text.splitlines() if not line.startswith(("sops_", "#")))
        case Format.INI:
            before = text.partition("[sops]")[0].splitlines()
            return not any(line.partition("=")[2].strip() for line in before if not line.startswith((";", "#")))


def _has_values(value: object) -> bool:
    if isinstance(value, (list, dict)):
        return any(map(_has_values, value.values() if isinstance(value, dict) else value))
    return value not in (None, "")
