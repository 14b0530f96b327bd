"""A rollout: what it is to do, how far each of its hosts is, and whose turn it is."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from nixherd.base.errors import FAILURES, UNFORESEEN, NotBegun, Undecided, Unforeseen, Usage
from nixherd.base.run import Notes
from nixherd.base.terminal import line_of, worded
from nixherd.base.waiting import Once, OncePer
from nixherd.deploy.hooks import Ask
from nixherd.deploy.machine import Machine
from nixherd.deploy.operators import operator
from nixherd.deploy.options import Options
from nixherd.deploy.protocol import Kind
from nixherd.deploy.report import UNDECIDED, Outcome, how_to_ask
from nixherd.deploy.running import Running
from nixherd.fleet.health_checks import Check
from nixherd.fleet.models import Host
from nixherd.fleet.revisions import shown
from nixherd.nix.commands import Evaluated
from nixherd.nix.rebuild import Flavour


@dataclass(frozen=True)
class Reached:
    """A machine that answers, and what runs on it."""

    address: str
    running: Running


@dataclass(frozen=True)
class ReachedToPull:
    """A machine that answers, and takes nothing but the word to pull its configuration itself."""

    address: str


@dataclass(frozen=True)
class Planned:
    """What the flake says of a machine that was reached. `revision_only`: it runs that already, as another revision."""

    reached: Reached
    config: Evaluated
    checks: tuple[Check, ...] = ()
    revision_only: bool = False

    @property
    def revision_change(self) -> str:
        return f"{shown(self.reached.running.revision)} → {shown(self.config.revision)}"


@dataclass(frozen=True)
class PlannedToPull:
    """The same of a machine that pulls."""

    reached: ReachedToPull
    config: Evaluated


@dataclass(frozen=True)
class Changes:
    """What of a new system a switch cannot bring: `reboot_for` parts a boot alone changes, `inhibitors` forbid it."""

    reboot_for: tuple[str, ...] = ()
    inhibitors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """A system that is built. `is_there`: on the machine itself, so that nothing is to be copied."""

    planned: Planned
    is_there: bool = False
    changes: Changes = field(default_factory=Changes)

    @property
    def config(self) -> Evaluated:
        return self.planned.config


@dataclass(frozen=True)
class Copied:
    """A system that is in the machine's store."""

    built: Built

    @property
    def config(self) -> Evaluated:
        return self.built.planned.config


@dataclass(frozen=True)
class Target:
    """What is to run in the end, and its host name, None where that is not known.

    `revision` is the fleet's, which the machine notes; `generation` its number in the profile, where it is to be that
    generation again.
    """

    system: str
    hostname: str | None = None
    revision: str | None = None
    generation: int | None = None

    @classmethod
    def of(cls, config: Evaluated) -> "Target":
        return cls(config.toplevel, config.hostname or None, config.revision)


Value = Reached | ReachedToPull | Planned | PlannedToPull | Built | Copied | None


@dataclass
class HostRun:
    """One host of a rollout. `value` is how far it has come: Reached, Planned, Built or Copied.

    `require_permission` raises Refused where the definitions, as they are at this moment, let nobody reboot it.
    """

    host: Host
    options: Options
    machine: Machine = field(repr=False)
    journal: Notes = field(repr=False)
    fleet_path: str
    require_permission: Callable[[], None] = field(repr=False)
    value: Value = None
    stage: str | None = None
    outcome: Outcome | None = None

    @property
    def how_to_ask(self) -> str:
        """The command that says what its machine has decided."""
        return how_to_ask(self.id, self.host.become)

    @property
    def id(self) -> str:
        return self.host.id

    @property
    def kind(self) -> Kind:
        return Kind.SYSTEM if self.host.is_nixos else Kind.HOME

    @property
    def reached(self) -> Reached | ReachedToPull:
        """What the row `reach` found. These raise Usage where the deploy file lacks a row that they need."""
        if isinstance(self.value, (Reached, ReachedToPull)):
            return self.value
        raise self._misplaced("reach")

    @property
    def planned(self) -> Planned | PlannedToPull:
        """What the row `evaluate` found."""
        if isinstance(self.value, (Planned, PlannedToPull)):
            return self.value
        raise self._misplaced("evaluate")

    @property
    def built(self) -> Built | Planned | PlannedToPull:
        """What the row `build` made; what was planned where it left the building to others."""
        return self.value if isinstance(self.value, Built) else self.planned

    @property
    def copied(self) -> Copied | Built | Planned | PlannedToPull:
        """What the row `copy` made; what was there before where it left the copying to others."""
        return self.value if isinstance(self.value, Copied) else self.built

    def _misplaced(self, row: str) -> Usage:
        return Usage(f"{self.id}: this row goes on with the result of deployment.{row}; put that row before it")

    def enter(self, stage: str) -> None:
        """Note that the host has come to a stage, before the stage begins.

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
            raise Undecided(f"{why}; its machine decides by itself, see {self.how_to_ask}") from error
        self.stage = stage

    def note(self, **values: Any) -> None:
        """Note what is known of the host now."""
        self.journal.note("found", self.id, **values)

    def say(self, text: str) -> None:
        """Narrate, and note it."""
        self.machine.say(text)
        self.journal.note("said", self.id, text=text)

    def end(self, outcome: Outcome, why: str | None = None) -> None:
        """Set the outcome; the first one counts."""
        if self.outcome is None:
            self.outcome = outcome
            self.journal.note("end", self.id, outcome=outcome, why=why)

    def held(self, why: str) -> NotBegun:
        """End this host, without a failure, before anything was begun on it; return what to raise."""
        self.end(Outcome.HELD, why)
        return NotBegun(f"{self.id} is held: {why}")

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """End this host with what nobody foresaw, in words."""
        try:
            yield
        except (Unforeseen, *UNFORESEEN) as error:
            fault = worded(error, f"{self.id}: {self.stage or 'before it began'}")
            if self.stage in UNDECIDED:  # what the machine does after it is not known here
                why = f"{str(fault).removeprefix(f'{self.id}: ')}; see {self.how_to_ask}"
                self.end(Outcome.UNKNOWN, why)
                fault = Undecided(f"{self.id}: {why}")
            raise fault from (error if fault is not error else error.__cause__)

    @property
    def is_over(self) -> bool:
        return self.outcome is not None


@dataclass
class Rollout:
    """All hosts of one rollout, by id. `id` names it on the machines; `selected` are those that were asked for."""

    id: str
    journal: Notes
    selected: tuple[str, ...]
    hosts: dict[str, HostRun] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    """the waves of the hosts whose activation failed"""
    ask: Ask = lambda document: None
    """asks the operator's hooks whether machines may be changed now: why not"""

    def __post_init__(self) -> None:
        self._why_not: Once[str | None] = Once("asking the operator's hooks")
        self._roles: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self.dirty: Once[list[str]] = Once("uncommitted files")
        self.noted: Once[None] = Once("noting what was verified")
        self.to_come: OncePer[tuple[tuple[str, ...], ...], list[Evaluated]] = OncePer("what is to come")
        self.closures: OncePer[tuple[str, ...], dict[str, Mapping[str, int]]] = OncePer("listing closures")
        self.as_of: OncePer[tuple[str, int], dict[str, str]] = OncePer("evaluating another revision")
        self.flavour: Once[Flavour] = Once("nixos-rebuild --help")

    @contextmanager
    def turn(self, host_run: HostRun, *, is_alone: bool = False) -> Iterator[None]:
        """Wait for a host's turn, alone in its role; a failure in it counts for those that come after.

        With `is_alone` those without a role have one. NotBegun when so many have failed that it is held.
        """
        options = host_run.options
        with self._roles[options.role or ("" if is_alone else host_run.id)]:
            if why := options.max_fail.holds(options.wave, self.failed, len(self.selected)):
                raise host_run.held(why)
            if why := self._why_not_now():
                raise host_run.held(why)
            try:
                with host_run.reporting():
                    yield
            except FAILURES:
                if host_run.outcome is not Outcome.HELD:
                    self.failed[host_run.id] = options.wave
                raise

    def _why_not_now(self) -> str | None:
        """What the operator's hooks say, who are asked once for all hosts of the rollout."""
        with self._why_not as why:
            if why.is_empty:
                coming = [each for each in self.hosts.values() if not each.is_over]
                hosts = [
                    {"host": each.id, "wave": each.options.wave, "goal": str(each.options.goal)} for each in coming
                ]
                why.value = self.ask({"run": self.id, "who": operator(), "hosts": hosts})
            return why.value


class Rollouts:
    """The rollouts of a run: one per row that begins one, and the one that each host is in."""

    def __init__(self) -> None:
        self.of_row: OncePer[tuple[str, bool], Rollout] = OncePer("beginning the rollout")
        self.waves: Once[list[int]] = Once("the waves")
        self.current: dict[tuple[str, bool], tuple[Rollout, HostRun]] = {}
        self.numbers = count(1)
