"""What people and deploys ask of one guest, as steps: pure functions from what was observed to what is to be done.

Each returns no step where nothing is left to do, and says what was found (`outcome.nothing`), so that asking twice does
it once; `apply.achieve` carries them out.
Refused: the guest is not this fleet's. FleetError: it does not exist. Usage: it cannot be asked that.
"""

import time
from collections.abc import Iterable

from nixherd.errors import Usage
from nixherd.models import Fleet, GuestType, Vm
from nixherd.proxmox.answers import SnapshotRow, Task, Volume
from nixherd.proxmox.belongings import belongings
from nixherd.proxmox.config import Drive
from nixherd.proxmox.guest import desired, names, options
from nixherd.proxmox.guest.actual import ActualVm, is_elsewhere, of_change, waits
from nixherd.proxmox.guest.desired import card_changes, device_changes, whole_gib
from nixherd.proxmox.guest.identity import label, require_ours
from nixherd.proxmox.guest.plan import SHUTDOWN_SECONDS
from nixherd.proxmox.steps import (
    AddDisk,
    Backup,
    Change,
    Configure,
    DeleteSnapshot,
    MakeTemplate,
    Migrate,
    MoveDisk,
    Reboot,
    Regenerate,
    Resize,
    Resume,
    Rollback,
    Shutdown,
    Snapshot,
    Start,
    Step,
    Stop,
    Suspend,
    nothing,
)
from nixherd.settings import Device
from nixherd.sizes import format_size

Steps = tuple[Step, ...]

_AS_ASKED = nothing("its options are as asked for")


def ours(fleet: Fleet, vm: Vm, actual: ActualVm | None) -> ActualVm:
    """The guest as observed, when it is there and this fleet's."""
    require_ours(fleet, vm, actual.config if actual else None, actual.node if actual else "")
    assert actual is not None
    return actual


def _place(fleet: Fleet, vm: Vm, storage: str | None) -> str:
    """The storage that was named, else the declared one. Usage when there is neither."""
    place = storage or fleet.storage_of(vm)
    if place is None:
        raise Usage(f"{label(vm)}: no storage is declared; name one")
    return place


# Power


def start(fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
    """Switch it on; a paused one goes on."""
    found = ours(fleet, vm, actual)
    if found.running:
        return (Resume(found.node, vm.vmid, type=vm.type),) if found.paused else nothing("it runs")
    return (Start(found.node, vm.vmid, type=vm.type),)


def stop(fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
    """Pull the plug."""
    found = ours(fleet, vm, actual)
    return (Stop(found.node, vm.vmid, type=vm.type),) if found.running else nothing("it does not run")


def shutdown(
    fleet: Fleet, vm: Vm, actual: ActualVm | None, *, timeout: int = SHUTDOWN_SECONDS, force: bool = False
) -> Steps:
    """Ask it to power off (agent, else ACPI); with `force` pull the plug after `timeout` seconds, and only then."""
    found = ours(fleet, vm, actual)
    if not found.running:
        return nothing("it does not run")
    if found.paused and not force:
        raise Usage(f"{label(vm)} is paused and cannot shut down; resume it first, or stop it")
    return (Shutdown(found.node, vm.vmid, timeout, force, type=vm.type),)


def reboot(
    fleet: Fleet, vm: Vm, actual: ActualVm | None, *, timeout: int = SHUTDOWN_SECONDS, always: bool = False
) -> Steps:
    """Reboot it when something waits for that; `always`: also when nothing does."""
    found = ours(fleet, vm, actual)
    if not found.running:
        if always and found.config.lock == "suspended":
            raise Usage(f"{label(vm)} is suspended to disk and does not run; resume it")
        if always:
            raise Usage(f"{label(vm)} does not run; start it")
        return nothing("it does not run, so that nothing waits for a reboot")
    waiting = tuple(each.key for each in found.pending)
    if not (waiting or always):
        return nothing("nothing waits for a reboot")
    if found.paused:
        raise Usage(f"{label(vm)} is paused and cannot shut down for a reboot; resume it first, or stop and start it")
    return (Reboot(found.node, vm.vmid, timeout, waiting, type=vm.type),)


def suspend(fleet: Fleet, vm: Vm, actual: ActualVm | None, *, to_disk: bool = False) -> Steps:
    """Pause it, or write its memory to disk and switch it off."""
    found = ours(fleet, vm, actual)
    if found.config.lock == "suspended" or (found.paused and not to_disk):
        return nothing("it is suspended to disk" if found.config.lock else "it is paused")
    if not found.running:
        raise Usage(f"{label(vm)} does not run; there is nothing to suspend")
    return (Suspend(found.node, vm.vmid, to_disk, type=vm.type),)


def resume(fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
    """Let a paused or suspended guest go on."""
    found = ours(fleet, vm, actual)
    if found.config.lock == "suspended":
        return (Start(found.node, vm.vmid, type=vm.type),)
    if found.running:
        return (Resume(found.node, vm.vmid, type=vm.type),) if found.paused else nothing("it runs and is not paused")
    raise Usage(f"{label(vm)} does not run and is not suspended; start it")


# Configuration and disks


def configure(fleet: Fleet, vm: Vm, actual: ActualVm | None, values: dict[str, object]) -> Steps:
    """Set options by the API's names and in its words (`cores`, `net0`); None takes an option away."""
    found = ours(fleet, vm, actual)
    values = options.to_send(fleet, vm, found.config, values)
    changes = tuple(
        Change(key, desired.short(found.config.text(key)), _after(vm, found, key, value), value)
        for key, value in values.items()
        if not options.is_so(found.config, key, value)
    )
    return (Configure(found.node, vm.vmid, changes, found.config.digest, type=vm.type),) if changes else _AS_ASKED


def _after(vm: Vm, found: ActualVm, key: str, value: object) -> str:
    """An option's new value as people read it; where a disk is taken away, what becomes of its volume."""
    named = belongings(vm.type, vm.vmid, found.config).parts if value is None else ()
    part = next((part for part in named if part.name == key), None)
    if part is None:
        return desired.short(value)
    destroyed = part.remade or key.startswith("unused")
    return f"none ({part.volume} {'is destroyed' if destroyed else 'stays as an unused disk'})"


def device(fleet: Fleet, vm: Vm, actual: ActualVm | None, wanted: Device) -> Steps:
    """Give it a card or passed-through device with these properties, what is not said as it is."""
    found = ours(fleet, vm, actual)
    is_vm = vm.type is GuestType.QEMU
    changes = tuple(device_changes(wanted, found.config) if is_vm else card_changes(wanted, found.config))
    waits = tuple(each.key for each in changes if is_vm and of_change(found, each))
    if not changes:
        return _AS_ASKED
    return (Configure(found.node, vm.vmid, changes, found.config.digest, waits, type=vm.type),)


def drive_of(vm: Vm, found: ActualVm, disk: str | None) -> Drive:
    """The named disk, else the one that the guest boots from. Usage when there is none."""
    root = found.config.root
    drives = {**(found.config.drives if vm.type is GuestType.QEMU else found.config.volumes)}
    drives |= {"rootfs": root} if root else {}
    drive = drives.get(disk) if disk else root or found.config.boot_disk
    if drive is None or drive.cdrom:
        there = ", ".join(name for name, each in sorted(drives.items()) if not each.cdrom) or "none"
        raise Usage(f"{label(vm)} has no disk {disk or 'to boot from'}; its disks: {there}")
    return _here(vm, found, drive)


def _here(vm: Vm, found: ActualVm, drive: Drive) -> Drive:
    """The disk, when it is there. Usage where it only waits."""
    if is_elsewhere(found, drive.name):
        raise Usage(
            f"{label(vm)}: {drive.name} waits for its next start, until then there is nothing to grow or move; "
            f"{'reboot' if found.running else 'start'} it first"
        )
    return drive


def resize(fleet: Fleet, vm: Vm, actual: ActualVm | None, size: int, *, disk: str | None = None) -> Steps:
    """Grow a disk to `size` bytes. Usage where it would have to shrink."""
    found = ours(fleet, vm, actual)
    if disk in ("efidisk0", "tpmstate0") and disk in found.config.volumes:
        raise Usage(f"{label(vm)}: {disk} has the size that its content has; it is not grown")
    drive = drive_of(vm, found, disk)
    if drive.size is None:
        raise Usage(f"{label(vm)}: the size of {drive.name} is not known; look at `qm config {vm.vmid}`")
    if drive.size > size:
        raise Usage(
            f"{label(vm)}: {drive.name} has {format_size(drive.size)}, more than {format_size(size)}; "
            "disks only grow, ask for more"
        )
    if drive.size == size:
        return nothing(f"{drive.name} has {format_size(size)}")
    return (Resize(found.node, vm.vmid, drive.name, drive.size, size, found.config.digest, type=vm.type),)


def require_addable(vm: Vm, disk: str) -> None:
    """Usage where a guest of this type is given no such disk."""
    if vm.type is not GuestType.QEMU:
        raise Usage(
            f"{label(vm)} is a container, whose volumes need a place to be mounted at; they are not added here: "
            f"`pct set {vm.vmid} --mp0 STORAGE:GIB,mp=/PATH` on its node does that"
        )
    names.require_new_disk(disk)


def add_disk(
    fleet: Fleet, vm: Vm, actual: ActualVm | None, disk: str, size: int, *, storage: str | None = None
) -> Steps:
    """Give it a new, empty disk. Usage where there is one of that name and another size."""
    found = ours(fleet, vm, actual)
    require_addable(vm, disk)
    there, row = found.config.drives.get(disk), found.waiting(disk)
    if there is not None and there.cdrom:
        kind = "the cloud-init drive" if there.is_cloudinit else "a CD-ROM"
        raise Usage(f"{label(vm)}: {disk} is {kind}; choose another name")
    if there is not None:
        if storage and there.storage != storage:
            raise Usage(f"{label(vm)} has a disk {disk} already, on {there.storage}; move it, or choose another name")
        if there.size == size:
            return nothing(f"it has {disk}, {format_size(size)} on {there.storage}")
        has = "another one" if there.size is None else format_size(there.size)
        raise Usage(f"{label(vm)} has a disk {disk} already, of {has}; resize it, or choose another name")
    if row is not None:
        raise Usage(
            f"{label(vm)} has a disk {disk} until its next start; take that back first: "
            f"`qm set {vm.vmid} --revert {disk}` on {found.node}"
        )
    if size % (1 << 30):
        raise Usage(f"{disk}: disks are made in whole GiB, {format_size(size)} is none; ask for {whole_gib(size)}G")
    place = _place(fleet, vm, storage)
    later = vm.type is GuestType.QEMU and waits(found, disk, place)
    return (AddDisk(found.node, vm.vmid, disk, place, size, "", found.config.digest, later, type=vm.type),)


def require_movable(vm: Vm, disk: str) -> None:
    """Usage where disks of such a guest are not moved."""
    if vm.type is not GuestType.QEMU:
        raise Usage(
            f"{label(vm)} is a container; its volumes are not moved here: "
            f"`pct move-volume {vm.vmid} {disk} STORAGE` on its node does that"
        )


def _movable(vm: Vm, found: ActualVm, disk: str) -> Drive:
    """The named volume, which the server can move as the guest stands. Usage, with why not."""
    require_movable(vm, disk)
    drive = found.config.drives.get(disk)
    if drive is not None and drive.cdrom:
        kind = "the cloud-init drive" if drive.is_cloudinit else "a CD-ROM"
        raise Usage(f"{label(vm)}: {disk} is {kind}, which no server moves; take it away, and add one elsewhere")
    if disk == "tpmstate0" and disk in found.config.volumes and found.running:
        raise Usage(f"{label(vm)} runs; its TPM's state is moved while it is off alone: shut it down first")
    others = {**found.config.volumes, **found.config.unused}
    named = others[disk] if drive is None and disk in others else drive_of(vm, found, disk)
    return _here(vm, found, named)


def move_disk(
    fleet: Fleet, vm: Vm, actual: ActualVm | None, disk: str, storage: str, *, keep_source: bool = False
) -> Steps:
    """Move a disk, EFI variables, the TPM's state or an unused volume to another storage."""
    found = ours(fleet, vm, actual)
    drive = _movable(vm, found, disk)
    if drive.storage == storage:
        return nothing(f"{drive.name} is on {storage}")
    digest = found.config.digest
    return (MoveDisk(found.node, vm.vmid, drive.name, storage, keep_source, digest, drive.volume, type=vm.type),)


def require_cloudinit(vm: Vm) -> None:
    if vm.type is not GuestType.QEMU:
        raise Usage(f"{label(vm)} is a container, which has no cloud-init drive")


def regenerate(fleet: Fleet, vm: Vm, actual: ActualVm | None, *, differs: bool) -> Steps:
    """Write the cloud-init drive anew where the options say something else than it (`differs`)."""
    found = ours(fleet, vm, actual)
    if not found.config.has_cloudinit_drive:
        raise Usage(f"{label(vm)} has no cloud-init drive; add one: `qm set {vm.vmid} --ide2 STORAGE:cloudinit`")
    return (Regenerate(found.node, vm.vmid),) if differs else nothing("the drive says what the options say")


def cloudinit_drive(fleet: Fleet, vm: Vm, actual: ActualVm | None, drive: str, *, storage: str | None = None) -> Steps:
    """Give it a cloud-init drive, unless it has one."""
    found = ours(fleet, vm, actual)
    if found.config.has_cloudinit_drive:
        return nothing("it has a cloud-init drive")
    names.require_drive(drive)
    if drive in found.config.values:
        raise Usage(f"{label(vm)}: {drive} is taken; use another one such as ide2")
    place = _place(fleet, vm, storage)
    change = Change(drive, "none", f"a cloud-init drive on {place}", f"{place}:cloudinit")
    waits = (drive,) if of_change(found, change) else ()
    return (Configure(found.node, vm.vmid, (change,), found.config.digest, waits),)


def make_template(fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
    """Convert a stopped VM to a template, for good."""
    if actual is not None and actual.config.is_template and actual.config.name == vm.name:
        return nothing("it is a template")
    found = ours(fleet, vm, actual)
    if vm.type is not GuestType.QEMU:
        raise Usage(f"{label(vm)} is a container; only VMs are converted to templates here")
    if found.running:
        raise Usage(f"{label(vm)} runs; shut it down before it becomes a template")
    return (MakeTemplate(found.node, vm.vmid),)


# Snapshots


def snapshot(
    fleet: Fleet,
    vm: Vm,
    actual: ActualVm | None,
    name: str,
    there: Iterable[SnapshotRow],
    *,
    description: str = "",
    with_memory: bool = False,
) -> Steps:
    """Take a snapshot, unless there is one of that name."""
    found = ours(fleet, vm, actual)
    names.require_snapshot(name)
    same = next((row for row in there if row.name == name), None)
    if same is not None:
        return nothing(f"it has a snapshot {taken(same)}")
    if with_memory and vm.type is not GuestType.QEMU:
        raise Usage(f"{label(vm)} is a container, whose memory no snapshot holds; leave --with-memory out")
    if with_memory and not found.running:
        raise Usage(f"{label(vm)} does not run, so it has no memory to keep; leave --with-memory out")
    return (Snapshot(found.node, vm.vmid, name, description, with_memory, type=vm.type),)


def taken(row: SnapshotRow) -> str:
    """A snapshot with when it was taken: `clean of 2026-11-29 17:00 UTC`."""
    return f"{row.name} of {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(row.time))}" if row.time else row.name


def delete_snapshot(fleet: Fleet, vm: Vm, actual: ActualVm | None, name: str, there: Iterable[SnapshotRow]) -> Steps:
    """Delete a snapshot, if there is one of that name."""
    found = ours(fleet, vm, actual)
    known = [row.name for row in there]
    if name not in known:
        return nothing(f"it has no snapshot {name}; it has {', '.join(known) or 'none'}")
    return (DeleteSnapshot(found.node, vm.vmid, name, type=vm.type),)


def rollback(
    fleet: Fleet,
    vm: Vm,
    actual: ActualVm | None,
    name: str,
    there: Iterable[SnapshotRow],
    *,
    last: Task | None = None,
    unchanged: bool = False,
) -> Steps:
    """Put disks and configuration back to a snapshot; nothing when that was the last thing done to the guest.

    `last` is its last task that ended; `unchanged` whether its configuration is the one in the snapshot.
    """
    found = ours(fleet, vm, actual)
    known = [row.name for row in there]
    if name not in known:
        raise Usage(f"{label(vm)} has no snapshot {name}; it has {', '.join(known) or 'none'}")
    undone = last is not None and last.type in ("qmrollback", "vzrollback") and last.status == "OK"
    if undone and unchanged and not found.running and found.config.text("parent") == name:
        return nothing(f"the last thing done to it was to roll it back to {name} ({last.upid if last else ''})")
    return (Rollback(found.node, vm.vmid, name, type=vm.type),)


# Backups


def backup(
    fleet: Fleet,
    vm: Vm,
    actual: ActualVm | None,
    storage: str,
    there: Iterable[Volume],
    *,
    now: int,
    newer_than: int | None = None,
    mode: str = "snapshot",
    notes: str = "",
    protected: bool = False,
) -> Steps:
    """Back it up, unless one of the backups that are `there` is less than `newer_than` seconds old."""
    found = ours(fleet, vm, actual)
    if mode not in ("snapshot", "suspend", "stop"):
        raise Usage(f"{mode} is no mode of backups; use snapshot, suspend or stop")
    new = max(there, key=lambda each: each.ctime or 0, default=None)
    if newer_than is not None and new is not None and (new.ctime or 0) > now - newer_than:
        return nothing(f"its backup {new.volid} is {now - (new.ctime or 0)} s old")
    text = notes or f"{vm.name}, by nixherd"
    return (Backup(found.node, vm.vmid, storage, mode, notes=text, protected=protected, type=vm.type),)


# Moving


def migrate(
    fleet: Fleet,
    vm: Vm,
    actual: ActualVm | None,
    target: str,
    *,
    nodes: Iterable[str],
    local_disks: bool = False,
    storage: str | None = None,
) -> Steps:
    """Move it to another node of the cluster, while it runs when it runs. A running container restarts for that."""
    found = ours(fleet, vm, actual)
    known = sorted(nodes)
    if target not in known:
        raise Usage(f"there is no node {target}; the cluster has {', '.join(known)}")
    if found.node == target:
        return nothing(f"it is on {target}")
    return (Migrate(found.node, vm.vmid, target, found.running, local_disks, storage, type=vm.type),)
