"""Whether a host's closure holds the fleet's own tree, or names its commit: then every commit makes another system.

A derivation is looked at as the text that it is (ATerm, nix's derivations.cc), with all that it is built from: what is
in none of these texts is in nothing that is built. Which line of the fleet's files has put it there is told by what
stands in the derivation after the tree's path, and by the words by which a flake is named.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nixherd.base.errors import Finding, FleetError, Severity
from nixherd.base.waiting import Once
from nixherd.fleet.models import Fleet
from nixherd.nix import commands as nix
from nixherd.nix.evaluator import Evaluator

_INPUT = re.compile(r"/nix/store/[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+._?=-]+\.drv")
_SHOWN = 3  # lines that may be it
_TREE = "the fleet's own tree"
# What a flake knows of its commit (nix3-flake, "self"), and what we call it.
_MARKS = ("rev", "dirtyRev", "shortRev", "dirtyShortRev", "narHash", "lastModified", "lastModifiedDate")
_NAMES = re.compile(r"(?<![\w.'-])(?:inputs\.)?(?:self|flake-root)\b(?!')")
_MARKED = re.compile(rf"\b(?:self|flake-root|sourceInfo)\s*\.\s*(?:sourceInfo\s*\.\s*)?(?:{'|'.join(_MARKS)})\b")
# Where a name is taken or passed on and nothing made of it.
_NO_USE = re.compile(
    r"\{[^{}]*\}\s*(?:@\s*\w+\s*)?:|\binherit\b[^;]*|^\s*(?:self|flake-root),?\s*$|\bflake-root\s*=\s*self(?:\.outPath)?\b"
)
_PATH = re.compile(r"(?<![\w/.])\.{1,2}(?:/[\w.+-]+)+")


@dataclass(frozen=True)
class Held:
    """`what` a derivation holds: the tree, at the path `below` in it, or what a flake knows of its commit."""

    what: str
    below: str
    derivation: str


@dataclass(frozen=True)
class Commit:
    """What to look for: the hash of the tree's store path, and by name what the flake knows of its commit.

    `directory` is where in the tree the flake is, "" at its top.
    """

    tree: str
    marks: Mapping[str, str]
    directory: str = ""

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> "Commit":
        """From `nix flake metadata --json`."""
        locked = metadata.get("locked", {})
        known = {
            "rev": metadata.get("revision"),
            "dirtyRev": metadata.get("dirtyRevision"),
            "shortRev": str(metadata["revision"])[:7] if metadata.get("revision") else None,
            "dirtyShortRev": locked.get("dirtyShortRev"),
            "narHash": locked.get("narHash"),
            "lastModified": metadata.get("lastModified"),
            "lastModifiedDate": time.strftime("%Y%m%d%H%M%S", time.gmtime(metadata.get("lastModified", 0))),
        }
        marks = {name: str(value) for name, value in known.items() if value}
        return cls(PurePosixPath(str(metadata["path"])).parts[3][:32], marks, str(locked.get("dir") or ""))

    def held_by(self, name: str, text: str) -> Iterator[Held]:
        """What a derivation's text holds of it."""
        tree = rf"{self.tree}-[0-9A-Za-z+._?=-]+(?P<below>(?:/[\w.+@-]+)*)"
        for found in re.finditer(tree, text) if self.tree in text else ():
            below = f"{found['below']}/".removeprefix(f"/{self.directory}".rstrip("/")).rstrip("/")
            yield Held(_TREE, below, name)
        for mark, value in self.marks.items():
            if value in text and re.search(rf"(?<![0-9A-Za-z]){re.escape(value)}(?![0-9A-Za-z])", text):
                yield Held(mark, "", name)


def find(fleet: Fleet, evaluator: Evaluator) -> Callable[[Sequence[str], str], list[Finding]]:
    """Return what gives a warning for each line that makes every commit another system of a host.

    It takes the hosts that are evaluated together and one of them, and raises FleetError when that cannot be
    evaluated. A host that sets system.configurationRevision wants its commit in it: of that one the tree alone counts.
    """
    closures = Once[Closures]("reading the fleet's commit")
    lines = Once[Lines]("reading the fleet's files")

    def of(host_ids: Sequence[str], host_id: str) -> list[Finding]:
        config = evaluator.evaluate(tuple(host_ids), host_id)
        with closures:
            if closures.is_empty:
                closures.value = Closures(_commit(evaluator))
        held = closures.value.of(config.toplevel_drv)
        counts = [each for each in held if each.what == _TREE or not config.configuration_revision]
        with lines:
            if lines.is_empty and counts:
                lines.value = Lines(Path(fleet.path))
        return [_finding(str(fleet.hosts[host_id].attribute), each, lines.value) for each in counts]

    return of


def _commit(evaluator: Evaluator) -> Commit:
    text = evaluator.ask(nix.flake_metadata(evaluator.flake))
    try:
        return Commit.of(json.loads(text))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FleetError(f"{evaluator.flake}: nix flake metadata printed something unexpected ({error!r})") from error


def _finding(attribute: str, held: Held, lines: "Lines") -> Finding:
    first, *others = lines.that_may_have(held)[:_SHOWN] or ["flake.nix"]
    what = f"its closure holds {held.what}{f' ({held.below})' if held.below else ''}"
    if held.what != _TREE:
        what = f"its closure holds {held.what}, by which the flake is told from another commit's"
    what += f", in {held.derivation}, so that every commit changes it"
    what += f" (or is it {' or '.join(others)})" if others else ""
    remedy = f"name files by path literals (./x), which go into it alone, never by {_words(held)}"
    return Finding(Severity.WARNING, first, attribute, what, remedy)


def _words(held: Held) -> str:
    return "self, flake-root or toString" if held.what == _TREE else f"self.{held.what}"


class Closures:
    """What the derivations of a fleet's hosts hold of its commit; each is read once."""

    def __init__(self, commit: Commit) -> None:
        self.commit = commit
        self._known: dict[str, tuple[list[Held], list[str]]] = {}

    def of(self, drv: str) -> list[Held]:
        """All that is in this derivation or in what it is built from. FleetError when one cannot be read."""
        found: dict[Held, None] = {}
        left, seen = [drv], {drv}
        while left:
            held, inputs = self._read(left.pop())
            found.update(dict.fromkeys(held))
            new = [each for each in inputs if each not in seen]
            seen.update(new)
            left += new
        return _first_of_each(found)

    def _read(self, drv: str) -> tuple[list[Held], list[str]]:
        if drv not in self._known:
            try:
                text = Path(drv).read_text(errors="replace")
            except OSError as error:
                raise FleetError(f"{drv}: cannot be read ({error.strerror})") from error
            name = drv[44:].removesuffix(".drv")
            self._known[drv] = (list(self.commit.held_by(name, text)), sorted(set(_INPUT.findall(text)) - {drv}))
        return self._known[drv]


def _first_of_each(found: Iterable[Held]) -> list[Held]:
    """One for each that is held; the tree as a whole only where nothing below it is."""
    kinds: dict[tuple[str, str], Held] = {}
    for held in found:
        kinds.setdefault((held.what, held.below), held)
    is_below = any(held.below for held in kinds.values())
    return [held for held in kinds.values() if held.below or held.what != _TREE or not is_below]


class Lines:
    """The lines of a fleet's Nix files, as FILE:LINE."""

    def __init__(self, root: Path) -> None:
        self._all = [
            (f"{file}:{number}", file, code)
            for file in sorted(PurePosixPath(path.relative_to(root).as_posix()) for path in root.rglob("*.nix"))
            if not file.parts[0].startswith(".") and (root / file).is_file()
            for number, line in enumerate((root / file).read_text(errors="replace").splitlines(), 1)
            if (code := _code(line))
        ]

    def that_may_have(self, held: Held) -> list[str]:
        """Those that most likely have put it into a derivation."""
        ranked: dict[int, list[str]] = {}
        for place, file, line in self._all:
            ranked.setdefault(_likely(held, file, line), []).append(place)
        ranked.pop(0, None)
        return ranked[max(ranked)] if ranked else []


def _code(line: str) -> str:
    """Without its comment, as far as that can be told from a line alone."""
    return "" if line.lstrip().startswith("#") else re.sub(r"\s#(?!.*[\"']).*", "", line)


def _likely(held: Held, file: PurePosixPath, line: str) -> int:
    """How likely this line has put it there; 0 is not at all."""
    if held.what != _TREE:
        return 2 if re.search(rf"\b{held.what}\b", line) and _MARKED.search(line) else int(bool(_MARKED.search(line)))
    named = _NAMES.search(_MARKED.sub("", _NO_USE.sub("", line)))
    if held.below:
        literal = any(_below(file, each) == held.below for each in _PATH.findall(line))
        if literal and "toString" in line:
            return 4
        if named and held.below in line:
            return 4
        first = "/" + held.below.split("/")[1]
        return 3 if named and first in line else 2 if literal else int(bool(named))
    return 2 * bool(named) if "${" in line or "=" in line else int(bool(named))


def _below(file: PurePosixPath, literal: str) -> str:
    """Where a path literal in this file leads, below the fleet's directory."""
    parts: list[str] = list(file.parent.parts)
    for part in literal.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/" + "/".join(parts)
