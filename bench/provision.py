"""Measures provisioning in a separate lab: `make bench ONLY=provision`.

Each round creates the same machine by hand with only the necessary steps (`bench/bare.py`: the API's tasks, boots,
copies, the installer's commands), then with nixherd, then four at once with nixherd, one after the other on the same
computer. It prints the medians of the seconds and of what is compared within each round: how much longer four take than
one, and what nixherd adds. The exit status is 1 when a limit is exceeded.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from bench.results import Comparison

FOUR_TO_ONE = 2.0
ADDED_SHARE, ADDED_SECONDS = 0.15, 3.0  # share of the run, or seconds, whichever is larger


@dataclass(frozen=True)
class Round:
    """Seconds."""

    bare: float
    one: float
    four: float

    @property
    def added(self) -> float:
        return self.one - self.bare


def lab(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "lab", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"lab {' '.join(words)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def provision(limit: str) -> float:
    lab("reset")
    began = time.monotonic()
    lab("run", "--", "pyinfra", "-y", "inventory.py", "deploys/provision.py", "--limit", limit)
    return time.monotonic() - began


def by_hand() -> dict[str, float]:
    lab("reset")
    seconds: dict[str, float] = json.loads(lab("run", "--", sys.executable, "-m", "bench.bare", "dev", "110", "abl030"))
    return seconds


def main(rounds: int) -> int:
    with tempfile.TemporaryDirectory(prefix="nixherd-bench-") as state:
        os.environ["NIXHERD_LAB"] = state
        lab("up", "--hosts", "4")
        try:
            provision("managed")  # builds everything that is built only once
            parts, measured = [], []
            for _ in range(rounds):
                parts.append(by_hand())
                measured.append(Round(sum(parts[-1].values()), provision("dev"), provision("managed")))
        finally:
            lab("down")
    return report(measured, parts)


def report(measured: list[Round], parts: list[dict[str, float]]) -> int:
    median = statistics.median
    one, four = median(each.one for each in measured), median(each.four for each in measured)
    ratio, added = median(each.four / each.one for each in measured), median(each.added for each in measured)
    limit = max(ADDED_SHARE * one, ADDED_SECONDS)
    shown = ", ".join(f"{name} {median(each[name] for each in parts):.2f}" for name in parts[0])
    print(f"by hand     {median(each.bare for each in measured):6.2f} s ({shown})")
    print(f"one VM      {one:6.2f} s")
    print(f"four VMs    {four:6.2f} s")
    print(f"four / one  {ratio:6.2f}   (at most {FOUR_TO_ONE:.1f})")
    print(
        f"added       {added:6.2f} s (at most {limit:.1f}: {ADDED_SHARE:.0%} of one VM's time or {ADDED_SECONDS:.0f} s)"
    )
    print(f"medians of {len(measured)} rounds")
    ours, theirs = [each.one for each in measured], [each.bare for each in measured]
    Comparison("provision", ours, theirs, 1 + limit / median(theirs)).report()
    return 0 if ratio <= FOUR_TO_ONE and added <= limit else 1
