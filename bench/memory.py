"""Measures the peak memory of a command and its descendants by sampling (proc_pid_smaps(5))."""

import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PAUSE = 0.1  # seconds between two samples


class Peak:
    """`mib` is the peak: the sum of proportional set sizes, so that shared memory counts once."""

    def __init__(self) -> None:
        self.mib = 0.0


@contextmanager
def watched(process: "subprocess.Popen[str]") -> Iterator[Peak]:
    """Sample the process and its descendants for as long as the block runs."""
    peak, over = Peak(), threading.Event()

    def look() -> None:
        while not over.wait(PAUSE):
            peak.mib = max(peak.mib, sum(map(_pss, _family(process.pid))) / 1024)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _family(root: int) -> Iterator[int]:
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            text = stat.read_text()
            children[int(text.rpartition(")")[2].split()[1])].append(int(text.split()[0]))
    left = [root]
    while left:
        pid = left.pop()
        yield pid
        left.extend(children[pid])


def _pss(pid: int) -> int:
    """Return KiB."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def peak_of(argv: list[str], environment: dict[str, str]) -> tuple[float, int, str]:
    """Return peak MiB, status and output of a command."""
    process = subprocess.Popen(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with watched(process) as peak:
        output, _ = process.communicate()
    return peak.mib, process.returncode, output
