"""Copies closures to a machine: only what is missing there, signed or through root, once more where it has moved."""

import os
import threading
from collections.abc import Callable, Mapping, Sequence

from nixherd.deploy.machine import Machine, output_of
from nixherd.deploy.options import Engine
from nixherd.deploy.protocol import Kind, hold
from nixherd.deploy.run import HostRun
from nixherd.deploy.running import require_root
from nixherd.deploy.signing import UNSIGNED, store_access
from nixherd.deploy.stalls import LOOK_THERE, Stalled, Watch
from nixherd.deploy.values import Built, Copied, Planned
from nixherd.errors import FAILURES, FleetError, NotBegun, ProcessFailed
from nixherd.faults import foreseen
from nixherd.fleet.models import Access
from nixherd.nix import commands as nix
from nixherd.nix.errors import is_unsigned
from nixherd.process import Completed, run
from nixherd.ssh.destination import Destination
from nixherd.ssh.sudo import Sudo, told

Command = Callable[[Destination], tuple[list[str], Mapping[str, str]]]

COPY_DEADLINE = 4 * 3600.0  # seconds
# So many at a time: each is a process, and they share the way out.
_copies = threading.BoundedSemaphore(max(32, 4 * (os.cpu_count() or 1)))


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
        guarded = options.engine is Engine.GUARDED
        if guarded and host_run.kind is Kind.SYSTEM and machine.access is Access.SHELL:
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
    with _copies:
        try:
            _copy(machine, paths, root, sudo, substitute=substitute)
        except (ProcessFailed, Stalled) as error:
            if isinstance(error, ProcessFailed) and is_unsigned(error.stderr):
                raise FleetError(f"{machine.id}: {UNSIGNED}") from error
            if not substitute:
                raise
            machine.say(f"copying again, without the machine's own caches: {error}")
            _copy(machine, paths, root, sudo, substitute=False)


def _copy(machine: Machine, paths: Sequence[str], root: str | None, sudo: Sudo | None, *, substitute: bool) -> None:
    with told(sudo) as password:

        def command(to: Destination) -> tuple[list[str], dict[str, str]]:
            argv, environment = nix.copy(list(paths), to, root, substitute=substitute, sudo=sudo)
            return argv, environment | password

        copy_towards(machine, command, COPY_DEADLINE)


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
        machine.reconnect()
        moved_to = machine.copy_to()
        if moved_to.address == to.address:
            raise
        argv, environment = command(moved_to)
        return run(argv, env=environment, timeout=timeout, stream=stream, watch=watch)
