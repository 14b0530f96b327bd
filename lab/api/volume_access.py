"""Who may read, attach and remove which volume: what a volume is and whose it is decides."""

from typing import TYPE_CHECKING

from lab.api import drives
from lab.api.errors import ApiError
from lab.api.volumes import parse_volid

if TYPE_CHECKING:
    from lab.api.routes import Call

_FOLDERS = ("backup", "import", "iso", "snippets", "vztmpl")
_ROOT_ONLY = "Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 651."


def kind_of(volid: str) -> str:
    """What a volume is, by its name: a folder of a storage's files, or `images`."""
    folder, separator, _ = parse_volid(volid).name.partition("/")
    return folder if separator and folder in _FOLDERS else "images"


def require_readable(call: "Call", volid: str, vmid: int | None = None) -> None:
    """PermissionDenied or ApiError if the user may not read the volume on behalf of guest `vmid` (None: of no guest).

    Whoever may allocate on the storage may read all of it. Else images are for who may change their owner's disks,
    backups for who may back their owner up.
    """
    if ":" not in volid:
        if not call.user.is_root:
            raise ApiError(_ROOT_ONLY)
        return
    parsed, permissions = parse_volid(volid), call.emulator.permissions
    call.emulator.volumes.storage(parsed.storage)
    path, kind = f"/storage/{parsed.storage}", kind_of(volid)
    if permissions.allowed(call.user, path, ["Datastore.Allocate"]):
        return
    if kind in ("iso", "vztmpl", "import"):
        permissions.require(call.user, path, ["Datastore.AllocateSpace", "Datastore.Audit"], any_of=True)
    elif parsed.vmid is not None and parsed.vmid == vmid:
        return
    elif kind == "backup" and parsed.vmid is not None:
        permissions.require(call.user, path, ["Datastore.AllocateSpace"])
        permissions.require(call.user, f"/vms/{parsed.vmid}", ["VM.Backup"])
    elif kind == "images" and parsed.vmid is not None:
        permissions.require(call.user, path, ["Datastore.Audit"])
        permissions.require(call.user, f"/vms/{parsed.vmid}", ["VM.Config.Disk"])
    else:
        raise ApiError(f"missing privileges to access {volid}")


def is_readable(call: "Call", volid: str) -> bool:
    """Is the volume in a list that the user asks for?"""
    try:
        require_readable(call, volid)
    except ApiError:
        return False
    return True


def require_removable(call: "Call", volid: str) -> None:
    """PermissionDenied if the user may not remove the volume: a backup like its owner's, all else like the storage."""
    parsed, permissions = parse_volid(volid), call.emulator.permissions
    call.emulator.volumes.storage(parsed.storage)
    if kind_of(volid) == "backup" and parsed.vmid is not None:
        permissions.require(call.user, f"/storage/{parsed.storage}", ["Datastore.AllocateSpace"])
        permissions.require(call.user, f"/vms/{parsed.vmid}", ["VM.Backup"])
    else:
        permissions.require(call.user, f"/storage/{parsed.storage}", ["Datastore.Allocate"])


def require_source(call: "Call", source: str, vmid: int) -> None:
    """The same for what a new disk is to be a copy of: a guest's disk is cloned."""
    owner = parse_volid(source).vmid if ":" in source and kind_of(source) == "images" else None
    if owner is None:
        require_readable(call, source, vmid)
    elif not call.user.is_root:
        call.emulator.permissions.require(call.user, f"/vms/{owner}", ["VM.Clone"])


def require_drive(call: "Call", vmid: int, drive: drives.Drive) -> None:
    """The privileges on a guest that putting a drive there, or taking one away, needs by what the drive is."""
    if call.user.is_root:
        return
    privileges = ["VM.Config.Disk"]
    if drives.is_cloudinit(drive):
        privileges = ["VM.Config.Cloudinit", "VM.Config.CDROM"]
    elif drives.is_cdrom(drive):
        privileges = ["VM.Config.CDROM"]
    call.emulator.permissions.require(call.user, f"/vms/{vmid}", privileges)
