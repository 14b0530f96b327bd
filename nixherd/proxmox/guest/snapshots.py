"""Verbs of snapshots, after which the guest is read back, and risky actions made reversible by one."""

import getpass
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path

from nixherd.base.errors import ApiError, FleetError, Refused, Undecided, Usage
from nixherd.base.files import BOOT_ID
from nixherd.base.names import any_text, text_of
from nixherd.fleet.models import Fleet, GuestType, Vm
from nixherd.proxmox.answers import SnapshotRow
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import same_settings, unlike_snapshot
from nixherd.proxmox.guest import names
from nixherd.proxmox.guest.archive import kept, nameless
from nixherd.proxmox.guest.desired import short
from nixherd.proxmox.guest.identity import ActualVm, label
from nixherd.proxmox.guest.observe import lacking, memory_of, observe
from nixherd.proxmox.guest.storages import require_can_snapshot
from nixherd.proxmox.guest.tasks import Progress, stands
from nixherd.proxmox.guest.verb import TASK_SECONDS, Guest, Verb, argument, flag, option
from nixherd.proxmox.steps import DeleteSnapshot, MoveDisk, Outcome, Rollback, Snapshot, Step, Steps, nothing


def snapshots_of(client: Client, vm: Vm, actual: ActualVm | None) -> tuple[SnapshotRow, ...]:
    return client.snapshots(actual.node, vm.vmid, vm.type) if actual else ()


def taken(row: SnapshotRow) -> str:
    """Return a snapshot's name with its time: `clean of 2026-11-29 17:00 UTC`."""
    return f"{row.name} of {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(row.time))}" if row.time else row.name


def _named(rows: Iterable[SnapshotRow]) -> str:
    return ", ".join(row.name for row in rows) or "none"


@dataclass(frozen=True)
class _OfSnapshot(Verb):
    """A verb of one snapshot."""

    snapname: str = argument(text_of, metavar="NAME")

    def __post_init__(self) -> None:
        names.require_snapshot(self.snapname)


@dataclass(frozen=True)
class TakeSnapshot(_OfSnapshot):
    """Take a snapshot NAME of a guest, unless it has one of that name."""

    name = verb = "snapshot"
    description: str = option(any_text, "")
    with_memory: bool = flag("Its memory as well: a rollback brings it back running.")

    def look(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        rows = snapshots_of(guest.client, vm, seen)
        same = next((row for row in rows if row.name == self.snapname), None)
        if same is not None:
            return nothing(f"it has a snapshot {taken(same)}")
        if self.with_memory and vm.type is not GuestType.QEMU:
            raise Usage(f"{guest.label} is a container, whose memory no snapshot holds; leave --with-memory out")
        if self.with_memory and not seen.running:
            raise Usage(f"{guest.label} does not run, so it has no memory to keep; leave --with-memory out")
        require_can_snapshot(guest.client, vm, seen)
        return (Snapshot(seen.node, vm.vmid, self.snapname, self.description, self.with_memory, type=vm.type),)

    def refusal(self, vm: Vm) -> str:
        delete = f"`nixherd vm snapshot {vm.name} {self.snapname} --delete`"
        return f"nothing was taken: choose another name, or delete that one ({delete})"


@dataclass(frozen=True)
class RemoveSnapshot(_OfSnapshot):
    """Delete a snapshot, if there is one of that name."""

    name = "delete_snapshot"
    verb = "delete a snapshot of"
    asks = True

    def look(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        rows = snapshots_of(guest.client, vm, seen)
        row = next((row for row in rows if row.name == self.snapname), None)
        if row is None:
            return nothing(f"it has no snapshot {self.snapname}; it has {_named(rows)}")
        memory = memory_of(guest.client, vm, seen.node, self.snapname) if row.with_memory else None
        return (DeleteSnapshot(seen.node, vm.vmid, self.snapname, memory, type=vm.type),)

    def refusal(self, vm: Vm) -> str:
        return "nothing was deleted"


@dataclass(frozen=True)
class RollbackGuest(_OfSnapshot):
    """Put a guest back to snapshot NAME, unless that was the last thing done to it; what was done since is lost."""

    name = command = "rollback"
    verb = "roll back"
    asks = True

    def look(self, guest: Guest) -> Steps:
        return self.look_now(guest, first=False)

    def look_now(self, guest: Guest, *, first: bool) -> Steps:
        seen, vm, client = guest.ours, guest.vm, guest.client
        rows = snapshots_of(client, vm, seen)
        if self.snapname not in [row.name for row in rows]:
            raise Usage(f"{guest.label} has no snapshot {self.snapname}; it has {_named(rows)}")
        if not (first and self.by_person) and (upid := self._just_done(client, vm, seen)):
            return nothing(f"the last thing done to it was to roll it back to {self.snapname} ({upid})")
        attached, waits = lacking(client, vm, seen, self.snapname)
        return (Rollback(seen.node, vm.vmid, self.snapname, attached, waits, type=vm.type),)

    def _just_done(self, client: Client, vm: Vm, seen: ActualVm) -> str:
        """Return the task that rolled it back to this snapshot, where nothing was done to it since; else empty."""
        if seen.running or seen.config.text("parent") != self.snapname:
            return ""
        last = next(iter(client.tasks(seen.node, active=False, vmid=vm.vmid, limit=1)), None)
        if last is None or last.type not in Rollback.task_types or last.status != "OK":
            return ""
        then = client.snapshot_config(seen.node, vm.vmid, self.snapname, vm.type)
        return str(last.upid) if same_settings(seen.config, then) else ""

    def read_back(self, guest: Guest, done: Steps) -> Steps:
        """Return the step, with the guest as it was read back.

        Raise FleetError where its configuration is not the snapshot's, Undecided where that cannot be read.
        """
        client, fleet, vm = guest.client, guest.fleet, guest.vm
        who = f"{label(vm)} was rolled back to {self.snapname}"
        try:
            now = observe(client, fleet, vm)
            if now is None:
                raise FleetError(f"{who}, and is not there any more; look at the tasks of its node")
            then = client.config(now.node, vm.vmid, vm.type, snapshot=self.snapname)
            status = client.status(now.node, vm.vmid, vm.type)
        except (ApiError, Refused) as error:
            raise Undecided(f"{who}; whether it is as the snapshot has it is not known: {error}") from error
        differs = unlike_snapshot(now.config, then) if then else ()
        observed, lines = self._disks(client, vm, now)
        power = (status.paused and "paused") or status.status if status else None
        same = not differs if then else None
        observed = {"snapshot": self.snapname, "as_snapshot": same, "status": power, **observed}
        lines = [f"it {stands(status)}", *lines]
        if differs and then:
            words = ", ".join(
                f"{key} {short(now.config.text(key))} (there: {short(then.text(key))})" for key in differs
            )
            raise FleetError(
                f"{who}, its task ended well, and its configuration is not the snapshot's: {words}; "
                f"{'; '.join(lines)}; somebody may have changed it since: look at it, or roll it back again"
            )
        if then is None:
            raise Undecided(f"{who}, and has no such snapshot any more: whether it is as that was is not known")
        return Outcome(
            done, observed=observed, lines=(f"its configuration is that of snapshot {self.snapname}", *lines)
        )

    def _disks(self, client: Client, vm: Vm, now: ActualVm) -> tuple[dict[str, object], list[str]]:
        """Return its unused disks, and volumes in its name that nothing refers to, as its storages tell."""
        unused = {name: each.volume for name, each in sorted(now.config.unused.items())}
        lines = [f"{name} {kept(client, vm, now, volume)}" for name, volume in unused.items()]
        named, strays = nameless(client, vm, now.node)
        return {"unused": unused, "unnamed": named}, [*lines, *strays]


FRESH = 3600  # seconds for which the snapshot of a killed run serves
KEEP, REMOVE = "keep", "remove"


@dataclass(frozen=True, slots=True)
class Reversible:
    """Another action, with a snapshot taken before it; `keep` leaves it there when all went well.

    Each run's snapshot has a name of its own, and says whose it is. The one that a run of the same verb, by the same
    user on this machine, left within the last hour when it was killed or failed holds the state before that run, and
    serves. An older one is somebody's way back, and neither used nor removed: Usage. One of any other run, which may
    be at work, is left alone and told.
    When the action fails the snapshot stays, and the error says how to go back to it.
    """

    action: Verb
    keep: bool
    began: float = field(default_factory=time.time)
    run_id: str = field(default_factory=lambda: name_of_this_run())

    @property
    def verb(self) -> str:
        return self.action.verb

    @property
    def asks(self) -> bool | None:
        return self.action.asks

    @property
    def name(self) -> str:
        when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(self.began))
        return f"before-{self._what}-{when}-{self.run_id}" if self.keep else f"undo-{self._what}-{self.run_id}"

    @property
    def _what(self) -> str:
        return self.verb.split()[0]

    def plan(self, client: Client, fleet: Fleet, vm: Vm) -> Steps:
        return self._look(client, fleet, vm)[0]

    def run(
        self, client: Client, fleet: Fleet, vm: Vm, *, timeout: float = TASK_SECONDS, progress: Progress | None = None
    ) -> Steps:
        planned, serves = self._look(client, fleet, vm)
        if not planned:
            return planned
        lines, observed = (planned.lines, dict(planned.observed)) if isinstance(planned, Outcome) else ((), {})
        done, name = list[Step](), serves or self.name
        if serves is None:
            description = f"before nixherd was to {self.verb} it; {by_this_run()}"
            before = TakeSnapshot(name, description, by_person=not self.keep)
            done += before.run(client, fleet, vm, timeout=timeout, progress=progress)
        try:
            changed = self.action.run(client, fleet, vm, timeout=timeout, progress=progress)
        except FleetError as error:
            back = f"`nixherd vm rollback {vm.name} {name}`"
            error.args = (f"{error}; the state before is in snapshot {name}: {back}", *error.args[1:])
            raise
        done += changed
        if isinstance(changed, Outcome):
            lines, observed = (*lines, *changed.lines), {**observed, **changed.observed}
        if not self.keep:
            done += RemoveSnapshot(name).run(client, fleet, vm, timeout=timeout, progress=progress)
        return Outcome(done, observed=observed, lines=lines)

    def left(self, client: Client, fleet: Fleet, vm: Vm) -> Steps | None:
        return self.action.left(client, fleet, vm)

    def _look(self, client: Client, fleet: Fleet, vm: Vm) -> tuple[Steps, str | None]:
        """Plan the steps and what to say beside them; return the name of an earlier run's snapshot if that serves."""
        steps = self.action.plan(client, fleet, vm)
        if not steps:
            return steps, None
        for step in steps:
            if isinstance(step, MoveDisk) and not (step.keep_source or step.disk.startswith("unused")):
                raise Usage(
                    f"{label(vm)}: with a snapshot before it, {step.disk} cannot be moved and deleted; let it stay as "
                    "an unused disk (--keep-source), or leave --snapshot out"
                )
        actual = observe(client, fleet, vm)
        pattern = re.compile(rf"undo-{self._what}(-[0-9a-f]{{6}})?", re.ASCII)
        left = [row for row in snapshots_of(client, vm, actual) if pattern.fullmatch(row.name)]
        ended = [row for row in left if row.state != "delete" and has_ended(row.description)]
        serves = None if self.keep else self._serving(vm, ended)
        if actual:
            require_can_snapshot(client, vm, actual)
        node, name = steps[0].node, serves or self.name
        first = (Snapshot(node, vm.vmid, name, type=vm.type),) if serves is None else ()
        last = () if self.keep else (DeleteSnapshot(node, vm.vmid, name, type=vm.type),)
        others = [row for row in left if row.name != serves]
        observed = {"snapshots_left": [row.name for row in others]} if others else {}
        lines = map(_told, others)
        return Outcome((*first, *steps, *last), observed=observed, lines=lines), serves

    def _serving(self, vm: Vm, ended: Iterable[SnapshotRow]) -> str | None:
        """Return the first of the snapshots that runs of ours have left. Raise Usage where one is old."""
        rows = sorted(ended, key=lambda row: row.time or 0)
        old = next((row for row in rows if self.began - (row.time or 0) > FRESH), None)
        if old is not None:
            command = f"{vm.name} {old.name}"
            raise Usage(
                f"{label(vm)} has a snapshot {taken(old)}, left by an action that failed; go back to it "
                f"(`nixherd vm rollback {command}`) or remove it (`nixherd vm snapshot {command} --delete`) first"
            )
        return rows[0].name if rows else None


def _told(row: SnapshotRow) -> str:
    by = maker(row.description)
    return (
        f"there is a snapshot {taken(row)}, of another run{f' by {by}' if by else ''}, which may be at work with "
        "it or has left it: it stays"
    )


Action = Verb | Reversible


def reversible(action: Verb, snapshot: str | None) -> Action:
    """Return the action, or with a snapshot before it that is kept (`keep`) or removed (`remove`) after it.

    Raise Usage for any other word.
    """
    if not snapshot:
        return action
    if snapshot not in (KEEP, REMOVE):
        raise Usage(f"snapshot={snapshot}: write {KEEP} or {REMOVE}, or leave it out")
    return Reversible(action, snapshot == KEEP)


_BY = re.compile(r"\bby (?P<who>\S+), process (?P<pid>\d+)/(?P<began>\d+) of (?P<where>[0-9a-f]{8})\b", re.ASCII)


def name_of_this_run() -> str:
    """Return six hexadecimal digits, the same as long as this process runs."""
    return _name_of(os.getpid())


@cache
def _name_of(_pid: int) -> str:
    return secrets.token_hex(3)


def by_this_run() -> str:
    """Return `by alice@laptop, process 1234/567 of 1a2b3c4d`, without the process if the kernel does not tell."""
    name = f"by {_word(_user())}@{_word(os.uname().nodename)}"
    pid, where = os.getpid(), _where()
    began = _began(pid)
    return name if where is None or began is None else f"{name}, process {pid}/{began} of {where}"


def maker(description: str) -> str:
    """Return who made it; empty where the description does not say."""
    match = re.search(r"\bby (\S+@[^\s,]+)", description)
    return match[1] if match else ""


def has_ended(description: str) -> bool:
    """Tell whether the run of this user on this machine that made it has ended; False where that is unknown."""
    match = _BY.search(description)
    if match is None or match["where"] != _where():
        return False
    pid = int(match["pid"])
    return pid == os.getpid() or _began(pid) != int(match["began"])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return str(os.getuid())


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text) or "unknown"


def _where() -> str | None:
    """Identify the boot, PID namespace and user here; None where the kernel does not tell."""
    try:
        boot = Path(BOOT_ID).read_text().strip()
        return sha256(f"{boot} {Path('/proc/self/ns/pid').readlink()} {os.getuid()}".encode()).hexdigest()[:8]
    except OSError:
        return None


def _began(pid: int) -> int | None:
    """Return when a process began, in the kernel's ticks since the boot; None if it does not exist."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
