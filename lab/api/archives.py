"""Backup archives: which volumes of a guest one holds, its configuration as kept there, and who may use it.

An archive is one volume of the content `backup`. `Volume.archive` says what is in it: `type`, `config` (the guest's,
as it was) and `disks`, by name in that configuration {size, used, format, storage}; without `disks` the archive is
damaged. What the disks held is the backend's, under names of the archive.
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
    """A volume of a guest, and whether a backup holds it. `where` is a container's mount point."""

    name: str
    volid: str
    size: str
    included: bool
    reason: str
    where: str = ""


def candidates(vm: Vm) -> Iterator[Candidate]:
    """The guest's volumes in the order in which a backup looks at them. CD-ROMs are none; `unusedN` is in no backup."""
    yield from (_of_a_container if vm.type == "lxc" else _of_a_vm)(vm.config)


def _of_a_vm(config: Config) -> Iterator[Candidate]:
    for name, drive in sorted(drives.of(config), key=lambda found: drives.NAMES.index(found[0])):
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
    """The configuration as an archive keeps it: a VM's without unused disks."""
    dropped = {"lock", "parent"}
    if vm.type == "qemu":
        dropped |= set(filter(is_unused, vm.config))
    return {key: value for key, value in vm.config.items() if key not in dropped}


def text_of(volid: str, holds: dict[str, Any]) -> str:
    """The configuration as `extractconfig` answers it: a VM's names the disks of the archive in comments."""
    if "disks" not in holds:
        raise ApiError(f"Failed to extract config from VMA archive: vma: vma_reader_register_bs failed ({volid})")
    text = section(holds.get("config", {}))
    if holds.get("type", "qemu") != "qemu":
        return text
    for name, disk in sorted(holds["disks"].items()):
        text += f"#qmdump#map:{name}:{device(name)}:{disk['storage']}:{disk['format']}:\n"
    return text


def device(name: str) -> str:
    """What an archive calls a disk."""
    return "drive-tpmstate0-backup" if name == "tpmstate0" else f"drive-{name}"


def content_of(volid: str, disk: str) -> str:
    """The name under which the backend keeps what an archive holds of a disk."""
    return f"{volid}#{disk}"


def of_guest(storage: Storage, vmid: int, kind: str | None = None) -> list[str]:
    """The archives of a guest, oldest first."""
    found = [
        (volume.ctime, volid)
        for volid, volume in list(storage.volumes.items())
        if volume.content == "backup" and parse_volid(volid).vmid == vmid and kind in (None, type_of(volid))
    ]
    return [volid for _, volid in sorted(found)]


def type_of(volid: str) -> str:
    """`qemu` or `lxc`, as the archive's name says."""
    match = re.search(r"backup/vzdump-(\w+)-", volid)
    return match[1] if match else "unknown"


def name_for(vm: Vm, storage: Storage, extension: str, now: int) -> tuple[str, int]:
    """A name that is free, and its time, which is to the second: no two archives of a guest share one."""
    newest = [storage.volumes[volid].ctime for volid in of_guest(storage, vm.vmid)]
    moment = max([now, *(ctime + 1 for ctime in newest)])
    when = time.strftime("%Y_%m_%d-%H_%M_%S", time.gmtime(moment))
    kind = "vma" if vm.type == "qemu" else "tar"
    return f"{storage.name}:backup/vzdump-{vm.type}-{vm.vmid}-{when}.{kind}{extension}", moment


def find(call: Call, volid: str) -> Volume:
    """The archive of that volid, which the caller may use. ApiError as the server refuses others."""
    parsed = parse_volid(volid) if ":" in volid else None
    if parsed is None or volid.startswith("/"):
        if call.user.is_root:
            raise ApiError(f"volume '{volid}' does not exist")
        raise ApiError("Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 651.")
    if not parsed.name.startswith("backup/"):
        raise ApiError(f"unable to use volume {volid} - content type needs to be 'backup'")
    require_readable(call, volid, call.params.get("vmid"))
    found = call.emulator.volumes.find(volid)
    if found is None:
        call.emulator.volumes.storage(parsed.storage)
        raise ApiError(f"volume '{volid}' does not exist")
    return found


def content(call: Call, volid: str) -> dict[str, Any]:
    """What can be read of the archive of that volid, which the caller may use; `truncated`: not to its end."""
    found, faults = find(call, volid), call.emulator.faults
    if faults.is_on("archive-damaged") and faults.is_on("archive-damaged", part="header"):
        return {}
    damaged = {"truncated": True} if faults.is_on("archive-damaged") else {}
    return {**(found.archive or {}), **damaged}


def forget(call: Call, volid: str) -> None:
    """Remove a backup and what it holds."""
    volume = call.emulator.volumes.get(volid)
    for name in (volume.archive or {}).get("disks", {}):
        call.emulator.backend.delete_volume(content_of(volid, name))
    del call.emulator.volumes.storage(parse_volid(volid).storage).volumes[volid]
