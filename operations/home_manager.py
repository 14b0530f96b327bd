"""Homes that Home Manager lays out: generations activated, and gone back to, by their user."""

from pyinfra import host

from nixherd.deploy.rollout import Target
from nixherd.deploy.running import chosen, require_store_path
from nixherd.facts.home_manager import Generations
from nixherd.pyinfra_glue.engine import begin_reached, switch_to
from nixherd.pyinfra_glue.operation import Change, NoChange, operation


@operation()
def activated(generation: str) -> Change | NoChange:
    """Activate a generation that the machine has; the home goes back to the one of before when that fails.

    Args:
        generation: its store path.
    """
    return switch_to(host, Target(require_store_path("generation", generation)), *begin_reached(host))


@operation()
def rollback(generation: int | None = None) -> Change | NoChange:
    """Go back to a generation of the home.

    Args:
        generation: its number; by default the one before the current.
    """
    begun = begin_reached(host)
    entry = chosen(host.get_fact(Generations), generation)
    return switch_to(host, Target(entry["path"], generation=entry["number"]), *begun)
