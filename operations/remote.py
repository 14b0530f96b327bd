"""What several operations do on a machine: copy closures to it, run a long job on it."""

import os
import threading
import time
from collections.abc import Callable, Mapping

from pyinfra.api.host import Host

from nixherd.deploy.stalls import LOOK_THERE, Stalled, Watch
from nixherd.errors import DeadlineExceeded, FleetError, ProcessFailed, Unforeseen
from nixherd.fleet.models import Access
from nixherd.nix import commands as nix
from nixherd.nix.errors import is_unsigned
from nixherd.process import Completed, run
from nixherd.ssh.destination import Destination
from nixherd.ssh.sudo import Sudo, told
from nixherd.ssh.transient_unit import ENDED, RUNNING, Job
from operations.signing import UNSIGNED, taken_through
from operations.steps import connector_of, remote, shell

Command = Callable[[Destination], tuple[list[str], Mapping[str, str]]]

COPY_DEADLINE = 4 * 3600.0  # seconds
# So many at a time: each is a process, and they share the way out.
_copies = threading.BoundedSemaphore(max(32, 4 * (os.cpu_count() or 1)))
GRACE = 60  # seconds beyond a job's own deadline, which the machine itself enforces


def copy_closure(host: Host, paths: list[str], root: str | None = None, *, substitute: bool = True) -> None:
    """Copy what is missing of these closures to the machine's store, or to the one below `root`, which is root's.

    With `substitute` the machine fetches what it can from its own caches; one that is down ends the copy, which is made
    again from here then. They are signed first where the host's data say with what.
    """
    if connector_of(host).here and root is None:
        return
    sudo = taken_through(host, paths) if root is None else None
    with _copies:
        try:
            _copy(host, paths, root, sudo, substitute=substitute)
        except (ProcessFailed, Stalled) as error:
            if isinstance(error, ProcessFailed) and is_unsigned(error.stderr):
                raise FleetError(f"{host.data.host_id}: {UNSIGNED}") from error
            if not substitute:
                raise
            host.log(f"copying again, without the machine's own caches: {error}")
            _copy(host, paths, root, sudo, substitute=False)


def _copy(host: Host, paths: list[str], root: str | None, sudo: Sudo | None, *, substitute: bool) -> None:
    with told(sudo) as password:

        def command(to: Destination) -> tuple[list[str], dict[str, str]]:
            argv, environment = nix.copy(paths, to, root, substitute=substitute, sudo=sudo)
            return argv, environment | password

        copy_towards(host, command, COPY_DEADLINE)


def copy_towards(host: Host, command: Command, timeout: float) -> Completed:
    """As `run_towards`, for what does nothing but copy. Stalled when that makes no progress."""
    watch = Watch(f"{host.data.host_id}: copying to it", there=lambda: _look_there(host))
    return run_towards(host, command, timeout, watch.heard, watch)


def _look_there(host: Host) -> str | None:
    """What Nix does on the machine, as far as we may see it: its caches are its own, and it fetches without a word."""
    connector = connector_of(host)
    if connector.access is not Access.SHELL or not connector.connected:
        return None
    try:
        ok, output = remote(host, LOOK_THERE)
    except OSError:
        return None
    return str(output.stdout) if ok else None


def run_towards(
    host: Host,
    command: Command,
    timeout: float,
    stream: Callable[[str], None] | None = None,
    watch: Callable[[int], None] | None = None,
) -> Completed:
    """Run a local program that connects to the machine; once more when the machine has moved meanwhile.

    `command` gives its argv and environment, `stream` gets its lines, `watch` may end it. ProcessFailed when it fails
    where the machine is.
    """
    connector = connector_of(host)
    to = connector.destination()
    argv, environment = command(to)
    try:
        return run(argv, env=environment, timeout=timeout, stream=stream, watch=watch)
    except ProcessFailed:
        connector.drop()
        now = connector.destination()
        if now.address == to.address:
            raise
        argv, environment = command(now)
        return run(argv, env=environment, timeout=timeout, stream=stream, watch=watch)


def run_job(host: Host, job: Job, *, sudo: bool = False) -> None:
    """Run a job to its end, or wait for the one that runs already; nothing if it has ended well before.

    It is root's; `sudo` where we may not be. A lost connection is looked up again; the job goes on meanwhile.
    FleetError when it fails.
    """
    began = time.monotonic()
    shell(host, job.start, stdin=job.body, what=f"starting {job.unit}", sudo=sudo)
    ours, said = False, ""
    while True:
        state, log = _look(host, job, sudo=sudo)
        elapsed = time.monotonic() - began
        if state == job.well:
            return
        if state.startswith(f"{job.key} "):
            raise FleetError(f"{host.name}: {job.name} failed with status {state.split()[-1]}: {_last(log)}")
        if state == ENDED or (state != RUNNING and ours):
            raise FleetError(f"{host.name}: {job.name} was ended (its deadline, or no memory left); last: {_last(log)}")
        if elapsed > job.deadline + GRACE:
            raise DeadlineExceeded(f"{host.name}: {job.name} not done within {job.deadline} s; last: {_last(log)}")
        if state != RUNNING:  # the end of another job of this name, which an earlier run began: now for ours
            ours = True
            shell(host, job.start, stdin=job.body, what=f"starting {job.unit}", sudo=sudo)
        if elapsed > 5 and _last(log) != said:
            said = _last(log)
            host.log(f"{job.name}: {said} ({elapsed:.0f} s)")


def _look(host: Host, job: Job, *, sudo: bool) -> tuple[str, list[str]]:
    """How the job stands: RUNNING, ENDED, or what its end noted; and the last lines of its log."""
    try:
        ok, output = remote(host, job.look, sudo=sudo)
    except Unforeseen:
        raise
    except OSError:
        ok = False
    if not ok:  # a connection says nothing about the job
        connector_of(host).drop()
        return RUNNING, []
    state, *log = [*output.stdout_lines, ""]
    return state, log


def _last(log: list[str]) -> str:
    return next((line for line in reversed(log) if line.strip()), "no output")
