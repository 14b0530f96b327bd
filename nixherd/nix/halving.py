"""What was tried for several hosts together and failed: looked for in halves. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from nixherd.base.errors import FleetError

T = TypeVar("T")
Outcomes = Mapping[str, T | FleetError | None]


def halved(
    host_ids: Sequence[str],
    tried: Outcomes[T] | FleetError,
    attempt: Callable[[Sequence[str]], Outcomes[T] | FleetError],
) -> Outcomes[T]:
    """What is known of each host, from what they came to together."""
    if not isinstance(tried, FleetError):
        return tried
    if len(host_ids) == 1:
        return {host_ids[0]: tried}
    middle = len(host_ids) // 2
    halves = [(half, attempt(half)) for half in (host_ids[:middle], host_ids[middle:])]
    if all(isinstance(outcome, FleetError) and str(outcome) == str(tried) for _, outcome in halves):
        return dict.fromkeys(host_ids, tried)  # it is the flake that is wrong, not one of them
    found: dict[str, T | FleetError | None] = {}
    for half, outcome in halves:
        found |= halved(half, outcome, attempt)
    return found
