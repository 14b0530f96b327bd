"""`make conformance`: how well the API emulator agrees with recordings of real servers (../shared/pve, if it is there).

Each set of recordings is replayed from its own start state against an emulator of its own. Most of the time the servers
wait, as the real one did, so the sets run side by side.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SHARED = Path(__file__).parents[3] / "shared"
TOOL = SHARED / "tools" / "pve-conformance"
AT_ONCE = 10  # sets


@dataclass(frozen=True)
class Series:
    """A series of recordings, its start states, and how much of it has to agree."""

    recordings: Path
    start: Path
    share: float

    @property
    def names(self) -> list[str]:
        return sorted(path.stem for path in self.recordings.glob("*.json"))


FIRST = Series(SHARED / "pve/recordings", SHARED / "pve/start", 798 / 801)
SECOND = Series(SHARED / "pve/recordings-2", SHARED / "pve/start-2", 0.95)


@dataclass(frozen=True)
class Agreement:
    """Calls of one set that agree, those that were compared, and what the tool printed of them."""

    name: str
    agreed: int
    compared: int
    report: str


def replay(series: Series, name: str) -> Agreement:
    options: list[str | Path] = [
        "--recordings",
        series.recordings,
        "--start",
        series.start,
        "--only",
        name,
        "--verbose",
    ]
    command: list[str | Path] = [sys.executable, TOOL, *options, "--", sys.executable, "-m", "lab", "api"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.search(r"^conformance: (\d+)/(\d+)", done.stdout, re.MULTILINE)
    if not match:
        raise AssertionError(f"{name}: {done.stdout}{done.stderr}")
    return Agreement(name, int(match[1]), int(match[2]), done.stdout)


def replay_all(sets: Iterable[tuple[Series, str]]) -> list[Agreement]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda each: replay(*each), sets))


def share(found: Iterable[Agreement]) -> float:
    found = list(found)
    return sum(one.agreed for one in found) / sum(one.compared for one in found)


def main() -> int:
    """Replays both series, prints a line for each set. Status 1 when a series agrees less than it has to."""
    if not TOOL.exists():
        print(f"no recordings: {TOOL} is not there", file=sys.stderr)
        return 1
    every = [(series, name) for series in (FIRST, SECOND) for name in series.names]
    found = dict(zip(every, replay_all(every), strict=True))
    status = 0
    for series in (FIRST, SECOND):
        cases = [found[series, name] for name in series.names]
        for one in cases:
            differ = one.compared - one.agreed
            print(f"{one.name:22} {one.agreed:4} agree{f', {differ} differ' if differ else ''}")
        agreed, compared = sum(one.agreed for one in cases), sum(one.compared for one in cases)
        print(f"{series.recordings.name}: {agreed} of {compared} ({share(cases):.1%}; at least {series.share:.1%})\n")
        if share(cases) < series.share:
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
