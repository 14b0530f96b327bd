"""Deadlines, as people write them."""

import math


def parse_seconds(given: object) -> float:
    """A number of seconds. ValueError for what is none: `nan` is never over, and `inf` no deadline."""
    found = float(str(given))
    if not math.isfinite(found):
        raise ValueError(f"{given} is no number of seconds; write one like 300")
    return found
