"""One run over one fleet: the directory it works in, what it keeps for the next run, what it holds, and how it ends.

Kept between runs, outside the checkout and the Nix store, is `${XDG_STATE_HOME:-~/.local/state}/nixherd/FLEET/HOST/`.
Beside the hosts, `.runs/` holds their locks and a directory per run for what nobody else should see: known_hosts, files
half-written, roots for Nix's garbage collector. The next run removes what a killed one left there.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nixherd.base.errors import Exit, FleetError, exit_of
from nixherd.base.files import lock, own_directory, state_home, write_whole
from nixherd.base.names import PLAIN_PATH, is_a
from nixherd.base.reasons import kept_output
from nixherd.base.terminal import line_of, worded
from nixherd.base.waiting import Once, OncePer, once_property


class Notes(Protocol):
    """Where a run notes what it does: a `Journal`, or nowhere."""

    def note(self, event: str, host: str | None = None, **values: Any) -> None: ...


class Unnoted:
    """Nowhere: what is not a deployment, and a plan, leave no journal."""

    def note(self, event: str, host: str | None = None, **values: Any) -> None:
        """Forget it."""


@dataclass(frozen=True)
class HostState:
    """What is kept of one host between runs; `directory` is made on the first write."""

    directory: Path
    scratch: Callable[[], Path]

    def note(self, name: str, text: str) -> None:
        write_whole(self.directory / name, text, scratch=self.scratch())

    def noted(self, name: str) -> str | None:
        try:
            return (self.directory / name).read_text()
        except FileNotFoundError:
            return None

    def forget(self, name: str) -> None:
        (self.directory / name).unlink(missing_ok=True)


def _holder(lock_file: Path) -> str:
    """Return the PID in a lock's file, `unknown` where that cannot be read."""
    try:
        return lock_file.read_text() or "unknown"
    except (OSError, ValueError):
        return "unknown"


class Run:
    """What every host of a run shares. Made once and passed; closed at its end."""

    def __init__(self, fleet_id: str) -> None:
        self.state_directory = state_home() / fleet_id
        self.journal: Notes = Unnoted()
        self.arrived: set[str] = set()
        """the hosts that this run has sent into their installed system"""
        self.touched: set[str] = set()
        """the hosts on which this run has done anything"""
        self.failures: dict[str, Exit] = {}
        """with which status each host failed that did"""
        self.fleet_files = threading.Lock()
        """held by the host that works on the fleet's files"""
        self._sudo_password: Once[str] = Once("reading the password for sudo")
        self._claims: OncePer[str, int] = OncePer("claiming a host")
        self._said: dict[str, str] = {}
        self._held = ExitStack()

    def state_of(self, host_id: str) -> HostState:
        return HostState(self.state_directory / host_id, lambda: self.directory)

    # Directories

    @once_property
    def directory(self) -> Path:
        """This run's own directory, removed when the run ends."""
        path, handle = own_directory(self.state_directory / ".runs")
        self._held.callback(os.close, handle)
        self._held.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    @once_property
    def plain_directory(self) -> Path:
        """The same, or a directory elsewhere where its path is one that other programs take apart."""
        if is_a(PLAIN_PATH, str(self.directory)):
            return self.directory
        path = Path(tempfile.mkdtemp(prefix="nixherd-", dir="/tmp"))
        self._held.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    def known_hosts_of(self, host_id: str) -> Path:
        """The directory of this run's known_hosts files for one host; whoever writes there makes it."""
        return self.plain_directory / "known_hosts" / host_id

    @property
    def gc_roots(self) -> Path:
        """The directory of the links that keep what this run needs from Nix's garbage collector."""
        roots = self.directory / "gcroots"
        roots.mkdir(exist_ok=True)
        return roots

    # What is asked or said once

    def sudo_password(self, read: Callable[[], str]) -> str:
        """The password that sudo asks for on machines, read once. It is in this process' memory alone."""
        with self._sudo_password as password:
            if password.is_empty:
                password.value = read()
            return password.value

    def first_to_say(self, text: str, host_id: str) -> str:
        """The host that said this text first, of the many that come upon it."""
        return self._said.setdefault(text, host_id)  # which is atomic

    # Locks

    def claim(self, host_id: str) -> None:
        """Let no other run change this host until this one ends. FleetError when another does already."""
        self._claim(f"{host_id}.lock", f"{host_id}: another run (pid {{}}) works on it; wait for it", f"{host_id}: ")

    def claim_fleet(self) -> None:
        """Let no other run from here deploy this fleet until this one ends. FleetError when another does already."""
        self._claim("deployment.lock", "another deployment of this fleet (pid {}) is under way; wait for its end")

    def _claim(self, name: str, is_held: str, where: str = "") -> None:
        path = self.state_directory / ".runs" / name
        with self._claims[name] as claim:
            if not claim.is_empty:
                return
            try:
                handle = lock(path)
            except BlockingIOError:
                raise FleetError(is_held.replace("{}", _holder(path))) from None
            except OSError as error:
                raise FleetError(f"{where}{path} cannot be locked ({line_of(error)}); nothing was begun") from error
            claim.value = handle
            self._held.callback(os.close, handle)

    def close(self) -> None:
        """The end of the run: give back what it holds. A killed run's is given back by the kernel, and the next run."""
        self._held.close()

    # How it ends

    def failed(self, host_id: str, error: Exception, *, changed: bool = False, outcome: str | None = None) -> None:
        """Note with which status a host failed; the first one counts, the rest follows from it.

        `outcome` is one of nixherd.deploy.report.Outcome, by default `failed`, or `unknown` as the status has it.
        """
        error = worded(error, host_id)
        status = self.failures.setdefault(host_id, exit_of(error, changed=changed or host_id in self.touched))
        outcome = outcome or ("unknown" if status is Exit.UNKNOWN else "failed")
        if output := kept_output(error):
            self.journal.note("found", host_id, output=output)
        self.journal.note("end", host_id, outcome=outcome, why=str(error), exit=int(status))
