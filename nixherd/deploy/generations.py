"""Generations of a profile: which one is meant, and whether a machine has it already."""

from typing import TypedDict

from nixherd.deploy.goal import Goal
from nixherd.deploy.running import Running
from nixherd.errors import FleetError, Usage
from nixherd.nix.commands import is_store_path


class Generation(TypedDict):
    """`built` is when the profile came to it, as RFC 3339; `path` a store path."""

    number: int
    path: str
    built: str
    current: bool


def chosen(generations: list[Generation], number: int | None) -> Generation:
    """The generation of this number, or the one before the current. FleetError when there is none."""
    current = next((each["number"] for each in generations if each["current"]), 0)
    if number is None:
        earlier = [each for each in generations if each["number"] < current]
        if not earlier:
            raise FleetError(f"no generation precedes the current one, {current}")
        return earlier[-1]
    for each in generations:
        if each["number"] == number:
            return each
    numbers = ", ".join(str(each["number"]) for each in generations)
    raise FleetError(f"generation {number} does not exist; there are {numbers or 'none'}")


def has_it(running: Running, system: str, goal: Goal) -> bool:
    """Whether the machine has come to a system already, as far as this goal goes."""
    runs, boots = running.current == system, running.profile == system
    return {Goal.SWITCH: runs and boots, Goal.TEST: runs, Goal.BOOT: boots}.get(goal, False)


def require_store_path(name: str, value: object) -> str:
    """The value of this argument. Usage when it is not a store path."""
    if not isinstance(value, str) or not is_store_path(value):
        raise Usage(f"{name}={value} is not a store path")
    return value
