"""The fleet's directory as something that others may have made: its files are reached without following a link.

A path may lead out of it with `../` at its beginning, where the fleet is in a subdirectory of its repository: never out
of that. Every path is walked from an open directory, name by name, each opened with O_NOFOLLOW: a link that is there,
or is put there meanwhile, leads nowhere. Nothing below a `.git` is ever read or written here. A file is replaced by a
temporary one beside it, made with O_EXCL, whose name (`nixherd.base.files.TEMPORARY`) tells the next run whose it was.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import posixpath
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.base.files import is_temporary
from nixherd.fleet.git import top_of

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LARGEST = 64 << 20  # bytes of a file of the fleet
_MODE = 0o7777
_NO_LINKS = "only files that are themselves in the fleet are used"
# What file systems that cannot do that answer.
_NO_NAMELESS_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
# Names that some file system takes for .git: macOS ignores these characters, Windows what is at the end.
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")


@dataclass(frozen=True, slots=True)
class Temporary:
    """A file of ours beside the one at `path`, called `name`."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class Tree:
    """The fleet's directory, to which paths are relative. Made by `opened`.

    `handle` is open on the top of its repository (on itself, outside any), `prefix` the names from there to it.
    """

    root: Path
    handle: int
    prefix: tuple[str, ...] = ()

    def read(self, path: str) -> bytes | None:
        """A file's content, None where there is none. FleetError when a link leads there, or it is not a file."""
        with self._directory(path) as (directory, name):
            if directory is None:
                return None
            try:
                handle = os.open(name, os.O_RDONLY | _FILE, dir_fd=directory)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise self._wrong(path, directory, name, error) from error
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                os.close(handle)
                raise FleetError(f"{self.root / path}: is not a file, or a very large one; only files are used")
            with os.fdopen(handle, "rb") as file:
                return file.read()

    def stat(self, path: str) -> os.stat_result | None:
        """What a file is, None where there is none. FleetError as `read`."""
        with self._directory(path) as (directory, name):
            found = _stat(name, directory) if directory is not None else None
        if found is not None and not stat.S_ISREG(found.st_mode):
            kind = f"a symbolic link; {_NO_LINKS}" if stat.S_ISLNK(found.st_mode) else "not a file"
            raise FleetError(f"{self.root / path}: is {kind}")
        return found

    def replace(self, path: str, content: bytes) -> None:
        """Give a file another content, whole or not at all; durable once this returns."""
        before = self.stat(path)
        temporary = self.beside(path, content, before.st_mode & _MODE if before else 0o644)
        try:
            self.move(temporary)
        except BaseException:
            self.discard(temporary)
            raise
        self.sync(path)

    def beside(self, path: str, content: bytes, mode: int) -> Temporary:
        """A temporary file with this content, owned as the one that is there; its directory is made. Durable."""
        before, temporary = self.stat(path), _temporary(path)
        with self._directory(path, make=True) as (directory, _):
            assert directory is not None, "made"
            handle = os.open(temporary.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=directory)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    now = os.fstat(handle)
                    if before and (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
                        with contextlib.suppress(PermissionError):
                            os.fchown(handle, before.st_uid, before.st_gid)
                    os.fchmod(handle, mode)
                    file.flush()
                    os.fsync(handle)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary.name, dir_fd=directory)
                raise
        return temporary

    def kept(self, path: str) -> Temporary | None:
        """A second, temporary name for a file as it is now; None where the file system has no links."""
        temporary = _temporary(path)
        with self._directory(path) as (directory, name):
            try:
                os.link(name, temporary.name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
            except OSError:
                return None
        return temporary

    def link(self, path: str, place: Path) -> bool:
        """Give a file as it is now a second name outside of the tree; whether that could be."""
        with self._directory(path) as (directory, name):
            try:
                os.link(name, place, src_dir_fd=directory, follow_symlinks=False)
            except OSError:
                return False
        return True

    def move(self, temporary: Temporary) -> None:
        """Put a temporary file in the place of the one that it is beside."""
        with self._directory(temporary.path) as (directory, name):
            os.replace(temporary.name, name, src_dir_fd=directory, dst_dir_fd=directory)

    def discard(self, temporary: Temporary) -> None:
        self.remove(posixpath.join(posixpath.dirname(temporary.path), temporary.name))

    def remove(self, path: str) -> None:
        """Remove a name; that of a link, not what it leads to."""
        with self._directory(path) as (directory, name):
            if directory is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)

    def missing_directories(self, paths: Iterable[str]) -> list[str]:
        """The directories that would have to be made for files at these paths, the outer ones first."""
        found: dict[str, None] = {}
        for parts in (self._parts(path)[:-1] for path in paths):
            for depth in range(1, len(parts) + 1):
                with self._walk(parts[:depth]) as directory:
                    if directory is None:
                        found[self._shown(parts[:depth])] = None
        return sorted(found, key=lambda path: path.count("/"))

    def remove_directory(self, path: str) -> None:
        """Remove a directory in which nothing is; any other stays."""
        with self._directory(path) as (directory, name):
            if directory is not None:
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=directory)

    def sweep(self, path: str) -> None:
        """Remove a temporary file that a killed run left: a regular file of ours, named like one."""
        if not is_temporary(path) or any(map(_is_git, path.split("/"))):
            return
        with self._directory(path) as (directory, name):
            found = _stat(name, directory) if directory is not None else None
            if found is not None and stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                os.unlink(name, dir_fd=directory)

    def temporaries(self) -> Iterator[str]:
        """The paths of everything that is named like a temporary file, but below a `.git`."""
        for parent, directories, names in os.walk(self.root):
            directories[:] = [name for name in directories if not _is_git(name)]
            yield from (os.path.relpath(os.path.join(parent, name), self.root) for name in names if is_temporary(name))  # noqa: PTH118

    def sync(self, path: str) -> None:
        """Make the name of a file durable, or that it is gone."""
        with self._directory(path) as (directory, _):
            if directory is not None:
                os.fsync(directory)

    def require_writable(self, path: str) -> None:
        """FleetError unless a file can be put there; nothing is."""
        *parts, _ = self._parts(path)
        for depth in range(len(parts), -1, -1):
            with self._walk(parts[:depth]) as directory:
                if directory is not None:
                    _require_writable(directory, self.root / self._shown(parts[:depth]))
                    return

    def lock(self) -> None:
        """Let nobody else change these files until the handle is closed. BlockingIOError when somebody does.

        Whoever has another state directory is kept out as well; not everywhere can a directory be locked.
        """
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            return

    # Walking

    def _parts(self, path: str) -> list[str]:
        """The names from the repository's top to a path."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        up = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
        below, kept = parts[up:], len(self.prefix) - up
        if not below or kept < 0 or ".." in below or path.startswith("/") or "\0" in path:
            top = self.root.resolve().parents[len(self.prefix) - 1] if self.prefix else self.root
            raise FleetError(f"{self.root / path}: is not a path below {top}; name a file of the fleet")
        if any(map(_is_git, below)):
            raise FleetError(f"{self.root / path}: belongs to git; only files of the fleet are changed")
        return [*self.prefix[:kept], *below]

    def _shown(self, parts: Sequence[str]) -> str:
        """The path of these names from the top, relative to the fleet's directory."""
        return posixpath.relpath("/" + "/".join(parts), "/" + "/".join(self.prefix))

    @contextmanager
    def _directory(self, path: str, *, make: bool = False) -> Iterator[tuple[int | None, str]]:
        """The directory that a path is in, None where there is none, and the last name of the path."""
        *parents, name = self._parts(path)
        handle = self._opened(parents, make=make)
        try:
            yield handle, name
        finally:
            if handle is not None:
                os.close(handle)

    @contextmanager
    def _walk(self, parts: Sequence[str]) -> Iterator[int | None]:
        handle = self._opened(parts)
        try:
            yield handle
        finally:
            if handle is not None:
                os.close(handle)

    def _opened(self, parts: Sequence[str], *, make: bool = False) -> int | None:
        """A handle on the directory that these names lead to from the top, step by step; None where there is none."""
        if not parts:
            return os.dup(self.handle)
        handle = self.handle
        for number, part in enumerate(parts):
            try:
                following = self._step(handle, part, parts[: number + 1], make=make)
            finally:
                if handle != self.handle:
                    os.close(handle)
            if following is None:
                return None
            handle = following
        return handle

    def _step(self, directory: int, name: str, parts: Sequence[str], *, make: bool) -> int | None:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=directory)
        try:
            return os.open(name, _DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._wrong(self._shown(parts), directory, name, error) from error

    def _wrong(self, path: str, directory: int, name: str, error: OSError) -> FleetError:
        found = _stat(name, directory)
        if found is not None and stat.S_ISLNK(found.st_mode):
            return FleetError(f"{self.root / path}: is a symbolic link; {_NO_LINKS}")
        return FleetError(f"{self.root / path}: cannot be read ({error.strerror})")


@contextmanager
def opened(root: Path) -> Iterator[Tree]:
    """The fleet's directory; where FLEET itself is a link, what it leads to. FleetError when it cannot be opened."""
    try:
        resolved = root.resolve(strict=True)
        top = top_of(resolved) or resolved
        handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FleetError(f"{root}: cannot be read ({error.strerror})") from error
    try:
        yield Tree(root, handle, resolved.relative_to(top).parts)
    finally:
        os.close(handle)


def read(root: Path, path: str) -> bytes | None:
    """A file of the fleet as it is now, as `Tree.read`."""
    with opened(root) as tree:
        return tree.read(path)


def identity(root: Path) -> str:
    """What tells a directory from every other one, also from one that is made at its path later.

    It is its inode and the time at which it was made, so it is the same after a move; where the file system does not
    say that time, the path as well. Not the device, whose number may be another one after a reboot.
    """
    resolved = root.resolve()
    born = _born(resolved)
    return f"{resolved.stat().st_ino:x}-{born:x}" if born else f"{resolved.stat().st_ino:x}-{resolved}"


# statx(2) and its struct: the standard library has no time of birth on Linux.
_AT_FDCWD, _STATX_BTIME, _BTIME_AT, _SIZE = -100, 0x800, 80, 256
_statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)


def _born(path: Path) -> int:
    """When a file was made, in nanoseconds since the epoch; 0 where that is not known."""
    if _statx is None:
        return int(getattr(path.stat(), "st_birthtime", 0) * 1_000_000_000)
    buffer = ctypes.create_string_buffer(_SIZE)
    if _statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer) or not (
        int.from_bytes(buffer.raw[:4], "little") & _STATX_BTIME
    ):
        return 0
    seconds = int.from_bytes(buffer.raw[_BTIME_AT : _BTIME_AT + 8], "little", signed=True)
    return seconds * 1_000_000_000 + int.from_bytes(buffer.raw[_BTIME_AT + 8 : _BTIME_AT + 12], "little")


def _require_writable(directory: int, path: Path) -> None:
    try:
        os.close(os.open(".", os.O_TMPFILE | os.O_WRONLY, dir_fd=directory))  # it leaves no name behind
    except OSError as error:
        if error.errno not in _NO_NAMELESS_FILES or not os.access(".", os.W_OK, dir_fd=directory):
            raise FleetError(f"{path}: cannot be written ({error.strerror}); nothing was changed") from error


def _stat(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _temporary(path: str) -> Temporary:
    return Temporary(path, f".nixherd-{secrets.token_hex(8)}.tmp")


def _is_git(name: str) -> bool:
    shown = name if name.isascii() else _IGNORED.sub("", name)
    return shown.rstrip(" .").casefold() in (".git", "git~1")
