"""git's commits as the objects that they are: what was signed in each, and which ones follow a commit. Pure.

Nothing that git says *about* commits is believed, as a repository may have replaced or grafted ones, and settings of
its own: an object is its hash, and a commit names its parents. Format: git-hash-object(1), gitformat-signature(5).
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nixherd.errors import FleetError

FULL_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SIGNATURES = (b"gpgsig", b"gpgsig-sha256")
_IDENTITY = re.compile(rb"committer .*<[^<>\n]*> (\d{1,15}) [+-]\d{4}")


@dataclass(frozen=True)
class Commit:
    """`time` is when its committer says that it was made, in seconds since the epoch; `payload` is what was signed."""

    id: str
    parents: tuple[str, ...]
    time: int
    subject: str
    signature: str | None
    payload: bytes

    def __str__(self) -> str:
        return f"{self.id[:12]} {self.subject}".rstrip()


class NotFollowed(FleetError):
    """The last commit does not follow the one that was asked for."""


Read = Callable[[Collection[str]], Mapping[str, Commit | None]]
"""Commits by hash; None for one that is not there."""


def parse(id: str, content: bytes) -> Commit:
    """The commit of this hash. FleetError when the object is another one, or no commit that git would make."""
    algorithm = hashlib.sha1 if len(id) == 40 else hashlib.sha256
    if algorithm(b"commit %d\0%s" % (len(content), content)).hexdigest() != id:
        raise FleetError(f"commit {id[:12]}: what the repository has under this hash is something else; run git fsck")
    header, _, message = content.partition(b"\n\n")
    lines = header.split(b"\n")
    parents = _parents(id, lines)
    dates = [found for line in lines if (found := _IDENTITY.fullmatch(line))]
    if b"\0" in header or len(dates) != 1:
        raise FleetError(f"commit {id[:12]} is not in git's own form; nobody can say what was signed")
    signature, rest = _without_signature(id, lines)
    return Commit(
        id=id,
        parents=parents,
        time=int(dates[0][1]),
        subject=message.lstrip(b"\n").split(b"\n")[0].decode(errors="replace"),
        signature=signature,
        payload=b"\n".join(rest) + content[len(header) :],
    )


def _parents(id: str, lines: Sequence[bytes]) -> tuple[str, ...]:
    """They follow the tree, and stand nowhere else."""
    tree, *rest = [*lines, b""]
    parents = []
    for line in rest:
        if not line.startswith(b"parent "):
            break
        parents.append(line.removeprefix(b"parent ").decode(errors="replace"))
    again = any(line.startswith((b"tree ", b"parent ")) for line in rest[len(parents) :])
    named = [tree.removeprefix(b"tree ").decode(errors="replace"), *parents]
    if not tree.startswith(b"tree ") or again or not all(FULL_HASH.fullmatch(each) for each in named):
        raise FleetError(f"commit {id[:12]} is not in git's own form; nobody can say what follows what")
    return tuple(parents)


def _without_signature(id: str, lines: Sequence[bytes]) -> tuple[str | None, list[bytes]]:
    """The signature in a commit's header, and the header without it."""
    found: list[list[bytes]] = []
    rest: list[bytes] = []
    inside = False
    for line in lines:
        name, _, value = line.partition(b" ")
        if inside and line.startswith(b" "):
            found[-1].append(line[1:])
        elif inside := name in _SIGNATURES:
            found.append([value])
        else:
            rest.append(line)
    if len(found) > 1:
        raise FleetError(f"commit {id[:12]} has more than one signature; which of them counts nobody can say")
    return (b"\n".join(found[0]).decode(errors="replace") + "\n" if found else None), rest


def since(start: str | None, head: str, read: Read) -> list[Commit]:
    """Every commit that came after `start`, up to `head` and by whatever way, parents before their children.

    These are `head` and all that it follows, but for `start` and what that follows; all of them without a `start`.
    NotFollowed when `head` does not follow it, FleetError when the repository does not have all that it takes to tell.
    """
    if head == start:
        return []
    after, missing = _followed(head, read, until=start)
    if start is not None and not any(start in commit.parents for commit in after.values()):
        raise NotFollowed(f"the last commit, {head[:12]}, does not follow {start[:12]}")
    if start is not None and (missing or any(not commit.parents for commit in after.values())):
        before, _ = _followed(start, read)  # a side branch that began before it leads there too
        after = {id: commit for id, commit in after.items() if id not in before}
        missing -= {parent for commit in before.values() for parent in commit.parents}
    if missing:
        raise FleetError(
            f"commit {min(missing)[:12]} is not here, so what came before it cannot be verified; git fetch --unshallow"
        )
    return _in_order(after)


def _followed(head: str, read: Read, until: str | None = None) -> tuple[dict[str, Commit], set[str]]:
    """A commit and all that it follows, not past `until`; and the hashes of those that are not here."""
    found: dict[str, Commit] = {}
    missing: set[str] = set()
    ahead = {head}
    while ahead:
        commits = read(ahead)
        missing |= {id for id, commit in commits.items() if commit is None}
        found |= {id: commit for id, commit in commits.items() if commit is not None}
        named = {parent for id in ahead if (commit := found.get(id)) for parent in commit.parents}
        ahead = named - found.keys() - missing - {until or ""}
    return found, missing


def _in_order(commits: Mapping[str, Commit]) -> list[Commit]:
    ordered: dict[str, Commit] = {}
    for id in sorted(commits):
        stack = [id]
        while stack:
            waits = [parent for parent in commits[stack[-1]].parents if parent in commits and parent not in ordered]
            if waits:
                stack += waits
            else:
                last = stack.pop()
                ordered[last] = commits[last]
    return list(ordered.values())


def times(commits: Iterable[Commit], start: Commit | None, now: int) -> dict[str, int]:
    """When each was made, by hash: before nothing that it follows, nor before the `start`, and not after `now`.

    So that a key which is valid no more cannot say that it signed while it was, on whatever branch. `commits` as from
    `since`.
    """
    first = min(start.time, now) if start else 0
    made: dict[str, int] = {}
    for commit in commits:
        made[commit.id] = min(now, max(commit.time, first, *(made.get(parent, 0) for parent in commit.parents)))
    return made
