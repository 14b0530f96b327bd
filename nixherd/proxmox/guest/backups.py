"""Backups of a guest, and guests out of backups."""

import re
import time
from dataclasses import dataclass

from nixherd.base.errors import (
    ApiError,
    FleetError,
    NotVisible,
    OutcomeUnknown,
    Refused,
    StillRunning,
    TaskFailed,
    TaskForgotten,
    Usage,
)
from nixherd.base.names import OneOf, Whole, any_text, human, text_of
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Vm
from nixherd.proxmox.answers import Task, Upid, Volume
from nixherd.proxmox.belongings import belongings
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import same_settings
from nixherd.proxmox.guest import aftermath, archive, names, tasks
from nixherd.proxmox.guest.apply import achieve
from nixherd.proxmox.guest.archive import Archive, is_empty, lost, read_back
from nixherd.proxmox.guest.identity import ActualVm, is_ours, label, mark, require_ours
from nixherd.proxmox.guest.observe import observe, still_there, would_be_shown
from nixherd.proxmox.guest.storages import only_storage, require_places
from nixherd.proxmox.guest.tasks import Progress
from nixherd.proxmox.guest.verb import TASK_SECONDS, Guest, Verb, argument, discarded, flag, option
from nixherd.proxmox.steps import AwaitRestore, Backup, Destroy, Outcome, Restore, Steps, nothing

_TOUCHED = re.compile(r"new volume ID is|successfully (?:removed|created)|\b(?:map|restoring) '|Formatting '")


def backup_storage(client: Client, fleet: Fleet, node: str, named: str | None) -> str:
    """Return where backups go: the one named, else `proxmox.backupStorage`, else the node's only one for backups.

    Raise Usage when none of these tells.
    """
    if named or (fleet.endpoint and fleet.endpoint.backup_storage):
        return named or str(fleet.endpoint and fleet.endpoint.backup_storage)
    return only_storage(client, node, "backup", f"name one, or declare proxmox.backupStorage in {DEFINITIONS}")


AN_HOUR = 3600
_MODES = OneOf(("snapshot", "suspend", "stop"))


@dataclass(frozen=True)
class BackupGuest(Verb):
    """Back a guest up; no older backup is pruned.

    Nothing is made while it has a backup less than `newer_than` seconds old. It goes to `storage`, else to
    proxmox.backupStorage, else to the node's only storage for backups.
    """

    name = command = "backup"
    verb = "back up"
    storage: str | None = option(
        text_of, help="Else proxmox.backupStorage, else the only one for backups.", metavar="NAME"
    )
    newer_than: int | None = option(
        Whole(unit="seconds"), None, "None while one is newer than this.", deploys_default=AN_HOUR
    )
    mode: str = option(_MODES, "snapshot", "Whether it goes on meanwhile.")
    notes: str = option(any_text, "", "What is noted with it.")
    protected: bool = flag("Nobody removes it by accident.")

    def __post_init__(self) -> None:
        super().__post_init__()
        _MODES("mode", self.mode)

    def look(self, guest: Guest) -> Steps:
        seen, vm, client = guest.ours, guest.vm, guest.client
        place = backup_storage(client, guest.fleet, seen.node, self.storage)
        if self.newer_than is not None:
            rows = client.volumes(seen.node, place, content="backup", vmid=vm.vmid)
            newest = max(rows, key=lambda each: each.ctime or 0, default=None)
            age = int(time.time()) - ((newest.ctime if newest else None) or 0)
            if newest is not None and age < self.newer_than:
                return nothing(f"its backup {newest.volid} is {age} s old")
        notes = self.notes or f"{vm.name}, by nixherd"
        return (Backup(seen.node, vm.vmid, place, self.mode, notes=notes, protected=self.protected, type=vm.type),)

    def run(
        self, client: Client, fleet: Fleet, vm: Vm, *, timeout: float = TASK_SECONDS, progress: Progress | None = None
    ) -> Steps:
        """Return the step with the volume that it made.

        Raise FleetError when that is not there, whatever its task says.
        """
        steps = self.plan(client, fleet, vm)
        if not steps:
            return steps
        [step] = steps
        assert isinstance(step, Backup)
        before = _volumes(client, step)
        try:
            done = super().run(client, fleet, vm, timeout=timeout, progress=progress)
        except aftermath.UNKNOWN as error:
            new, why = _new(client, step, before)
            if not new or not isinstance(error, TaskForgotten):  # one that is still at work is not whole
                error.args = (f"{error}; {why}", *error.args[1:])
                raise
            done = (step,)  # it is there, whoever has forgotten how
        return _made(client, step, before, done)


def _volumes(client: Client, step: Backup) -> dict[str, Volume]:
    rows = client.volumes(step.node, step.storage, content="backup", vmid=step.vmid)
    return {row.volid: row for row in rows if row.size > 0}


def _new(client: Client, step: Backup, before: dict[str, Volume]) -> tuple[list[str], str]:
    """Return the backups that are new on the storage, and the same in words; empty where it cannot be looked at."""
    try:
        new = sorted(_volumes(client, step).keys() - before.keys())
    except ApiError as error:
        return [], f"which backups {step.storage} has now is not known ({error})"
    return new, f"new on {step.storage}: {', '.join(new) or 'none'}"


def _made(client: Client, step: Backup, before: dict[str, Volume], done: Steps) -> Outcome:
    """Return the steps, with the volume that is new on the storage."""
    new = [row for volid, row in _volumes(client, step).items() if volid not in before]
    if not done:
        return Outcome(done, why="another run has just made one")
    if not new:
        raise FleetError(
            f"the backup of {step.guest} ended well, and no new one is to be seen on {step.storage}; look there: "
            f"`pvesm list {step.storage} --vmid {step.vmid}` on {step.node}"
        )
    made = max(new, key=lambda row: (row.ctime or 0, row.volid))
    return Outcome(
        done, observed={"volume": made.volid, "size": made.size}, lines=(f"made {made.volid} ({human(made.size)})",)
    )


@dataclass(frozen=True)
class RestoreGuest(Verb):
    """Make a guest out of the backup ARCHIVE (local:backup/vzdump-…); `vm backups` lists them.

    One that is there is left alone, or with `overwrite` replaced: it must be off. `discard` names what of it may go
    although the backup does not hold it: `scsi1`, `snapshot:clean`.
    """

    name = command = verb = "restore"
    asks = True
    archive: str = argument(text_of)
    storage: str | None = option(text_of, help="Where its disks go; else where its definition says.", metavar="NAME")
    overwrite: bool = flag("In the place of the guest that is there; it must be off.")
    discard: tuple[str, ...] = discarded("the backup does not hold it")

    def plan(self, client: Client, fleet: Fleet, vm: Vm) -> Steps:
        self.require(fleet, vm)
        under_way = self._under_way(client, fleet.node_of(vm), vm)
        if under_way:
            return (under_way,)
        actual = observe(client, fleet, vm)
        return require_places(client, self._look(client, fleet, vm, actual, by_person=self.by_person, first=True))

    def run(
        self, client: Client, fleet: Fleet, vm: Vm, *, timeout: float = TASK_SECONDS, progress: Progress | None = None
    ) -> Steps:
        """Return the steps, with what the backup lacked as it was read back. A failure says what is left there."""
        self.require(fleet, vm)
        # A guest that is being made is in no pool yet, so that perhaps only its task can be seen.
        under_way = self._under_way(client, fleet.node_of(vm), vm)
        if under_way:
            return self._await(client, fleet, vm, under_way, timeout, progress)
        first, begun = list[ActualVm | None](), client.accepted_changes

        def replan(actual: ActualVm | None) -> Steps:
            first.append(actual)
            sent = client.accepted_changes > begun
            by_person = self.by_person and not sent
            return require_places(client, self._look(client, fleet, vm, actual, by_person=by_person, first=not sent))

        try:
            done = achieve(client, fleet, vm, replan, timeout=timeout, progress=progress, what=self.verb)
        except (ApiError, TaskFailed) as error:  # of one that is still at work it was said where the guest stands
            if first:
                made = first[0] is None and client.accepted_changes > begun
                error.args = (f"{error}{_left_behind(client, fleet, vm, first[0], error, made=made)}", *error.args[1:])
            raise
        return _seen(client, fleet, vm, done) if done else done

    def _await(
        self, client: Client, fleet: Fleet, vm: Vm, step: AwaitRestore, timeout: float, progress: Progress | None
    ) -> Steps:
        try:
            tasks.wait(client, step.upid, timeout, progress)
        except (OutcomeUnknown, TaskFailed) as error:
            error.args = (f"{error}{_left_behind(client, fleet, vm, None, error, made=False)}", *error.args[1:])
            raise
        except StillRunning as error:
            aftermath.add_seen(error, client, fleet, vm)
            raise
        return _seen(client, fleet, vm, (step,))

    def check(self, fleet: Fleet, vm: Vm) -> None:
        archive.require_backup_of(vm, self.archive)
        for name in self.discard:
            names.require_part(vm, name)

    def _look(
        self, client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None, *, by_person: bool, first: bool
    ) -> Steps:
        """Return the steps now; `first`: this run has begun no restore yet."""
        node = actual.node if actual else fleet.node_of(vm)
        under_way = self._under_way(client, node, vm)
        if under_way:
            return (under_way,)
        left_empty = actual is not None and is_empty(actual.config) and not actual.running
        replaced = None if left_empty else actual
        if replaced is not None:
            require_ours(fleet, vm, replaced.config, replaced.node)
            if not (by_person or self.overwrite):
                return nothing(f"it is there on {replaced.node}")
        held = archive.read(client, node, vm, self.archive, exists=replaced is not None)
        _require_restorable(vm, node, held)
        just = self._last_restored(client, vm, replaced) if replaced else None
        if replaced is not None:
            if just and same_settings(replaced.config, held.restored) and not (by_person and self.overwrite):
                return nothing(f"it was restored from {self.archive} by {just.upid}, nothing was seen to be done since")
            self._require_replaceable(vm, replaced)
        place = self.storage or fleet.storage_of(vm)
        what = (node, vm.vmid, vm.name, self.archive, place, vm.settings.pool)
        step = Restore(*what, overwrite=actual is not None, leftover=left_empty, type=vm.type)
        return (lost(client, vm, replaced, held, step, self.discard, begun=not first, again=just is not None),)

    def _require_replaceable(self, vm: Vm, replaced: ActualVm) -> None:
        if not self.overwrite:
            raise Usage(f"{label(vm)} is on {replaced.node}, nothing was done; to replace it for good add --overwrite")
        if replaced.config.flag("protection"):
            raise Refused(
                f"{label(vm)} on {replaced.node} is protected (protection: 1); set protection = false in {DEFINITIONS} "
                "and bring that there first"
            )
        if replaced.running or replaced.config.lock == "suspended":
            state = "runs; shut it down" if replaced.running else "is suspended to disk; resume it and shut it down"
            raise Usage(f"{label(vm)} {state} before it is restored over")

    def _under_way(self, client: Client, node: str, vm: Vm) -> AwaitRestore | None:
        """Return our restore from the same backup if it is at work. Raise FleetError for any other restore."""
        for task in client.tasks(node, vmid=vm.vmid):
            if task.type not in Restore.task_types or task.id != str(vm.vmid):
                continue
            if task.user == client.token_id and self._made_of_this(client, task, begun=True):
                return AwaitRestore(node, vm.vmid, task.upid, vm.name, self.archive, type=vm.type)
            raise FleetError(f"{label(vm)} is being restored by {task.user} ({task.upid}); wait for that, then look")
        return None

    def _made_of_this(self, client: Client, task: Task, *, begun: bool = False) -> bool:
        """Tell whether the task restores this backup; the log of one that has just `begun` may be empty."""
        log = [line for line in client.task_log(task.upid) if line != "no content"]
        return any(self.archive.rpartition("/")[2] in line for line in log) or (begun and not log)

    def _last_restored(self, client: Client, vm: Vm, replaced: ActualVm) -> Task | None:
        """Return the task of ours that restored this backup, where that was the last thing done to the guest."""
        last = client.last_task(replaced.node, vm.vmid)
        if last is None or last.type not in Restore.task_types or last.status != "OK" or replaced.running:
            return None
        if last.user != client.token_id or not self._made_of_this(client, last):
            return None
        return last


def _require_restorable(vm: Vm, node: str, held: Archive) -> None:
    """Refuse (Usage) what a server restores for root@pam alone."""
    if held.type is GuestType.LXC and held.bound:
        raise Usage(
            f"{held.volid} holds {label(vm)} with {', '.join(held.bound)} of the node, which no token restores; on "
            f"{node}: `pct restore {vm.vmid} {held.volid}`; nothing was done"
        )


def _left_behind(
    client: Client, fleet: Fleet, vm: Vm, before: ActualVm | None, error: FleetError, *, made: bool
) -> str:
    """Say what a failed restore has left; an empty guest that this run `made` is removed if it can come again.

    After an unknown end only what exists is said, and nothing is removed.
    """
    try:
        now = observe(client, fleet, vm)
        if isinstance(error, OutcomeUnknown):
            return _unknown_end(vm, before, now)
        if now is None:
            return "; the guest is not there" if before else ""
        if not is_empty(now.config):
            same = before is not None and before.config.digest == now.config.digest
            return "; the guest is as it was" if same and _touched_nothing(client, vm, now, error) else ""
        if before is not None and not is_empty(before.config):
            return (
                f"; of {label(vm)} an empty guest is left on {now.node}, the disks that the backup holds are gone: "
                "restore it again, which takes its place"
            )
        if made and vm.settings.pool and now.config.lock is None:
            tasks.carry_out(client, Destroy(now.node, vm.vmid, type=vm.type), TASK_SECONDS)
            return f"; the empty guest {vm.vmid} that it left was removed"
        return f"; it left an empty guest {vm.vmid} on {now.node}, whose place the next restore takes"
    except NotVisible as error:
        if before is None:
            return (
                f"; it left an empty guest {vm.vmid} that is in no pool yet, so that this token can neither see nor "
                f"remove it: `qm destroy {vm.vmid}` on {fleet.node_of(vm)}, then restore it again"
            )
        return f"; what it left behind is not known ({error})"
    except FleetError as error:
        return f"; what it left behind is not known ({error})"


def _unknown_end(vm: Vm, before: ActualVm | None, now: ActualVm | None) -> str:
    if now is None:
        return "; the guest is not there"
    if is_empty(now.config):
        return f"; there is an empty guest {vm.vmid} on {now.node}: the restore works on it, or has failed"
    if before is None or is_empty(before.config):
        return f"; {label(vm)} is there on {now.node}, whether with all that its disks had is not known"
    return (
        f"; {label(vm)} is there on {now.node}, whether as it was or as the backup has it is not known: look into it, "
        "or restore it again"
    )


def _touched_nothing(client: Client, vm: Vm, now: ActualVm, error: FleetError) -> bool:
    """Tell whether a restore that failed has made and removed no volume, as its log and the storages tell."""
    if not isinstance(error, TaskFailed):
        return True  # it was refused: no task began
    if any(_TOUCHED.search(line) for line in client.task_log(Upid.parse(error.upid))):
        return False
    now_named = belongings(vm.type, vm.vmid, now.config)
    gone = now_named.volumes - still_there(client, now.node, vm.vmid, now_named)
    return not any(would_be_shown(client, vm.vmid, volume) for volume in gone)


def _seen(client: Client, fleet: Fleet, vm: Vm, done: Steps) -> Outcome:
    """Return the steps, and the guest as it was read back. Raise FleetError where it is not there."""
    now = observe(client, fleet, vm)
    if now is None or is_empty(now.config):
        raise FleetError(f"the restore of {label(vm)} ended well, and the guest is not there; look at its node's tasks")
    observed, lines = read_back(client, vm, now)
    if not is_ours(fleet, vm, now.config):
        observed |= {"ours": False}
        lines += [f"it is not ours yet, its notes lack `{mark(fleet, vm)}`: nixherd vm adopt {vm.name} {vm.vmid}"]
    return Outcome(done, observed=observed, lines=lines)
