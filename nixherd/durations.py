"""Deadlines, as people write them."""

LONGEST = 30 * 24 * 3600  # seconds: what takes longer than a month is not waited for, and no clock takes 1e300


def parse_seconds(given: object) -> float:
    """A number of seconds, 1 to `LONGEST`. ValueError for what is none: `nan` is never over, and `inf` no deadline."""
    try:
        found = float(str(given))
    except ValueError:
        found = 0.0
    if not 1 <= found <= LONGEST:
        raise ValueError(f"{given} is no number of seconds from 1 to {LONGEST}; write one like 300")
    return found
