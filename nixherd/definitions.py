"""The fleet's files as they are now: what may be changed is known to be as new as the directory it comes from."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from nixherd.errors import FleetError, Refused
from nixherd.fleet import load_fleet
from nixherd.models import Fleet
from nixherd.proxmox.policy import DEFINITIONS, Policy

Fingerprint = frozenset[tuple[str, int, int, int, int]]

# Not what an evaluation reads: version control, editors' and tools' own directories, results of builds.
_LEFT_OUT = frozenset((".git", ".nixherd", ".jj", ".hg", ".direnv", ".devenv", "node_modules", "__pycache__", ".venv"))
_STORE = "/nix/store"


def fingerprint(directory: str | os.PathLike[str]) -> Fingerprint:
    """Every file of a directory by path, size, times of change and inode; two that are equal are the same files.

    Links to directories are followed, but into the Nix store, where nothing changes. Raises OSError when the
    directory cannot be read.
    """
    return frozenset(_entries(Path(directory), set()))


def _entries(directory: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[str, int, int, int, int]]:
    about = directory.stat()
    if (about.st_dev, about.st_ino) in seen:
        return
    seen.add((about.st_dev, about.st_ino))
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in _LEFT_OUT:
                continue
            own = entry.stat(follow_symlinks=False)
            yield entry.path, own.st_size, own.st_mtime_ns, own.st_ctime_ns, own.st_ino
            if entry.is_symlink():
                yield from _behind(entry, seen)
            elif entry.is_dir():
                yield from _entries(Path(entry.path), seen)


def _behind(link: os.DirEntry[str], seen: set[tuple[int, int]]) -> Iterator[tuple[str, int, int, int, int]]:
    """What a link leads to; one that leads nowhere is its own entry and no more."""
    target = os.path.realpath(link.path)
    if target.startswith(f"{_STORE}/"):
        return
    try:
        about = link.stat()
    except OSError:
        return
    yield f"{link.path} →", about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino
    if link.is_dir():
        yield from _entries(Path(target), seen)


class Definitions:
    """A fleet and where it comes from. `policy()` is what the guard asks before each changing request."""

    def __init__(self, fleet: Fleet, read: Fingerprint) -> None:
        self.fleet = fleet
        self._read = read
        self._policy = Policy.from_fleet(fleet)
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Definitions":
        """Raises as `load_fleet` does."""
        directory = Path(path).expanduser().absolute()
        try:
            read = fingerprint(directory)  # before the evaluation: what changes meanwhile is noticed next time
        except OSError:
            read = frozenset()  # load_fleet says what is wrong
        return cls(load_fleet(directory), read)

    def policy(self) -> Policy:
        """The policy of the fleet's files as they are now; they are evaluated again when any of them has changed.

        Refused, in one sentence, when that cannot be done, or when they name another hypervisor than before.
        """
        with self._lock:
            try:
                now = fingerprint(self.fleet.path)
                if now != self._read:
                    self._evaluate(now)
            except OSError as error:
                why = f"{self.fleet.path} cannot be read any more ({error.strerror})"
                raise Refused(f"{why}; refusing any change") from error
            return self._policy

    def _evaluate(self, now: Fingerprint) -> None:
        try:
            fleet = load_fleet(self.fleet.path)
        except FleetError as error:
            first, *rest = str(error).splitlines()
            more = f" (and {len(rest)} more)" if rest else ""
            raise Refused(f"the definitions changed and cannot be used: {first}{more}; refusing any change") from error
        if fleet.endpoint != self.fleet.endpoint or fleet.id != self.fleet.id:
            raise Refused(
                f"{DEFINITIONS} names another fleet or hypervisor than when this run began; refusing any change, "
                "begin another run"
            )
        self._read, self._policy = now, Policy.from_fleet(fleet)
