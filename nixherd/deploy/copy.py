"""Copies closures to a machine: only what is missing there, signed or through root, once more where it has moved.

A clock alone would end a large copy over a slow line. What counts as progress are bytes that the program reads or
writes (/proc/PID/io), lines on its stderr, and where it waits for what the machine does by itself (which fetches from
its own caches without a word), what Nix's processes do there.
"""

import json
import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.errors import FAILURES, DeadlineExceeded, FleetError, NotBegun, ProcessFailed, Unforeseen, Usage
from nixherd.base.files import expanded
from nixherd.base.process import Completed, run
from nixherd.base.reasons import reason
from nixherd.base.terminal import foreseen
from nixherd.deploy.machine import ANSWER_DEADLINE, Machine, output_of
from nixherd.deploy.options import Engine
from nixherd.deploy.protocol import Kind, hold
from nixherd.deploy.rollout import Built, Copied, HostRun, Planned
from nixherd.deploy.running import require_root
from nixherd.fleet.models import Access
from nixherd.nix import commands as nix
from nixherd.nix.errors import is_unsigned
from nixherd.ssh.destination import Destination, Sudo, told

SIGN_DEADLINE = 1800.0  # seconds
KEY_DEADLINE = 60.0
UNSIGNED = (
    "its store takes what a key of its trusted-public-keys has signed, and none has; say sign_with=KEY_FILE, whose "
    "public half is in nixherd.trustedKeys there (trusted-public-keys, where a machine is not of the fleet)"
)


Command = Callable[[Destination], tuple[list[str], Mapping[str, str]]]
COPY_DEADLINE = 4 * 3600.0  # seconds
# So many at a time: each is a process, and they share the way out.
_copies = threading.BoundedSemaphore(max(32, 4 * (os.cpu_count() or 1)))
PATIENCE = 120.0  # seconds without any progress
NOISE = 16_384  # bytes that mean nothing: ssh sends and gets some to keep a connection alive, some 3,000 in PATIENCE
_EVERY = 1.0  # seconds between two looks at the program,
_EVERY_THERE = 20.0  # and at the machine
# Nix says so once and then waits for as long as it takes; whoever holds the lock has a deadline, or is Nix itself.
_LOCK = re.compile(r"waiting for (.*\block\b|exclusive access to|.* to finish)")
LOOK_THERE = (
    "for p in /proc/[0-9]*; do read -r c <$p/comm && case $c in nix*) cat $p/stat $p/io;; esac; done 2>/dev/null; true"
)
"""Prints what changes while a process of Nix does anything on a machine"""


@dataclass(frozen=True)
class SigningKey:
    """A secret key file as `nix key generate-secret` makes it."""

    file: Path

    @classmethod
    def of(cls, name: str, value: str) -> "SigningKey":
        """From the datum `name`. Usage when the file does not exist, FleetError when others may read it."""
        file = expanded(value)
        if not file.is_file():
            raise Usage(f"{name}={value}: no such file; `nix key generate-secret --key-name NAME` makes a key")
        if file.stat().st_mode & 0o077:
            raise FleetError(f"{file}: others may read this secret key; chmod 600 it")
        return cls(file)

    @property
    def public(self) -> str:
        """As trusted-public-keys has it."""
        return run(nix.PUBLIC_KEY, input=self.file.read_bytes(), timeout=KEY_DEADLINE).stdout.strip()

    def sign(self, paths: Sequence[str]) -> None:
        """Sign everything in these closures here."""
        run(nix.sign(paths, str(self.file)), timeout=SIGN_DEADLINE)


def store_access(machine: Machine, paths: Sequence[str], sign_with: str | None, *, is_nixos: bool) -> Sudo | None:
    """Sign these closures with the key file `sign_with`, and return through whom the machine takes them.

    None: from us as they are. FleetError where it certainly would not take them.
    """
    key = SigningKey.of("sign_with", sign_with) if sign_with else None
    if key:
        key.sign(paths)
    if machine.access is Access.PUSH_CLOSURE:
        _require_signed(machine, paths)
        return None
    if not is_nixos or machine.user == "root" or (key and _trusts(machine, key)):
        return None
    return _root_of(machine)


def _trusts(machine: Machine, key: SigningKey) -> bool:
    script = f"! command -v nix >/dev/null || {shlex.join((*nix.NIX, 'config', 'show', '--json'))}"
    done = machine.run(script, deadline=ANSWER_DEADLINE)
    try:
        settings = json.loads(done.stdout or "{}")
        return key.public in settings.get("trusted-public-keys", {}).get("value", ())
    except (ValueError, AttributeError):
        raise FleetError(f"{machine.id}: expected JSON from nix, got {done.stdout[:100]!r}") from None


def _root_of(machine: Machine) -> Sudo:
    """Root's store there, by sudo. FleetError when sudo does not let us."""
    why = "it asks for a password"
    # said in no words of sudo's, which pyinfra would answer by asking for a password itself; and asked in any case: a
    # password that sudo does not read would be the first thing that Nix reads there
    if machine.run("sudo -n true >/dev/null 2>&1").status == 0:
        return Sudo()
    if machine.password is not None or machine.give_password():
        done = machine.run("true", sudo=True)  # with a wrong one, Nix and sudo would wait for each other
        if done.status == 0:
            return Sudo(machine.password)
        why = reason(done.stderr.strip() or done.stdout)
    raise FleetError(
        f"its store takes nothing unsigned from {machine.user}, and sudo does not let it be root: {why}; "
        "give its password on stdin with --data sudo_password=stdin, or say sign_with=KEY_FILE, whose public half is "
        "in nixherd.trustedKeys there"
    )


def _require_signed(machine: Machine, paths: Sequence[str]) -> None:
    """FleetError when nobody has signed what a machine takes signed alone."""
    for path in paths:
        if not nix.parse_signatures(run(nix.signatures(path), timeout=KEY_DEADLINE).stdout):
            raise FleetError(f"{machine.id}: {UNSIGNED} ({path})")


def is_left_to_nixos_rebuild(host_run: HostRun, value: Built | Planned) -> bool:
    """Whether nixos-rebuild copies what is to run. As a plain user it can do so only what others have signed."""
    machine = host_run.machine
    is_plain = not machine.is_local and machine.user != "root"
    return host_run.options.engine is Engine.NIXOS_REBUILD and (isinstance(value, Planned) or not is_plain)


def copy(host_run: HostRun) -> None:
    """Copy what is missing of a built system to its machine, and hold it there until the end. NotBegun otherwise."""
    built = host_run.built
    if not isinstance(built, Built):
        raise NotBegun(f"{host_run.id}: it was not built, so it cannot be copied")
    machine, toplevel, options = host_run.machine, built.planned.config.toplevel, host_run.options
    require_root(machine, built.planned.reached.running)
    host_run.enter("copy")
    try:
        if options.engine is Engine.GUARDED and host_run.kind is Kind.SYSTEM and machine.access is Access.SHELL:
            output_of(machine, hold(toplevel), what="holding it", sudo=True)
        is_nixos = host_run.host.is_nixos
        copy_closure(machine, [toplevel], is_nixos=is_nixos, sign_with=options.sign_with, substitute=options.substitute)
    except FAILURES as error:
        foreseen(error, f"{host_run.id}: copying it")
        raise NotBegun(f"{host_run.id}: it cannot be copied: {error}") from error
    host_run.value = Copied(built)


def copy_closure(
    machine: Machine,
    paths: Sequence[str],
    root: str | None = None,
    *,
    is_nixos: bool,
    sign_with: str | None = None,
    substitute: bool = True,
) -> None:
    """Copy what is missing of these closures to the machine's store, or to the one below `root`, which is root's.

    With `substitute` the machine fetches what it can from its own caches; one that is down ends the copy, which is made
    again from here then. They are signed first with the secret key file `sign_with`.
    """
    if machine.is_local and root is None:
        return
    sudo = store_access(machine, paths, sign_with, is_nixos=is_nixos) if root is None else None
    remote_program = sudo.program("nix-store") if sudo else None
    with _copies, told(sudo) as password:

        def command(to: Destination) -> tuple[list[str], dict[str, str]]:
            argv, environment = nix.copy(list(paths), to, root, substitute=substitute, remote_program=remote_program)
            return argv, environment | password

        while True:
            try:
                copy_towards(machine, command, COPY_DEADLINE)
                return
            except (ProcessFailed, Stalled) as error:
                if isinstance(error, ProcessFailed) and is_unsigned(error.stderr):
                    raise FleetError(f"{machine.id}: {UNSIGNED}") from error
                if not substitute:
                    raise
                machine.say(f"copying again, without the machine's own caches: {error}")
                substitute = False


def copy_towards(machine: Machine, command: Command, timeout: float) -> Completed:
    """As `run_towards`, for what does nothing but copy. Stalled when that makes no progress."""
    watch = Watch(f"{machine.id}: copying to it", there=lambda: _look_there(machine))
    return run_towards(machine, command, timeout, watch.heard, watch)


def _look_there(machine: Machine) -> str | None:
    """What Nix does on the machine, as far as we may see it: it fetches from its own caches without a word."""
    if machine.access is not Access.SHELL:
        return None
    try:
        done = machine.run(LOOK_THERE)
    except OSError:
        return None
    return done.stdout if done.status == 0 else None


def run_towards(
    machine: Machine,
    command: Command,
    timeout: float,
    stream: Callable[[str], None] | None = None,
    watch: Callable[[int], None] | None = None,
) -> Completed:
    """Run a local program that connects to the machine; once more when the machine has moved meanwhile.

    `command` gives its argv and environment, `stream` gets its lines, `watch` may end it. ProcessFailed when it fails
    where the machine is, FleetError where the login shell there breaks what it speaks.
    """
    to = machine.copy_to()
    argv, environment = command(to)
    try:
        return run(argv, env=environment, timeout=timeout, stream=stream, watch=watch)
    except ProcessFailed as error:
        if "protocol mismatch" in error.stderr and (why := machine.breaks("Nix's protocol")):
            raise FleetError(f"{machine.id}: {why}") from error
        try:
            machine.reconnect()
            moved_to = machine.copy_to()
        except Unforeseen:
            raise
        except FleetError as lost:
            raise FleetError(f"{error}; then it could not be reached again: {lost}") from error
        if moved_to.address == to.address:
            raise
        argv, environment = command(moved_to)
        return run(argv, env=environment, timeout=timeout, stream=stream, watch=watch)


class Stalled(DeadlineExceeded):
    """It was ended because it did not get on."""


class Watch:
    """Raises Stalled, naming `what`, once a program has made no progress for `patience` seconds.

    `there` looks at the machine: what it returns is another text when something has happened there, and None when
    nobody knows.
    """

    def __init__(
        self, what: str, *, patience: float = PATIENCE, there: Callable[[], str | None] = lambda: None
    ) -> None:
        self.what, self.patience, self.there = what, patience, there
        self.last = ""
        self._locked = False
        self._pid, self._moved = 0, 0
        self._last_look: int | None = None  # how much had moved then; None where something has happened since
        self._seen: str | None = None
        self._since = self._looked = self._looked_there = time.monotonic()

    def heard(self, line: str) -> None:
        """A line that it said."""
        self.last = line.strip() or self.last
        self._locked, self._last_look = bool(_LOCK.search(line)), None
        self._gets_on()

    def __call__(self, pid: int) -> None:
        """Look at the program."""
        now = time.monotonic()
        if now - self._looked < min(_EVERY, self.patience / 4):
            return
        self._looked = now
        if pid != self._pid:  # it was begun anew
            self._pid, self._last_look = pid, None
            self._gets_on()
        moved = bytes_moved(pid)
        if moved is None:  # a system that does not count, or the program has ended
            return
        if not self._moved <= moved <= self._moved + NOISE:  # less: one of its children has ended
            self._moved = moved
            self._gets_on()
        burst = self._last_look is not None and moved > self._last_look + NOISE
        self._last_look = moved
        if self._locked and not burst:
            self._gets_on()
        else:
            self._locked = False
        if now - self._since > self.patience / 4:
            self._look_there(now)

    def _gets_on(self) -> None:
        self._since = time.monotonic()
        self._seen = None

    def _look_there(self, now: float) -> None:
        if now - self._looked_there >= min(_EVERY_THERE, self.patience / 4):
            seen = self.there()
            self._looked_there = time.monotonic()
            if seen is not None and self._seen is not None and seen != self._seen:
                self._gets_on()
            self._seen = seen
        if time.monotonic() - self._since > self.patience:
            last = f"; it said last: {self.last}" if self.last else ""
            raise Stalled(f"{self.what}: no progress for {self.patience:g} s, so it was ended; run it again{last}")


def bytes_moved(pid: int) -> int | None:
    """How many bytes a program and its children have read and written so far, from or to whatever; None where the
    kernel does not say."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().split("\n")
    except OSError:
        return None
    counts = dict(line.split(": ", 1) for line in lines if ": " in line)
    moved = int(counts.get("rchar", 0)) + int(counts.get("wchar", 0))
    return moved + sum(bytes_moved(child) or 0 for child in _children(pid))


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
