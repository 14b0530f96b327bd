"""What may be done to a guest, one value per step: what a plan prints (`str(step)`) and what `apply` carries out.

A step says by itself whether it interrupts a running machine. `Cannot` and `Drift` are words only: what has to be
done by hand and why, and how reality differs from what people documented.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from nixherd.fleet.models import GuestType
from nixherd.proxmox.models import Upid
from nixherd.proxmox.volumes import Belongings
from nixherd.sizes import format_size

QEMU = GuestType.QEMU


class Row(StrEnum):
    """The rows of provisioning that the hypervisor carries out, in their order."""

    CLONE = "clone"
    CONFIGURE = "configure"
    RESIZE = "resize"
    CLOUD_INIT = "cloud-init"
    START = "start"


@dataclass(frozen=True, slots=True)
class Step:
    """`interrupts`: a machine that runs stops for it; `repeatable`: a second time does nothing, or the same again."""

    node: str
    vmid: int
    type: GuestType = field(default=QEMU, kw_only=True)
    row: ClassVar[Row | None] = None
    interrupts: ClassVar[bool] = False
    repeatable: ClassVar[bool] = True

    @property
    def guest(self) -> str:
        return f"{'vm' if self.type is QEMU else 'ct'} {self.vmid}"


@dataclass(frozen=True, slots=True)
class Change:
    """One option of a guest's configuration; `before` and `after` as people read them, `value` as it is sent.

    A value of None deletes the option.
    """

    key: str
    before: str
    after: str
    value: object

    def __str__(self) -> str:
        return f"{self.key} {self.before} → {self.after}"


# How people call some of the options.
_OPTIONS: Mapping[str, str] = {
    "user": "ciuser",
    "keys": "sshkeys",
    "network": "ipconfig0",
    "upgrade": "ciupgrade",
    "search domain": "searchdomain",
}


def sent(changes: Iterable[Change]) -> dict[str, object]:
    """The options of these changes as the API names and takes them; those to be taken away under `delete`."""
    values = {_OPTIONS.get(change.key, change.key): change.value for change in changes}
    gone = sorted(key for key, value in values.items() if value is None)
    kept = {key: value for key, value in values.items() if value is not None}
    return {**kept, "delete": ",".join(gone)} if gone else kept


def listed(changes: Iterable[Change]) -> str:
    return ", ".join(str(change) for change in changes)


# Making


@dataclass(frozen=True, slots=True)
class Clone(Step):
    """Copy a VM, with our mark on the copy from the first moment. Not `full`: a linked clone of a template."""

    name: str
    template: int
    template_node: str
    description: str
    storage: str | None = None
    pool: str | None = None
    full: bool = True
    is_template: bool = True
    row = Row.CLONE

    def __str__(self) -> str:
        where = f" on {self.storage}" if self.storage else ""
        source = f"template {self.template}" if self.is_template else f"vm {self.template}"
        return f"{'' if self.full else 'link-'}clone {source} to vm {self.vmid} ({self.name}){where}"


@dataclass(frozen=True, slots=True)
class AwaitClone(Step):
    """An earlier run's clone is still at work: wait for it instead of beginning another."""

    upid: Upid
    row = Row.CLONE

    def __str__(self) -> str:
        return f"wait for the clone of vm {self.vmid} that is under way"


@dataclass(frozen=True, slots=True)
class Create(Step):
    """Make a guest from its definition: an empty VM, or a container out of its archive."""

    name: str
    values: Mapping[str, object]
    row = Row.CLONE

    def __str__(self) -> str:
        source = f" out of {self.values['ostemplate']}" if "ostemplate" in self.values else " from its definition"
        return f"create {self.guest} ({self.name}){source}"


@dataclass(frozen=True, slots=True)
class Restore(Step):
    """Make the guest out of a backup; with `overwrite` in the place of the one that is there.

    In words: what of that one `stays` as unused disks, what of it `goes` though the backup does not hold it, what
    `strays` on its storage, where nothing names it then, and which disks of its own the backup `lacks`. `leftover`:
    what is there is what a restore that failed has left, and empty.
    """

    name: str
    archive: str
    storage: str | None = None
    pool: str | None = None
    overwrite: bool = False
    stays: tuple[str, ...] = ()
    goes: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    leftover: bool = False
    row = Row.CLONE
    interrupts = True
    repeatable = False

    def __str__(self) -> str:
        over = ", over the one that is there" if self.overwrite else ""
        if self.leftover:
            over = ", in the place of the empty one that a restore left"
        rest = (
            *(("not in it", self.lacks), ("stays as an unused disk", self.stays), ("goes", self.goes)),
            ("stays on its storage, named by nothing", self.strays),
        )
        told = "".join(f"; {what}: {', '.join(names)}" for what, names in rest if names)
        return f"restore {self.guest} ({self.name}) from {self.archive}{over}{told}"


@dataclass(frozen=True, slots=True)
class AwaitRestore(Step):
    """An earlier run's restore from the same backup is still at work: wait for it instead of beginning another."""

    name: str
    archive: str
    upid: Upid
    row = Row.CLONE

    def __str__(self) -> str:
        return f"wait for the restore of {self.guest} ({self.name}) from {self.archive} that is under way"


@dataclass(frozen=True, slots=True)
class MakeTemplate(Step):
    def __str__(self) -> str:
        return f"convert {self.guest} to a template, for good"


# Changing


@dataclass(frozen=True, slots=True)
class Configure(Step):
    """Set what the definitions declare; `waits` names the options that a running guest takes up at its next start."""

    changes: tuple[Change, ...]
    digest: str | None = None
    waits: tuple[str, ...] = ()
    row = Row.CONFIGURE

    def __str__(self) -> str:
        return f"set {listed(self.changes)}{' (from its next start on)' if self.waits else ''}"


@dataclass(frozen=True, slots=True)
class Mark(Step):
    """Put the line into the guest's notes that makes it ours; `description` is all of them with it."""

    line: str
    description: str
    digest: str | None = None

    def __str__(self) -> str:
        return f"put `{self.line}` into the notes of {self.guest}"


@dataclass(frozen=True, slots=True)
class Resize(Step):
    """Grow a disk; sizes in bytes."""

    disk: str
    before: int
    after: int
    digest: str | None = None
    row = Row.RESIZE

    def __str__(self) -> str:
        return f"grow {self.disk} {format_size(self.before)} → {format_size(self.after)}"


@dataclass(frozen=True, slots=True)
class AddDisk(Step):
    """Give the guest a new, empty disk; `size` in bytes, whole GiB. `waits`: a running one gets it when it starts."""

    disk: str
    storage: str
    size: int
    options: str = ""
    digest: str | None = None
    waits: bool = False
    row = Row.RESIZE

    def __str__(self) -> str:
        later = " (from its next start on)" if self.waits else ""
        return f"add {self.disk}, {format_size(self.size)} on {self.storage}{later}"


@dataclass(frozen=True, slots=True)
class MoveDisk(Step):
    """Move a disk to another storage, the guest running or not; `source` is the volume that goes, or is kept, then."""

    disk: str
    storage: str
    keep_source: bool = False
    digest: str | None = None
    source: str = ""

    def __str__(self) -> str:
        kept = "stays as an unused disk" if self.keep_source else "is deleted then"
        return f"move {self.disk} to {self.storage}; {self.source or 'the old one'} {kept}"


@dataclass(frozen=True, slots=True)
class CloudInit(Step):
    """Say who may log in, and how the machine gets its address."""

    changes: tuple[Change, ...]
    digest: str | None = None
    running: bool = False
    row = Row.CLOUD_INIT

    def __str__(self) -> str:
        return f"set cloud-init {listed(self.changes)}"


@dataclass(frozen=True, slots=True)
class Regenerate(Step):
    """Write the cloud-init drive of a running VM anew."""

    repeatable = False

    def __str__(self) -> str:
        return f"write the cloud-init drive of {self.guest} anew"


# Power


@dataclass(frozen=True, slots=True)
class Power(Step):
    """A switch of power, which is done when the guest stands where it was meant to."""

    def is_reached(self, *, running: bool, paused: bool, lock: str | None) -> bool:
        """Whether a guest that stands so is there; False where that alone does not tell."""
        return False


@dataclass(frozen=True, slots=True)
class Start(Power):
    """Switch the guest on, also from a suspension to disk."""

    row = Row.START

    def is_reached(self, *, running: bool, paused: bool, lock: str | None) -> bool:
        return running and not paused

    def __str__(self) -> str:
        return f"start {self.guest}"


@dataclass(frozen=True, slots=True)
class Stop(Power):
    """Pull the plug."""

    interrupts = True

    def is_reached(self, *, running: bool, paused: bool, lock: str | None) -> bool:
        return not running

    def __str__(self) -> str:
        return f"stop {self.guest} at once"


@dataclass(frozen=True, slots=True)
class Shutdown(Power):
    """Ask the guest to power off; `force`: pull the plug after `timeout` seconds."""

    timeout: int
    force: bool = False
    interrupts = True

    def is_reached(self, *, running: bool, paused: bool, lock: str | None) -> bool:
        return not running

    def __str__(self) -> str:
        then = ", pull the plug then" if self.force else ""
        return f"shut {self.guest} down within {self.timeout} s{then}"


@dataclass(frozen=True, slots=True)
class Reboot(Power):
    """Shut the guest down and start it again; `because` names the options that wait for it."""

    timeout: int
    because: tuple[str, ...] = ()
    interrupts = True
    repeatable = False

    def __str__(self) -> str:
        why = f" so that {', '.join(self.because)} take effect" if self.because else ""
        return f"reboot {self.guest}{why}"


@dataclass(frozen=True, slots=True)
class AwaitReboot(Step):
    """The guest is off in the middle of a reboot, and about to be started again: wait for that."""

    upid: Upid

    def __str__(self) -> str:
        return f"wait for the reboot of {self.guest} that is under way"


@dataclass(frozen=True, slots=True)
class Suspend(Power):
    to_disk: bool = False
    interrupts = True

    def is_reached(self, *, running: bool, paused: bool, lock: str | None) -> bool:
        return lock == "suspended" and not running if self.to_disk else running and paused

    def __str__(self) -> str:
        return f"suspend {self.guest}{' to disk' if self.to_disk else ''}"


@dataclass(frozen=True, slots=True)
class Resume(Power):
    """Let a paused guest go on."""

    row = Row.START

    def is_reached(self, *, running: bool, paused: bool, lock: str | None) -> bool:
        return running and not paused

    def __str__(self) -> str:
        return f"resume {self.guest}"


# Snapshots and backups


@dataclass(frozen=True, slots=True)
class Snapshot(Step):
    name: str
    description: str = ""
    with_memory: bool = False

    def __str__(self) -> str:
        return f"snapshot {self.guest} as {self.name}{' with its memory' if self.with_memory else ''}"


@dataclass(frozen=True, slots=True)
class Rollback(Step):
    """Put disks and configuration back; what was done since is lost.

    `lacks`: disks that it did not have then; `strays`: such as only wait for its next start, which nothing names then.
    """

    name: str
    lacks: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    interrupts = True
    repeatable = False

    def __str__(self) -> str:
        kept = f"; stays as an unused disk: {', '.join(self.lacks)}" if self.lacks else ""
        if self.strays:
            kept += f"; only waits for its next start, stays on its storage, named by nothing: {', '.join(self.strays)}"
        return f"roll {self.guest} back to {self.name}; what was done since is lost{kept}"


@dataclass(frozen=True, slots=True)
class DeleteSnapshot(Step):
    """`memory` is the volume that holds the guest's and goes too; None where there is none."""

    name: str
    memory: str | None = None

    def __str__(self) -> str:
        memory = f" with its memory {self.memory}" if self.memory else ""
        return f"delete snapshot {self.name} of {self.guest}{memory}"


@dataclass(frozen=True, slots=True)
class Backup(Step):
    """`mode` is snapshot, suspend or stop; no older backup is pruned."""

    storage: str
    mode: str = "snapshot"
    compress: str = "zstd"
    notes: str = ""
    protected: bool = False
    repeatable = False

    def __str__(self) -> str:
        return f"back {self.guest} up to {self.storage}"


@dataclass(frozen=True, slots=True)
class Destroy(Step):
    """Remove the guest with what belongs to it.

    `backup` is where it was saved before; `given_up` are the names of parts that it need not hold, `saving` whether
    one was asked for. `pool` is the one whose member it is, None where that is not known; `left` are volumes that the
    server left where they are, `unseen` those that it may have left, where the token is not shown them any more.
    """

    name: str
    mac: str | None
    belongings: Belongings
    backup: str | None = None
    given_up: tuple[str, ...] = ()
    saving: bool = True
    purge: bool = False
    pool: str | None = None
    left: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    interrupts = True

    def __str__(self) -> str:
        what = self.belongings.shown(self.belongings.parts) or "no disk"
        rest = [
            f"destroy {self.guest} ({self.name}), net0 {self.mac or 'without a MAC'}, with {what}",
            self._goes_too(),
        ]
        if not self.saving:
            rest.append("no backup is made, all of it is given up")
        elif self.given_up:
            rest.append(f"given up: {', '.join(self.given_up)}")
        if self.belongings.stays:
            rest.append(f"stays: {', '.join(map(str, self.belongings.stays))}")
        if self.left:
            rest.append(f"left on the storage: {', '.join(self.left)}")
        if self.unseen:
            rest.append(f"perhaps left on the storage, where this token no longer sees it: {', '.join(self.unseen)}")
        return "; ".join([*rest, *([f"backup: {self.backup}"] if self.backup else [])])

    def _goes_too(self) -> str:
        pool = f"pool {self.pool}" if self.pool else "a pool if it is in one"
        jobs = ", its entries in backup jobs, replication and HA" if self.purge else ""
        return f"with it go the rights set on /vms/{self.vmid}, its firewall rules{jobs}, and its membership of {pool}"


@dataclass(frozen=True, slots=True)
class AwaitRemoval(Step):
    """An earlier run's removal is still at work: wait for it."""

    upid: Upid
    interrupts = True

    def __str__(self) -> str:
        return f"wait for the removal of {self.guest} that is under way"


# Moving


@dataclass(frozen=True, slots=True)
class Migrate(Step):
    """Move the guest to another node; a running container is restarted there."""

    target: str
    online: bool = False
    local_disks: bool = False
    storage: str | None = None

    def __str__(self) -> str:
        how = " with its local disks" if self.local_disks else ""
        state = " online" if self.online and self.type is QEMU else " (restarting it)" if self.online else ""
        return f"migrate {self.guest} from {self.node} to {self.target}{state}{how}"


# Words only


@dataclass(frozen=True, slots=True)
class Cannot(Step):
    """What differs and is not done here: why, and what to do. `about` is the row that would have done it."""

    what: str
    why: str
    remedy: str
    about: Row | None = field(default=None, kw_only=True)

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Drift(Step):
    """What a documented guest's definition says, and what is: nothing is done about it."""

    key: str
    documented: str
    actual: str

    def __str__(self) -> str:
        return f"{self.key}: documented {self.documented}, is {self.actual}"


@dataclass(frozen=True, slots=True)
class Note(Step):
    """What should be known of the guest and is no difference from its definition."""

    what: str

    def __str__(self) -> str:
        return self.what


WORDS = (Cannot, Drift, Note)


def rows(steps: Iterable[Step], row: Row) -> tuple[Step, ...]:
    return tuple(step for step in steps if step.row is row)


def doable(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps that can be carried out."""
    return tuple(step for step in steps if not isinstance(step, WORDS))


def interrupting(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(step for step in steps if step.interrupts)
