"""Looking at what belongs to a guest: its volumes, its snapshots, its pool. Only GETs are sent."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from nixherd.errors import ApiError, FleetError
from nixherd.fleet.models import Vm
from nixherd.proxmox.identity import label
from nixherd.proxmox.listings import Volume
from nixherd.proxmox.models import VmConfig
from nixherd.proxmox.plan import ActualVm
from nixherd.proxmox.volumes import Belongings, Stay, belongings

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client

_GUESTS = frozenset(("images", "rootdir"))


def belongings_of(client: "Client", vm: Vm, node: str) -> Belongings:
    """What goes with a guest and what stays, as its configuration, what is pending, and its snapshots say now."""

    def config(snapshot: str | None = None) -> VmConfig:
        current = snapshot is None
        found = client.config(node, vm.vmid, vm.type, current=current, snapshot=snapshot)
        if found is None:
            raise FleetError(f"{label(vm)} went away while it was looked at; look at the task list of {node}")
        return found

    now, pending = config(), client.pending(node, vm.vmid, vm.type)
    snapshots = {row.name: config(row.name) for row in client.snapshots(node, vm.vmid, vm.type)}
    return belongings(vm.type, vm.vmid, now, pending=pending, snapshots=snapshots)


def with_storages(client: "Client", node: str, vmid: int, found: Belongings) -> Belongings:
    """With what the storages tell: sizes, and volumes in the guest's name that nothing names; those stay."""
    rows, unseen = [], []
    for name in _storages(client, node):
        try:
            rows += [row for row in client.volumes(node, name, vmid=vmid) if row.content in _GUESTS]
        except ApiError as error:
            unseen.append(Stay("", f"what else {name} has of it", f"not visible: {error}"))
    return replace(found, stays=(*found.stays, *_orphans(found, rows, vmid), *unseen), sizes=_sizes(rows))


def _storages(client: "Client", node: str) -> tuple[str, ...]:
    """Those with guests' volumes that can be looked at now."""
    return tuple(each.name for each in client.storages(node) if each.active and _GUESTS & set(each.content))


def _orphans(found: Belongings, rows: list[Volume], vmid: int) -> Iterator[Stay]:
    known = found.volumes | {each.what for each in found.stays}
    for row in rows:
        if row.volid not in known and row.vmid == vmid:
            yield Stay("", row.volid, "in its name, and nothing names it")


def _sizes(rows: list[Volume]) -> dict[str, int]:
    return {row.volid: row.size for row in rows if row.size}


def still_there(client: "Client", node: str, vmid: int, found: Belongings) -> frozenset[str]:
    """Of these volumes, those that a storage still shows."""
    now = with_storages(client, node, vmid, Belongings())
    return found.volumes & {each.what for each in now.stays}


def would_be_shown(client: "Client", vmid: int, volume: str) -> bool:
    """Whether this token is shown a volume in a guest's name, where there is one: its rights may go with the guest."""
    granted = client.permissions()
    storage = volume.partition(":")[0]
    return granted.allows(f"/storage/{storage}", "Datastore.Allocate") or (
        granted.allows(f"/storage/{storage}", "Datastore.Audit") and granted.allows(f"/vms/{vmid}", "VM.Config.Disk")
    )


def pool_of(client: "Client", vm: Vm) -> str | None:
    """The pool whose member a guest is; None where it has none, or that is not visible."""
    row = next((row for row in client.resources() if row.vmid == vm.vmid), None)
    if row is not None and row.pool:
        return row.pool
    declared = vm.settings.pool
    if declared is None:
        return None
    try:
        return declared if vm.vmid in client.pool_members(declared) else None
    except ApiError:
        return None


# What a snapshot has


def memory_of(client: "Client", vm: Vm, node: str, snapshot: str) -> str | None:
    """The volume that holds the memory in a snapshot; None where it has none."""
    config = client.config(node, vm.vmid, vm.type, snapshot=snapshot)
    return config.text("vmstate") if config else None


class Lacking(NamedTuple):
    """The guest's disks that a snapshot of it does not have, in words.

    Going back to it, those `attached` stay as unused ones; those that are only `waiting` for the next start stay on
    their storage too, and nothing names them any more.
    """

    attached: tuple[str, ...]
    waiting: tuple[str, ...]


def lacking(client: "Client", vm: Vm, actual: ActualVm, snapshot: str) -> Lacking:
    """What becomes of the disks that the guest has now and did not have in the snapshot."""
    then = client.config(actual.node, vm.vmid, vm.type, snapshot=snapshot)
    now = client.config(actual.node, vm.vmid, vm.type, current=True) or actual.config
    named = belongings(vm.type, vm.vmid, then).volumes if then else frozenset[str]()
    rows = client.pending(actual.node, vm.vmid, vm.type)
    parts = [
        part
        for part in belongings(vm.type, vm.vmid, now, pending=rows).parts
        if part.volume and part.volume not in named and not part.remade and not part.name.startswith("unused")
    ]
    return Lacking(
        tuple(f"{part.name} {part.volume}" for part in parts if part.unsaved != "pending"),
        tuple(f"{part.name} {part.volume}" for part in parts if part.unsaved == "pending"),
    )
