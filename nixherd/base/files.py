"""Files that are there whole or not at all, whenever we are killed; and locks, which the kernel gives back."""

import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

from nixherd.base.errors import Usage

BOOT_ID = "/proc/sys/kernel/random/boot_id"
"""What tells one boot of a machine from another, here and there."""
TEMPORARY = ".nixherd-*.tmp"
"""What the files are called that are made beside a file of the fleet to take its place, as a pattern of git's."""
_TEMPORARY = re.compile(r"(.*/)?\.nixherd-[0-9a-f]{16}\.tmp", re.DOTALL)


def is_temporary(path: str) -> bool:
    """Whether a path is named like one of those."""
    return _TEMPORARY.fullmatch(path) is not None


def write_whole(path: Path, text: str, mode: int = 0o600, *, scratch: Path | None = None) -> None:
    """Write a file in `scratch`, or beside its place, and rename it there; durable once this returns.

    Makes its directory, mode 0700. `scratch` must be on the same file system.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=scratch or path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    # The file is there after a power failure only if its name is, and the names of the directories made for it.
    for directory in (path.parent, path.parent.parent):
        sync(directory)


def expanded(text: str | os.PathLike[str]) -> Path:
    """A path as a person wrote it, with `~` for somebody's home. Usage when the person does not exist."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise Usage(f"{os.fspath(text)}: the user does not exist here; write the whole path") from None


def fleet_root(text: str | os.PathLike[str]) -> Path:
    """The directory that a person named as the fleet's: absolute, `~` and links resolved. It need not exist.

    The one place where links are followed, so that Nix, git and every message mean the same directory.
    """
    return Path(os.path.realpath(expanded(text)))


def state_home() -> Path:
    """Where what is kept between runs is, of all fleets; a relative XDG_STATE_HOME is none, by its specification."""
    given = os.environ.get("XDG_STATE_HOME", "")
    return (Path(given) if given.startswith("/") else Path.home() / ".local" / "state") / "nixherd"


def sync(path: Path) -> None:
    """Make a file's content, or the names in a directory, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(path: Path, *, wait: bool = False) -> int:
    """Lock a file, with our PID in it, until the descriptor returned is closed or we are dead. Makes its directory.

    The file is never removed: who waited for a removed one would share the lock with who makes it anew.

    Raises BlockingIOError when another holds it, unless we `wait`.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)  # children do not inherit it
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    except BaseException:
        os.close(handle)
        raise
    return handle


def own_directory(parent: Path) -> tuple[Path, int]:
    """A new directory of ours in `parent`, and its lock as from `lock`; those that nobody holds are removed."""
    every = lock(parent / "lock", wait=True)  # so that a new one is not taken for an abandoned one before it is locked
    try:
        for each in filter(Path.is_dir, parent.iterdir()):
            try:
                os.close(lock(each / "lock"))
            except BlockingIOError:
                continue
            shutil.rmtree(each, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
        return made, lock(made / "lock")
    finally:
        os.close(every)
