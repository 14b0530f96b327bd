"""The one document: what is known of a fleet at one moment, host by host. Values, which JSON has as they are.

Times are UTC as RFC 3339 has them, sizes bytes, durations seconds. None is *not known*, or not there to be known:
`unknown` of a host says by a section's name why, of every section that is to be judged and cannot be. A section that
nobody asked for (`--no-vm`) is None as a whole.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from nixherd.base.errors import Exit

VERSION = 1
"""of the document's form: a part that changes its meaning, or goes, makes another version; a new one does not"""


class State(StrEnum):
    """How a host stands: `unreachable` where nothing of it could be seen now, `differs` where anything is known to
    differ, else `unknown` where anything that is to be judged is."""

    SAME = "same"
    DIFFERS = "differs"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """What of a host differs from what it should be."""

    SYSTEM = "system"  # it runs another system than the flake says
    REVISION = "revision"  # the same system, noted as of another commit
    DIRTY = "dirty"  # what it runs was built from files that were not committed
    GENERATION = "generation"  # what runs is not what boots next
    REBOOT = "reboot"
    UNITS = "units"
    HOSTNAME = "hostname"
    KEY = "key"  # it shows another host key than the pinned one
    RECIPIENTS = "recipients"
    SECRETS = "secrets"  # what it is to decrypt is not there
    GUEST = "guest"  # the hypervisor's guest differs from its definition
    BACKUP = "backup"
    UPDATE = "update"  # it is in no update mode, or in several
    HISTORY = "history"  # two accounts of what was deployed contradict each other


class Mend(StrEnum):
    """What would mend a difference; what nobody but a person can has none."""

    DEPLOY = "deploy"
    REBOOT = "reboot"
    REKEY = "re-key"
    APPLY = "apply"
    ADOPT = "adopt"
    BACKUP = "backup"


class Mode(StrEnum):
    """How a host gets its updates."""

    PUSHED = "pushed"  # by whoever runs `nixherd deploy`
    PULLED = "pulled"  # it fetches what was published, when it is told or by its timer
    SCHEDULED = "scheduled"  # its own timer updates it: homelab.update, or system.autoUpgrade


@dataclass(frozen=True)
class Difference:
    """One difference, in words without the host's name. `mend` and the `command` (argv) that would do it; `command` is
    there without a `mend` where a person has to look first."""

    kind: Kind
    what: str
    mend: Mend | None = None
    command: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Reach:
    """Whether it answered now; None where it was not asked. `at` is when it said what stands below: now, or the last
    time that it answered, `age` seconds ago. `since`: not reached since then, as far as is known here."""

    answered: bool | None
    address: str | None = None
    why: str | None = None
    at: str | None = None
    age: int | None = None
    since: str | None = None


@dataclass(frozen=True)
class Key:
    """The host key, by fingerprint. `same`: whether the machine shows the pinned one; None where that was not seen."""

    pinned: str | None = None
    shown: str | None = None
    same: bool | None = None


@dataclass(frozen=True)
class Revision:
    """Of the fleet: what it should be of, and what it is of, whole hashes, `-dirty` behind those of files that were not
    committed. `behind`: commits of the desired one that the running one has not; None where git cannot tell."""

    desired: str | None = None
    running: str | None = None
    behind: int | None = None


@dataclass(frozen=True)
class System:
    """Store paths, and the number of the profile's generation that runs. `same`: it runs the desired one. `source` of
    the desired one: evaluated, kept (from an evaluation before), deployed (of that revision), or None: not known."""

    desired: str | None = None
    source: str | None = None
    running: str | None = None
    profile: str | None = None
    booted: str | None = None
    same: bool | None = None
    generation: int | None = None
    hostname: str | None = None


@dataclass(frozen=True)
class Reboot:
    """Whether the next boot brings what a switch did not, and which parts of it; kernels by their versions."""

    pending: bool | None = None
    why: tuple[str, ...] = ()
    kernel: str | None = None
    next_kernel: str | None = None
    uptime: int | None = None


@dataclass(frozen=True)
class Units:
    """Failed units; None where it was not seen."""

    failed: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Secrets:
    """`recipients`: whether all files that it is to decrypt name it, and none other does. `decrypted`: whether all that
    it declares is there; `missing` are paths on the machine. True of both where it declares none."""

    recipients: bool | None = None
    decrypted: bool | None = None
    declared: int | None = None
    missing: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Guest:
    """The hypervisor's guest. `drift`: differences from its definition, in words, () where there are none, None where
    that is not known; `remedy` is apply, adopt or by hand. Snapshots and backups by number and times."""

    vmid: int
    name: str
    type: str = "qemu"
    managed: bool = True
    node: str | None = None
    power: str | None = None
    drift: tuple[str, ...] | None = None
    remedy: str | None = None
    snapshots: int | None = None
    newest_snapshot: str | None = None
    oldest_snapshot: str | None = None
    backups: int | None = None
    newest_backup: str | None = None


@dataclass(frozen=True)
class Space:
    """A file system, or memory."""

    name: str
    total: int
    used: int


@dataclass(frozen=True)
class Update:
    """`mode` is the one that it is in; None where it is in none, or several, which `modes` are; `hole` says so."""

    mode: Mode | None = None
    modes: tuple[Mode, ...] = ()
    hole: str | None = None


@dataclass(frozen=True)
class Deployment:
    """The last one. `source`: proved (by a run from here), or told (by the machine); `number` is that of our run."""

    when: str | None = None
    who: str | None = None
    run: str | None = None
    number: int | None = None
    outcome: str | None = None
    revision: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class HostView:
    """One host. `unknown`: why a section that is to be judged is not known, by its name."""

    host: str
    hostname: str | None
    kind: str
    """nixos or home"""
    state: State
    tags: tuple[str, ...] = ()
    reach: Reach = field(default_factory=lambda: Reach(None))
    key: Key = field(default_factory=Key)
    revision: Revision = field(default_factory=Revision)
    system: System = field(default_factory=System)
    reboot: Reboot = field(default_factory=Reboot)
    units: Units = field(default_factory=Units)
    secrets: Secrets = field(default_factory=Secrets)
    guest: Guest | None = None
    disks: tuple[Space, ...] = ()
    memory: Space | None = None
    update: Update = field(default_factory=Update)
    deployment: Deployment | None = None
    differences: tuple[Difference, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Hypervisor:
    """Whether it answered: answered, unreachable, refused, not asked, or none where the fleet has none."""

    state: str
    endpoint: str | None = None
    why: str | None = None


@dataclass(frozen=True)
class Overview:
    """The whole document. `fleet` is its directory, `taken` when this was seen, `seconds` how long that took.

    `revision` is the desired one, that of the fleet's files now; None where git does not know.
    """

    fleet: str
    taken: str
    revision: str | None
    hosts: tuple[HostView, ...]
    hypervisor: Hypervisor = field(default_factory=lambda: Hypervisor("none"))
    differences: tuple[Difference, ...] = ()
    """of the fleet, and of no host"""
    operator: str | None = None
    seconds: float | None = None

    @property
    def summary(self) -> dict[str, int]:
        """How many hosts stand how."""
        counts = Counter(each.state for each in self.hosts)
        return {str(state): counts[state] for state in State}

    @property
    def exit(self) -> Exit:
        """FAILED where anything differs, else REMOTE where anybody did not answer, else UNKNOWN where anything is."""
        states = {each.state for each in self.hosts}
        if self.differences or any(each.differences for each in self.hosts):
            return Exit.FAILED
        if State.UNREACHABLE in states or self.hypervisor.state in ("unreachable", "refused"):
            return Exit.REMOTE
        return Exit.UNKNOWN if State.UNKNOWN in states else Exit.DONE

    def to_json(self) -> dict[str, Any]:
        """The document, valid by `nixherd.overview.schema.schema()`."""
        parts = {**asdict(self), "hosts": [each.to_json() for each in self.hosts]}
        return {"version": VERSION, **parts, "summary": self.summary, "exit": int(self.exit)}
