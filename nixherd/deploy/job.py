"""A long job on a machine, followed to its end from here."""

import time
from collections.abc import Sequence

from nixherd.deploy.machine import Machine, output_of
from nixherd.errors import DeadlineExceeded, Unforeseen
from nixherd.reasons import failure
from nixherd.ssh.transient_unit import ENDED, RUNNING, Job

GRACE = 60  # seconds beyond a job's own deadline, which the machine itself enforces


def run_job(machine: Machine, job: Job, *, sudo: bool = False) -> None:
    """Run a job to its end, or wait for the one that runs already; nothing if it has ended well before.

    It is root's; `sudo` where we may not be. A lost connection is looked up again; the job goes on meanwhile.
    FleetError when it fails.
    """
    began = time.monotonic()
    output_of(machine, job.start, stdin=job.body, what=f"starting {job.unit}", sudo=sudo)
    is_ours, last = False, ""
    while True:
        state, log = _look(machine, job, sudo=sudo)
        elapsed = time.monotonic() - began
        if state == job.well:
            return
        if state.startswith(f"{job.key} "):
            raise failure(f"{machine.id}: {job.name} failed with status {state.split()[-1]}", log, "no output")
        if state == ENDED or (state != RUNNING and is_ours):
            raise failure(f"{machine.id}: {job.name} was ended (its deadline, or no memory left)", log, "no output")
        if elapsed > job.deadline + GRACE:
            raise DeadlineExceeded(f"{machine.id}: {job.name} not done within {job.deadline} s; last: {_last(log)}")
        if state != RUNNING:  # the end of another job of this name, which an earlier run began: now for ours
            is_ours = True
            output_of(machine, job.start, stdin=job.body, what=f"starting {job.unit}", sudo=sudo)
        if elapsed > 5 and _last(log) != last:
            last = _last(log)
            machine.say(f"{job.name}: {last} ({elapsed:.0f} s)")


def _look(machine: Machine, job: Job, *, sudo: bool) -> tuple[str, Sequence[str]]:
    """How the job stands: RUNNING, ENDED, or what its end noted; and the last lines of its log."""
    try:
        done = machine.run(job.look, sudo=sudo)
        if done.status == 0:
            state, *log = [*done.stdout.splitlines(), ""]
            return state, log
    except Unforeseen:
        raise
    except OSError:
        pass
    machine.reconnect(absent_ok=True)  # a lost connection says nothing about the job
    return RUNNING, []


def _last(log: Sequence[str]) -> str:
    return next((line for line in reversed(log) if line.strip()), "no output")
