"""Several files of the fleet changed as one: all old or all new, whenever we are killed, and one commit.

What a run needs for that is in the state directory, `.trees/` there, never in the tree: whoever can push a commit could
put it there. New contents are staged and verified in it, then a journal says what is to be replaced, by SHA-256 of what
was there and what comes. Each file is replaced by a temporary one beside it, or removed. From the first on a run that
was killed is finished by the next one: it replaces what is not replaced yet, and commits what is not committed yet.
Before that nothing has happened, and what was staged is thrown away.

A journal is for one tree, which is known by its directory itself (`nixherd.fleet.tree.identity`): another tree that is
put at its path later, a new clone for instance, has none.
"""

import hashlib
import json
import os
import posixpath
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nixherd.base.errors import FAILURES, FleetError, Unforeseen
from nixherd.base.files import TEMPORARY, lock, state_home, sync, write_whole
from nixherd.base.terminal import worded
from nixherd.fleet import tree as trees
from nixherd.fleet.committable import require_committable_in
from nixherd.fleet.git import Repository
from nixherd.fleet.read_back import Committed
from nixherd.fleet.tree import Temporary, Tree

_AT_ONCE = 8  # files that are made durable, or removed, side by side: each may wait for the file system's journal
_MANY = 16  # files of which git is given the contents before it is to commit them
_JOURNAL = "journal.json"
_LOCK = "lock"
_MODE = 0o7777
Say = Callable[[str], None]
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Swap:
    """A file that is to be replaced: SHA-256 of what is there and of what comes, None where that is nothing."""

    path: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Done:
    """What a changeset came to. `commit` is the abbreviated hash, None without one; `paths` those that changed.

    `notes` is what people should know of the commit.
    """

    paths: tuple[str, ...]
    commit: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Changeset:
    """The fleet's directory, locked for changing. Made by `changing`. `place` is what we keep of it meanwhile.

    `begins` is called before the first file is replaced; nothing is where it raises.
    """

    tree: Tree
    place: Path
    repository: Repository | None
    begins: Callable[[], object] = lambda: None

    @property
    def root(self) -> Path:
        return self.tree.root

    @property
    def staged(self) -> Path:
        """Where new contents are put, at the paths that they are to have from the fleet's directory."""
        return self.place.joinpath("staged", *self.tree.prefix)

    @property
    def scratch(self) -> Path:
        """For what is thrown away in the end."""
        return self.place / "scratch"

    @property
    def _old(self) -> Path:
        """What the files were, for a publication that cannot be finished."""
        return self.place.joinpath("old", *self.tree.prefix)

    @property
    def _journal(self) -> Path:
        return self.place / _JOURNAL

    def require_committable(self, paths: Sequence[str], *, commit: bool) -> None:
        """FleetError when one of the files has changes that nobody committed, or git could not commit them.

        Others may have such changes.
        """
        new = [path for path in paths if self.tree.stat(path) is None]
        require_committable_in(self.root, self.repository, paths, new, commit=commit)

    def stage(self, path: str, content: bytes) -> None:
        """Put a file's new content there, with the mode of the old one."""
        before, target = self.tree.stat(path), _inside(self.staged, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        if before is not None:
            target.chmod(before.st_mode & _MODE)

    def publish(
        self,
        seen: dict[str, bytes | None],
        message: str,
        *,
        removed: Collection[str] | None = None,
        commit: bool,
        say: Say,
    ) -> Done:
        """Swap in what is staged, and commit it. `seen` maps the paths to the contents that the change was made from.

        Those that are `removed` go, with directories in which nothing is left. Where that is given, empty or not, what
        names something is changed before what it names: definitions, hosts.nix, a host's files. FleetError when a file
        is another one by now, cannot be replaced, or git refuses: then all is as it was. Altered when a git hook has
        made something else of it: then the commit is there.
        """
        new = {path: None if path in (removed or ()) else _inside(self.staged, path).read_bytes() for path in seen}
        swaps = [
            Swap(path, _sum_or_none(seen[path]), _sum_or_none(new[path]))
            # new files first: what is edited names them, and a run may be killed between any two
            for path in sorted(seen, key=lambda path: (seen[path] is not None, path), reverse=removed is not None)
            if new[path] != seen[path]
        ]
        if not swaps:
            return Done(())
        document = {
            "tree": str(self.root),
            "message": message,
            "commit": commit,
            "began": time.time(),
            "files": [[swap.path, swap.old, swap.new] for swap in swaps],
            "directories": self.tree.missing_directories(swap.path for swap in swaps),
        }
        staged = [_inside(self.staged, swap.path) for swap in swaps if swap.new]
        with ThreadPoolExecutor(2) as pool:
            durable = pool.submit(_with_each, sync, staged)
            if commit and self.repository is not None and len(staged) > _MANY:
                pool.submit(self.repository.write_ahead, staged)  # on another core, until git is to commit
            self._require_possible(swaps)
            self._keep_old(swaps)
            durable.result()
            self.begins()
            write_whole(self._journal, json.dumps(document))
            return self._finish(document, say, resumed=False)

    def resume(self, say: Say) -> Done | None:
        """Finish what a killed run had begun to publish; None when there is nothing. What it only staged is removed."""
        try:
            document = json.loads(self._journal.read_text())
        except FileNotFoundError:
            self._clear()
            return None
        except ValueError as error:
            raise FleetError(f"{self._journal}: is not a journal ({error}); remove {self.place}") from None
        if not any(self._is_new(Swap(*each)) for each in document["files"]):
            self._remove_made(document)
            self._clear()  # nothing has happened yet, or somebody has undone it
            return None
        say("a run before this one was interrupted while it published its changes; finishing that")
        self.begins()
        done = self._finish(document, say, resumed=True)
        for note in done.notes:
            say(note)
        return done

    # Publishing

    def _require_possible(self, swaps: Sequence[Swap]) -> None:
        for swap in swaps:
            if self._sum_of(swap.path) != swap.old:
                raise FleetError(f"{self.root / swap.path}: was changed meanwhile; nothing was done, run it again")
        for path in {posixpath.dirname(swap.path): swap.path for swap in swaps}.values():
            self.tree.require_writable(path)

    def _sum_of(self, path: str) -> str | None:
        return _sum_or_none(self.tree.read(path))

    def _keep_old(self, swaps: Sequence[Swap]) -> None:
        shutil.rmtree(self.place / "old", ignore_errors=True)
        places = {swap.path: _inside(self._old, swap.path) for swap in swaps if swap.old is not None}
        for place in {kept.parent for kept in places.values()}:
            place.mkdir(parents=True, exist_ok=True)
        for path, kept in places.items():
            if not self.tree.link(path, kept):
                content, status = self.tree.read(path), self.tree.stat(path)
                if content is not None and status is not None:
                    kept.write_bytes(content)
                    kept.chmod(status.st_mode & _MODE)

    def _finish(self, document: Mapping[str, Any], say: Say, *, resumed: bool) -> Done:
        swaps = [Swap(*each) for each in document["files"]]
        left = [swap for swap in swaps if not (resumed and self._is_new(swap))]  # else all were seen to be old just now
        beside: dict[str, Temporary | None] = {}
        try:
            self._replace(left, beside)
            hash_ = self._commit(swaps, document, say, resumed=resumed)
        except FAILURES as error:
            self._take_back(document, swaps, beside)
            failure = worded(error, f"{self.root}: publishing changes")
            kind = Unforeseen if isinstance(failure, Unforeseen) else FleetError
            raise kind(f"{failure}; every file was put back as it was") from error
        try:
            with ThreadPoolExecutor(1) as pool:
                gone = pool.submit(self._discard, beside.values())  # while git is asked
                notes = self._read_back(swaps, hash_)
            gone.result()
        finally:
            for swap in swaps:
                if swap.new is None:
                    for parent in Path(swap.path).parents[:-1]:
                        if parent.name != "..":
                            self.tree.remove_directory(str(parent))
            self._clear()
        return Done(tuple(swap.path for swap in swaps), hash_, notes)

    def _is_new(self, swap: Swap) -> bool:
        """Whether the file is what it is to be. FleetError when it is neither that nor what it was."""
        found = self._sum_of(swap.path)
        if found not in (swap.old, swap.new):
            what = f"{self.root / swap.path}: changed after a run had begun to replace it"
            raise FleetError(f"{what}; see {self.place} for both versions, then remove that directory")
        return found == swap.new

    def _replace(self, swaps: Sequence[Swap], beside: dict[str, Temporary | None]) -> None:
        """Put the new contents in place. `beside` is given the second names that the old files keep meanwhile.

        All that needs room is done before the first file is replaced, so that going back needs none.
        """
        if self.repository is not None:
            self.repository.exclude(TEMPORARY)
        new: dict[str, Temporary] = {}
        coming = [(swap.path, swap.new) for swap in swaps if swap.new]
        try:
            _with_each(lambda each: new.update({each[0]: self._beside(self.staged, *each)}), coming)
            for swap in swaps:
                if swap.old is not None:
                    beside[swap.path] = self.tree.kept(swap.path)
            for path, _ in coming:  # in this order: a file that names another one comes after it
                self.tree.move(new[path])
            for swap in swaps:
                if swap.new is None:
                    self.tree.remove(swap.path)
        except BaseException:
            self._discard(new.values())
            raise
        for path in {posixpath.dirname(swap.path): swap.path for swap in swaps}.values():
            self.tree.sync(path)

    def _beside(self, place: Path, path: str, expected: str) -> Temporary:
        """A copy of what we keep of a file, beside it. FleetError when it is not what the journal says."""
        copy = _inside(place, path)
        content, mode = copy.read_bytes(), copy.stat().st_mode
        if _sum(content) != expected:
            raise FleetError(f"{copy}: is damaged")
        return self.tree.beside(path, content, mode & _MODE)

    def _discard(self, temporaries: Iterable[Temporary | None]) -> None:
        _with_each(self.tree.discard, [each for each in temporaries if each is not None])

    def _commit(self, swaps: Sequence[Swap], document: Mapping[str, Any], say: Say, *, resumed: bool) -> str | None:
        if self.repository is None:
            return None
        if resumed:  # the git of the run that was killed may have left its locks
            self.repository.unlock(document["began"])
        paths, added = [swap.path for swap in swaps], [swap.path for swap in swaps if swap.old is None]
        removed = [swap.path for swap in swaps if swap.new is None]
        if not document["commit"]:
            if added:
                self.repository.add(added, content=False)
            self.repository.drop(removed)
            return None
        if resumed and self.repository.committed(paths, removed):
            return self.repository.head()
        say("commit")
        if added:
            self.repository.add(added)
        return self.repository.commit(paths, document["message"])

    def _read_back(self, swaps: Sequence[Swap], commit: str | None) -> tuple[str, ...]:
        """Altered unless the commit, if there is one, and the files are what was staged."""
        if self.repository is None or commit is None:
            return ()
        staged = {swap.path: _inside(self.staged, swap.path) if swap.new else None for swap in swaps}
        return Committed(self.tree, self.repository, commit, self.scratch, staged).require_as_made()

    def _take_back(
        self, document: Mapping[str, Any], swaps: Sequence[Swap], beside: Mapping[str, Temporary | None]
    ) -> None:
        for swap in swaps:
            kept = beside.get(swap.path)
            if self._sum_of(swap.path) != swap.new:
                self._discard([kept])
            elif swap.old is None:
                self.tree.remove(swap.path)
            else:
                self.tree.move(kept or self._beside(self._old, swap.path, swap.old))
        if self.repository is not None:
            # what somebody else has staged of a file that is only edited is theirs
            self.repository.forget([swap.path for swap in swaps if swap.old is None or document["commit"]])
        self._remove_made(document)
        self._clear()

    def _remove_made(self, document: Mapping[str, Any]) -> None:
        """Those of the directories that were made for the new files in which nothing is, the inner ones first."""
        for path in reversed(document.get("directories", ())):  # a journal of an older version has none
            self.tree.remove_directory(path)

    def _clear(self) -> None:
        """Leave nothing but the lock there. The journal goes first: without it the rest means nothing."""
        self._journal.unlink(missing_ok=True)
        left = [path for path in self.place.iterdir() if path.name != _LOCK]
        if left:
            sync(self.place)
        files = [Path(parent, name) for path in left for parent, _, names in os.walk(path) for name in names]
        _with_each(Path.unlink, files)
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def interrupted(root: Path) -> bool:
    """Whether a run was killed while it published its changes; the next one that changes anything finishes them."""
    return (_place(root) / _JOURNAL).exists()


@contextmanager
def changing(root: Path, begins: Callable[[], object] = lambda: None) -> Iterator[Changeset]:
    """The fleet's directory for one change at a time. FleetError when another run changes it."""
    with trees.opened(root) as tree, ExitStack() as held:
        repository = Repository.around(root)
        place = _make_place(root, repository)
        try:
            held.callback(os.close, lock(place / _LOCK))
            tree.lock()
        except BlockingIOError:
            raise FleetError(f"{root}: another run is changing this fleet's files; wait for it") from None
        changeset = Changeset(tree, place, repository, begins)
        # what killed runs left, whatever became of their journals; none that git tracks
        for path in list(repository.untracked(TEMPORARY) if repository else tree.temporaries()):
            tree.sweep(path)
        try:
            yield changeset
        finally:
            if not changeset._journal.exists():
                changeset._clear()


def _place(root: Path) -> Path:
    return state_home() / ".trees" / _sum(trees.identity(root).encode())[:32]


def _make_place(root: Path, repository: Repository | None) -> Path:
    """What we keep of a tree, a directory that nobody else can write. FleetError when it cannot be that."""
    place, top = _place(root), repository.top if repository else root.resolve()
    if top in place.parent.resolve().parents or root.resolve() in place.parent.resolve().parents:
        raise FleetError(f"{state_home()}: is inside of {top}; XDG_STATE_HOME has to be outside of the fleet")
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise FleetError(f"{place}: cannot be written ({error.strerror}); nothing was changed") from error
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise FleetError(f"{place}: is not a directory that only we can write; remove it")
    return place


def _with_each(act: Callable[[_Item], object], items: Sequence[_Item]) -> None:
    """Do this with each, a share of them in each of a few threads. The first error is raised once all have ended."""
    shares = [items[start::_AT_ONCE] for start in range(min(_AT_ONCE, len(items)))]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda share: [act(each) for each in share], shares))


def _inside(place: Path, path: str) -> Path:
    """A path of the fleet's below one of our directories, which has as many names below `.trees/` as it may go up."""
    return Path(os.path.normpath(f"{place}/{path}"))


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sum_or_none(content: bytes | None) -> str | None:
    return None if content is None else _sum(content)
