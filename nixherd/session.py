"""One run over one fleet: what all hosts of the run share, and what is kept between runs.

Kept between runs, outside the checkout and the Nix store, is `${XDG_STATE_HOME:-~/.local/state}/nixherd/
FLEET/HOST/`: the host key generated for a machine before it exists, until secrets and hosts.nix know it. Beside
the hosts, `.runs/` holds their locks and a directory per run for what nobody else should see: known_hosts, files
half-written, roots for Nix's garbage collector. The next run removes what a killed one left there.
"""

import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nixherd.deploy.commit_policy import Gate, Verified
from nixherd.deploy.journal import Journal
from nixherd.deploy.report import Outcome
from nixherd.deploy.run import Rollouts
from nixherd.errors import FAILURES, FleetError, Refused, Usage
from nixherd.exit_codes import Exit, exit_of
from nixherd.faults import line_of, worded
from nixherd.files import lock, own_directory, state_home, write_whole
from nixherd.fleet.models import Fleet, Host, Vm
from nixherd.fleet.revisions import of_tree
from nixherd.nix.log import Warnings
from nixherd.once import OncePer
from nixherd.proxmox.token import Token
from nixherd.pyinfra_glue.rollcall import RollCall
from nixherd.reasons import kept_output
from nixherd.ssh.destination import PLAIN_PATH
from nixherd.ssh.keys import KeyPair, generate_ed25519, pair_of, parse_public_key

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client
    from nixherd.proxmox.guard.policy import PolicySource

T = TypeVar("T")
_VERIFIED = ("evaluate", "the signed commit")  # anew with what is evaluated


@dataclass(frozen=True)
class HostState:
    """What is kept of one host between runs; `directory` is made on the first write. `comment` is its key's."""

    directory: Path
    comment: str
    session: "Session" = field(repr=False)

    @property
    def private_key_file(self) -> Path:
        return self.directory / "ssh_host_ed25519_key"

    def host_key(self) -> KeyPair | None:
        """The key generated for this host or put here by the operator, or None if there is none (yet).

        FleetError when others can read it, or it is no key that a machine could use.
        """
        path = self.private_key_file
        try:
            private, mode = path.read_text(errors="replace"), path.stat().st_mode & 0o777
        except FileNotFoundError:
            return None
        if mode & 0o077:
            raise FleetError(f"{path}: others may read this private key (mode {mode:04o}); chmod 600 it")
        try:
            return pair_of(private, self.comment)
        except ValueError as error:
            raise FleetError(f"{path}: {error}; put the host's ed25519 private key there, or move it away") from None

    def ensure_host_key(self) -> KeyPair:
        """The key that is here; made now if there is none. The public half beside it is for people only."""
        pair = self.host_key()
        if pair is None:
            pair = generate_ed25519(self.comment)
            self._write(self.private_key_file, pair.private_openssh)
            self._write(self.private_key_file.with_suffix(".pub"), pair.public + "\n")
        return pair

    def forget_host_key(self) -> None:
        """Delete both halves here; the private one first."""
        for path in (self.private_key_file, self.private_key_file.with_suffix(".pub")):
            path.unlink(missing_ok=True)

    def note(self, name: str, text: str) -> None:
        self._write(self.directory / name, text)

    def noted(self, name: str) -> str | None:
        try:
            return (self.directory / name).read_text()
        except FileNotFoundError:
            return None

    def forget(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)

    def _write(self, path: Path, text: str) -> None:
        write_whole(path, text, scratch=self.session.directory)


def ahead(*work: Callable[[], object]) -> None:
    """Begin in the background what will be needed soon; who needs it waits for it, and sees what became of it."""

    def quietly(each: Callable[[], object]) -> None:
        try:
            each()
        except FAILURES as error:
            worded(error, "what was begun ahead")  # raised anew where the result is needed

    for each in work:
        threading.Thread(target=quietly, args=(each,), daemon=True).start()


class Unusable(FleetError):
    """Nobody of this run can use the hypervisor's API."""


class Foreign(Unusable, Refused):
    """The token belongs to another server than the definitions name."""


class Misused(Unusable, Usage):
    """What was said on the command line cannot be meant."""


@dataclass(frozen=True)
class _Failed:
    """How a computation of the run ended."""

    error: FleetError


@dataclass(eq=False)
class Session:
    """What every host of a run shares. pyinfra hands data out as shallow copies; of this there is only one."""

    fleet: Fleet
    token_file: Path
    definitions: "PolicySource | None" = None
    """what the guard asks before each changing request; without it, it goes by `fleet`"""
    arrived: set[str] = field(default_factory=set)
    """the hosts that this run has sent into their installed system"""
    touched: set[str] = field(default_factory=set)
    """the hosts on which this run has done anything"""
    failures: dict[str, Exit] = field(default_factory=dict)
    """with which status each host failed that did"""
    locked: str | None = None
    """the flake as a locked reference, where it was named by one; else it is the fleet's directory"""
    locked_revision: str | None = None
    """the revision that it is locked to, where it has one"""
    gate: Gate | None = None
    """what the flake has to be signed by, where that is required"""
    journal: "Journal | None" = None
    """of a deployment, where this run is one"""
    together: tuple[str, ...] = ()
    """the hosts that are evaluated together, where that began before anybody asked"""
    rollouts: Rollouts = field(default_factory=Rollouts, repr=False)
    warnings: Warnings = field(default_factory=Warnings)
    """what the evaluations of the flake warned of"""
    roll_call: "RollCall | None" = None
    """where something waits to begin with those that answer"""
    _claims: OncePer[str, None] = field(default_factory=lambda: OncePer("claiming a host"), repr=False)
    _memo: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    _recent: dict[Hashable, tuple[float, Any]] = field(default_factory=dict, repr=False)
    _locks: dict[Hashable, threading.Lock] = field(default_factory=dict, repr=False)
    _held: ExitStack = field(default_factory=ExitStack, repr=False)
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __copy__(self) -> "Session":
        return self

    def to_json(self) -> dict[str, str]:
        """What `pyinfra inventory.py debug-inventory` shows of it."""
        return {"fleet": self.fleet.path, "token_file": str(self.token_file)}

    @property
    def flake(self) -> str:
        """The flake, as Nix is told it: where it has to be signed, the very commit that was verified."""
        return self.locked or (self.verified.url if self.gate else self.fleet.path)

    @property
    def revision(self) -> str | None:
        """The revision of the flake as its files are at this moment, None where nobody can say."""
        if self.locked:
            return self.locked_revision
        return self.verified.revision if self.gate else of_tree(Path(self.fleet.path))

    @property
    def verified(self) -> Verified:
        """The commit that the gate let through; looked at again when the fleet's files were changed by this run."""
        assert self.gate is not None
        return self.once(_VERIFIED, self.gate.verify)

    def take(self, verified: Verified) -> None:
        """Go on with a commit that the gate has let through already."""
        self.once(_VERIFIED, lambda: verified)

    @property
    def client(self) -> "Client":
        """The guarded Proxmox client, made on first use and asked for version and nodes.

        Unusable when there is no way in: no endpoint, another certificate, a token that is missing or refused,
        no such node.
        """
        return self.once("client", self._connect)

    def connect(self) -> "Client":
        """A guarded client that has not asked anything yet.

        Unusable without an endpoint or a token, Refused when the token belongs to another server.
        """
        if self.fleet.endpoint is None:
            raise Unusable("vms/definitions.nix: proxmox: no endpoint is declared; add host and node")
        # They take a third of a second: not for those who need no API.
        from nixherd.proxmox.client import connect
        from nixherd.proxmox.guard.policy import Policy

        policy = self.definitions or Policy.from_fleet(self.fleet)
        return connect(self.fleet.endpoint, policy, Token.read(self.token_file))

    def _connect(self) -> "Client":
        try:
            client = self.connect()
            self.once("version", client.version)
            nodes = self.once("nodes", client.nodes)
        except FleetError as error:
            raise (Foreign if isinstance(error, Refused) else Unusable)(str(error)) from error
        node = self.fleet.endpoint.node if self.fleet.endpoint else ""
        if node not in nodes:
            raise Unusable(
                f"vms/definitions.nix: proxmox.node: there is no node {node}; correct it "
                f"(there are: {', '.join(nodes)})"
            )
        return client

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """`compute()`, once per run: the first caller computes, the others wait. What goes wrong is so for each."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._memo:
                self._memo[key] = self._attempt(key, compute)
            found: T | _Failed = self._memo[key]
        if isinstance(found, _Failed):
            raise found.error
        return found

    def lately(self, key: Hashable, seconds: float, compute: Callable[[], T]) -> T:
        """`compute()`, but what came of it at most so many seconds ago, also that it went wrong."""
        with self._guard:
            lock = self._locks.setdefault(("lately", key), threading.Lock())
        with lock:
            when, found = self._recent.get(key, (-math.inf, None))
            if time.monotonic() - when >= seconds:
                found = self._attempt(key, compute)
                self._recent[key] = (time.monotonic(), found)
        if isinstance(found, _Failed):
            raise found.error
        return found  # type: ignore[no-any-return]

    def _attempt(self, key: Hashable, compute: Callable[[], T]) -> "T | _Failed":
        try:
            return compute()
        except FAILURES as error:
            name = key[0] if isinstance(key, tuple) else key
            return _Failed(worded(error, f"{self.fleet.path}: {name}"))

    def forget(self, *kinds: str) -> None:
        """Compute anew what was computed under a key that begins with one of these words."""
        with self._guard:
            for key in [key for key in self._memo if isinstance(key, tuple) and key[0] in kinds]:
                del self._memo[key]

    @cached_property
    def state_directory(self) -> Path:
        return state_home() / self.fleet.id

    def state_of(self, host_id: str) -> HostState:
        return HostState(self.state_directory / host_id, f"root@{self.host(host_id).hostname}", self)

    # What this run holds while it goes on

    @property
    def directory(self) -> Path:
        """This run's own directory, gone when the run ends."""
        return self.once("directory", self._make_directory)

    def _make_directory(self) -> Path:
        path, handle = own_directory(self.state_directory / ".runs")
        self._held.callback(os.close, handle)
        self._held.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    def known_hosts_of(self, host_id: str) -> Path:
        """The directory of this run's known_hosts files for one host; whoever writes there makes it."""
        return self.plain_directory / "known_hosts" / host_id

    @property
    def plain_directory(self) -> Path:
        """The same, or a directory elsewhere where its path is one that other programs take apart."""
        return self.once("plain directory", self._find_plain_directory)

    def _find_plain_directory(self) -> Path:
        if PLAIN_PATH.fullmatch(str(self.directory)):
            return self.directory
        path = Path(tempfile.mkdtemp(prefix="nixherd-", dir="/tmp"))
        self._held.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    @property
    def gc_roots(self) -> Path:
        """The directory of the links that keep what this run needs from Nix's garbage collector."""
        roots = self.directory / "gcroots"
        roots.mkdir(exist_ok=True)
        return roots

    def sudo_password(self, read: Callable[[], str]) -> str:
        """The password that sudo asks for on machines, read once per run. It is in this process' memory alone."""
        return self.once("sudo password", read)

    def claim(self, host_id: str) -> None:
        """Let no other run change this host until this one ends. FleetError when another does already."""
        self._claims(host_id, lambda: self._claim(host_id))

    def _claim(self, host_id: str) -> None:
        path = self.state_directory / ".runs" / f"{host_id}.lock"
        try:
            self._held.callback(os.close, lock(path))
        except BlockingIOError:
            raise FleetError(f"{host_id}: another run (pid {path.read_text()}) works on it; wait for it") from None
        except OSError as error:
            raise FleetError(f"{host_id}: {path} cannot be locked ({line_of(error)}); nothing was begun") from error

    def claim_fleet(self) -> None:
        """Let no other run from here deploy this fleet until this one ends. FleetError when another does already."""
        self._claims("", self._claim_fleet)

    def _claim_fleet(self) -> None:
        path = self.state_directory / ".runs" / "deployment.lock"
        try:
            self._held.callback(os.close, lock(path))
        except BlockingIOError:
            raise FleetError(
                f"another deployment of this fleet (pid {path.read_text()}) is under way; wait for its end"
            ) from None
        except OSError as error:
            raise FleetError(f"{path} cannot be locked ({line_of(error)}); nothing was begun") from error

    def close(self) -> None:
        """The end of the run: give back what it holds. A killed run's is given back by the kernel, and the next run."""
        self._held.close()

    def failed(
        self, host_id: str, error: Exception, *, changed: bool = False, outcome: Outcome = Outcome.FAILED
    ) -> None:
        """Note with which status a host failed; the first one counts, the rest follows from it."""
        error = worded(error, host_id)
        changed = changed or host_id in self.touched
        status = self.failures.setdefault(host_id, exit_of(error, changed=changed))
        if outcome is Outcome.FAILED and status is Exit.UNKNOWN:
            outcome = Outcome.UNKNOWN
        if self.journal is not None:
            if output := kept_output(error):
                self.journal.note("found", host_id, output=output)
            self.journal.note("end", host_id, outcome=outcome, why=str(error), exit=int(status))

    @property
    def under_way(self) -> list[str]:
        """The UPIDs of the tasks that this run began and did not see ending."""
        client = self._known_client
        return sorted(client.under_way) if client else []

    @property
    def _known_client(self) -> "Client | None":
        """The client, when anything has needed it yet."""
        client: Client | _Failed | None = self._memo.get("client")
        return None if isinstance(client, _Failed) else client

    @property
    def accepted_changes(self) -> int:
        """How many changing requests the hypervisor has taken from this run."""
        client = self._known_client
        return client.accepted_changes if client else 0

    def host(self, host_id: str) -> Host:
        return self.fleet.hosts[host_id]

    def vm(self, host_id: str) -> Vm | None:
        return self.fleet.vm_of(host_id)

    def key_to_install(self, host_id: str) -> KeyPair:
        """The host key that the new system gets: generated here unless it was before.

        FleetError when hosts.nix pins another key than the one whose private half we hold.
        """
        problem = self.key_problem(host_id)
        if problem:
            raise FleetError(problem)
        return self.state_of(host_id).ensure_host_key()

    def key_problem(self, host_id: str) -> str | None:
        """Why this host cannot be installed with the key that hosts.nix pins; None when it can."""
        try:
            wanted, held = self.host(host_id).public_key, self.state_of(host_id).host_key()
        except FleetError as error:
            return str(error)
        if wanted is None or (held and parse_public_key(wanted).blob == parse_public_key(held.public).blob):
            return None
        return (
            f"{self.fleet.path}/hosts.nix: {host_id}.publicKey: its private half is not in "
            f"{self.state_of(host_id).private_key_file}; put it there, or a placeholder here to have a new key made"
        )

    def pinned_key(self, host_id: str) -> str | None:
        """The installed machine's host key: the one in hosts.nix, else the one generated here, else None."""
        if pinned := self.host(host_id).public_key:
            return pinned
        generated = self.state_of(host_id).host_key()
        return generated.public if generated else None
