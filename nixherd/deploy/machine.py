"""A machine as the engine asks and changes it: a protocol, so that the engine knows neither pyinfra nor paramiko."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from nixherd.base.becoming_root import Become
from nixherd.base.errors import DeadlineExceeded, EndUnknown, FleetError, NotBegun, NotSent, Unforeseen
from nixherd.base.process import Completed
from nixherd.base.reasons import failure, reason
from nixherd.fleet.models import Access
from nixherd.ssh.destination import Destination
from nixherd.ssh.login_shell import ENDED, RUNNING, Job

COMMAND_DEADLINE = 120.0  # seconds for a command; what takes longer is a job
ANSWER_DEADLINE = 60.0  # seconds for a machine to say what runs on it
PAUSE = 1.0  # seconds between two looks at a job of which no answer came
T = TypeVar("T")


class Asked(Protocol):
    """A machine that is asked something. Every method raises OSError when it does not answer: it may have done what it
    was told, unless that is NotSent.

    `id` is the host's in the fleet, `access` how far it lets us in, `become` how who logs in becomes root.
    """

    @property
    def id(self) -> str: ...
    @property
    def access(self) -> Access: ...
    @property
    def become(self) -> Become: ...

    def run(self, script: str, *, deadline: float = COMMAND_DEADLINE) -> Completed:
        """Run a script in the machine's shell."""

    def run_forced(self, words: str, *, deadline: float = ANSWER_DEADLINE) -> Completed:
        """Send words to a machine that takes forced commands alone, as they are."""


class Machine(Asked, Protocol):
    """One machine of the fleet, as the engine changes it.

    `is_local` is whether we run on it, `user` who logs in, `boot_deadline` how many seconds it may take to come up.
    `password` is what sudo is answered with, once `give_password` has been called.
    """

    @property
    def is_local(self) -> bool: ...
    @property
    def user(self) -> str: ...
    @property
    def boot_deadline(self) -> float: ...
    @property
    def password(self) -> str | None: ...

    def run(
        self, script: str, *, stdin: str | None = None, sudo: bool = False, deadline: float = COMMAND_DEADLINE
    ) -> Completed:
        """Run a script in the machine's shell, as root with `sudo`, by whatever `become` names. `stdin` is a text."""

    def reconnect(self, deadline: float | None = None, *, if_lost: bool = False, absent_ok: bool = False) -> str:
        """Connect anew to the installed system, and return its address.

        `if_lost` keeps a connection that stands; `absent_ok` waits for a machine that is switched off for now. Raises
        FleetError (DeadlineExceeded, Absent, …) when there is nothing to connect to within `deadline` seconds.
        """

    def copy_to(self) -> Destination:
        """How local programs (nix copy, tar) reach the machine where it is now."""

    def tunnel(self, address: tuple[str, int], timeout: float) -> AbstractContextManager[Any]:
        """Open a TCP connection from the machine to a host and port: as much of a socket as http.client takes."""

    def breaks(self, protocol: str) -> str | None:
        """Return why a program's protocol cannot pass: the login shell prints into it. None where it is quiet."""

    def give_password(self) -> bool:
        """Answer sudo's question from now on. False when nobody gave a password."""

    def say(self, text: str) -> None:
        """Narrate what happens on this machine."""


def look(machine: Machine, ask: Callable[[], T], deadline: float | None = None) -> T:
    """Ask what changes nothing; once more, on a new connection, where the one that stood broke meanwhile.

    `deadline` is for that connection, in seconds. Not where the machine was told nothing. What has to be on a
    connection that has proven more is not asked so.
    """
    try:
        return ask()
    except (NotSent, Unforeseen):
        raise
    except OSError:
        machine.reconnect(deadline)
        return ask()


def output_of(
    machine: Machine,
    script: str,
    *,
    stdin: str | None = None,
    what: str = "a command",
    sudo: bool = False,
    deadline: float = COMMAND_DEADLINE,
) -> str:
    """Run a script and return its standard output. FleetError that says why when it fails."""
    done = machine.run(script, stdin=stdin, sudo=sudo, deadline=deadline)
    if done.status != 0:
        raise failure(f"{machine.id}: {what} failed", done.stderr.strip() or done.stdout)
    return done.stdout


def restart(machine: Machine, script: str, *, sudo: bool = False) -> None:
    """Run what makes the machine go down. NotBegun when it was not told, FleetError when it says that it cannot.

    A machine that is gone before it answers did as it was told: the caller waits for what comes back.
    """
    try:
        done = machine.run(script, sudo=sudo)
    except Unforeseen:
        raise
    except NotSent as error:
        raise NotBegun(f"{machine.id}: it was not told to reboot: {error}") from error
    except OSError as error:
        machine.say(f"it was told to go down, and did not answer: {error}")
        return
    if done.status != 0 and (done.stdout or done.stderr):
        raise failure(f"{machine.id}: the reboot failed", done.stderr.strip() or done.stdout)


_LOOK_AT_NIX = (
    "for p in /proc/[0-9]*; do read -r c <$p/comm && case $c in nix*) cat $p/stat $p/io;; esac; done 2>/dev/null; true"
)
"""Prints what changes while a process of Nix does anything on a machine"""


def look_at_nix(machine: Machine) -> str | None:
    """What Nix does on the machine, as far as we may see it: it fetches from its own caches without a word."""
    if machine.access is not Access.SHELL:
        return None
    try:
        done = machine.run(_LOOK_AT_NIX)
    except Unforeseen:
        raise
    except OSError:
        return None
    return done.stdout if done.status == 0 else None


GRACE = 60  # seconds beyond a job's own deadline, which the machine itself enforces


def run_job(machine: Machine, job: Job, *, sudo: bool = False) -> None:
    """Run a job to its end, or wait for the one that runs already; nothing if it has ended well before.

    It is root's; `sudo` where we may not be. A lost connection is looked up again; the job goes on meanwhile, and is
    begun on the caller's own connection alone: for what wipes a machine, that one has proven which it is.
    FleetError when it fails, NotBegun when the machine was not told, EndUnknown when it can be connected to and answers
    no look any more.
    """
    began = time.monotonic()
    silent_since: float | None = None
    lost_before = _start(machine, job, sudo=sudo)
    has_begun = is_same = not lost_before
    is_ours, last = False, ""
    while True:
        lines, lost = _look(machine, job, sudo=sudo)
        if lost:  # which says nothing about the job
            time.sleep(PAUSE)
            _reconnect(machine, job, lost)
            is_same, lost_before, now = False, lost, time.monotonic()
            silent_since = now if silent_since is None else silent_since
            if now - silent_since > machine.boot_deadline + COMMAND_DEADLINE or now - began > job.deadline + GRACE:
                raise _unseen(machine, job, f"no look at it is answered: {lost}")
            continue
        silent_since, elapsed = None, time.monotonic() - began
        state, *log = [*lines, ""]
        if state == job.well:
            return
        if state.startswith(f"{job.key} "):
            raise failure(f"{machine.id}: {job.name} failed with status {state.split()[-1]}", log, "no output")
        if (state == ENDED and has_begun) or (state != RUNNING and is_ours):
            raise failure(f"{machine.id}: {job.name} was ended (its deadline, or no memory left)", log, "no output")
        if elapsed > job.deadline + GRACE:
            raise DeadlineExceeded(f"{machine.id}: {job.name} not done within {job.deadline} s; last: {_last(log)}")
        if state != RUNNING:  # the end of another job of this name, which an earlier run began: now for ours
            if not is_same:
                why = f"and the connection was lost meanwhile ({lost_before}); run this again"
                raise FleetError(f"{machine.id}: {job.name} is not under way, {why}")
            lost_before = _start(machine, job, sudo=sudo)
            has_begun = is_ours = is_same = not lost_before
        if elapsed > 5 and _last(log) != last:
            last = _last(log)
            machine.say(f"{job.name}: {last} ({elapsed:.0f} s)")


def _start(machine: Machine, job: Job, *, sudo: bool) -> str:
    """Start the job. Return why nobody knows whether it began, empty where it did.

    FleetError when it did not, NotBegun when the machine was not told.
    """
    try:
        done = machine.run(job.start, stdin=job.body, sudo=sudo)
    except Unforeseen:
        raise
    except NotSent as error:
        raise NotBegun(f"{machine.id}: it was not told to begin {job.name}: {error}") from error
    except OSError as error:
        machine.say(f"starting {job.name}: no answer: {error}")
        _reconnect(machine, job, str(error))
        return str(error) or "no answer"
    if done.status != 0:
        raise failure(f"{machine.id}: starting {job.unit} failed", done.stderr.strip() or done.stdout)
    return ""


def _look(machine: Machine, job: Job, *, sudo: bool) -> tuple[list[str], str]:
    """What a look at the job prints, and why there was no answer; empty where there was."""
    try:
        done = machine.run(job.look, sudo=sudo)
    except Unforeseen:
        raise
    except OSError as error:
        return [], str(error) or "no answer"
    return done.stdout.splitlines(), reason(done.stderr.strip() or done.stdout) if done.status != 0 else ""


def _reconnect(machine: Machine, job: Job, lost: str) -> None:
    """Connect anew after `lost`. EndUnknown when there is nothing to connect to in time."""
    try:
        machine.reconnect(absent_ok=True)
    except DeadlineExceeded as error:
        raise _unseen(machine, job, f"{lost}; {error}") from error


def _unseen(machine: Machine, job: Job, why: str) -> EndUnknown:
    who = f"{machine.id}: "
    return EndUnknown(
        f"{who}how {job.name} ends is not known, it may still be under way there: {why.replace(who, '')}; "
        "run this again, which waits for its end"
    )


def _last(log: Sequence[str]) -> str:
    return next((line for line in reversed(log) if line.strip()), "no output")
