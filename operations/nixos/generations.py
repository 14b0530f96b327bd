"""Systems that are there already: copied, activated, made the one that boots, gone back to, and thrown away."""

import re
from dataclasses import replace

from pyinfra import host
from pyinfra.api import operation

from facts.generations import Generation
from facts.nixos import PROFILE, Generations
from nixherd.deploy.goal import Goal
from nixherd.errors import FleetError, Usage
from nixherd.nix.commands import is_store_path
from nixherd.ssh.transient_unit import Job
from operations.activating import activate
from operations.deploy_run import ask, require_root, run_of, this_host
from operations.remote import copy_closure, run_job
from operations.speaking import Wanted
from operations.steps import Commands, decide, do

_AGE = re.compile(r"[1-9][0-9]{0,4}d")
GC_DEADLINE = 3600  # seconds


@operation()
def copied(system: str) -> Commands:
    """Copy the closure of a store path to the machine; only what is missing there.

    Args:
        system: a store path of this machine's store.
    """
    yield from decide(host, lambda: _copied(_store_path(system)))


def _copied(system: str) -> Commands:
    yield from do(host, f"copy {system}", lambda: copy_closure(host, [system]))


@operation()
def activated(system: str, goal: str = "switch", generation: int | None = None) -> Commands:
    """Activate a system that the machine has, under its own guard; prove it and keep it, or have the machine go back.

    Args:
        system: its store path.
        goal: switch, test or boot.
        generation: its number in the profile, where it is to be that generation again.
    """
    yield from decide(host, lambda: _activated(Wanted(_store_path(system), generation=generation), goal))


def _activated(wanted: Wanted, goal: str) -> Commands:
    if goal not in (Goal.SWITCH, Goal.TEST, Goal.BOOT):
        raise Usage(f"goal={goal} is none of switch, test, boot")
    own, asked = this_host(host), run_of(host)
    own.options = replace(own.options, goal=Goal(goal))
    state = ask(own)
    runs, boots = state["current"] == wanted.system, state["profile"] == wanted.system
    if {Goal.SWITCH: runs and boots, Goal.TEST: runs, Goal.BOOT: boots}[Goal(goal)]:
        host.noop(f"{own.id}: {wanted.system} is there")
        return

    def act() -> None:
        require_root(own)
        with own.reporting():
            activate(host, asked, own, wanted)

    yield from do(host, f"{goal} to {wanted.system}", act)


@operation()
def profile(system: str) -> Commands:
    """Make a system that the machine has the one that boots next; what runs stays.

    Args:
        system: its store path.
    """
    yield from decide(host, lambda: _activated(Wanted(_store_path(system)), Goal.BOOT))


@operation()
def rollback(generation: int | None = None) -> Commands:
    """Go back to a generation of the system profile, under the machine's own guard.

    Args:
        generation: its number; by default the one before the current.
    """
    yield from decide(host, lambda: _rollback(generation))


def _rollback(number: int | None) -> Commands:
    wanted = chosen(host.get_fact(Generations), number)
    yield from _activated(Wanted(wanted["path"], generation=wanted["number"]), Goal.SWITCH)


def chosen(generations: list[Generation], number: int | None) -> Generation:
    """The generation of this number, or the one before the current. FleetError when there is none."""
    current = next((each["number"] for each in generations if each["current"]), 0)
    if number is None:
        earlier = [each for each in generations if each["number"] < current]
        if not earlier:
            raise FleetError(f"there is no generation before the current one, {current}")
        return earlier[-1]
    for each in generations:
        if each["number"] == number:
            return each
    there = ", ".join(str(each["number"]) for each in generations)
    raise FleetError(f"there is no generation {number}; there are {there or 'none'}")


@operation()
def gc(older_than: str = "30d") -> Commands:
    """Delete generations, and what nothing needs then; the boot entries follow. The current one stays.

    Args:
        older_than: days, as in 30d.
    """
    yield from decide(host, lambda: _gc(older_than))


def _gc(older_than: object) -> Commands:
    if not _AGE.fullmatch(str(older_than)):
        raise Usage(f"older_than={older_than} is no number of days; write one like 30d")
    script = f"nix-collect-garbage --delete-older-than {older_than}; {PROFILE}/bin/switch-to-configuration boot"
    job = Job("gc", run_of(host).id, script, GC_DEADLINE)
    yield from do(
        host, f"delete generations older than {older_than}, and garbage", lambda: run_job(host, job, sudo=True)
    )


def _store_path(system: object) -> str:
    if not isinstance(system, str) or not is_store_path(system):
        raise Usage(f"system={system} is no store path")
    return system
