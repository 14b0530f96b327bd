"""Homes that Home Manager lays out: generations activated, and gone back to, by their user."""

from functools import partial

from pyinfra import host

from facts.home_manager import Generations
from nixherd.deploy import activate as activation
from nixherd.deploy.run import Target
from nixherd.deploy.running import chosen, require_store_path
from nixherd.pyinfra_glue.operation import Change, NoChange, operation
from nixherd.pyinfra_glue.rollouts import read


@operation()
def activated(generation: str) -> Change | NoChange:
    """Activate a generation that the machine has; the home goes back to the one of before when that fails.

    Args:
        generation: its store path.
    """
    target = Target(require_store_path("generation", generation))
    rollout, host_run, reached = read(host)
    if reached.running.current == target.system:
        return NoChange(f"{host_run.id}'s home is {target.system}")
    make = partial(activation.activate, rollout, host_run, target, reached.running)
    return Change(f"switch to {target.system}", make)


@operation()
def rollback(generation: int | None = None) -> Change | NoChange:
    """Go back to a generation of the home.

    Args:
        generation: its number; by default the one before the current.
    """
    rollout, host_run, reached = read(host)
    entry = chosen(host.get_fact(Generations), generation)
    target = Target(entry["path"], generation=entry["number"])
    if reached.running.current == target.system:
        return NoChange(f"{host_run.id}'s home is {target.system}")
    make = partial(activation.activate, rollout, host_run, target, reached.running)
    return Change(f"switch to {target.system}", make)
