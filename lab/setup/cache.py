"""The cache directory: one builder at a time; results appear atomically."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from lab.errors import LabError

KEEP_SECONDS = 14 * 86400


def stamp(parts: Iterable[str | bytes | Path]) -> str:
    """Return twelve hex digits for a recipe of strings, files and trees (by names, modes and content)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            for path in sorted(part.rglob("*")) if part.is_dir() else [part]:
                if path.is_file() and "__pycache__" not in path.parts:
                    digest.update(f"{path.relative_to(part)} {path.stat().st_mode & 0o111}\0".encode())
                    digest.update(path.read_bytes())
        else:
            digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def call(argv: Sequence[object], cwd: Path | None = None) -> str:
    """Run a set-up tool and return its stdout. Raises LabError with its last lines."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except FileNotFoundError:
        raise LabError(f"{words[0]}: no such program; the lab's set-up needs it") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise LabError(f"{Path(words[0]).name} failed ({done.returncode}): {' / '.join(last)}")
    return done.stdout


class Cache:
    """The locked cache; use it as a context manager."""

    def __init__(self, directory: Path, progress: Callable[[str], None]) -> None:
        self.directory = directory
        self.progress = progress
        self._lock: int | None = None

    def __enter__(self) -> "Cache":
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.progress("another set-up is running, waiting for it")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def _forget(self, kind: str) -> None:
        """Remove results of older recipes of this kind that were not used for a while."""
        for old in self.directory.glob(f"{kind}-*"):
            if time.time() - old.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(old) if old.is_dir() else old.unlink()

    def make(self, name: str, what: str, build: Callable[[Path], None]) -> Path:
        """Return the path of `name`; if it is missing, `build(path)` creates a file or directory elsewhere first."""
        final = self.directory / name
        if final.exists():
            os.utime(final)
            return final
        self._forget(name.rpartition("-")[0])
        self.progress(what)
        for left in self.directory.glob("making-*"):  # left by a set-up that was killed: we hold the lock
            shutil.rmtree(left)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=self.directory))
        making.chmod(0o755)
        try:
            build(making / name)
            (making / name).rename(final)
        finally:
            shutil.rmtree(making)
        return final
