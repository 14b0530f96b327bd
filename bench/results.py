"""The output of a benchmark: one line per comparison, and the same as JSON in `.bench/`."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(".bench")


@dataclass(frozen=True)
class Comparison:
    """Seconds by round, with both sides measured in each round; `limit` is the largest acceptable ratio."""

    name: str
    ours: Sequence[float]
    theirs: Sequence[float]
    limit: float

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: other load on the computer affects both sides of a round alike."""
        return statistics.median(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))

    def report(self) -> bool:
        """Print the line and write the JSON; return whether the ratio is within its limit."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        print(f"{self.name}: ours/theirs {self.ratio:.2f} ({ours:.2f} s, {theirs:.2f} s)", flush=True)
        DIRECTORY.mkdir(exist_ok=True)
        limit = self.limit if math.isfinite(self.limit) else None
        result = {"name": self.name, "ratio": self.ratio, "limit": limit, "ours": self.ours, "theirs": self.theirs}
        (DIRECTORY / f"{self.name}.json").write_text(json.dumps(result, indent=2) + "\n")
        return self.ratio <= self.limit
