"""Verbs that grow, add and move disks."""

from dataclasses import dataclass

from nixherd.base.errors import Usage
from nixherd.base.names import format_size, size_of, text_of
from nixherd.fleet.models import Fleet, GuestType, Vm
from nixherd.proxmox.config import Drive
from nixherd.proxmox.guest import names
from nixherd.proxmox.guest.identity import ActualVm, is_elsewhere, label, waits
from nixherd.proxmox.guest.storages import require_in_no_snapshot
from nixherd.proxmox.guest.verb import Guest, Verb, argument, flag, option, waiting
from nixherd.proxmox.steps import GIB, AddDisk, MoveDisk, Resize, Row, Steps, nothing, whole_gib


def drive_of(vm: Vm, actual: ActualVm, disk: str | None) -> Drive:
    """Return the named disk, else the one that the guest boots from. Raise Usage when there is none."""
    root = actual.config.root
    drives = {**(actual.config.drives if vm.type is GuestType.QEMU else actual.config.volumes)}
    drives |= {"rootfs": root} if root else {}
    drive = drives.get(disk) if disk else root or actual.config.boot_disk
    if drive is None or drive.cdrom:
        known = ", ".join(name for name, each in sorted(drives.items()) if not each.cdrom) or "none"
        raise Usage(f"{label(vm)} has no disk {disk or 'to boot from'}; its disks: {known}")
    return _present(vm, actual, drive)


def _present(vm: Vm, actual: ActualVm, drive: Drive) -> Drive:
    """Return the disk if it is attached now. Raise Usage if it waits for the next start."""
    if is_elsewhere(actual, drive.name):
        raise Usage(
            f"{label(vm)}: {drive.name} waits for its next start, until then there is nothing to grow or move; "
            f"{'reboot' if actual.running else 'start'} it first"
        )
    return drive


@dataclass(frozen=True)
class ResizeDisk(Verb):
    """Grow a disk to SIZE (64G), the one that boots unless another is named.

    Disks are never shrunk.
    """

    name = command = verb = "resize"
    undo = True
    row = Row.RESIZE
    disk: str | None = option(text_of, help="Another one than it boots from.")
    size: int = argument(size_of, kw_only=True)

    def check(self, fleet: Fleet, vm: Vm) -> None:
        if self.disk is not None:
            names.require_disk(vm, self.disk)

    def look(self, guest: Guest) -> Steps:
        seen, vm, size = guest.ours, guest.vm, self.size
        if self.disk in ("efidisk0", "tpmstate0") and self.disk in seen.config.volumes:
            raise Usage(f"{guest.label}: {self.disk} has the size that its content has; it is not grown")
        drive = drive_of(vm, seen, self.disk)
        if drive.size is None:
            raise Usage(f"{guest.label}: the size of {drive.name} is not known; look at `qm config {vm.vmid}`")
        if drive.size > size:
            raise Usage(f"{guest.label}: {drive.name} has {format_size(drive.size)}, and disks only grow; ask for more")
        if drive.size == size:
            return nothing(f"{drive.name} has {format_size(size)}")
        return (Resize(seen.node, vm.vmid, drive.name, drive.size, size, seen.config.digest, type=vm.type),)


@dataclass(frozen=True)
class AttachDisk(Verb):
    """Give a guest a new, empty DISK (scsi1) of SIZE (10G), on its own storage unless another is named."""

    name = "add_disk"
    command = "add-disk"
    verb = "add a disk to"
    undo = True
    disk: str = argument(text_of)
    size: int = argument(size_of)
    storage: str | None = option(text_of, help="Where its disks go; else where its definition says.", metavar="NAME")

    def check(self, fleet: Fleet, vm: Vm) -> None:
        if vm.type is not GuestType.QEMU:
            raise Usage(
                f"{label(vm)} is a container, whose volumes need a place to be mounted at; they are not added here: "
                f"`pct set {vm.vmid} --mp0 STORAGE:GIB,mp=/PATH` on its node does that"
            )
        names.require_new_disk(self.disk)

    def look(self, guest: Guest) -> Steps:
        seen, vm, disk, size = guest.ours, guest.vm, self.disk, self.size
        self.check(guest.fleet, vm)
        drive = seen.config.drives.get(disk)
        if drive is not None:
            return self._exists(guest, drive)
        if seen.waiting(disk) is not None:
            raise Usage(
                f"{guest.label} has a disk {disk} until its next start; take that back first: "
                f"`qm set {vm.vmid} --revert {disk}` on {seen.node}"
            )
        if size % GIB:
            raise Usage(f"{disk}: disks are made in whole GiB, {format_size(size)} is none; ask for {whole_gib(size)}G")
        place = guest.storage(self.storage)
        later = waits(seen, disk, place)
        return (AddDisk(seen.node, vm.vmid, disk, place, size, "", seen.config.digest, later, type=vm.type),)

    def _exists(self, guest: Guest, drive: Drive) -> Steps:
        """Do nothing where the disk is the one that was asked for. Raise Usage where it is another one."""
        disk, size = self.disk, self.size
        if drive.cdrom:
            kind = "the cloud-init drive" if drive.is_cloudinit else "a CD-ROM"
            raise Usage(f"{guest.label}: {disk} is {kind}; choose another name")
        if self.storage and drive.storage != self.storage:
            raise Usage(f"{guest.label} has a disk {disk} already, on {drive.storage}; move it, or choose another name")
        if drive.size == size:
            return nothing(f"it has {disk}, {format_size(size)} on {drive.storage}")
        has = "another one" if drive.size is None else format_size(drive.size)
        raise Usage(f"{guest.label} has a disk {disk} already, of {has}; resize it, or choose another name")

    judge = waiting


@dataclass(frozen=True)
class RelocateDisk(Verb):
    """Move a disk, EFI variables, the TPM's state or an unused volume to another STORAGE, the guest running or not."""

    name = "move_disk"
    command = "move-disk"
    verb = "move a disk of"
    undo = True
    disk: str = argument(text_of)
    storage: str = argument(text_of)
    keep_source: bool = flag("Leave the old one as an unused disk.")

    def check(self, fleet: Fleet, vm: Vm) -> None:
        names.require_disk(vm, self.disk, unused=True)
        if vm.type is not GuestType.QEMU:
            raise Usage(
                f"{label(vm)} is a container; its volumes are not moved here: "
                f"`pct move-volume {vm.vmid} {self.disk} STORAGE` on its node does that"
            )

    def look(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        drive = self._movable(guest, seen)
        if drive.storage == self.storage:
            return nothing(f"{drive.name} is on {self.storage}")
        what = (seen.node, vm.vmid, drive.name, self.storage, self.keep_source, seen.config.digest, drive.volume)
        step = MoveDisk(*what, type=vm.type)
        if not self.keep_source:
            require_in_no_snapshot(guest.client, vm, step)
        return (step,)

    def _movable(self, guest: Guest, seen: ActualVm) -> Drive:
        """Return the volume if the server can move it now. Usage, with the reason, if not."""
        disk, vm = self.disk, guest.vm
        drive = seen.config.drives.get(disk)
        if drive is not None and drive.cdrom:
            kind = "the cloud-init drive" if drive.is_cloudinit else "a CD-ROM"
            raise Usage(f"{guest.label}: {disk} is {kind}, which no server moves; take it away, and add one elsewhere")
        if disk == "tpmstate0" and disk in seen.config.volumes and seen.running:
            raise Usage(f"{guest.label} runs; its TPM's state is moved while it is off alone: shut it down first")
        others = {**seen.config.volumes, **seen.config.unused}
        named = others[disk] if drive is None and disk in others else drive_of(vm, seen, disk)
        return _present(vm, seen, named)
