"""One control group per machine: holds its processes and ends them."""

import os
import signal
import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class Cgroup:
    """A group of the unified hierarchy, created if missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def joining(self, argv: list[str]) -> list[str]:
        """Return an argv that starts `argv` inside the group."""
        return ["sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', str(self.path), *argv]

    def processes(self) -> list[int]:
        """Return the process ids in this group and below, as seen by this process."""
        pids = []
        for directory, _, _ in os.walk(self.path):
            try:
                pids += [int(line) for line in (Path(directory) / "cgroup.procs").read_text().split()]
            except OSError:  # the group has ended in the meantime
                continue
        return [pid for pid in pids if pid]

    def kill(self, deadline: float = 10.0) -> None:
        """Send SIGKILL to all processes; return when they have ended. Raises TimeoutError."""
        try:
            (self.path / "cgroup.kill").write_text("1")
        except FileNotFoundError:  # before Linux 5.14
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
        self.wait_empty(deadline)

    def wait_empty(self, deadline: float) -> None:
        """Return when no process is left. Raises TimeoutError."""
        end = time.monotonic() + deadline
        while "populated 1" in (self.path / "cgroup.events").read_text():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.path.name}: processes {self.processes()} do not end")
            time.sleep(0.005)

    def clear(self) -> None:
        """Remove the groups that a guest created below."""
        for child in self.path.iterdir():
            if child.is_dir():
                remove_tree(child)

    def remove(self) -> None:
        """Remove the group and those below."""
        remove_tree(self.path)


def remove_tree(path: Path) -> None:
    """Remove empty groups from the leaves up; a missing path is not an error."""
    for directory, _, _ in os.walk(path, topdown=False):
        Path(directory).rmdir()
