"""What a run holds of the state that several runs share: the kernel gives it back, however the run ends."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    with _locked(parent / "lock"):  # so that a new one is not taken for an abandoned one before it is locked
        for each in filter(Path.is_dir, parent.iterdir()):
            try:
                os.close(lock(each / "lock"))
            except BlockingIOError:
                continue
            shutil.rmtree(each, ignore_errors=True)
        own = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
        return own, lock(own / "lock")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = lock(path, wait=True)
    try:
        yield
    finally:
        os.close(handle)
