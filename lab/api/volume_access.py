"""Who may read, attach and remove a volume: depends on its kind and its owner."""

from typing import TYPE_CHECKING

from lab.api import drives
from lab.api.errors import ApiError
from lab.api.volumes import parse_volid

if TYPE_CHECKING:
    from lab.api.routes import Call

_FOLDERS = ("backup", "import", "iso", "snippets", "vztmpl")
_ROOT_ONLY = "Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 651."


def kind_of(volid: str) -> str:
    """Return the kind of a volume from its name: the directory on a file storage, or `images`."""
    folder, separator, _ = parse_volid(volid).name.partition("/")
    return folder if separator and folder in _FOLDERS else "images"


def require_readable(call: "Call", volid: str, vmid: int | None = None) -> None:
    """Raise PermissionDenied or ApiError if the user may not read the volume for guest `vmid` (None: for no guest).

    The right to allocate on the storage covers all its volumes. Otherwise images require the right to change their
    owner's disks, and backups the right to back up their owner.
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
    """Return whether the volume is in the list that the user requests."""
    try:
        require_readable(call, volid)
    except ApiError:
        return False
    return True


def require_removable(call: "Call", volid: str) -> None:
    """Raise PermissionDenied if the user may not remove the volume: backups like their owner's, others like the
    storage.
    """
    parsed, permissions = parse_volid(volid), call.emulator.permissions
    call.emulator.volumes.storage(parsed.storage)
    if kind_of(volid) == "backup" and parsed.vmid is not None:
        permissions.require(call.user, f"/storage/{parsed.storage}", ["Datastore.AllocateSpace"])
        permissions.require(call.user, f"/vms/{parsed.vmid}", ["VM.Backup"])
    else:
        permissions.require(call.user, f"/storage/{parsed.storage}", ["Datastore.Allocate"])


def require_source(call: "Call", source: str, vmid: int) -> None:
    """Check the source of a new disk like require_readable; another guest's disk needs the right to clone."""
    owner = parse_volid(source).vmid if ":" in source and kind_of(source) == "images" else None
    if owner is None:
        require_readable(call, source, vmid)
    elif not call.user.is_root:
        call.emulator.permissions.require(call.user, f"/vms/{owner}", ["VM.Clone"])


def require_drive(call: "Call", vmid: int, drive: drives.Drive) -> None:
    """Require the guest privileges for adding or removing a drive, by its kind."""
    if call.user.is_root:
        return
    privileges = ["VM.Config.Disk"]
    if drives.is_cloudinit(drive):
        privileges = ["VM.Config.Cloudinit", "VM.Config.CDROM"]
    elif drives.is_cdrom(drive):
        privileges = ["VM.Config.CDROM"]
    call.emulator.permissions.require(call.user, f"/vms/{vmid}", privileges)
