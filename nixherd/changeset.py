"""Several files of the fleet changed as one: all old or all new, whenever we are killed, and one commit.

The new contents are staged in `.nixherd/` of the fleet's directory, which ignores itself for git. Then a journal
says what is to be swapped; from there on a run that was killed is finished by the next one: it renames what is not
renamed yet, and commits what is not committed yet. Before the journal nothing has happened, and what was staged is
thrown away.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nixherd.errors import FAILURES, FleetError, Unforeseen
from nixherd.faults import worded
from nixherd.files import sync, write_whole
from nixherd.git import Repository
from nixherd.locks import lock

PLACE = ".nixherd"
_AT_ONCE = 8  # files that are made durable side by side
# What file systems that cannot do that answer.
_NO_NAMELESS_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
_JOURNAL = "journal.json"
_KEPT = (".gitignore", "lock")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Swap:
    """A file that is to be replaced: SHA-256 of what is there (None: nothing) and of what comes."""

    path: str
    old: str | None
    new: str


@dataclass(frozen=True, slots=True)
class Done:
    """What a changeset came to. `commit` is the abbreviated hash, None without one; `paths` those that changed."""

    paths: tuple[str, ...]
    commit: str | None = None


@dataclass(frozen=True)
class Changeset:
    """The fleet's directory, locked for changing. Made by `changing`."""

    root: Path
    repository: Repository | None

    @cached_property
    def _real_root(self) -> Path:
        return self.root.resolve()

    @property
    def place(self) -> Path:
        return self.root / PLACE

    @property
    def staged(self) -> Path:
        """Where new contents are put, at the paths that they are to have below the fleet's directory."""
        return self.place / "staged"

    @property
    def scratch(self) -> Path:
        """For what is thrown away in the end."""
        return self.place / "scratch"

    @property
    def _journal(self) -> Path:
        return self.place / _JOURNAL

    def require_committable(self, paths: Sequence[str], *, commit: bool) -> None:
        """FleetError when one of the files has changes that nobody committed, or git could not commit them.

        Others may have such changes.
        """
        if self.repository is None:
            if commit:
                raise FleetError(
                    f"{self.root}: is in no git repository; `git init` one, or say that nothing is to be committed"
                )
            return
        if dirty := self.repository.changed(paths):
            raise FleetError(
                f"{self.root / dirty[0]}: has changes that are not committed"
                f"{f' (and {len(dirty) - 1} more)' if len(dirty) > 1 else ''}; commit or undo them first"
            )
        added = [path for path in paths if not (self.root / path).exists()]
        if added and (ignored := self.repository.ignored(added)):
            raise FleetError(f"{self.root / ignored[0]}: git ignores it; it cannot be committed, see .gitignore")
        if commit:
            self.repository.require_able()

    def stage(self, path: str, content: bytes) -> None:
        """Put a file's new content there, with the mode of the old one."""
        target = self.staged / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        with suppress(FileNotFoundError):
            target.chmod(self.real(path).stat().st_mode & 0o7777)

    def real(self, path: str) -> Path:
        """Where a path leads. FleetError when that is outside of the fleet's directory."""
        real = Path(os.path.realpath(self.root / path))
        if self._real_root not in real.parents:
            raise FleetError(f"{self.root / path}: is outside of {self.root}; only files of the fleet are changed")
        return real

    def publish(self, seen: dict[str, bytes | None], message: str, *, commit: bool, say: Say) -> Done:
        """Swap in what is staged, and commit it. `seen` maps the paths to the contents that the change was made from.

        FleetError when a file is another one by now, cannot be replaced, or git refuses: then all is as it was.
        """
        swaps = [
            Swap(path, None if old is None else _sum(old), _sum((self.staged / path).read_bytes()))
            for path, old in sorted(seen.items())
            if old is None or (self.staged / path).read_bytes() != old
        ]
        if not swaps:
            return Done(())
        self._require_possible(swaps)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(sync, [self.staged / swap.path for swap in swaps]))
        document = {
            "message": message,
            "commit": commit,
            "began": time.time(),
            "files": [[swap.path, swap.old, swap.new] for swap in swaps],
        }
        self._keep_old(swaps)
        write_whole(self._journal, json.dumps(document))
        return self._finish(document, say, resumed=False)

    def resume(self, say: Say) -> Done | None:
        """Finish what a killed run had begun to publish; None when there is nothing. What it only staged is removed."""
        try:
            document = json.loads(self._journal.read_text())
        except FileNotFoundError:
            self._clear()
            return None
        say("a run before this one was interrupted while it published its changes; finishing that")
        return self._finish(document, say, resumed=True)

    # Publishing

    def _require_possible(self, swaps: Sequence[Swap]) -> None:
        for swap in swaps:
            self._require_as_seen(swap)
        for directory in sorted({self.real(swap.path).parent for swap in swaps}):
            existing = next(each for each in (directory, *directory.parents) if each.exists())
            if existing.stat().st_dev != self.place.stat().st_dev:
                raise FleetError(f"{directory}: is on another file system than {self.place}; nothing was changed")
            try:
                os.close(os.open(existing, os.O_TMPFILE | os.O_WRONLY))  # a file without a name leaves none behind
            except OSError as error:
                if error.errno not in _NO_NAMELESS_FILES or not os.access(existing, os.W_OK):
                    raise FleetError(
                        f"{existing}: cannot be written ({error.strerror}); nothing was changed"
                    ) from error

    def _require_as_seen(self, swap: Swap) -> None:
        if self._sum_of(swap.path) != swap.old:
            raise FleetError(
                f"{self.root / swap.path}: somebody changed it meanwhile; nothing was changed, run it again"
            )

    def _sum_of(self, path: str) -> str | None:
        try:
            return _sum(self.real(path).read_bytes())
        except FileNotFoundError:
            return None

    def _keep_old(self, swaps: Sequence[Swap]) -> None:
        """A second name for each old file, so that a publication that cannot be finished can be taken back."""
        shutil.rmtree(self.place / "old", ignore_errors=True)
        for swap in swaps:
            if swap.old is not None:
                kept = self.place / "old" / swap.path
                kept.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(self.real(swap.path), kept)
                except OSError:  # not every file system has links
                    shutil.copy2(self.real(swap.path), kept)

    def _finish(self, document: dict[str, Any], say: Say, *, resumed: bool) -> Done:
        swaps = [Swap(*each) for each in document["files"]]
        paths = [swap.path for swap in swaps]
        left = [swap for swap in swaps if not self._is_new(swap)]
        try:
            for swap in left:
                self._replace(swap)
            for directory in {self.real(swap.path).parent for swap in left}:
                sync(directory)
            hash_ = self._commit(swaps, document, say, resumed=resumed)
        except FAILURES as error:
            self._take_back(swaps)
            failure = worded(error, f"{self.root}: publishing changes")
            kind = Unforeseen if isinstance(failure, Unforeseen) else FleetError
            raise kind(f"{failure}; every file was put back as it was") from error
        self._clear()
        return Done(tuple(paths), hash_)

    def _is_new(self, swap: Swap) -> bool:
        """Whether the file is what it is to be. FleetError when it is neither that nor what it was."""
        found = self._sum_of(swap.path)
        if found not in (swap.old, swap.new):
            raise FleetError(
                f"{self.root / swap.path}: changed after a run had begun to replace it; see {self.place} for both "
                "versions, then remove that directory"
            )
        return found == swap.new

    def _replace(self, swap: Swap) -> None:
        target = self.real(swap.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged = self.staged / swap.path
        with suppress(FileNotFoundError, PermissionError):
            before, now = target.stat(), staged.stat()
            if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
                os.chown(staged, before.st_uid, before.st_gid)
        staged.replace(target)

    def _commit(self, swaps: Sequence[Swap], document: dict[str, Any], say: Say, *, resumed: bool) -> str | None:
        if self.repository is None:
            return None
        if resumed:  # the git of the run that was killed may have left its locks
            self.repository.unlock(document["began"])
        paths, added = [swap.path for swap in swaps], [swap.path for swap in swaps if swap.old is None]
        if not document["commit"]:
            if added:
                self.repository.git("add", "--intent-to-add", "--", *added)
            return None
        if resumed and not self.repository.git("diff", "--quiet", "HEAD", "--", *paths, check=False).status:
            self.repository.add(paths)  # in case it was killed between its commit and its index
            if not self.repository.changed(paths):
                return self.repository.head()
        say("commit")
        if added:
            self.repository.add(added)
        return self.repository.commit(paths, document["message"])

    def _take_back(self, swaps: Sequence[Swap]) -> None:
        for swap in swaps:
            if self._sum_of(swap.path) != swap.new:
                continue
            if swap.old is None:
                self.real(swap.path).unlink()
            else:
                (self.place / "old" / swap.path).replace(self.real(swap.path))
        if self.repository is not None:
            tracked = [swap.path for swap in swaps]
            self.repository.git("reset", "--quiet", "--", *tracked, check=False)
        self._journal.unlink(missing_ok=True)
        self._clear()

    def _clear(self) -> None:
        """Leave nothing but the lock there. The journal goes first: without it the rest means nothing."""
        self._journal.unlink(missing_ok=True)
        left = [path for path in self.place.iterdir() if path.name not in _KEPT]
        if left:
            sync(self.place)
        for path in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def interrupted(root: Path) -> bool:
    """Whether a run was killed while it published its changes; the next one that changes anything finishes them."""
    return (root / PLACE / _JOURNAL).exists()


@contextmanager
def changing(root: Path) -> Iterator[Changeset]:
    """The fleet's directory for one change at a time. FleetError when another run changes it, or it is read-only."""
    place = root / PLACE
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        if not (place / ".gitignore").exists():
            write_whole(place / ".gitignore", "*\n")
        handle = lock(place / "lock")
    except BlockingIOError:
        raise FleetError(f"{root}: another run is changing this fleet's files; wait for it") from None
    except OSError as error:
        raise FleetError(f"{place}: cannot be written ({error.strerror}); nothing was changed") from error
    try:
        changeset = Changeset(root, Repository.around(root))
        try:
            yield changeset
        finally:
            if not changeset._journal.exists():
                changeset._clear()
    finally:
        os.close(handle)


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
