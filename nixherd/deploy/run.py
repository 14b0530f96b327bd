"""What a run of a deployment knows: what it is to do, and how far each of its hosts is."""

import getpass
import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nixherd.deploy.journal import Journal
from nixherd.deploy.options import Options
from nixherd.deploy.protocol import Kind
from nixherd.deploy.report import UNDECIDED, Outcome, how_to_ask
from nixherd.errors import FAILURES, UNFORESEEN, FleetError, NotBegun, Undecided, Unforeseen
from nixherd.faults import line_of, worded
from nixherd.fleet.health_checks import Check
from nixherd.nix.commands import Evaluated


@dataclass
class HostRun:
    """One host. `state` is what it said of itself at first, `about` what the flake says; None as long as not known."""

    id: str
    kind: Kind
    options: Options
    journal: Journal = field(repr=False)
    state: Mapping[str, Any] | None = None
    about: Evaluated | None = None
    checks: tuple[Check, ...] = ()
    reboot: tuple[str, ...] = ()
    """what of the new system takes effect with a boot alone"""
    inhibited: tuple[str, ...] = ()
    """what keeps the new system from being switched to without a boot"""
    note_only: bool = False
    """whether it runs what is wanted, and has but another revision to note"""
    stage: str | None = None
    outcome: Outcome | None = None

    def enter(self, stage: str) -> None:
        """Note that it has come to a stage, and only then begin it.

        What cannot be noted is not begun: NotBegun, or Undecided where its machine has begun to change.
        """
        if stage == self.stage:
            return
        try:
            self.journal.note("stage", self.id, stage=stage)
        except OSError as error:
            why = f"{self.id}: {line_of(error)}, so the run's journal cannot be written"
            if self.stage not in UNDECIDED:
                raise NotBegun(f"{why}; {stage} was not begun: make room there, and run it again") from error
            raise Undecided(f"{why}; its machine decides by itself, see {how_to_ask(self.id)}") from error
        self.stage = stage

    def found(self, **values: Any) -> None:
        self.journal.note("found", self.id, **values)

    def said(self, text: str) -> None:
        self.journal.note("said", self.id, text=text)

    def end(self, outcome: Outcome, why: str | None = None, **values: Any) -> None:
        """Its outcome; the first one counts."""
        if self.outcome is None:
            self.outcome = outcome
            self.journal.note("end", self.id, outcome=outcome, why=why, **values)

    def _broken(self, error: Exception) -> FleetError:
        """What nobody foresaw has happened at this stage. What its machine does then is not known here."""
        fault = worded(error, f"{self.id}: {self.stage or 'before it began'}")
        if self.stage not in UNDECIDED:
            return fault
        why = f"{str(fault).removeprefix(f'{self.id}: ')}; see {how_to_ask(self.id)}"
        self.end(Outcome.UNKNOWN, why)
        return Undecided(f"{self.id}: {why}")

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """What nobody foresaw is said as what it is, and ends this host."""
        try:
            yield
        except (Unforeseen, *UNFORESEEN) as error:
            raise self._broken(error) from error

    @property
    def coming(self) -> str:
        """The system that is to be activated: the flake's, or the specialisation of it that was asked for."""
        assert self.about is not None
        chosen = self.options.specialisation
        return f"{self.about.toplevel}/specialisation/{chosen}" if chosen else self.about.toplevel

    @property
    def is_over(self) -> bool:
        return self.outcome is not None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container nobody may have a name
        return f"uid-{os.getuid()}"


def operator() -> str:
    """Whoever runs this, as the machines and other operators are told."""
    return re.sub(r"[^A-Za-z0-9@._-]", "-", f"{_user()}@{os.uname().nodename}-{os.getpid()}")


@dataclass
class DeployRun:
    """All hosts of a run, by id, and those that were selected."""

    journal: Journal
    selected: tuple[str, ...]
    hosts: dict[str, HostRun] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    """the waves of the hosts whose activation failed"""
    roles: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    @property
    def id(self) -> str:
        return self.journal.directory.name

    @property
    def who(self) -> str:
        return operator()

    @contextmanager
    def turn(self, own: HostRun, group: str) -> Iterator[None]:
        """A host's turn, alone in its `group`; a failure in it counts for those that come after.

        NotBegun when so many have failed that it is held.
        """
        options = own.options
        with self.roles[group]:
            if why := options.max_fail.holds(options.wave, self.failed, len(self.selected)):
                own.end(Outcome.HELD, why)
                raise NotBegun(f"{own.id} is held: {why}")
            try:
                with own.reporting():
                    yield
            except FAILURES:
                self.failed[own.id] = options.wave
                raise

    def host(self, host_id: str, kind: Kind, options: Options) -> HostRun:
        return self.hosts.setdefault(host_id, HostRun(host_id, kind, options, self.journal))
