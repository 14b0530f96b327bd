"""Whether a guest can be snapshotted where its disks are, and which of them stand in the way."""

from collections.abc import Iterator, Mapping

from nixherd.errors import Usage
from nixherd.fleet.models import GuestType, Vm
from nixherd.proxmox.client import Client
from nixherd.proxmox.identity import label
from nixherd.proxmox.models import Drive
from nixherd.proxmox.plan import ActualVm
from nixherd.proxmox.steps import MoveDisk

# Storages that snapshot volumes by themselves; on those of files only qcow2 can, inside of the file. `PVE::Storage`.
_ABLE = frozenset(("zfspool", "zfs", "lvmthin", "rbd", "btrfs"))
_FILES = frozenset(("dir", "nfs", "cifs", "glusterfs", "cephfs"))
_UNABLE = frozenset(("lvm", "iscsi", "iscsidirect"))


def require_can_snapshot(client: Client, vm: Vm, actual: ActualVm) -> None:
    """Usage, naming the disks, where the server says that no snapshot of the guest can be taken."""
    if client.can_snapshot(actual.node, vm.vmid, vm.type):
        return
    types = {each.name: each.type for each in client.storages(actual.node)}
    volumes = [drive for drive in actual.config.disks.values() if not drive.cdrom]
    obstacles = list(_obstacles(volumes, types))
    if not obstacles:  # on storages that the token may not see, or of a kind that is not known here
        where = ", ".join(f"{drive.name} ({drive.volume})" for drive in volumes) or "none"
        obstacles = [f"one of its volumes is where none can be taken: {where}"]
    tool = "qm disk move" if vm.type is GuestType.QEMU else "pct move-volume"
    raise Usage(
        f"{label(vm)} cannot be snapshotted: {'; '.join(obstacles)}; move it to a storage that can, such as zfspool or "
        f"lvmthin{_or_convert(vm)} (`{tool} {vm.vmid} …` on {actual.node})"
    )


def require_in_no_snapshot(client: Client, vm: Vm, step: MoveDisk) -> None:
    """Usage where snapshots of the guest name the volume that is moved: a server does not delete it then."""
    rows = client.snapshots(step.node, vm.vmid, vm.type)
    named = [
        row.name
        for row in rows
        if any(
            drive.volume == step.source
            for drive in client.snapshot_config(step.node, vm.vmid, row.name, vm.type).volumes.values()
        )
    ]
    if named:
        raise Usage(
            f"{label(vm)}: {step.disk} ({step.source}) is in its snapshots {', '.join(named)}, so that it cannot be "
            "moved and deleted; let it stay as an unused disk (--keep-source), or delete those snapshots first"
        )


def _or_convert(vm: Vm) -> str:
    return ", or make it qcow2" if vm.type is GuestType.QEMU else ""


def _obstacles(volumes: list[Drive], types: Mapping[str, str]) -> Iterator[str]:
    """The volumes that are known to have no snapshots where they are, and why."""
    for drive in volumes:
        kind, name = types.get(drive.storage), f"{drive.name} ({drive.volume})"
        if ":" not in drive.volume:
            yield f"{name} is no volume of a storage"
        elif drive.volume.endswith(".qcow2") or kind is None or kind in _ABLE:
            continue
        elif kind in _FILES:
            yield f"{name} is no qcow2, which alone has snapshots on {drive.storage} ({kind})"
        elif kind in _UNABLE:
            yield f"{name} is on {drive.storage}, and {kind} has no snapshots"
