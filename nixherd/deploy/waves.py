"""In which order the hosts of a rollout go, and when it stops. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nixherd.errors import Usage

CANARIES = 0
USUAL = 1
_SHARE = re.compile(r"(\d{1,3})\s*%")


def wave_of(host_id: str, canary: Any, wave: Any) -> int:
    """The wave of a host: canaries go first, who says nothing goes in wave 1. Usage when it is not a number from 1."""
    if canary not in (None, True, False, 0, 1):
        raise Usage(f"{host_id}: canary={canary} is neither true nor false")
    if canary:
        return CANARIES
    if wave is None:
        return USUAL
    if isinstance(wave, bool) or not isinstance(wave, int) or wave < USUAL:
        raise Usage(f"{host_id}: wave={wave} is not a whole number from {USUAL}; canary=true goes first")
    return wave


def label(wave: int) -> str:
    return "canaries" if wave == CANARIES else f"wave {wave}"


@dataclass(frozen=True)
class MaxFail:
    """How many hosts may fail before the rollout stops: a number, or a percentage of all; None where nobody said."""

    number: int | None = None
    percent: int | None = None

    @classmethod
    def of(cls, given: Any) -> "MaxFail":
        """From `2` or `10%`. Usage when it is neither."""
        if given is None:
            return cls()
        if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
            return cls(number=given)
        share = _SHARE.fullmatch(str(given))
        if share and int(share[1]) <= 100:
            return cls(percent=int(share[1]))
        if str(given).isdecimal():
            return cls(number=int(given))
        raise Usage(f"max_fail={given} is neither a number of hosts nor a percentage like 10%")

    def allows(self, failed: int, total: int) -> bool | None:
        """Whether so many failures are no reason to stop; None where nobody said."""
        if self.percent is not None:
            return failed * 100 <= self.percent * total
        return None if self.number is None else failed <= self.number

    def holds(self, wave: int, failed: Mapping[str, int], total: int) -> str | None:
        """Why a host of this wave is not to begin, by the waves of those that `failed`; None when it may.

        A wave begins when those before it are proven; where nobody said how many may fail, that is all of them.
        """
        if not failed:
            return None
        allowed = self.allows(len(failed), total)
        earlier = sorted(host for host, other in failed.items() if other < wave)
        if allowed is False:
            return f"{len(failed)} of {total} hosts failed ({', '.join(sorted(failed))}), more than max_fail allows"
        if allowed is None and earlier:
            return f"{', '.join(earlier)} failed in a wave before {label(wave)}"
        return None


NO_LIMIT = MaxFail()
