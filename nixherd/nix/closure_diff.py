"""What changes between two closures: packages by name, their versions and sizes. Pure.

A store path is `/nix/store/HASH-NAME-VERSION-OUTPUT`; what is the version follows Nix's own rule
(builtins.parseDrvName): it begins after the first dash that no letter follows.
"""

import re
import shlex
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from nixherd.base.sizes import human
from nixherd.nix.commands import closure_sizes

_NAME = re.compile(r"^/nix/store/[0-9a-df-np-sv-z]{32}-(.+)$")
_VERSION = re.compile(r"^(.*?)-([^a-zA-Z].*)$")
_OUTPUTS = re.compile(r"-(bin|dev|doc|info|lib|man|out|static|debug|devdoc|data|getent|mount|login|swap|terminfo)$")


@dataclass(frozen=True, order=True)
class Change:
    """A package that differs. Versions are sorted, "" where a path has none; `size` is in bytes, more is positive."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    size: int

    def __str__(self) -> str:
        size = f", {_signed(self.size)}" if self.size else ""
        if not self.before:
            return f"{self.name}: added {_versions(self.after)}{size}".replace("added ,", "added,").rstrip()
        if not self.after:
            return f"{self.name}: removed {_versions(self.before)}{size}".replace("removed ,", "removed,").rstrip()
        if self.before == self.after:
            return f"{self.name}: {_versions(self.after)} rebuilt{size}".replace(":  ", ": ")
        return f"{self.name}: {_versions(self.before) or '∅'} → {_versions(self.after) or '∅'}{size}"


@dataclass(frozen=True)
class ClosureDiff:
    """`before` and `after` are the closures' whole sizes, in bytes."""

    changes: tuple[Change, ...]
    before: int
    after: int


def listing(path: str) -> str:
    """Return the shell command that lists a closure on a machine; it prints nothing where the path does not exist."""
    return f"[ ! -e {path} ] || {shlex.join(closure_sizes(path))}"


def parse_path_info(text: str) -> dict[str, int]:
    """Return sizes of the NARs by path, as `nix path-info --recursive --size` prints them."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def diff(before: Mapping[str, int], after: Mapping[str, int]) -> ClosureDiff:
    """Compare the sizes of all paths of two closures."""
    old, new = _packages(before), _packages(after)
    changes = []
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name, {}), new.get(name, {})
        if was.keys() == now.keys():
            continue
        versions = tuple(tuple(sorted({_split(path)[1] for path in paths})) for paths in (was, now))
        changes.append(Change(name, versions[0], versions[1], sum(now.values()) - sum(was.values())))
    return ClosureDiff(tuple(changes), sum(before.values()), sum(after.values()))


def _packages(closure: Mapping[str, int]) -> dict[str, dict[str, int]]:
    packages: dict[str, dict[str, int]] = defaultdict(dict)
    for path, size in closure.items():
        packages[_split(path)[0]][path] = size
    return packages


def _split(path: str) -> tuple[str, str]:
    """Name and version in a store path."""
    named = _NAME.match(path)
    whole = _OUTPUTS.sub("", named[1] if named else path)
    versioned = _VERSION.match(whole)
    return (versioned[1], versioned[2]) if versioned else (whole, "")


def _versions(versions: tuple[str, ...]) -> str:
    return ", ".join(version for version in versions if version)


def _signed(size: int) -> str:
    return ("+" if size > 0 else "-") + human(abs(size))
