"""What the evaluation of a fleet's own files can see: the files of its repository, and no others.

`look` goes through all of them. What can be seen is in the fingerprint, by which a change of it is noticed; what is
left out (`closed`) cannot be read: `nixherd.fleet.load` sees to that. What somebody else may write is not believed,
as with git's safe.directory.
"""

import functools
import grp
import os
import pwd
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nixherd.base.errors import FleetInvalid, Refused
from nixherd.fleet.models import DEFINITIONS, FLAKE, HOSTS, NIXHERD

SAFE = "NIXHERD_SAFE_DIRECTORY"
"""the environment's word for directories that are believed all the same: paths with colons between them, or *"""


def is_safe(*directories: str) -> bool:
    """Whether the operator has said so of one of these directories."""
    given = os.environ.get(SAFE, "").split(":")
    return "*" in given or not {os.path.realpath(word) for word in given if word}.isdisjoint(directories)


def believed() -> frozenset[int]:
    """The users that are as good as ourselves: for root, the one who called sudo."""
    ours, caller = os.geteuid(), os.environ.get("SUDO_UID", "")
    return frozenset((ours, int(caller))) if ours == 0 and caller.isdecimal() else frozenset((ours,))


def distrust(status: os.stat_result, owners: frozenset[int]) -> str | None:
    """Why what these are the properties of is not believed, as the rest of a sentence; None when it is.

    `owners` may own it, and be in the group that may write it; so may root.
    """
    if status.st_uid not in owners:
        return f"belongs to {_user(status.st_uid)}"
    if stat.S_ISLNK(status.st_mode):
        return None
    if status.st_mode & stat.S_IWOTH:
        return "can be written by everybody"
    if status.st_mode & stat.S_IWGRP and (others := _members(status.st_gid) - owners - {0}):
        return f"can be written by the group {_group(status.st_gid)}, which {_user(min(others))} is in"
    return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


@functools.cache
def _members(gid: int) -> frozenset[int]:
    """Whose group it is, first or further, as far as the system tells."""
    members = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid}
    try:
        names = grp.getgrgid(gid).gr_mem
    except KeyError:
        names = []
    for name in names:
        try:
            members.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    return frozenset(members)


Fingerprint = frozenset[tuple[str | int, ...]]

STORE = "/nix/store"
_FILES = (HOSTS, NIXHERD, FLAKE, str(Path(DEFINITIONS).parent), DEFINITIONS)

# Tools' own directories and results of builds; so are those whose names begin with a dot.
_LEFT_OUT = frozenset(("node_modules", "__pycache__"))

# How close together two changes of a file may be for the second not to show in its time of change: a tick of the
# kernel's clock, or what file systems with whole seconds round to.
_TICK = 20_000_000  # ns
_SECOND = 1_000_000_000
_TRIES = 5


@dataclass(frozen=True)
class World:
    """Everything below `root`, the top of the repository that the fleet's directory `fleet` is in, as it is now.

    Paths are absolute, without links. `closed` are those that are not seen, each with why and what to do as the rest of
    a sentence; `links` those that lead to another place in here, and where; `modules` the files of Nix; `allowed` what
    all that can be seen is below of, links last. `newest` is when the last file changed, in ns.
    """

    root: str
    fleet: str
    fingerprint: Fingerprint
    closed: Mapping[str, str]
    links: Mapping[str, str]
    modules: tuple[str, ...]
    allowed: tuple[str, ...]
    newest: int = 0
    beyond: "World | None" = field(default=None, repr=False)
    """what links of this one may lead into as well"""

    @property
    def all(self) -> "tuple[World, ...]":
        return (self, *self.beyond.all) if self.beyond else (self,)

    def why_closed(self, path: str) -> str | None:
        """Why a path here is not seen, with what that is due to; None where nothing is."""
        for part in (path, *map(str, Path(path).parents)):
            if part in self.closed:
                return f"{part} {self.closed[part]}"
        return None


def look(directory: str | os.PathLike[str]) -> World:
    """What is there now, and can be seen.

    Refused for a directory that somebody else may write, FleetInvalid for one that nobody could name in Nix, OSError
    for one that cannot be read.
    """
    fleet = os.path.realpath(directory)
    if not is_text(fleet):
        raise FleetInvalid([f"{directory}: its name is not UTF-8; rename it"])
    root = repository_of(fleet)
    if root == STORE or root.startswith(f"{STORE}/"):
        _require_ours(root, (root,), believed() | {0})
        return _look_into_store(root, fleet)
    if ".git" in Path(fleet).relative_to(root).parts:
        raise Refused(f"{fleet}: lies in git's own directory; FLEET names a directory of a work tree")
    if is_safe(root, fleet):
        return _look(root, fleet, None)
    _require_ours(root, _decisive(root, fleet), believed())
    return _look(root, fleet, believed() | {0})


def look_settled(directory: str | os.PathLike[str]) -> World:
    """As `look`, but of files that were not changed this very moment: such a change could be followed by one more that
    has the same time. Where it does not end, the fingerprint is like no other.
    """
    for _ in range(_TRIES):
        world = look(directory)
        tick = _TICK if world.newest % _SECOND else 2 * _SECOND
        age = time.time_ns() - world.newest
        if age > tick:
            return world
        if tick > _TICK or age < 0:
            break
        time.sleep((tick - age) / _SECOND)
    return replace(world, fingerprint=world.fingerprint | {("seen", time.time_ns())})


def is_settled(changed: World | int) -> bool:
    """Whether the last change of a world, or of a file at this time in ns, is so long ago that the next one shows."""
    newest = changed.newest if isinstance(changed, World) else changed
    return time.time_ns() - newest > (_TICK if newest % _SECOND else 2 * _SECOND)


def view_of(view: str | os.PathLike[str], world: World) -> World:
    """A copy of a world made by ourselves, in which some files are others, and links lead into the world for the rest.

    `view` stands for the world's root.
    """
    root = os.path.realpath(view)
    return _look(root, root + world.fleet[len(world.root) :], None, beyond=world)


def repository_of(fleet: str) -> str:
    """The top of the git repository, or of the path in the Nix store, that a directory is in; else the directory."""
    if fleet.startswith(f"{STORE}/"):
        return "/".join(fleet.split("/")[:4])
    for each in (fleet, *map(str, Path(fleet).parents)):
        if os.path.lexists(f"{each}/.git"):
            return each
    return fleet


def _decisive(root: str, fleet: str) -> Iterator[str]:
    """What decides over all the rest: the repository, the way to the fleet's directory, and where its files begin."""
    yield root
    git = f"{root}/.git"
    if os.path.lexists(git):
        yield git
    way = [each for each in map(str, Path(fleet).parents) if each.startswith(f"{root}/")]
    for each in (*reversed(way), fleet, *(f"{fleet}/{name}" for name in _FILES)):
        if Path(each).exists():
            yield os.path.realpath(each)


def _require_ours(root: str, paths: Iterator[str] | tuple[str, ...], owners: frozenset[int]) -> None:
    for path in paths:
        status = os.lstat(path)
        if (root.startswith(f"{STORE}/") and status.st_uid in owners) or not (why := distrust(status, owners)):
            continue
        remedy = _remedy(status, owners)
        raise Refused(f"{path}: {why}, who could decide what is done here; {remedy}, or set {SAFE}={root} to allow it")


def _remedy(status: os.stat_result, owners: frozenset[int]) -> str:
    return "chmod go-w it" if status.st_uid in owners else "chown it"


@functools.lru_cache(maxsize=4)
def _look_into_store(root: str, fleet: str) -> World:
    """Nothing changes there."""
    return replace(_look(root, fleet, None), newest=0, fingerprint=frozenset({(root, fleet)}))


def _look(root: str, fleet: str, owners: frozenset[int] | None, beyond: World | None = None) -> World:
    found = _Found(root, fleet, owners)
    found.enter(root)
    links = {}
    closed = {root: found.closed, **{each.root: each.closed for each in (beyond.all if beyond else ())}}
    for link in found.links:
        target = os.path.realpath(link)
        if why := _why_not_followed(target, closed):
            found.closed[link] = why
        else:
            links[link] = target
    return World(
        root=root,
        fleet=fleet,
        # A link may lead here by way of others elsewhere.
        fingerprint=frozenset((*found.entries, (root, fleet), *(("link", *link) for link in links.items()))),
        closed=found.closed,
        links=links,
        modules=tuple(found.modules),
        allowed=tuple(_allowed(root, found, links)),
        newest=found.newest,
        beyond=beyond,
    )


def _why_not_followed(target: str, closed: Mapping[str, Mapping[str, str]]) -> str | None:
    """Why a link to this place is not followed; `closed` are what is not seen in each world, by their roots."""
    root = next((each for each in closed if target == each or target.startswith(f"{each}/")), None)
    if root is None:
        return f"leads out of the fleet's repository, to {target}; move what is needed into it"
    for part in (target, *map(str, Path(target).parents)):
        if part == root:
            break
        if part in closed[root]:
            return f"leads to {part}, which {closed[root][part]}"
    try:
        Path(target).stat()
    except OSError:
        return "leads nowhere; correct it"
    return None


def _allowed(root: str, found: "_Found", links: Mapping[str, str]) -> Iterator[str]:
    """Where something is closed, what is beside it is named one by one. Links come after what they lead to."""
    split = {str(parent) for path in found.closed for parent in Path(path).parents}
    if root not in split:
        yield root
        return
    beside = [path for each in split & found.inside.keys() for path in found.inside[each]]
    beside = [path for path in beside if path not in found.closed and path not in split]
    yield from (path for path in beside if path not in links)
    yield from (path for path in beside if path in links)


class _Found:
    """What is below a directory. `owners` may own and write what is believed; None: everybody may."""

    def __init__(self, root: str, fleet: str, owners: frozenset[int] | None) -> None:
        self.entries: list[tuple[str | int, ...]] = []
        self.closed: dict[str, str] = {}
        self.links: list[str] = []
        self.modules: list[str] = []
        self.inside: dict[str, list[str]] = {}
        self.newest = 0
        self._owners = owners
        # A repository may hold the fleet in a directory that would be left out.
        self._way = {fleet, *map(str, Path(fleet).parents)}

    def enter(self, directory: str) -> None:
        """OSError for the first that cannot be read; below it, what cannot be is closed, or gone."""
        with os.scandir(directory) as entries:
            self.inside[directory] = inside = []
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                inside.append(entry.path)
                self._note(entry, status)

    def _note(self, entry: "os.DirEntry[str]", status: os.stat_result) -> None:
        path, mode = entry.path, status.st_mode
        is_file, is_link = stat.S_ISREG(mode), stat.S_ISLNK(mode)
        key = (path, mode, status.st_dev, status.st_ino, status.st_uid, status.st_gid)
        times = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        self.entries.append(key + times if is_file or is_link else key)
        if why := self._why_closed(entry.name, path, status):
            self.closed[path] = why
        elif is_link:
            self.links.append(path)
        elif is_file:
            if path.endswith(".nix"):
                self.modules.append(path)
        else:
            self._descend(path)
        if is_file or is_link:
            self.newest = max(self.newest, status.st_ctime_ns)

    def _why_closed(self, name: str, path: str, status: os.stat_result) -> str | None:
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            if (name.startswith(".") or name in _LEFT_OUT) and path not in self._way:
                return "is left out, as all directories with such names are; move what is needed elsewhere"
        elif not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            return "is neither file nor directory; take it away"
        elif name == ".git":
            return "is git's own; move what is needed elsewhere"
        if self._owners is None or not (why := distrust(status, self._owners)):
            return None
        return f"{why}; {_remedy(status, self._owners)}"

    def _descend(self, path: str) -> None:
        try:
            self.enter(path)
        except FileNotFoundError:
            return
        except PermissionError:
            self.closed[path] = "cannot be read; see to its rights"


def is_text(path: str) -> bool:
    """Whether Nix can be told this path."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
