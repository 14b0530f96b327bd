"""What storages can do with a guest's volumes, as PVE::Storage's plugins say it of each type."""

from collections.abc import Iterable

from lab.api.errors import ApiError
from lab.api.volumes import Volumes, parse_volid

# Storages that snapshot any volume; files are snapshotted inside of themselves, which only qcow2 can.
_SNAPSHOT_ALL = frozenset(("zfspool", "lvmthin", "rbd", "btrfs"))


def can_snapshot(volumes: Volumes, volid: str) -> bool:
    """Can this volume be snapshotted where it is? The base of linked clones never; nor what is not a volume at all."""
    try:
        parsed = parse_volid(volid)
    except ApiError:
        return False  # a path of the node's, or a device
    if parsed.is_base:
        return False
    storage, volume = volumes.storage(parsed.storage), volumes.find(volid)
    if storage.on_files:
        return volume is not None and volume.format == "qcow2"
    return storage.type in _SNAPSHOT_ALL


def all_can_snapshot(volumes: Volumes, volids: Iterable[str]) -> bool:
    return all(can_snapshot(volumes, volid) for volid in volids)
