"""flake.lock as a graph (format: the Nix manual, `nix flake`, "Lock files"), and locks put together of two others.

Two locks of the same flake.nix differ in what was locked. Of such two, one is made that has some inputs, with all that
they bring, from the one and the rest from the other: so every input is looked up once, whatever is tried with it then.
Inputs of a group are taken, or left behind, together.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nixherd.base.errors import FleetError, Usage

LOCK_FILE = "flake.lock"
_VERSIONS = range(5, 8)
_CONFLICT = re.compile(r"^(<{7}|={7}|>{7}|\|{7})( |$)", re.MULTILINE)
_SHORT = 7  # characters of a hash, for people
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*")
_GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REVISION = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Where a page with the changes between two revisions is, by forge.
_PAGES = {"github": "compare", "gitlab": "-/compare"}
_BY_URL = {"github.com": "github", "codeberg.org": "github", "gitlab.com": "gitlab"}
_URL = re.compile(
    r"(?:git\+)?(?:https|ssh)://(?:git@)?(?P<host>[a-z0-9.-]+)/(?P<owner>[^/]+)/(?P<repo>[^/?]+?)(?:\.git)?/?(?:\?.*)?"
)


@dataclass(frozen=True)
class Lock:
    """A lock file; `nodes` by name, `root` is the flake's own."""

    nodes: Mapping[str, Mapping[str, Any]]
    root: str
    version: int

    @classmethod
    def parse(cls, text: str, where: str) -> "Lock":
        """FleetError, with `where` it is, for what is none."""
        if conflict := _CONFLICT.search(text):
            line = text.count("\n", 0, conflict.start()) + 1
            raise FleetError(f"{where}:{line}: an unsolved conflict is committed there; `nix flake lock`, and commit")
        try:
            document = json.loads(text)
            lock = cls(document["nodes"], document["root"], document["version"])
            for node in (lock.nodes[lock.root], *lock.nodes.values()):
                for child in node.get("inputs", {}).values():
                    if isinstance(child, str):
                        lock.nodes[child].get("locked", {}).items()
                    elif not all(isinstance(each, str) for each in child):
                        raise TypeError(child)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise FleetError(f"{where}: is not a lock file ({why}); restore an earlier one, or make it anew") from None
        if lock.version not in _VERSIONS:
            raise FleetError(f"{where}: is of version {lock.version}, which is not known here; use a newer nixherd")
        return lock

    @property
    def inputs(self) -> dict[str, str]:
        """The flake's inputs that are locked by themselves, and their nodes; those that follow another are not."""
        found = self.nodes[self.root].get("inputs", {})
        return {name: node for name, node in found.items() if isinstance(node, str)}

    def followers(self, name: str) -> int:
        """How many of the flake's inputs take their own input from this one."""
        children = [self.nodes[node].get("inputs", {}).values() for node in self.inputs.values()]
        return sum([name] in list(each) for each in children)

    def below(self, name: str) -> dict[tuple[str, ...], Mapping[str, Any]]:
        """What is locked of an input, and of all that it brings, by their paths from the flake."""
        return dict(self._walk((name,), self.inputs[name], frozenset())) if name in self.inputs else {}

    def _walk(
        self, path: tuple[str, ...], node: str, above: frozenset[str]
    ) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
        entry = self.nodes[node]
        yield path, {key: value for key, value in entry.items() if key != "inputs"}
        for name, child in sorted(entry.get("inputs", {}).items()):
            if isinstance(child, str) and child not in above:
                yield from self._walk((*path, name), child, above | {node})
            elif not isinstance(child, str):
                yield (*path, name), {"follows": child}

    def text(self) -> str:
        """As Nix writes it."""
        document = {"nodes": self.nodes, "root": self.root, "version": self.version}
        return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def compose(old: Lock, new: Lock, names: Collection[str]) -> Lock:
    """The old lock with these inputs, and all that they bring, as the new one has them.

    Nodes are named as Nix names them (lockfile.cc: depth first, by the input's name, with a number where it is taken).
    """
    nodes: dict[str, dict[str, Any]] = {}
    known: dict[tuple[int, str], str] = {}

    def add(lock: Lock, node: str, name: str) -> str:
        if (key := known.get((id(lock), node))) is not None:
            return key
        key, number = name, 2
        while key in nodes:
            key, number = f"{name}_{number}", number + 1
        known[id(lock), node] = key
        nodes[key] = dict(lock.nodes[node])
        if children := sorted(lock.nodes[node].get("inputs", {}).items()):
            nodes[key]["inputs"] = {name: add(lock, of, name) if isinstance(of, str) else of for name, of in children}
        return key

    nodes["root"] = dict(new.nodes[new.root])
    children: dict[str, Any] = {}
    for name, of in sorted(new.nodes[new.root].get("inputs", {}).items()):
        lock = old if name in old.inputs and name not in names else new
        children[name] = add(lock, lock.inputs[name], name) if isinstance(of, str) else of
    if children:
        nodes["root"]["inputs"] = children
    return Lock(nodes, "root", new.version)


@dataclass(frozen=True)
class Move:
    """Of one input that is locked elsewhere than before; None where there was or is none. `path` is from the flake."""

    path: tuple[str, ...]
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        return "/".join(self.path)

    @property
    def link(self) -> str | None:
        """A page with what changed, where the forge is known to have one."""
        return _compare(self.old or {}, self.new or {})

    @property
    def is_older(self) -> bool:
        """Whether it moved back in time."""
        old, new = ((each or {}).get("lastModified") for each in (self.old, self.new))
        return isinstance(old, int) and isinstance(new, int) and new < old

    def __str__(self) -> str:
        back = " (older than before)" if self.is_older else ""
        return f"{self.name}: {shown(self.old)} → {shown(self.new)}{back}"

    def to_json(self) -> dict[str, Any]:
        sides = {"old": self.old, "new": self.new}
        revisions = {side: None if locked is None else _about(locked) for side, locked in sides.items()}
        return {"input": self.name, **revisions, "compare": self.link, "older": self.is_older}


def moves(old: Lock, new: Lock) -> list[Move]:
    """What is locked elsewhere in the new one: the flake's own inputs, each with those that it brings."""
    found = []
    for name in sorted({*old.inputs, *new.inputs}):
        before, after = old.below(name), new.below(name)
        for path in sorted({*before, *after}):
            pair = [each.get(path, {}).get("locked") for each in (before, after)]
            if pair[0] != pair[1]:
                found.append(Move(path, pair[0], pair[1]))
    return found


def moved(old: Lock, new: Lock) -> list[str]:
    """The flake's inputs of which anything differs, whether or not it shows in a revision."""
    return sorted(name for name in new.inputs if old.below(name) != new.below(name))


def shown(locked: Mapping[str, Any] | None) -> str:
    """A revision for people, and of when it is."""
    if locked is None:
        return "none"
    revision = _about(locked)
    short = str(revision["revision"] or revision["hash"] or "unknown").removeprefix("sha256-")[:_SHORT]
    return f"{short} ({revision['date']})" if revision["date"] else short


def _about(locked: Mapping[str, Any]) -> dict[str, Any]:
    modified = locked.get("lastModified")
    date = None
    if isinstance(modified, int) and 0 < modified < 1 << 34:
        date = datetime.fromtimestamp(modified, UTC).strftime("%Y-%m-%d")
    return {"revision": locked.get("rev"), "hash": locked.get("narHash"), "date": date}


def _compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    place, before = _place(new), _place(old)
    if place is None or before is None or place[1:] != before[1:]:
        return None
    kind, host, owner, repo = place
    if not all(_REVISION.fullmatch(str(each.get("rev"))) for each in (old, new)):
        return None
    if not all(map(_NAME.fullmatch, (host, owner, repo))):
        return None
    return f"https://{host}/{owner}/{repo}/{_PAGES[kind]}/{old['rev']}...{new['rev']}"


def _place(locked: Mapping[str, Any]) -> tuple[str, str, str, str] | None:
    """Kind of forge, host, owner and repository, where all of it is known."""
    kind = str(locked.get("type"))
    if kind in _PAGES:
        return kind, str(locked.get("host") or f"{kind}.com"), str(locked.get("owner")), str(locked.get("repo"))
    if kind == "git" and (found := _URL.fullmatch(str(locked.get("url")))) and found["host"] in _BY_URL:
        return _BY_URL[found["host"]], found["host"], found["owner"], found["repo"]
    return None


@dataclass(frozen=True)
class Group:
    """Inputs by their names in flake.nix."""

    name: str
    inputs: tuple[str, ...]

    def __str__(self) -> str:
        return self.name if self.inputs == (self.name,) else f"{self.name} ({', '.join(self.inputs)})"


def groups_of(lock: Lock, given: Sequence[str], only: Sequence[str] = ()) -> list[Group]:
    """The groups that were given, as `NAME=INPUT,INPUT…`, and each other input by itself.

    `only`: inputs or groups that are to move at all. First come inputs that others follow (nixpkgs): what builds on
    them is tried with them. Usage for what cannot be meant.
    """
    named: dict[str, tuple[str, ...]] = {}
    taken: dict[str, str] = {}
    for each in given:
        name, equals, rest = each.partition("=")
        inputs = tuple(word.strip() for word in rest.split(",") if word.strip())
        if not equals or not _GROUP_NAME.fullmatch(name) or not inputs:
            raise Usage(f"--group {each}: write NAME=INPUT,INPUT")
        if name in named or (name in lock.inputs and name not in inputs):
            raise Usage(f"--group {each}: {name} is another group, or an input, already; give it another name")
        for input in inputs:
            _require_known(lock, input, f"--group {each}")
            if input in taken:
                raise Usage(f"--group {each}: {input} is in the group {taken[input]} already")
            taken[input] = name
        named[name] = inputs
    found = [Group(name, inputs) for name, inputs in named.items()]
    found += [Group(input, (input,)) for input in lock.inputs if input not in taken]
    for name in only:
        if name not in named:
            _require_known(lock, name, "lock update")
            if name in taken:
                raise Usage(f"{name} moves with the group {taken[name]}; name that one")
    chosen = [group for group in found if not only or group.name in only]
    return sorted(chosen, key=lambda group: (-sum(lock.followers(each) for each in group.inputs), group.name))


def _require_known(lock: Lock, input: str, where: str) -> None:
    if input not in lock.inputs:
        known = ", ".join(sorted(lock.inputs)) or "none"
        raise Usage(f"{where}: flake.nix locks no input {input!r}; there is {known}")
