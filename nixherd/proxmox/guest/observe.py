"""Looking at guests: where one runs, how it stands, and what belongs to it. Only GETs are sent."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from nixherd.base.errors import ApiError, FleetError, NotVisible, Refused
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Vm
from nixherd.proxmox.answers import Interface, Upid, Volume
from nixherd.proxmox.belongings import Belongings, Stay, belongings
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.identity import ActualVm, label, of_another_kind

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client

# It takes a tenth of a second: not for those who need no API.

_MAKING = ("qmcreate", "qmrestore", "vzcreate", "vzrestore")
LOOKS = 3  # how often a guest that is on its way from one node to another is looked for


def template_node(fleet: Fleet) -> str:
    """Return the template's node: its own in the definitions, else the endpoint's."""
    assert fleet.template is not None
    assert fleet.endpoint is not None
    return fleet.template.node or fleet.endpoint.node


def observe_template(client: "Client", fleet: Fleet) -> VmConfig | None:
    """Return the configuration of the declared template; None when none is declared or it does not exist.

    Raise NotVisible when there is a guest under its VMID that the token may not see.
    """
    if fleet.template is None or fleet.endpoint is None:
        return None
    vmid = fleet.template.vmid
    try:
        return client.config(template_node(fleet), vmid)
    except NotVisible as error:
        raise NotVisible(f"template {vmid}", vmid, client.token_id, role="PVETemplateUser") from error


def template_or_why(client: "Client", fleet: Fleet) -> tuple[VmConfig | None, FleetError | None]:
    """Return the same, or why it could not be looked at, which only hinders cloning."""
    try:
        return observe_template(client, fleet), None
    except (NotVisible, ApiError) as error:
        return None, error


def find(client: "Client", fleet: Fleet, vm: Vm) -> tuple[str, VmConfig] | None:
    """Return a guest's node and configuration, wherever in the cluster; None while it does not exist.

    The node of the definitions is asked first: mostly that is the one request. Raises Refused when the VMID is taken by
    a guest of another kind, NotVisible when by one that the token may not see.
    """
    node = fleet.node_of(vm)
    for _ in range(LOOKS):
        try:
            config = client.config(node, vm.vmid, vm.type)
        except NotVisible as error:
            raise _not_visible(client, vm) from error
        if config is not None:
            return node, config
        row = next((row for row in client.resources() if row.vmid == vm.vmid), None)
        if row is None and client.is_free(vm.vmid):
            return None
        if row is not None and (why := of_another_kind(vm, row)):
            raise Refused(why)
        node = row.node if row else node
    raise _not_visible(client, vm)


def _not_visible(client: "Client", vm: Vm) -> NotVisible:
    other = f"; if it is not this fleet's, give {vm.attribute} another VMID in {DEFINITIONS}"
    return NotVisible(label(vm), vm.vmid, client.token_id, other if vm.is_managed else "")


def observe(client: "Client", fleet: Fleet, vm: Vm) -> ActualVm | None:
    """Return the guest as it is now, None while it does not exist. Raises as `find` does.

    One that a task of ours is making comes into its pool, and so to be visible, when it is done.
    """
    try:
        located = find(client, fleet, vm)
    except NotVisible as error:
        making = _in_the_making(client, fleet, vm)
        if making is None:
            raise _left_behind(client, fleet, vm) or error from error
        return making
    if located is None:
        return None
    node, config = located
    status = client.status(node, vm.vmid, vm.type)
    if status is None:
        return None
    task = None
    if config.lock == "clone":
        task = _clone_task(client, node, vm.vmid)
        if task is None:  # it may just have ended, well or not
            now = client.config(node, vm.vmid)
            if now is None:
                return None
            config = now
    pending = client.pending(node, vm.vmid, vm.type)  # also of one that is off: it has not started since
    return ActualVm(config, status.running, task, node, status.paused, pending, _unused(client, node, vm, config))


def _unused(client: "Client", node: str, vm: Vm, config: VmConfig) -> dict[str, int | None]:
    """Return the sizes of the volumes that are attached nowhere, None where the token may not see the storage."""
    sizes: dict[str, int | None] = {}
    for storage in sorted({each.storage for each in config.unused.values()}):
        try:
            rows = client.volumes(node, storage, vmid=vm.vmid)
        except ApiError:
            continue
        sizes |= {row.volid: row.size or None for row in rows}
    return {name: sizes.get(each.volume) for name, each in config.unused.items()}


def interfaces_of(client: "Client", node: str, vm: Vm) -> tuple[Interface, ...]:
    """Return the interfaces of a guest that runs. Raise AgentUnavailable while a VM's agent does not tell."""
    if vm.type is GuestType.LXC:
        return client.container_interfaces(node, vm.vmid)
    return client.agent_interfaces(node, vm.vmid)


def _in_the_making(client: "Client", fleet: Fleet, vm: Vm) -> ActualVm | None:
    """Describe a guest that cannot be seen while a task of our token makes it."""
    node = fleet.node_of(vm)
    for source in dict.fromkeys((node, template_node(fleet) if fleet.template else node)):
        if vm.type is GuestType.QEMU and (task := _clone_task(client, source, vm.vmid)):
            return ActualVm(VmConfig({"lock": "clone"}), running=False, clone_task=task, node=node)
    for running in client.tasks(node, vmid=vm.vmid):
        if running.user == client.token_id and running.type in _MAKING:
            return ActualVm(VmConfig({"lock": "create"}), running=False, node=node)
    return None


def _left_behind(client: "Client", fleet: Fleet, vm: Vm) -> NotVisible | None:
    """Return the error for a guest that our failed task may have left: in no pool, and so unseen."""
    node = fleet.node_of(vm)
    ended = client.tasks(node, vmid=vm.vmid, active=False, limit=10)
    last = next((task for task in ended if task.user == client.token_id and task.type in _MAKING), None)
    if last is None or last.status is None or last.status == "OK" or last.status.startswith("WARNINGS"):
        return None
    tool = "qm" if vm.type is GuestType.QEMU else "pct"
    left = f"; it may be what our {last.type} left when it failed ({last.upid})"
    left += f": if so, on {node}: `{tool} destroy {vm.vmid}`"
    return NotVisible(label(vm), vm.vmid, client.token_id, left)


def _clone_task(client: "Client", node: str, vmid: int) -> Upid | None:
    """Return our running task that makes this VMID; the task itself is named after the template.

    8.4 does not log the new VMID until it has allocated a volume for it, so a log without any comes second.
    """
    named, silent = re.compile(rf"\b(ID {vmid}|(vm|subvol)-{vmid}-.*)\b"), []
    for task in client.tasks(node, type="qmclone"):
        if task.user != client.token_id:
            continue
        log = "\n".join(client.task_log(task.upid))
        if named.search(log):
            return task.upid
        if not re.search(r"with ID \d+|allocated target volume", log):
            silent.append(task.upid)
    return silent[0] if silent else None


def holder(client: "Client", fleet: Fleet, vm: Vm, actual: ActualVm) -> str:
    """Say who holds a guest's lock: its kind, and the task that works on the guest, if one can be seen."""
    node = actual.node or fleet.node_of(vm)
    for task in client.tasks(node):
        # a backup of several guests is named after none of them
        if task.id == str(vm.vmid) or (task.type == "vzdump" and not task.id):
            return f"{label(vm)} is locked ({actual.config.lock}) by task {task.type} of {task.user}: {task.upid}"
    tool = "qm" if vm.type is GuestType.QEMU else "pct"
    return (
        f"{label(vm)} is locked ({actual.config.lock}) and no task that this token may see works on it; "
        f"when nothing does: `{tool} unlock {vm.vmid}` on {node}"
    )


_GUESTS = frozenset(("images", "rootdir"))


def belongings_of(client: "Client", vm: Vm, node: str) -> Belongings:
    """Return what goes with a guest and what stays, by its configuration, pending options and snapshots."""

    def config(snapshot: str | None = None) -> VmConfig:
        current = snapshot is None
        found = client.config(node, vm.vmid, vm.type, current=current, snapshot=snapshot)
        if found is None:
            raise FleetError(f"{label(vm)} went away while it was looked at; look at the task list of {node}")
        return found

    now, pending = config(), client.pending(node, vm.vmid, vm.type)
    snapshots = {row.name: config(row.name) for row in client.snapshots(node, vm.vmid, vm.type)}
    return belongings(vm.type, vm.vmid, now, pending=pending, snapshots=snapshots)


def with_storages(client: "Client", node: str, vmid: int, known: Belongings) -> Belongings:
    """Add what the storages tell: sizes, and volumes in the guest's name that nothing refers to; those stay."""
    rows, unseen = [], []
    for name in (each.name for each in client.storages(node) if each.active and _GUESTS & set(each.content)):
        try:
            rows += [row for row in client.volumes(node, name, vmid=vmid) if row.content in _GUESTS]
        except ApiError as error:
            unseen.append(Stay("", f"what else {name} has of it", f"not visible: {error}"))
    sizes = {row.volid: row.size for row in rows if row.size}
    return replace(known, stays=(*known.stays, *_orphans(known, rows, vmid), *unseen), sizes=sizes)


def _orphans(parts: Belongings, rows: list[Volume], vmid: int) -> Iterator[Stay]:
    known = parts.volumes | {each.what for each in parts.stays}
    for row in rows:
        if row.volid not in known and row.vmid == vmid:
            yield Stay("", row.volid, "in its name, and nothing names it")


def still_there(client: "Client", node: str, vmid: int, known: Belongings) -> frozenset[str]:
    """Return those of these volumes that a storage still shows."""
    now = with_storages(client, node, vmid, Belongings())
    return known.volumes & {each.what for each in now.stays}


def would_be_shown(client: "Client", vmid: int, volume: str) -> bool:
    """Tell whether this token would see a volume in a guest's name; its rights may go with the guest."""
    granted = client.permissions()
    storage = volume.partition(":")[0]
    return granted.allows(f"/storage/{storage}", "Datastore.Allocate") or (
        granted.allows(f"/storage/{storage}", "Datastore.Audit") and granted.allows(f"/vms/{vmid}", "VM.Config.Disk")
    )


def pool_of(client: "Client", vm: Vm) -> str | None:
    """Return the pool that a guest is in; None without one, or where that is not visible."""
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
    """Return the volume that holds the memory in a snapshot; None where it has none."""
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
    """Return the disks that the guest has now and did not have in the snapshot."""
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
