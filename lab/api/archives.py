"""Backup archives: the volumes of a guest that an archive holds, the configuration in it, and who may use it.

An archive is one volume of content type `backup`. `Volume.archive` describes it: `type`, `config` (the guest's
configuration at that time) and `disks`, by name in that configuration: {size, used, format, storage}. An archive
without `disks` is damaged. The backend keeps the disks' data under names of the archive.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lab.api import drives
from lab.api.errors import ApiError
from lab.api.options import is_unused
from lab.api.routes import Call
from lab.api.state import Config, Storage, Vm, Volume, section
from lab.api.volume_access import require_readable
from lab.api.volumes import parse_volid

_TRUE = frozenset(("1", "on", "yes", "true"))
_MOUNTED = re.compile(r"rootfs|mp\d+")


@dataclass(frozen=True)
class Candidate:
    """A volume of a guest, and whether a backup includes it. `where` is a container's mount point."""

    name: str
    volid: str
    size: str
    included: bool
    reason: str
    where: str = ""


def candidates(vm: Vm) -> Iterator[Candidate]:
    """List the guest's volumes in the order in which a backup visits them, without CD-ROMs. Backups never include
    `unusedN`.
    """
    yield from (_of_a_container if vm.type == "lxc" else _of_a_vm)(vm.config)


def _of_a_vm(config: Config) -> Iterator[Candidate]:
    for name, drive in sorted(drives.of(config), key=lambda item: drives.NAMES.index(item[0])):
        if drives.is_cdrom(drive) or drives.is_cloudinit(drive):
            continue
        flag = drive.get("backup")
        included, reason = flag is None or flag in _TRUE, f"backup={'yes' if flag is None else 'no'}"
        if name == "efidisk0" and config.get("bios") != "ovmf":
            included, reason = False, "efidisk but no OVMF BIOS"
        yield Candidate(name, drive["file"], drive.get("size", ""), included, reason)


def _of_a_container(config: Config) -> Iterator[Candidate]:
    names = sorted(filter(_MOUNTED.fullmatch, config), key=lambda name: (name != "rootfs", len(name), name))
    for name in names:
        drive = drives.parse(str(config[name]))
        if name == "rootfs":
            included, reason = True, "rootfs"
        elif ":" not in drive["file"]:
            included, reason = False, "not a volume"
        else:
            included = drive.get("backup", "0") in _TRUE
            reason = "enabled" if included else "disabled"
        where = "/" if name == "rootfs" else drive.get("mp", "")
        yield Candidate(name, drive["file"], drive.get("size", ""), included, reason, where)


def kept(vm: Vm) -> Config:
    """Return the configuration as an archive stores it; a VM's has no unused disks."""
    dropped = {"lock", "parent"}
    if vm.type == "qemu":
        dropped |= set(filter(is_unused, vm.config))
    return {key: value for key, value in vm.config.items() if key not in dropped}


def text_of(volid: str, holds: dict[str, Any]) -> str:
    """Return the configuration as `extractconfig` prints it; for a VM, comments name the disks of the archive."""
    if "disks" not in holds:
        raise ApiError(f"Failed to extract config from VMA archive: vma: vma_reader_register_bs failed ({volid})")
    text = section(holds.get("config", {}))
    if holds.get("type", "qemu") != "qemu":
        return text
    for name, disk in sorted(holds["disks"].items()):
        text += f"#qmdump#map:{name}:{device(name)}:{disk['storage']}:{disk['format']}:\n"
    return text


def device(name: str) -> str:
    """Return the archive's name for a disk."""
    return "drive-tpmstate0-backup" if name == "tpmstate0" else f"drive-{name}"


def content_of(volid: str, disk: str) -> str:
    """Return the name under which the backend keeps an archive's copy of a disk."""
    return f"{volid}#{disk}"


def of_guest(storage: Storage, vmid: int, kind: str | None = None) -> list[str]:
    """List the archives of a guest, oldest first."""
    archives = [
        (volume.ctime, volid)
        for volid, volume in list(storage.volumes.items())
        if volume.content == "backup" and parse_volid(volid).vmid == vmid and kind in (None, type_of(volid))
    ]
    return [volid for _, volid in sorted(archives)]


def type_of(volid: str) -> str:
    """Return `qemu` or `lxc`, from the archive's name."""
    match = re.search(r"backup/vzdump-(\w+)-", volid)
    return match[1] if match else "unknown"


def name_for(vm: Vm, storage: Storage, extension: str, now: int) -> tuple[str, int]:
    """Return a free archive name and its time. Names have a resolution of one second, so each archive gets its own
    second.
    """
    newest = [storage.volumes[volid].ctime for volid in of_guest(storage, vm.vmid)]
    moment = max([now, *(ctime + 1 for ctime in newest)])
    when = time.strftime("%Y_%m_%d-%H_%M_%S", time.gmtime(moment))
    kind = "vma" if vm.type == "qemu" else "tar"
    return f"{storage.name}:backup/vzdump-{vm.type}-{vm.vmid}-{when}.{kind}{extension}", moment


def find(call: Call, volid: str) -> Volume:
    """Return the archive with that volid if the caller may use it; raises ApiError with the real server's texts."""
    parsed = parse_volid(volid) if ":" in volid else None
    if parsed is None or volid.startswith("/"):
        if call.user.is_root:
            raise ApiError(f"volume '{volid}' does not exist")
        raise ApiError("Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 651.")
    if not parsed.name.startswith("backup/"):
        raise ApiError(f"unable to use volume {volid} - content type needs to be 'backup'")
    require_readable(call, volid, call.params.get("vmid"))
    volume = call.emulator.volumes.find(volid)
    if volume is None:
        call.emulator.volumes.storage(parsed.storage)
        raise ApiError(f"volume '{volid}' does not exist")
    return volume


def content(call: Call, volid: str) -> dict[str, Any]:
    """Return the readable content of an archive that the caller may use; `truncated` when it ends early."""
    volume, faults = find(call, volid), call.emulator.faults
    if faults.is_on("archive-damaged") and faults.is_on("archive-damaged", part="header"):
        return {}
    damaged = {"truncated": True} if faults.is_on("archive-damaged") else {}
    return {**(volume.archive or {}), **damaged}


def forget(call: Call, volid: str) -> None:
    """Remove a backup and its data."""
    volume = call.emulator.volumes.get(volid)
    for name in (volume.archive or {}).get("disks", {}):
        call.emulator.backend.delete_volume(content_of(volid, name))
    del call.emulator.volumes.storage(parse_volid(volid).storage).volumes[volid]
