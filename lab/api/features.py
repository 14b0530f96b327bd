"""What storages can do with a guest's volumes, after the storage types of PVE::Storage."""

from collections.abc import Iterable

from lab.api.errors import ApiError
from lab.api.volumes import Volumes, parse_volid

# Storages that snapshot any volume; on file storages only qcow2 supports it.
_SNAPSHOT_ALL = frozenset(("zfspool", "lvmthin", "rbd", "btrfs"))


def can_snapshot(volumes: Volumes, volid: str) -> bool:
    """Return whether this volume can be snapshotted. Bases of linked clones and non-volumes cannot."""
    try:
        parsed = parse_volid(volid)
    except ApiError:
        return False  # a path on the node, or a device
    if parsed.is_base:
        return False
    storage, volume = volumes.storage(parsed.storage), volumes.find(volid)
    if storage.on_files:
        return volume is not None and volume.format == "qcow2"
    return storage.type in _SNAPSHOT_ALL


def all_can_snapshot(volumes: Volumes, volids: Iterable[str]) -> bool:
    return all(can_snapshot(volumes, volid) for volid in volids)
