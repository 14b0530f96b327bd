"""Whether the storages that a VM's steps need are there, can be used now, and have room. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from nixherd.fleet.models import Vm
from nixherd.proxmox.models import Storage, VmConfig
from nixherd.proxmox.policy import DEFINITIONS
from nixherd.proxmox.steps import AddDisk, Clone, Resize, Step
from nixherd.sizes import format_size


def growth(vm: Vm, steps: Sequence[Step], config: VmConfig) -> dict[str, int]:
    """Bytes that the steps may come to use on each storage. A clone of a disk is counted whole, with what it grows."""
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
    """A line for each storage of the node that lacks what is `needed` of it, in bytes.

    `starts` is the configuration of a VM that is to be switched on: what it has must be there. A storage that is not
    among `storages` is not known, and not judged.
    """
    used = [drive.storage for drive in starts.volumes.values()] if starts else []
    for name, size in {**dict.fromkeys(used, 0), **needed}.items():
        if name in storages:
            yield from _place(vm, node, name, storages[name], size)


def template_findings(vmid: int, node: str, storages: Mapping[str, Storage | None]) -> Iterator[str]:
    """The same of the storages that a template is on."""
    for name, storage in storages.items():
        why = "is not there" if storage is None else storage.away
        if why:
            yield f"storage {name} of template {vmid} on {node} {why}"


def _place(vm: Vm, node: str, name: str, storage: Storage | None, needed: int) -> Iterator[str]:
    """What keeps a storage from holding `needed` bytes more of the VM; 0: from being read."""
    if storage is None:
        yield (
            f"{node} has no storage {name}; correct {vm.attribute}.storage, its `disks` or proxmox.defaultStorage "
            f"in {DEFINITIONS}"
        )
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
