"""What a restore over a guest takes, keeps and adds: in words before it, and as read back after it."""

import re
from collections.abc import Iterable
from dataclasses import replace

from nixherd.errors import ApiError, Usage
from nixherd.models import GuestType, Vm
from nixherd.proxmox.archive import Archive
from nixherd.proxmox.client import Client
from nixherd.proxmox.identity import label
from nixherd.proxmox.models import VM_DISKS, VmConfig, properties
from nixherd.proxmox.plan import ActualVm
from nixherd.proxmox.steps import Restore
from nixherd.proxmox.survey import would_be_shown
from nixherd.proxmox.volumes import Part, belongings

# What an empty guest has: while it is made or after that failed, and what a server writes in the place of an old one.
_OF_EMPTY = frozenset(("digest", "lock", "memory"))
_LEFT_OUT = re.compile(rf"({VM_DISKS}): (\S+)", re.ASCII)
_ANOTHER = "not the volume in the backup"
_NOT_KNOWN = "not known, this token may not look into it while the guest is not there"


def is_empty(config: VmConfig) -> bool:
    """Whether that is no guest, but what a restore that failed, or is at work, has in its place: no disk, no name."""
    return config.values.keys() <= _OF_EMPTY and (config.text("memory") or "128") == "128"


def lost(
    client: Client, vm: Vm, there: ActualVm | None, held: Archive, step: Restore, discard: Iterable[str]
) -> Restore:
    """The step, with what it does to the guest that is there beyond what the backup brings back.

    Usage where it would lose a container's volumes that were not given up by name.
    """
    lacks = (_NOT_KNOWN,) if held.unread else tuple(_lacking(held))
    if there is None:
        return replace(step, lacks=lacks)
    current = client.config(there.node, vm.vmid, vm.type, current=True) or there.config
    rows = client.pending(there.node, vm.vmid, vm.type)
    found = belongings(vm.type, vm.vmid, current, pending=rows)
    rest, replaced = list[Part](), list[Part]()
    for part in found.parts:
        if part.volume is None or part.remade or held.names(part.name, part.volume):
            continue
        if part.unsaved == "pending" or not held.brings(part.name):
            rest.append(part)
        elif held.replaces(part.name, part.volume):
            replaced.append(replace(part, unsaved=_ANOTHER))
    snapshots = tuple(f"snapshot {row.name}" for row in client.snapshots(there.node, vm.vmid, vm.type))
    words, others = (tuple(part.shown(found.sizes) for part in parts) for parts in (rest, replaced))
    if vm.type is GuestType.QEMU:
        return replace(step, stays=words, goes=(*others, *snapshots), lacks=lacks)
    alike = ("rootfs", *(name for name, value in current.values.items() if held.is_alike(name, str(value))))
    _require_given_up(vm, [*rest, *(part for part in replaced if part.name not in alike)], discard)
    return replace(step, goes=(*words, *others, *snapshots), lacks=lacks)


def _require_given_up(vm: Vm, rest: Iterable[Part], discard: Iterable[str]) -> None:
    kept = [part for part in rest if part.name not in set(discard)]
    if kept:
        names = ", ".join(part.shown({}) for part in kept)
        given = " ".join(f"--discard {part.name}" for part in kept)
        raise Usage(
            f"{label(vm)}: a restore over it destroys what the backup does not hold: {names}; move that away, or say "
            f"{given}; nothing was done"
        )


def _lacking(held: Archive) -> Iterable[str]:
    """The disks of the backup's own configuration that it does not hold, and what becomes of them."""
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
    """What the guest keeps that the backup lacked, as it and its storages say now: for JSON, and for people."""
    config = now.config
    unused = {key: str(value) for key, value in config.values.items() if re.fullmatch(r"unused\d+", key)}
    notes = [line for line in config.description.splitlines() if _LEFT_OUT.fullmatch(line.strip())]
    found: dict[str, object] = {"unused": unused, "notes": notes} if unused or notes else {}
    lines = [f"{key} {_kept(client, vm, now, volume)}" for key, volume in sorted(unused.items())]
    return found, lines + [f"its notes say of a disk that the backup did not hold: {line}" for line in notes]


def _kept(client: Client, vm: Vm, now: ActualVm, volume: str) -> str:
    """What a storage says of a volume that is an unused disk now."""
    try:
        rows = client.volumes(now.node, volume.partition(":")[0], vmid=vm.vmid)
    except ApiError as error:
        return f"names {volume}; whether that is there is not visible: {error}"
    if any(row.volid == volume for row in rows):
        return f"keeps {volume}, which is in no disk of it now"
    if would_be_shown(client, vm.vmid, volume):
        return f"names {volume}, which is not there (any more)"
    return f"names {volume}; whether that is there is not visible to this token"
