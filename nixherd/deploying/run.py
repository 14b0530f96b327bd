"""What a run of a deployment knows: what it is to do, and how far each of its hosts is."""

import getpass
import os
import re
import threading
import traceback
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nixherd.deploying.activation import Kind
from nixherd.deploying.journal import Journal
from nixherd.deploying.options import Options
from nixherd.deploying.report import Outcome
from nixherd.errors import FleetError, NotBegun, Undecided
from nixherd.health_checks import Check
from nixherd.nix import Evaluated


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
    stage: str | None = None
    outcome: Outcome | None = None

    def enter(self, stage: str) -> None:
        if stage != self.stage:
            self.stage = stage
            self.journal.note("stage", self.id, stage=stage)

    def found(self, **values: Any) -> None:
        self.journal.note("found", self.id, **values)

    def said(self, text: str) -> None:
        self.journal.note("said", self.id, text=text)

    def end(self, outcome: Outcome, why: str | None = None, **values: Any) -> None:
        """Its outcome; the first one counts."""
        if self.outcome is None:
            self.outcome = outcome
            self.journal.note("end", self.id, outcome=outcome, why=why, **values)

    def _broken(self, error: Exception) -> Undecided:
        """It is noted whole, and told in a line."""
        self.found(traceback=traceback.format_exception(error))
        why = f"{type(error).__name__} at {self.stage}, which is a mistake in nixherd: {error}"
        self.end(Outcome.UNKNOWN, why)
        return Undecided(f"{self.id}: {why}")

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """What nobody reckoned with, a mistake of ours or of who answers, is said as what it is, and ends this host."""
        try:
            yield
        except (FleetError, OSError):
            raise
        except Exception as error:
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
        """Whoever runs this, as the machines and other operators are told."""
        return re.sub(r"[^A-Za-z0-9@._-]", "-", f"{getpass.getuser()}@{os.uname().nodename}-{os.getpid()}")

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
            except (FleetError, OSError):
                self.failed[own.id] = options.wave
                raise

    def host(self, host_id: str, kind: Kind, options: Options) -> HostRun:
        return self.hosts.setdefault(host_id, HostRun(host_id, kind, options, self.journal))
