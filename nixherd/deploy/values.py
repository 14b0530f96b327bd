"""How far a host of a rollout has come: each value is made by the function that needs the one before."""

from dataclasses import dataclass, field

from nixherd.deploy.running import Running
from nixherd.fleet.health_checks import Check
from nixherd.fleet.revisions import shown
from nixherd.nix.commands import Evaluated


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
