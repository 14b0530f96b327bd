"""Where in the fleet's files an error of Nix is: a flake is evaluated in a copy, and an option's error names a file.

A copy's files are the fleet's where they hold the same bytes. An input's copy is told from its entry in flake.lock.
"""

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tree_sitter import Node

from nixherd.nix.syntax import parse

COPY = re.compile(r"/nix/store/[0-9a-z]{32}-[^/\s'\"`]+/")
_STORE = Path("/nix/store")
_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"  # Nix's
# What a trace mentions: a position, an option, a file that defines it. Newer Nix names a tree by its reference: «…»/x.
_MENTION = re.compile(
    r"\bat (?P<file>[/«].*?):(?P<line>\d+):(?P<column>\d+):|the option `(?P<option>[^'\n]+)':"
    r"|while evaluating definitions from `(?P<defined>[^'\n]+)'"
)
_REFERENCE = re.compile(r"«(?P<reference>[^»]*)»(?P<path>/.*)")
_LITERAL = re.compile(rb"(?<![\w/.])\.{1,2}(?:/[\w.+-]+)+")


@dataclass(frozen=True)
class Place:
    """A file below the fleet's directory, or beside it; line and column count from 1, None where they are unknown."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


@dataclass(frozen=True)
class Fleet:
    """The files of the fleet in `directory`; `within` the repository that it is in."""

    directory: Path
    within: Path

    @cached_property
    def bases(self) -> list[Path]:
        """The fleet's directory, and those above it up to the top of its repository, or of its copy in the store."""
        parents = [self.directory, *self.directory.parents]
        tops = (n for n, each in enumerate(parents, 1) if os.path.lexists(each / ".git") or each.parent == _STORE)
        return parents[: next(tops, 1)]

    @cached_property
    def inputs(self) -> dict[str, str]:
        """The inputs' names by their trees' store paths; by their revisions, too. Empty without a flake.lock."""
        try:
            document = json.loads((self.directory / "flake.lock").read_text())
            nodes, root = document["nodes"], document["root"]
            return dict(_inputs(nodes, root, "", set()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def input_of(self, file: str) -> tuple[str, str] | None:
        """Return the input that a file in the store belongs to, and its path there; None if it is unknown."""
        if reference := _REFERENCE.fullmatch(file):
            names = (name for key, name in self.inputs.items() if key in reference["reference"])
            name = next(names, None)
            return (name, reference["path"].lstrip("/")) if name else None
        copy = COPY.match(file)
        name = self.inputs.get(copy[0].rstrip("/")) if copy else None
        return (name, file[copy.end() :]) if name and copy else None

    def file(self, file: str) -> str | None:
        """Return a file as the fleet's; None for another one, as nixpkgs', which is in a copy of its own."""
        if file.startswith((f"{self.directory}/", f"{self.within}/")):
            return os.path.relpath(file, self.directory)
        if self.input_of(file):
            return None
        if reference := _REFERENCE.fullmatch(file):
            tree = re.match(r"(?:git\+file://|path:)([^?#]*)", reference["reference"])
            if tree is None or Path(tree[1]) not in self.bases:
                return None
            return os.path.relpath(f"{tree[1]}{reference['path']}", self.directory)
        if (copy := COPY.match(file)) is None:
            return None
        for base in self.bases:
            ours = base / file[copy.end() :]
            if _is_same(file, ours):
                return os.path.relpath(ours, self.directory)
        return None

    def below(self, path: str) -> str:
        """Return a path in the copy of the fleet's repository as one below the fleet's directory."""
        base = next((base for base in self.bases if os.path.lexists(base / path)), self.directory)
        return os.path.relpath(base / path, self.directory)

    def is_copied_to(self, copy: str) -> bool:
        """Tell whether a tree in the store may be a copy of the fleet's repository, which no input's tree is."""
        if self.input_of(copy):
            return False
        flake = self.directory / "flake.nix"
        copies = [f"{copy}{each}" for each in self._flake_below if Path(copy, each).exists()]
        return not Path(copy).exists() or any(_is_same(each, flake) for each in copies)

    def is_its_flake(self, path: str) -> bool:
        """Tell whether a path in a tree would be the fleet's flake.nix, if that is a tree of its repository."""
        return path in self._flake_below

    @cached_property
    def _flake_below(self) -> list[str]:
        return [os.path.relpath(self.directory / "flake.nix", base) for base in self.bases]

    def submodule_of(self, path: str) -> str | None:
        """Return the git submodule that a path below the fleet's directory is in; Nix leaves those out."""
        try:
            text = (self.bases[-1] / ".gitmodules").read_text(errors="replace")
        except OSError:
            return None
        whole = Path(os.path.normpath(self.directory / path))
        modules = re.findall(r"^\s*path\s*=\s*(\S+)", text, re.MULTILINE)
        return next((module for module in modules if (self.bases[-1] / module) in (whole, *whole.parents)), None)

    def readable(self, text: str) -> str:
        """Replace the paths of copies in a text by those in the fleet, or in the input that they are of."""

        def name(copy: re.Match[str]) -> str:
            of_input = self.input_of(copy[0])
            return f"{of_input[0]}/" if of_input else ""

        return COPY.sub(name, text).replace(f"{self.directory}/", "")

    # Places

    def last_mentioned(self, trace: str) -> Place | None:
        """Return the innermost place in the fleet's files that a trace mentions."""
        place, option = None, ""
        for mention in _MENTION.finditer(trace):
            option = mention["option"] or option
            if mention["file"] and (file := self.file(mention["file"])) is not None:
                place = Place(file, int(mention["line"]), int(mention["column"]))
            elif mention["defined"] and (file := self.file(mention["defined"])) is not None:
                defined = self.definition(file, option)
                if place is None or defined.line is not None:
                    place = defined
        return place

    def last_in_input(self, trace: str) -> str | None:
        """Return the innermost place of a trace as `INPUT/FILE:LINE:COLUMN`; None if it is not in an input."""
        positions = [mention for mention in _MENTION.finditer(trace) if mention["file"]]
        of_input = self.input_of(positions[-1]["file"]) if positions else None
        if of_input is None:
            return None
        return f"{'/'.join(of_input)}:{positions[-1]['line']}:{positions[-1]['column']}"

    def definition(self, file: str, option: str) -> Place:
        """Return where a file defines an option (``users.users."a.b".uid``); without a line if that is unclear."""
        names = tuple(name for name in option_names(option) if not name.startswith("[definition "))
        try:
            bindings = list(_bindings(parse((self.directory / file).read_bytes()), ()))
        except OSError:
            return Place(file)
        for first in range(len(names)):  # a module of a submodule (a user's home) has the end of it alone
            for path, node in bindings:
                if _has(path, names[first:]):
                    return Place(file, node.start_point[0] + 1, node.start_point[1] + 1)
        return Place(file)

    def literal(self, path: str) -> Place | None:
        """Return where one of the fleet's files names a path, given below the fleet's directory."""
        for file in sorted(self.directory.rglob("*.nix")):
            relative = file.relative_to(self.directory)
            if relative.parts[0].startswith(".") or not file.is_file():
                continue
            for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
                for match in _LITERAL.finditer(line.split(b"#")[0]):
                    if os.path.normpath(relative.parent / os.fsdecode(match[0])) == os.path.normpath(path):
                        return Place(str(relative), number, match.start() + 1)
        return None


def fleet_files(directory: Path, within: Path | None = None) -> Fleet:
    return Fleet(directory, within or directory)


def _is_same(file: str, ours: Path) -> bool:
    """Tell whether a copy's file is ours; a copy that Nix did not need to make counts if we have the file."""
    try:
        return Path(file).read_bytes() == ours.read_bytes()
    except FileNotFoundError:
        copy = COPY.match(file)
        return ours.is_file() and copy is not None and not Path(copy[0]).exists()
    except OSError:
        return False


def _inputs(
    nodes: dict[str, dict[str, dict[str, object]]], node: str, path: str, seen: set[str]
) -> Iterator[tuple[str, str]]:
    """Yield the names of a node's inputs and of theirs (`home-manager/nixpkgs`), by store path and by revision."""
    for name, target in nodes[node].get("inputs", {}).items():
        if not isinstance(target, str) or target in seen:  # a list follows another input
            continue
        seen.add(target)
        locked = nodes[target].get("locked", {})
        if tree := _store_path(str(locked.get("narHash", ""))):
            yield tree, path + name
        if locked.get("rev"):
            yield str(locked["rev"]), path + name
        yield from _inputs(nodes, target, f"{path}{name}/", seen)


def _store_path(nar_hash: str) -> str | None:
    """Return the store path of a tree with this hash (store-api.cc: makeFixedOutputPath); None if it is not a hash."""
    try:
        digest = base64.b64decode(nar_hash.removeprefix("sha256-"), validate=True).hex()
    except binascii.Error:
        return None
    whole = hashlib.sha256(f"source:sha256:{digest}:/nix/store:source".encode()).digest()
    short = bytearray(20)
    for index, byte in enumerate(whole):
        short[index % 20] ^= byte
    number = int.from_bytes(short, "little")
    letters = "".join(_BASE32[number >> (5 * place) & 31] for place in reversed(range(32)))
    return f"{_STORE}/{letters}-source"


def option_names(option: str) -> list[str]:
    return [name.strip('"') for name in re.findall(r'"(?:[^"\\]|\\.)*"|[^.]+', option)]


def _has(path: Sequence[str], names: Sequence[str]) -> bool:
    """Tell whether the names are in the path, one after the other."""
    return any(tuple(path[start : start + len(names)]) == tuple(names) for start in range(len(path)))


def _bindings(node: Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Node]]:
    """Return all attributes that are set below a node, by their paths from the outermost set on; outer ones first."""
    for child in node.children:
        inner = path
        if child.type == "binding" and (attributes := child.child_by_field_name("attrpath")) is not None:
            inner = (*path, *option_names((attributes.text or b"").decode(errors="replace")))
            yield inner, child
        yield from _bindings(child, inner)
