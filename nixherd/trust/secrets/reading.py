"""What is a secret, of the files that belong to one `.sops.yaml`, and what each file says of itself."""

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.fleet.tree import Tree
from nixherd.trust.secrets.files import Encrypted, read_file
from nixherd.trust.secrets.places import Layout, from_fleet
from nixherd.trust.secrets.rules import Rule, Rules

# Beside the secrets people keep notes, public keys and Nix expressions.
_NO_SECRETS = (".md", ".nix", ".pub", ".txt.example")
_NOTES = re.compile(r"(?i)(README|LICEN[CS]E|COPYING)\b.*|\.git.*|\.sops\.ya?ml|\.editorconfig|\.envrc")
# No file is called so: a rule for it is for every file of its kind, and says nothing of what is a secret.
_ANY = tuple(f"{place}zqxjv{suffix}" for place in ("", "zqxjv/") for suffix in ("", ".yaml", ".yml", ".json", ".env"))


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A secret. `problem` says why it cannot be read; `is_foreign`: sops would not have written it like that."""

    path: str
    encrypted: Encrypted | None = None
    problem: str | None = None
    is_foreign: bool = False


class Reading:
    """Reads the files that belong to one configuration, and tells which are secrets.

    Those are what sops has encrypted, wherever it is; and in plain text what a rule names by more than its kind. In a
    directory that is for secrets, with a `.sops.yaml` of its own, that is every file but notes.
    """

    def __init__(self, root: Path, layout: Layout, directory: str, rules: Rules, tree: Tree) -> None:
        self.root, self.layout, self.directory, self.rules, self.tree = root, layout, directory, rules, tree
        self.top = root.resolve()
        for _ in Path(layout.prefix).parts:
            self.top = self.top.parent
        self.catch_all = [rules.rule_of(path) for path in _ANY]
        is_above = f"{layout.prefix}/".startswith(f"{directory}/") or directory == "."
        self.is_for_secrets = not is_above and "secret" in posixpath.basename(directory).lower()

    def done(self) -> tuple[tuple[SecretFile, ...], dict[str, bytes]]:
        """The secrets, and the contents of those that could be read, by path below the directory."""
        files, contents = [], {}
        for path in self.layout.files_of(self.directory):
            below = posixpath.relpath(f"/{path}", f"/{self.directory}")
            file, content = self._file(path, below)
            if file is not None:
                files.append(file)
                if content is not None:
                    contents[below] = content
        return tuple(files), contents

    def _file(self, path: str, below: str) -> tuple[SecretFile | None, bytes | None]:
        is_meant = self._is_meant(below)
        place = self.top / path
        if place.is_symlink():  # what it leads to in this repository is looked at there
            if not is_meant or self.top in place.resolve().parents:
                return None, None
            return SecretFile(below, problem="it is a link that leads out of the fleet's directory"), None
        try:
            content = self.tree.read(from_fleet(path, self.layout.prefix))
        except FleetError as error:
            shown = self.root / from_fleet(path, self.layout.prefix)
            problem = str(error).removeprefix(f"{shown}: ")
            return SecretFile(below, problem=problem) if is_meant else None, None
        if content is None:  # git knows it, and it is gone
            return None, None
        is_likely = b"sops" in content and b"lastmodified" in content
        if not (is_likely or is_meant):
            return None, None
        try:
            encrypted = read_file(below, content)
        except ValueError as error:
            return SecretFile(below, problem=str(error), is_foreign=not is_likely), content
        return SecretFile(below, encrypted) if encrypted or is_meant else None, content

    def _is_meant(self, below: str) -> bool:
        name = posixpath.basename(below)
        if below.endswith(_NO_SECRETS) or _NOTES.fullmatch(name):
            return False
        rule = self.rules.rule_of(below)
        return self.is_for_secrets or (isinstance(rule, Rule) and rule not in self.catch_all)
