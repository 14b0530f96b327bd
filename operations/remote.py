"""What several operations do on a machine: copy closures to it, run a long job on it."""

import time
from collections.abc import Callable, Mapping

from pyinfra.api.host import Host

from fleetwright import nix
from fleetwright.errors import DeadlineExceeded, FleetError, ProcessFailed
from fleetwright.jobs import Job
from fleetwright.openssh import Destination
from fleetwright.process import run
from operations.steps import connector_of, remote, shell

COPY_DEADLINE = 4 * 3600.0  # seconds
GRACE = 60  # seconds beyond a job's own deadline, which the machine itself enforces


def copy_closure(host: Host, paths: list[str], root: str | None = None) -> None:
    """Copy what is missing of these closures to the machine's store, or to the one below `root`."""
    run_towards(host, lambda to: nix.copy(paths, to, root), COPY_DEADLINE)


def run_towards(
    host: Host, command: Callable[[Destination], tuple[list[str], Mapping[str, str]]], timeout: float
) -> None:
    """Run a local program that connects to the machine; once more when the machine has moved meanwhile.

    `command` gives its argv and environment. ProcessFailed when it fails where the machine is.
    """
    connector = connector_of(host)
    to = connector.destination()
    argv, environment = command(to)
    try:
        run(argv, env=environment, timeout=timeout)
    except ProcessFailed:
        connector.drop()
        now = connector.destination()
        if now.address == to.address:
            raise
        argv, environment = command(now)
        run(argv, env=environment, timeout=timeout)


def run_job(host: Host, job: Job) -> None:
    """Run a job to its end, or wait for the one that runs already; nothing if it has ended well before.

    A lost connection is looked up again; the job goes on meanwhile. FleetError when it fails.
    """
    began = time.monotonic()
    shell(host, job.start, stdin=job.body, what=f"starting {job.unit}")
    said = ""
    while True:
        ok, output = remote(host, job.look)
        elapsed = time.monotonic() - began
        state, *log = [*output.stdout_lines, ""] if ok else ["running", ""]
        if ok and state == job.well:
            return
        if ok and state != "running":
            if state.startswith(f"{job.key} "):
                raise FleetError(f"{host.name}: {job.name} failed with status {state.split()[-1]}: {_last(log)}")
            # another run's job of this name has ended, or it ended without a word: ours has yet to run
            shell(host, job.start, stdin=job.body, what=f"starting {job.unit}")
        if elapsed > job.deadline + GRACE:
            raise DeadlineExceeded(f"{host.name}: {job.name} not done within {job.deadline} s; last: {_last(log)}")
        if not ok:
            connector_of(host).drop()
        if log and log[-1:] != [said] and elapsed > 5:
            said = _last(log)
            host.log(f"{job.name}: {said} ({elapsed:.0f} s)")


def _last(log: list[str]) -> str:
    return next((line for line in reversed(log) if line.strip()), "no output")
