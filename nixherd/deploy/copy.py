"""Copies closures to a machine: only what is missing there, signed or through root, once more where it has moved.

A clock alone would end a large copy over a slow line: a `Watch` ends one that makes no progress. What Nix's processes
do on the machine counts as well, which fetches from its own caches without a word.
"""

import getpass
import json
import os
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nixherd.base.becoming_root import Root
from nixherd.base.errors import FAILURES, FleetError, NotBegun, ProcessFailed, Unforeseen, Usage
from nixherd.base.files import expanded
from nixherd.base.process import Completed, run
from nixherd.base.reasons import reason
from nixherd.base.terminal import foreseen, line_of
from nixherd.base.waiting import Stalled, Watch
from nixherd.deploy.machine import ANSWER_DEADLINE, Machine, look_at_nix, output_of
from nixherd.deploy.options import Engine
from nixherd.deploy.protocol import Kind, hold
from nixherd.deploy.report import Outcome
from nixherd.deploy.rollout import Built, Copied, HostRun, Planned
from nixherd.deploy.running import require_root
from nixherd.fleet.models import Access
from nixherd.nix import commands as nix
from nixherd.nix.builder import BUILD_DEADLINE
from nixherd.nix.errors import is_unsigned, reason_of
from nixherd.nix.log import BuildProgress, readable
from nixherd.ssh.destination import Destination, told

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


def store_access(machine: Machine, paths: Sequence[str], sign_with: str | None, *, is_nixos: bool) -> Root | None:
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


def _root_of(machine: Machine) -> Root:
    """Root's store there. FleetError when neither sudo nor doas, whichever is its way, lets us."""
    why = None
    # said in no words of sudo's, which pyinfra would answer by asking for a password itself; and asked in any case: a
    # password that sudo does not read would be the first thing that Nix reads there
    state = machine.run(machine.become.state()).stdout.strip()
    if state == "free":
        return Root(machine.become)
    if state == "asks" and (machine.password is not None or machine.give_password()):
        done = machine.run("true", sudo=True)  # with a wrong one, Nix and sudo would wait for each other
        if done.status == 0:
            return Root(machine.become, machine.password)
        why = f"sudo does not let it be root: {reason(done.stderr.strip() or done.stdout)}"
    why = why or machine.become.remedy(state, machine.user)
    raise FleetError(
        f"its store takes nothing unsigned from {machine.user}, and {why}; or say sign_with=KEY_FILE, whose public "
        "half is in nixherd.trustedKeys there"
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
        copy_closure(
            *(machine, [toplevel]),
            is_nixos=is_nixos,
            sign_with=options.sign_with,
            substitute=options.substitute,
            tell=lambda text: host_run.journal.note("progress", host_run.id, text=text),
        )
    except FAILURES as error:
        foreseen(error, f"{host_run.id}: copying it")
        raise NotBegun(f"{host_run.id}: it cannot be copied: {error}") from error
    host_run.value = Copied(built)


def prove_copied(host_run: HostRun, toplevel: str) -> None:
    """End this host with a system in its machine's store, as the store there says. FleetError where it is not."""
    copy_towards(host_run.machine, lambda to: nix.path_there(toplevel, to), ANSWER_DEADLINE)
    host_run.end(Outcome.COPIED, toplevel)


def copy_closure(
    machine: Machine,
    paths: Sequence[str],
    root: str | None = None,
    *,
    is_nixos: bool,
    sign_with: str | None = None,
    substitute: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Copy what is missing of these closures to the machine's store, or to the one below `root`, which is root's.

    With `substitute` the machine fetches what it can from its own caches; one that is down ends the copy, which is made
    again from here then. They are signed first with the secret key file `sign_with`. `tell` is told how many paths and
    bytes are there.
    """
    if machine.is_local and root is None:
        return
    by_root = store_access(machine, paths, sign_with, is_nixos=is_nixos) if root is None else None
    remote_program = by_root.program("nix-store") if by_root else None
    with _copies, told(by_root) as password:

        def command(to: Destination) -> tuple[list[str], dict[str, str]]:
            argv, environment = nix.copy(list(paths), to, root, substitute=substitute, remote_program=remote_program)
            return argv, environment | password

        while True:
            try:
                copy_towards(machine, command, COPY_DEADLINE, tell)
                return
            except (ProcessFailed, Stalled) as error:
                if isinstance(error, ProcessFailed) and is_unsigned(error.stderr):
                    raise FleetError(f"{machine.id}: {UNSIGNED}") from error
                if not substitute:
                    raise
                machine.say(f"copying again, without the machine's own caches: {error}")
                substitute = False


def copy_towards(
    machine: Machine,
    command: Command,
    timeout: float,
    tell: Callable[[str], None] = lambda text: None,
    *,
    input: bytes | None = None,
) -> Completed:
    """As `run_towards`, for what does nothing but copy. Stalled when that makes no progress."""
    watch = Watch(f"{machine.id}: copying to it", there=partial(look_at_nix, machine))
    progress = BuildProgress()

    def heard(line: str) -> None:
        watch.heard(readable(line))
        if text := progress.feed(line):
            tell(text)

    return run_towards(machine, command, timeout, heard, watch, input=input)


def run_towards(
    machine: Machine,
    command: Command,
    timeout: float,
    stream: Callable[[str], None] | None = None,
    watch: Callable[[int], None] | None = None,
    *,
    input: bytes | None = None,
) -> Completed:
    """Run a local program that connects to the machine; once more when the machine has moved meanwhile.

    `command` gives its argv and environment, `input` is its stdin, `stream` gets its lines, `watch` may end it.
    ProcessFailed when it fails where the machine is, FleetError where the login shell there breaks what it speaks.
    """
    to = machine.copy_to()
    argv, environment = command(to)
    try:
        return run(argv, env=environment, timeout=timeout, stream=stream, watch=watch, input=input)
    except ProcessFailed as error:
        if "protocol mismatch" in error.stderr and (why := machine.breaks("Nix's protocol")):
            raise FleetError(f"{machine.id}: {why}") from error
        try:
            machine.reconnect()
            moved_to = machine.copy_to()
        except Unforeseen:
            raise
        except OSError as lost:
            raise FleetError(f"{error}; then it could not be reached again: {line_of(lost)}") from error
        except FleetError as lost:
            raise FleetError(f"{error}; then it could not be reached again: {lost}") from error
        if moved_to.address == to.address:
            raise
        argv, environment = command(moved_to)
        return run(argv, env=environment, timeout=timeout, stream=stream, watch=watch, input=input)


def build_and_fetch(builder: Machine, tell: Callable[[str], None], installables: Sequence[str]) -> None:
    """Have them built on another machine, and copied here."""
    try:
        run_towards(builder, lambda to: nix.build_from(installables, to), BUILD_DEADLINE, tell)
    except (ProcessFailed, OSError) as error:
        foreseen(error, f"building on {builder.id}")
        if isinstance(error, ProcessFailed) and is_unsigned(error.stderr):
            raise FleetError(
                f"what {builder.id} built is not taken by the store here, whose daemon does not trust "
                f"{getpass.getuser()}: have {builder.id} sign it (nix.settings.secret-key-files there, its public half "
                "in trusted-public-keys here), run this as root, or build elsewhere"
            ) from error
        raise FleetError(f"building on {builder.id} failed: {reason_of(error)}") from error
