"""What a backup holds, and what a restore of it over a guest takes, keeps and adds.

vzdump's log says what it holds while it is made, and so does the archive itself; both must agree. The log's lines are
those of PVE::VZDump::QemuServer and PVE::VZDump::LXC (`include disk 'scsi0' 'VOLUME'`, `including mount point mp0
('/data') in backup`). A VM's archive lists its drives in lines `#qmdump#map:scsi0:drive-scsi0:…`, which vzdump takes
out of a guest's notes; a container's holds the root file system and the mount points that say `backup=1`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from nixherd.base.errors import ApiError, FleetError, Usage
from nixherd.base.names import BACKUP, STORAGE, pattern
from nixherd.fleet.models import GuestType, Vm
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.belongings import BY_SNAPSHOT_ALONE, Belongings, Part
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import CT_DISKS, VM_DISKS, VmConfig, is_true, properties
from nixherd.proxmox.guest.identity import ActualVm, label
from nixherd.proxmox.guest.observe import belongings_of, with_storages, would_be_shown
from nixherd.proxmox.steps import Restore

_NAMED = pattern(f"{STORAGE}:{BACKUP}")
_MOUNT = re.compile(CT_DISKS, re.ASCII)
_TYPES = {"qemu": GuestType.QEMU, "vm": GuestType.QEMU, "lxc": GuestType.LXC, "ct": GuestType.LXC}


def require_backup_of(vm: Vm, volid: str) -> None:
    """Require that a backup is one of this guest, by its name. Nothing is sent."""
    match = _NAMED.fullmatch(volid)
    type = _TYPES.get(match["kind"] or match["group"]) if match else None
    if match is None or type is None:
        raise Usage(f"{volid} is not a backup; `nixherd vm backups {vm.name}` lists those of {label(vm)}")
    vmid = int(match["file"] or match["pbs"])
    if vmid != vm.vmid:
        raise Usage(f"{volid} is a backup of guest {vmid}, not of {label(vm)}; see `nixherd vm backups {vm.name}`")
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
        """Tell whether a restore makes this drive: those in it, and a VM's cloud-init drive, which is written anew."""
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
        """Tell whether its configuration excludes a VM's disk from backups."""
        text = str(self.config.values.get(name, ""))
        disk = re.fullmatch(VM_DISKS, name, re.ASCII) is not None
        return disk and not is_true(properties(text, "file").get("backup", 1))

    def replaces(self, name: str, volume: str) -> bool:
        """Tell whether a restore makes this drive, in the place of another volume than the one that was backed up."""
        text = str(self.config.values.get(name, ""))
        values = properties(text, "file")
        return self.brings(name) and (values.get("file") or values.get("volume")) != volume

    def holds(self, volume: str | None) -> bool:
        """Tell whether what this volume had when the backup was made is in it, under whatever name."""
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
        """Tell whether a mount point is used as the one that was backed up; a restore renames its volume."""
        then, now = (properties(text, "file") for text in (str(self.config.values.get(name, "")), value))
        then["file"], now["file"] = (each.get("file", "").partition(":")[0] for each in (then, now))
        return then == now

    def names(self, name: str, volume: str) -> bool:
        """Tell whether a VM keeps this volume though the backup lacks it: its configuration still names it."""
        text = str(self.config.values.get(name, ""))
        same = properties(text, "file").get("file") == volume
        return self.type is GuestType.QEMU and same and not self.leaves_out(name)


def read(client: "Client", node: str, vm: Vm, volid: str, *, exists: bool) -> Archive:
    """Look into a backup of this guest. Raise Usage when it is not there, FleetError when it cannot be read.

    Who may not look, for the guest is gone and its place in a pool with it, may still restore it: unless the guest is
    `exists`, that is said in `unread`.
    """
    try:
        text = client.archived_text(node, volid)
    except ApiError as error:
        if error.status == 403 and not exists:
            return Archive(volid, vm.type, unread=str(error))
        if error.status == 500 and "does not exist" in str(error):
            raise Usage(f"{volid} does not exist on {node}; `nixherd vm backups {vm.name}` lists them") from error
        if error.status == 500:
            raise FleetError(f"{volid} cannot be read, nothing was done: {error}") from error
        raise
    archive = Archive(volid, vm.type, config_of(text), frozenset(name for name, _ in held_inside(text, vm.type)))
    _require_of(vm, archive)
    return archive


def config_of(text: str) -> VmConfig:
    """Parse a configuration file of the server's: notes are its comments, with non-ASCII characters escaped."""
    lines = text.splitlines()
    notes = [
        unquote(line[1:]) for line in lines if line.startswith("#") and not line.startswith(("#qmdump#", "#vzdump#"))
    ]
    pairs = (line.partition(":") for line in lines if line and not line.startswith(("#", "[")))
    values = {key.strip(): value.strip() for key, _, value in pairs}
    return VmConfig({**values, **({"description": "\n".join(notes)} if notes else {})})


def _require_of(vm: Vm, archive: Archive) -> None:
    """Refuse (Usage) a backup of another guest, which had the same VMID."""
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
        """Say why a volume cannot be restored from it; empty where it can."""
        if volume in self.volumes:
            return ""
        return self.unknown or "not in it"


def saved(client: "Client", node: str, archive: str, task: Upid | None, type: GuestType) -> Saved:
    """Return what the backup that this task made holds. Never raises: what cannot be read is unknown."""
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
    """Compare the configuration in a backup with its task's log, and return what it holds. Pure."""
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
    """Return what the archive says that it holds: names of drives or mount points, and their volumes."""
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
    """Return what the log says; it does not name the volumes of a container."""
    for line in log:
        if type is GuestType.QEMU:
            if match := _INCLUDED_DISK.fullmatch(line):
                yield match[1], match[2]
        elif match := _INCLUDED_MOUNT.fullmatch(line):
            yield match[1], inside.get(match[1], "")


# What an empty guest has: while it is made or after that failed, and what a server writes in the place of an old one.
_OF_EMPTY = frozenset(("digest", "lock", "memory"))
_LEFT_OUT = re.compile(rf"({VM_DISKS}): (\S+)", re.ASCII)
_ANOTHER = "not the volume in the backup"
_NOT_KNOWN = "not known, this token may not look into it while the guest is not there"


def is_empty(config: VmConfig) -> bool:
    """Tell whether a restore that failed, or is at work, left this in the guest's place: no disk, no name."""
    return config.values.keys() <= _OF_EMPTY and (config.text("memory") or "128") == "128"


def lost(
    client: Client,
    vm: Vm,
    replaced: ActualVm | None,
    held: Archive,
    step: Restore,
    discard: tuple[str, ...],
    *,
    begun: bool = False,
    again: bool = False,
) -> Restore:
    """Return the step with what it does to the existing guest beyond what the backup brings back.

    Raise Usage for what would be lost that the backup does not hold and `discard` does not name, unless it was made by
    the restore that this run has `begun`; and for a name in `discard` that would not go, unless it may have gone by the
    same restore, done before (`again`).
    """
    lacks = (_NOT_KNOWN,) if held.unread else tuple(_lacking(held))
    if replaced is None:
        return replace(step, lacks=lacks)
    belongings = with_storages(client, replaced.node, vm.vmid, belongings_of(client, vm, replaced.node))
    lot = _lot(vm, belongings, held)
    if not again:
        _require_all_go(vm, belongings, lot, discard)
    if not (again and begun):
        _require_given_up(vm, belongings, lot, discard)
    stays, goes, strays = (
        tuple(part.shown(belongings.sizes) for part in parts) for parts in (lot.stays, lot.goes, lot.strays)
    )
    return replace(step, stays=stays, goes=goes, strays=strays, lacks=lacks)


@dataclass(frozen=True, slots=True)
class _Lot:
    """What becomes of a guest's parts: those that stay as unused disks, those that go, and those on their storage that
    nothing names any more. `unsaved` are those that go and that the backup does not hold, in no form.
    """

    stays: tuple[Part, ...] = ()
    goes: tuple[Part, ...] = ()
    strays: tuple[Part, ...] = ()
    unsaved: tuple[Part, ...] = ()


def _lot(vm: Vm, belongings: Belongings, held: Archive) -> _Lot:
    """Sort a guest's parts, as `restore_cleanup_oldconf` of PVE::QemuServer and `destroy_lxc_container` of PVE::LXC do.

    A VM's drives go whose names are in the backup, a container's volumes all, but for those that snapshots alone name;
    of a VM that stays, `qm rescan` makes unused disks.
    """
    is_vm = vm.type is GuestType.QEMU
    stays, goes, strays, unsaved = list[Part](), list[Part](), list[Part](), list[Part]()
    for part in belongings.parts:
        if part.remade or (part.volume is not None and held.names(part.name, part.volume)):
            continue
        if part.unsaved == BY_SNAPSHOT_ALONE:
            (stays if is_vm else strays).append(part)
        elif part.name.startswith("snapshot:"):
            goes.append(part)
            unsaved.append(part)
        elif part.unsaved == "pending" or not held.brings(part.name):
            (stays if is_vm else goes).append(part)
            unsaved += [] if is_vm or held.holds(part.volume) else [part]
        elif held.replaces(part.name, part.volume or ""):
            other = replace(part, unsaved="" if held.holds(part.volume) else _ANOTHER)
            goes.append(other)
            # a restore gives all of a container's volumes other names
            text = belongings.texts.get(part.name, "")
            alike = not is_vm and (part.name == "rootfs" or held.is_alike(part.name, text))
            unsaved += [] if alike or not other.unsaved else [other]
    return _Lot(tuple(stays), tuple(goes), tuple(strays), tuple(unsaved))


def _require_all_go(vm: Vm, belongings: Belongings, lot: _Lot, discard: Iterable[str]) -> None:
    going = [part.name for part in lot.goes]
    for name in discard:
        if name in going:
            continue
        if name in (part.name for part in lot.stays):
            raise Usage(f"--discard {name}: {label(vm)} keeps what a backup lacks, as unused disks; leave it out")
        would = ", ".join(dict.fromkeys(going)) or "nothing"
        what = "would not lose" if name in belongings.names else "has no"
        raise Usage(f"--discard {name}: {label(vm)} {what} {name}; with a restore over it would go {would}")


def _require_given_up(vm: Vm, belongings: Belongings, lot: _Lot, discard: Iterable[str]) -> None:
    kept = [part for part in lot.unsaved if part.name not in set(discard)]
    if kept:
        given = " ".join(f"--discard {name}" for name in dict.fromkeys(part.name for part in kept))
        raise Usage(
            f"{label(vm)}: a restore over it destroys what the backup does not hold: {belongings.shown(kept)}; move "
            f"that away, or say {given}; nothing was done"
        )


def _lacking(held: Archive) -> Iterable[str]:
    """Return the disks of the backup's own configuration that it does not hold, and what becomes of them."""
    for name, value in sorted(held.config.values.items()):
        values = properties(str(value), "file")
        if held.type is GuestType.QEMU:
            if held.leaves_out(name):
                yield f"{name} (becomes a line of the notes)"
            continue
        volume = values.get("volume") or values.get("file") or ""
        if re.fullmatch(r"mp\d+", name) and ":" in volume and name not in held.disks:
            yield f"{name} (comes back empty)"


def read_back(client: Client, vm: Vm, now: ActualVm) -> tuple[dict[str, object], list[str]]:
    """Return what the guest keeps that the backup lacked, read from it and its storages: for JSON, and for people."""
    config = now.config
    unused = {key: str(value) for key, value in config.values.items() if re.fullmatch(r"unused\d+", key)}
    notes = [line for line in config.description.splitlines() if _LEFT_OUT.fullmatch(line.strip())]
    observed: dict[str, object] = {"unused": unused, "notes": notes} if unused or notes else {}
    lines = [f"{key} {kept(client, vm, now, volume)}" for key, volume in sorted(unused.items())]
    lines += [f"its notes say of a disk that the backup did not hold: {line}" for line in notes]
    named, strays = nameless(client, vm, now.node)
    return observed | ({"unnamed": named} if named else {}), lines + strays


def nameless(client: Client, vm: Vm, node: str) -> tuple[list[str], list[str]]:
    """Return the volumes in the guest's name that nothing refers to, and the same in words with what is unknown."""
    try:
        stays = with_storages(client, node, vm.vmid, belongings_of(client, vm, node)).stays
    except FleetError as error:
        return [], [f"whether its storages have more in its name is not known: {error}"]
    rest = [each for each in stays if not each.name]
    return [each.what for each in rest if ":" in each.what], list(map(str, rest))


def kept(client: Client, vm: Vm, now: ActualVm, volume: str) -> str:
    """Say whether a storage has a volume that is an unused disk now."""
    try:
        rows = client.volumes(now.node, volume.partition(":")[0], vmid=vm.vmid)
    except ApiError as error:
        return f"names {volume}; whether that is there is not visible: {error}"
    if any(row.volid == volume for row in rows):
        return f"keeps {volume}, which is in no disk of it now"
    if would_be_shown(client, vm.vmid, volume):
        return f"names {volume}, which is not there (any more)"
    return f"names {volume}; whether that is there is not visible to this token"
