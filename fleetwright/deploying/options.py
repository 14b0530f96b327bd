"""How a deployment is to go, as it was said: `--data NAME=VALUE`, group data, or an option of `fleetwright deploy`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleetwright.deploying.goal import Goal
from fleetwright.deploying.waves import NO_LIMIT, USUAL, MaxFail, wave_of
from fleetwright.errors import Usage

LONGEST = 24 * 3600  # seconds


@dataclass(frozen=True)
class Options:
    """For one host. Seconds: `activation_deadline` for an activation, `confirm_deadline` for the proof after it, `soak`
    of that for watching the new system before it is kept. Hosts of one `role` are not activated at the same time."""

    goal: Goal = Goal.SWITCH
    activation_deadline: int = 600
    confirm_deadline: int = 120
    soak: int = 0
    specialisation: str | None = None
    allow_dirty: bool = False
    wave: int = USUAL
    role: str | None = None
    max_fail: MaxFail = NO_LIMIT

    @classmethod
    def of(cls, host_id: str, data: Callable[[str], Any]) -> "Options":
        """From a host's data, which say None where nobody said anything. Usage when one of them cannot be meant."""
        usual = cls()
        goal = data("goal") or usual.goal
        if goal not in list(Goal):
            raise Usage(f"goal={goal} is none of {', '.join(Goal)}")
        seconds = {
            name: _seconds(name, data(name), getattr(usual, name))
            for name in ("activation_deadline", "confirm_deadline", "soak")
        }
        if seconds["soak"] >= seconds["confirm_deadline"]:
            confirm = seconds["confirm_deadline"]
            raise Usage(
                f"soak={seconds['soak']} leaves no time to confirm: confirm_deadline={confirm} has to be longer"
            )
        specialisation = data("specialisation")
        if specialisation and not Goal(goal).activates:
            raise Usage(f"specialisation={specialisation}: with goal={goal} it is chosen at the boot")
        dirty = data("allow_dirty")
        if dirty not in (None, True, False, 0, 1):
            raise Usage(f"allow_dirty={dirty} is neither true nor false")
        return cls(
            goal=Goal(goal),
            **seconds,
            specialisation=str(specialisation) if specialisation else None,
            allow_dirty=bool(dirty),
            wave=wave_of(host_id, data("canary"), data("wave")),
            role=None if data("role") is None else str(data("role")),
            max_fail=MaxFail.of(data("max_fail")),
        )


def _seconds(name: str, value: Any, usual: int) -> int:
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LONGEST:
        raise Usage(f"{name}={value} is no number of seconds; write one like {usual or 30}")
    return value
