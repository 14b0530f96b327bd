"""What a backup holds: as vzdump's log says while it is made, and as the archive itself says. Both must agree.

The log's lines are those of PVE::VZDump::QemuServer and PVE::VZDump::LXC (`include disk 'scsi0' 'VOLUME'`, `including
mount point mp0 ('/data') in backup`). A VM's archive lists its drives in lines `#qmdump#map:scsi0:drive-scsi0:…`, which
vzdump takes out of a guest's notes; a container's holds the root file system and the mount points that say `backup=1`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from nixherd.errors import ApiError, FleetError, Usage
from nixherd.fleet.models import GuestType, Vm
from nixherd.names import BACKUP, STORAGE, pattern
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.config import CT_DISKS, VM_DISKS, VmConfig, is_true, properties
from nixherd.proxmox.guest.identity import label

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client

_NAMED = pattern(f"{STORAGE}:{BACKUP}")
_MOUNT = re.compile(CT_DISKS, re.ASCII)
_TYPES = {"qemu": GuestType.QEMU, "vm": GuestType.QEMU, "lxc": GuestType.LXC, "ct": GuestType.LXC}


def require_backup_of(vm: Vm, volid: str) -> None:
    """Usage unless its name says that it is a backup of this guest. Nothing is asked."""
    match = _NAMED.fullmatch(volid)
    type = _TYPES.get(match["kind"] or match["group"]) if match else None
    if match is None or type is None:
        raise Usage(f"{volid} is not a backup; `nixherd vm backups {vm.name}` lists those of {label(vm)}")
    vmid = int(match["file"] or match["pbs"])
    if vmid != vm.vmid:
        raise Usage(
            f"{volid} is a backup of guest {vmid}, not of {label(vm)}; `nixherd vm backups {vm.name}` lists its own"
        )
    if type is not vm.type:
        kind = "VM" if type is GuestType.QEMU else "container"
        raise Usage(f"{volid} is a backup of a {kind}, {label(vm)} is declared as {vm.type}")


@dataclass(frozen=True)
class Archive:
    """What a backup holds. `config` is the guest's, `disks` are the drives or mount points that are in it, by name.

    `unread` says why that is not known; then the rest is empty.
    """

    volid: str
    type: GuestType
    config: VmConfig = field(default_factory=VmConfig)
    disks: frozenset[str] = frozenset()
    unread: str = ""

    def brings(self, name: str) -> bool:
        """Whether a restore makes this drive: those in it, and a VM's cloud-init drive, which is written anew."""
        drive = self.config.drives.get(name)
        return name in self.disks or (drive is not None and drive.is_cloudinit)

    @property
    def restored(self) -> VmConfig:
        """The configuration as a restore leaves it: a VM's disk that no backup holds is in it no more."""
        values = self.config.values
        if self.type is GuestType.LXC:
            return self.config
        return VmConfig({key: value for key, value in values.items() if not self.leaves_out(key)})

    def leaves_out(self, name: str) -> bool:
        """Whether its configuration says of a VM's disk that no backup holds it."""
        text = str(self.config.values.get(name, ""))
        disk = re.fullmatch(VM_DISKS, name, re.ASCII) is not None
        return disk and not is_true(properties(text, "file").get("backup", 1))

    def replaces(self, name: str, volume: str) -> bool:
        """Whether a restore makes this drive, in the place of another volume than the one that was backed up."""
        text = str(self.config.values.get(name, ""))
        values = properties(text, "file")
        return self.brings(name) and (values.get("file") or values.get("volume")) != volume

    def holds(self, volume: str | None) -> bool:
        """Whether what this volume had when the backup was made is in it, under whatever name."""
        texts = (str(self.config.values.get(name, "")) for name in self.disks)
        each = (properties(text, "file") for text in texts)
        return volume is not None and any(volume in (values.get("file"), values.get("volume")) for values in each)

    @property
    def bound(self) -> tuple[str, ...]:
        """The mount points of a container that are directories or devices of the node: `mp0 (/srv)`."""
        values = {name: properties(str(text), "volume") for name, text in self.config.values.items()}
        rows = ((name, each.get("volume", "")) for name, each in sorted(values.items()) if _MOUNT.fullmatch(name))
        return tuple(f"{name} ({volume})" for name, volume in rows if volume.startswith("/"))

    def is_alike(self, name: str, value: str) -> bool:
        """Whether a mount point is used as the one that was backed up, whatever volume it is: a restore renames it."""
        then, now = (properties(text, "file") for text in (str(self.config.values.get(name, "")), value))
        then["file"], now["file"] = (each.get("file", "").partition(":")[0] for each in (then, now))
        return then == now

    def names(self, name: str, volume: str) -> bool:
        """Whether a VM has this volume again though the backup does not hold it: its configuration still names it."""
        text = str(self.config.values.get(name, ""))
        same = properties(text, "file").get("file") == volume
        return self.type is GuestType.QEMU and same and not self.leaves_out(name)


def read(client: "Client", node: str, vm: Vm, volid: str, *, there: bool) -> Archive:
    """Look into a backup of this guest. Usage when it is not there, FleetError when it cannot be read.

    Who may not look, for the guest is gone and its place in a pool with it, may still restore it: unless the guest is
    `there`, that is said in `unread`.
    """
    try:
        text = client.archived_text(node, volid)
    except ApiError as error:
        if error.status == 403 and not there:
            return Archive(volid, vm.type, unread=str(error))
        if error.status == 500 and "does not exist" in str(error):
            raise Usage(
                f"there is no backup {volid} on {node}; `nixherd vm backups {vm.name}` lists those of {label(vm)}"
            ) from error
        if error.status == 500:
            raise FleetError(f"{volid} cannot be read, nothing was done: {error}") from error
        raise
    archive = Archive(volid, vm.type, config_of(text), frozenset(name for name, _ in held_inside(text, vm.type)))
    _require_of(vm, archive)
    return archive


def config_of(text: str) -> VmConfig:
    """The configuration in a file of the server's: notes are its comments, with what is no plain ASCII escaped."""
    lines = text.splitlines()
    notes = [
        unquote(line[1:]) for line in lines if line.startswith("#") and not line.startswith(("#qmdump#", "#vzdump#"))
    ]
    pairs = (line.partition(":") for line in lines if line and not line.startswith(("#", "[")))
    values = {key.strip(): value.strip() for key, _, value in pairs}
    return VmConfig({**values, **({"description": "\n".join(notes)} if notes else {})})


def _require_of(vm: Vm, archive: Archive) -> None:
    """Usage where the guest in it is another one, which had the same VMID."""
    config = archive.config
    if config.is_template:
        raise Usage(f"{archive.volid} holds a template, not {label(vm)}; nothing was done")
    if config.name != vm.name:
        raise Usage(
            f"{archive.volid} holds a guest named {config.name or 'nothing'}, not {label(vm)}; it would not be this "
            "fleet's, nothing was done"
        )


_INCLUDED_DISK = re.compile(r"INFO: include disk '([a-z]+\d+)' '([^']+)'(?: .*)?", re.ASCII)
_INCLUDED_MOUNT = re.compile(r"INFO: including mount point (rootfs|mp\d+) \('.*'\) in backup", re.ASCII)
_MAPPED = re.compile(r"#qmdump#map:([a-z]+\d+):drive-[^:]*:[^:]*:[^:]*:", re.ASCII)
_OPTION = re.compile(r"([a-z][a-z_-]*\d*): (.*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Saved:
    """The volumes, as they were named then, that a backup holds; `unknown` says why that cannot be told."""

    archive: str
    volumes: frozenset[str] = frozenset()
    unknown: str = ""

    def why_not(self, volume: str | None) -> str:
        """Why a volume cannot be had back from it; empty where it can."""
        if volume in self.volumes:
            return ""
        return self.unknown or "not in it"


def saved(client: "Client", node: str, archive: str, task: Upid | None, type: GuestType) -> Saved:
    """What the backup that this task made holds. Never an error: what cannot be read is not known."""
    if task is None:
        return Saved(archive, unknown="the task that made it is not known")
    try:
        log = client.task_log(task)
    except ApiError as error:
        return Saved(archive, unknown=f"its task's log cannot be read ({error})")
    try:
        text = client.archived_text(node, archive)
    except ApiError as error:
        return Saved(archive, unknown=f"what it holds cannot be read ({error})")
    return held(archive, text, log, type)


def held(archive: str, text: str, log: Iterable[str], type: GuestType) -> Saved:
    """What a backup holds, of the configuration in it and the lines of its task's log. Pure."""
    inside = dict(held_inside(text, type))
    logged = dict(_logged(log, inside, type))
    if not inside and not logged:
        return Saved(archive)
    if inside != logged:
        odd = sorted({name for name, _ in inside.items() ^ logged.items()})
        return Saved(
            archive,
            frozenset(inside.values()) & frozenset(logged.values()),
            f"its log and the archive do not say the same of {', '.join(odd)}",
        )
    return Saved(archive, frozenset(inside.values()))


def held_inside(text: str, type: GuestType) -> Iterator[tuple[str, str]]:
    """What the archive says that it holds: names of drives or mount points, and their volumes."""
    lines = text.splitlines()
    options = {match[1]: match[2] for line in lines if (match := _OPTION.fullmatch(line))}
    mapped = {match[1] for line in lines if (match := _MAPPED.fullmatch(line))}
    for name, value in options.items():
        values = properties(value, "file")
        volume = values.get("file") or values.get("volume") or ""
        if type is GuestType.QEMU:
            if name in mapped:
                yield name, volume
        elif name == "rootfs" or (
            re.fullmatch(r"mp\d+", name) and is_true(values.get("backup", 0)) and not volume.startswith("/")
        ):
            yield name, volume


def _logged(log: Iterable[str], inside: dict[str, str], type: GuestType) -> Iterator[tuple[str, str]]:
    """What the log says; it does not name the volumes of a container."""
    for line in log:
        if type is GuestType.QEMU:
            if match := _INCLUDED_DISK.fullmatch(line):
                yield match[1], match[2]
        elif match := _INCLUDED_MOUNT.fullmatch(line):
            yield match[1], inside.get(match[1], "")
