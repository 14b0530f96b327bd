"""Verbs of snapshots: taking one, deleting one, and going back to one, after which the guest is read back."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from nixherd.arguments import any_text, text_of
from nixherd.errors import ApiError, FleetError, Refused, Undecided, Usage
from nixherd.fleet.models import GuestType, Vm
from nixherd.proxmox.answers import SnapshotRow
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VmConfig, same_settings, unlike_snapshot
from nixherd.proxmox.guest import names
from nixherd.proxmox.guest.actual import ActualVm
from nixherd.proxmox.guest.desired import short
from nixherd.proxmox.guest.identity import label
from nixherd.proxmox.guest.leftovers import kept, nameless
from nixherd.proxmox.guest.observe import lacking, memory_of, observe
from nixherd.proxmox.guest.storages import require_can_snapshot
from nixherd.proxmox.guest.tasks import stands
from nixherd.proxmox.guest.verb import Guest, Verb, argument, flag, option
from nixherd.proxmox.steps import DeleteSnapshot, Outcome, Rollback, Snapshot, Steps, nothing


def snapshots_of(client: Client, vm: Vm, actual: ActualVm | None) -> tuple[SnapshotRow, ...]:
    return client.snapshots(actual.node, vm.vmid, vm.type) if actual else ()


def taken(row: SnapshotRow) -> str:
    """A snapshot with when it was taken: `clean of 2026-11-29 17:00 UTC`."""
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
        """The task that rolled it back to this snapshot, where nothing was done to it since; else empty."""
        if seen.running or seen.config.text("parent") != self.snapname:
            return ""
        last = next(iter(client.tasks(seen.node, active=False, vmid=vm.vmid, limit=1)), None)
        if last is None or last.type not in Rollback.task_types or last.status != "OK":
            return ""
        then = client.snapshot_config(seen.node, vm.vmid, self.snapname, vm.type)
        return str(last.upid) if same_settings(seen.config, then) else ""

    def read_back(self, guest: Guest, done: Steps) -> Steps:
        """The step, with the guest as it was read back.

        FleetError where its configuration is not the snapshot's, Undecided where that cannot be read.
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
            raise Undecided(
                f"{who}, its task ended well; whether it is as the snapshot has it is not known: {error}"
            ) from error
        differs = unlike_snapshot(now.config, then) if then else ()
        found, lines = self._disks(client, vm, now)
        power = (status.paused and "paused") or status.status if status else None
        found = {"snapshot": self.snapname, "as_snapshot": not differs if then else None, "status": power, **found}
        lines = [f"it {stands(status)}", *lines]
        if differs and then:
            words = ", ".join(_differing(now.config, then, key) for key in differs)
            raise FleetError(
                f"{who}, its task ended well, and its configuration is not the snapshot's: {words}; "
                f"{'; '.join(lines)}; somebody may have changed it since: look at it, or roll it back again"
            )
        if then is None:
            raise Undecided(f"{who}, and has no such snapshot any more: whether it is as that was is not known")
        return Outcome(done, found=found, lines=[f"its configuration is that of snapshot {self.snapname}", *lines])

    def _disks(self, client: Client, vm: Vm, now: ActualVm) -> tuple[dict[str, object], list[str]]:
        """Its unused disks now, and volumes in its name that nothing names, as its storages tell."""
        unused = {name: each.volume for name, each in sorted(now.config.unused.items())}
        lines = [f"{name} {kept(client, vm, now, volume)}" for name, volume in unused.items()]
        named, strays = nameless(client, vm, now.node)
        return {"unused": unused, "unnamed": named}, [*lines, *strays]


def _differing(now: VmConfig, then: VmConfig, key: str) -> str:
    return f"{key} {short(now.text(key))} (there: {short(then.text(key))})"
