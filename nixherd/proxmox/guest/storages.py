"""Storages that a guest's volumes are on, or are to go to: there, usable now, with room, able to hold snapshots."""

from collections.abc import Iterator, Mapping, Sequence

from nixherd.base.errors import ApiError, FleetError, Usage
from nixherd.base.names import format_size
from nixherd.fleet.models import GuestType, Vm
from nixherd.proxmox.answers import Storage
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import Drive, VmConfig
from nixherd.proxmox.guest.identity import ActualVm, label
from nixherd.proxmox.steps import AddDisk, Clone, MoveDisk, Resize, Step


def require_places(client: Client, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Return the steps if each storage that they put something on can take it now. Raises as `require_place` does."""
    for node, name, content in dict.fromkeys(place for step in steps for place in step.places()):
        require_place(client, node, name, content)
    return steps


def storage_seen(client: Client, node: str, name: str) -> Storage | None:
    """Return the storage as the node sees it; None if it does not exist or the token may not see it."""
    try:
        return client.storage(node, name)
    except ApiError as error:
        if error.status != 403:
            raise
        return None


def require_place(client: Client, node: str, name: str, content: str) -> Storage:
    """Return the storage if it can take `content` (images, rootdir, backup) on that node now.

    Raise FleetError when the storage does not exist, does not take that, or is away.
    """
    storage = storage_seen(client, node, name)
    if storage is None:
        known = ", ".join(each.name for each in client.storages(node) if content in each.content) or "none"
        raise FleetError(f"{node} has no storage {name}; for {content} it has: {known} (as far as this token may see)")
    if storage.away:
        raise FleetError(f"storage {name} on {node} {storage.away}")
    if content not in storage.content:
        raise FleetError(f"storage {name} on {node} takes no {content}; allow `{content}` there, or name another one")
    return storage


def only_storage(client: Client, node: str, content: str, remedy: str) -> str:
    """Return the only storage of a node that takes this content now. Raise Usage where it is not one."""
    able = [each for each in client.storages(node) if content in each.content]
    fitting = [each.name for each in able if each.away is None]
    if len(fitting) == 1:
        return fitting[0]
    known = f"{', '.join(fitting)} all do" if fitting else f"none does; allow `{content}` for one"
    known += "".join(f"; {each.name} {each.away}" for each in able if each.away)
    what = {"backup": "backups", "import": "images to import"}[content]
    raise Usage(f"which storage of {node} takes {what} is not clear ({known}); {remedy}")


def growth(vm: Vm, steps: Sequence[Step], config: VmConfig) -> dict[str, int]:
    """Return the bytes that the steps may use on each storage; a cloned disk counts whole, with what it grows."""
    sizes: dict[str, int] = {}
    for step in steps:
        match step:
            case Clone():
                name, size = step.storage, vm.disk or 1
            case AddDisk():
                name, size = step.storage, step.size
            case Resize() if step.digest is not None:  # without a digest it was planned on a clone, counted above
                grown = config.drives.get(step.disk)
                name, size = grown.storage if grown else None, step.after - step.before
            case _:
                continue
        if name:
            sizes[name] = sizes.get(name, 0) + size
    return sizes


def findings(
    vm: Vm, node: str, storages: Mapping[str, Storage | None], needed: Mapping[str, int], starts: VmConfig | None
) -> Iterator[str]:
    """Yield a line for each storage of the node that lacks what is `needed` of it, in bytes.

    `starts` is the configuration of a VM that is to be switched on: its disks must exist. A storage that is not among
    `storages` is unknown, and not judged.
    """
    used = [drive.storage for drive in starts.volumes.values()] if starts else []
    for name, size in {**dict.fromkeys(used, 0), **needed}.items():
        if name in storages:
            yield from _place(vm, node, name, storages[name], size)


def template_findings(vmid: int, node: str, storages: Mapping[str, Storage | None]) -> Iterator[str]:
    """Yield the same of the storages that a template is on."""
    for name, storage in storages.items():
        why = "is not there" if storage is None else storage.away
        if why:
            yield f"storage {name} of template {vmid} on {node} {why}"


def _place(vm: Vm, node: str, name: str, storage: Storage | None, needed: int) -> Iterator[str]:
    """Yield what keeps a storage from holding `needed` bytes more of the VM; 0: from being read."""
    if storage is None:
        yield (f"{node} has no storage {name}; correct {vm.attribute}.storage, its `disks` or proxmox.defaultStorage")
    elif storage.away:
        yield f"{vm.attribute} needs storage {name} on {node}, which {storage.away}"
    elif needed and "images" not in storage.content:
        yield f"storage {name} on {node} holds no disk images; allow `images` there, or name another one"
    elif storage.available is not None and storage.available < needed:
        yield (
            f"storage {name} on {node} has {_gib(storage.available)} free, {vm.attribute} needs {_gib(needed)}; "
            "make room, or name another storage"
        )


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 29 else format_size(size)


# Storages that snapshot volumes by themselves; on those of files only qcow2 can, inside of the file. `PVE::Storage`.
_ABLE = frozenset(("zfspool", "zfs", "lvmthin", "rbd", "btrfs"))
_FILES = frozenset(("dir", "nfs", "cifs", "glusterfs", "cephfs"))
_UNABLE = frozenset(("lvm", "iscsi", "iscsidirect"))


def require_can_snapshot(client: Client, vm: Vm, actual: ActualVm) -> None:
    """Refuse (Usage), naming the disks, where the server says that the guest cannot be snapshotted."""
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
    """Refuse (Usage) to move a volume that snapshots name: a server does not delete it then."""
    names = [row.name for row in client.snapshots(step.node, vm.vmid, vm.type)]
    configs = {name: client.snapshot_config(step.node, vm.vmid, name, vm.type) for name in names}
    named = [name for name in names if step.source in (drive.volume for drive in configs[name].volumes.values())]
    if named:
        raise Usage(
            f"{label(vm)}: {step.disk} ({step.source}) is in its snapshots {', '.join(named)}, so that it cannot be "
            "moved and deleted; let it stay as an unused disk (--keep-source), or delete those snapshots first"
        )


def _or_convert(vm: Vm) -> str:
    return ", or make it qcow2" if vm.type is GuestType.QEMU else ""


def _obstacles(volumes: list[Drive], types: Mapping[str, str]) -> Iterator[str]:
    """Yield the volumes that are known to have no snapshots where they are, with the reason."""
    for drive in volumes:
        kind, name = types.get(drive.storage), f"{drive.name} ({drive.volume})"
        if ":" not in drive.volume:
            yield f"{name} is not a volume of a storage"
        elif drive.volume.endswith(".qcow2") or kind is None or kind in _ABLE:
            continue
        elif kind in _FILES:
            yield f"{name} is not a qcow2, which alone has snapshots on {drive.storage} ({kind})"
        elif kind in _UNABLE:
            yield f"{name} is on {drive.storage}, and {kind} has no snapshots"
