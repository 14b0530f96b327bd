"""What a restore over a guest takes, keeps and adds: in words before it, and as read back after it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from nixherd.errors import ApiError, FleetError, Usage
from nixherd.fleet.models import GuestType, Vm
from nixherd.proxmox.belongings import BY_SNAPSHOT_ALONE, Belongings, Part
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VM_DISKS, VmConfig, properties
from nixherd.proxmox.guest.actual import ActualVm
from nixherd.proxmox.guest.archive import Archive
from nixherd.proxmox.guest.identity import label
from nixherd.proxmox.guest.observe import belongings_of, with_storages, would_be_shown
from nixherd.proxmox.steps import Restore

# What an empty guest has: while it is made or after that failed, and what a server writes in the place of an old one.
_OF_EMPTY = frozenset(("digest", "lock", "memory"))
_LEFT_OUT = re.compile(rf"({VM_DISKS}): (\S+)", re.ASCII)
_ANOTHER = "not the volume in the backup"
_NOT_KNOWN = "not known, this token may not look into it while the guest is not there"


def is_empty(config: VmConfig) -> bool:
    """Whether that is no guest, but what a restore that failed, or is at work, has in its place: no disk, no name."""
    return config.values.keys() <= _OF_EMPTY and (config.text("memory") or "128") == "128"


def lost(
    client: Client,
    vm: Vm,
    there: ActualVm | None,
    held: Archive,
    step: Restore,
    discard: tuple[str, ...],
    *,
    begun: bool = False,
    again: bool = False,
) -> Restore:
    """The step, with what it does to the guest that is there beyond what the backup brings back.

    Usage for what would be lost that the backup does not hold and `discard` does not name, unless what is there was
    made by the restore that this run has `begun`; and for a name in `discard` that would not go, unless it may have
    gone by the same restore, done before (`again`).
    """
    lacks = (_NOT_KNOWN,) if held.unread else tuple(_lacking(held))
    if there is None:
        return replace(step, lacks=lacks)
    found = with_storages(client, there.node, vm.vmid, belongings_of(client, vm, there.node))
    lot = _lot(vm, found, held)
    if not again:
        _require_all_go(vm, found, lot, discard)
    if not (again and begun):
        _require_given_up(vm, found, lot, discard)
    stays, goes, strays = (
        tuple(part.shown(found.sizes) for part in parts) for parts in (lot.stays, lot.goes, lot.strays)
    )
    return replace(step, stays=stays, goes=goes, strays=strays, lacks=lacks)


@dataclass(frozen=True, slots=True)
class _Lot:
    """What becomes of a guest's parts: those that stay as unused disks, those that go, and those on their storage that
    nothing names any more. `unsaved` are those that go and that the backup does not hold, in no form.
    """

    stays: tuple[Part, ...] = ()
    goes: tuple[Part, ...] = ()
    strays: tuple[Part, ...] = ()
    unsaved: tuple[Part, ...] = ()


def _lot(vm: Vm, found: Belongings, held: Archive) -> _Lot:
    """After `restore_cleanup_oldconf` of PVE::QemuServer and `destroy_lxc_container` of PVE::LXC.

    A VM's drives go whose names are in the backup, a container's volumes all, but for those that snapshots alone name;
    of a VM that stays, `qm rescan` makes unused disks.
    """
    is_vm = vm.type is GuestType.QEMU
    stays, goes, strays, unsaved = list[Part](), list[Part](), list[Part](), list[Part]()
    for part in found.parts:
        if part.remade or (part.volume is not None and held.names(part.name, part.volume)):
            continue
        if part.unsaved == BY_SNAPSHOT_ALONE:
            (stays if is_vm else strays).append(part)
        elif part.name.startswith("snapshot:"):
            goes.append(part)
            unsaved.append(part)
        elif part.unsaved == "pending" or not held.brings(part.name):
            (stays if is_vm else goes).append(part)
            unsaved += [] if is_vm or held.holds(part.volume) else [part]
        elif held.replaces(part.name, part.volume or ""):
            other = replace(part, unsaved="" if held.holds(part.volume) else _ANOTHER)
            goes.append(other)
            # a restore gives all of a container's volumes other names
            alike = not is_vm and (part.name == "rootfs" or held.is_alike(part.name, found.texts.get(part.name, "")))
            unsaved += [] if alike or not other.unsaved else [other]
    return _Lot(tuple(stays), tuple(goes), tuple(strays), tuple(unsaved))


def _require_all_go(vm: Vm, found: Belongings, lot: _Lot, discard: Iterable[str]) -> None:
    going = [part.name for part in lot.goes]
    for name in discard:
        if name in going:
            continue
        if name in (part.name for part in lot.stays):
            raise Usage(f"--discard {name}: {label(vm)} keeps what a backup lacks, as unused disks; leave it out")
        would = ", ".join(dict.fromkeys(going)) or "nothing"
        what = "would not lose" if name in found.names else "has no"
        raise Usage(f"--discard {name}: {label(vm)} {what} {name}; with a restore over it would go {would}")


def _require_given_up(vm: Vm, found: Belongings, lot: _Lot, discard: Iterable[str]) -> None:
    kept = [part for part in lot.unsaved if part.name not in set(discard)]
    if kept:
        given = " ".join(f"--discard {name}" for name in dict.fromkeys(part.name for part in kept))
        raise Usage(
            f"{label(vm)}: a restore over it destroys what the backup does not hold: {found.shown(kept)}; move that "
            f"away, or say {given}; nothing was done"
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
    lines = [f"{key} {kept(client, vm, now, volume)}" for key, volume in sorted(unused.items())]
    lines += [f"its notes say of a disk that the backup did not hold: {line}" for line in notes]
    named, strays = nameless(client, vm, now.node)
    return found | ({"unnamed": named} if named else {}), lines + strays


def nameless(client: Client, vm: Vm, node: str) -> tuple[list[str], list[str]]:
    """The volumes in the guest's name that nothing names; the same in words, with what cannot be known of them."""
    try:
        stays = with_storages(client, node, vm.vmid, belongings_of(client, vm, node)).stays
    except FleetError as error:
        return [], [f"whether its storages have more in its name is not known: {error}"]
    rest = [each for each in stays if not each.name]
    return [each.what for each in rest if ":" in each.what], list(map(str, rest))


def kept(client: Client, vm: Vm, now: ActualVm, volume: str) -> str:
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
