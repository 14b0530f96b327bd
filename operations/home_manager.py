"""Homes that Home Manager lays out: generations activated, and gone back to, by their user."""

from pyinfra import host
from pyinfra.api import operation

from facts.home_manager import Generations
from nixherd.errors import Usage
from nixherd.nix.commands import is_store_path
from operations.activating import activate
from operations.deploy_run import ask, run_of, this_host
from operations.nixos.generations import chosen
from operations.speaking import Wanted
from operations.steps import Commands, decide, do


@operation()
def activated(generation: str) -> Commands:
    """Activate a generation that the machine has; the home goes back to the one of before when that fails.

    Args:
        generation: its store path.
    """
    yield from decide(host, lambda: _activated(Wanted(generation)))


def _activated(wanted: Wanted) -> Commands:
    if not is_store_path(str(wanted.system)):
        raise Usage(f"generation={wanted.system} is no store path")
    own, asked = this_host(host), run_of(host)
    if ask(own)["current"] == wanted.system:
        host.noop(f"{own.id}'s home is {wanted.system}")
        return

    def act() -> None:
        with own.reporting():
            activate(host, asked, own, wanted)

    yield from do(host, f"switch to {wanted.system}", act)


@operation()
def rollback(generation: int | None = None) -> Commands:
    """Go back to a generation of the home.

    Args:
        generation: its number; by default the one before the current.
    """
    yield from decide(host, lambda: _rollback(generation))


def _rollback(number: int | None) -> Commands:
    wanted = chosen(host.get_fact(Generations), number)
    yield from _activated(Wanted(wanted["path"], generation=wanted["number"]))
