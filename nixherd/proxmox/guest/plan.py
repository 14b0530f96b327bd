"""What has to be done to a guest so that it is as declared: a pure function from values to steps.

The steps are what a plan prints and what `apply` carries out: the same objects. Observing again after they were
carried out gives none. A running machine is never interrupted as a side effect: the step that does is a Reboot, which
nobody carries out unless told to.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nixherd.base.errors import FleetError, Refused
from nixherd.base.names import format_size
from nixherd.fleet.models import DEFINITIONS, Device, Fleet, GuestType, Host, Vm
from nixherd.proxmox import steps
from nixherd.proxmox.config import Drive, VmConfig, size_or_none, written
from nixherd.proxmox.guest import identity
from nixherd.proxmox.guest.desired import cloud_init, container_steps, creation, grown, impossible, inheritable, options
from nixherd.proxmox.guest.identity import ActualVm, label, why_not_ours
from nixherd.proxmox.guest.observe import template_node
from nixherd.proxmox.steps import Cannot, Note, Row, Step

SHUTDOWN_SECONDS = 180  # what a guest gets to shut down in before it is started again


@dataclass(frozen=True, slots=True)
class Desired:
    """A managed guest as the definitions want it; `template` is what it is cloned from, None if there is none.

    `unseen` is why the template could not be looked at: an obstacle to cloning alone. `host` says who may log in to
    the clone.
    """

    fleet: Fleet
    vm: Vm
    host: Host
    template: VmConfig | None = None
    unseen: FleetError | None = None


def plan_vm(desired: Desired, actual: ActualVm | None) -> tuple[Step, ...]:
    """Plan the steps that make a managed guest as declared, in order; `actual` is None while it does not exist.

    For a VM that is still to be cloned the later steps are planned on what the clone will be. What cannot be done is a
    Cannot among them, with the reason. Raises Refused when the guest is not ours or not managed; raise FleetError when
    there is nothing to make it from. Whether a readonly guest may have any is for whoever carries them out.
    """
    fleet, vm = desired.fleet, desired.vm
    if not vm.is_managed:
        raise Refused(f"{vm.attribute} in {DEFINITIONS} is documented only; only managed VMs are changed")
    if actual and not in_the_making(fleet, vm, actual) and (why := why_not_ours(fleet, vm, actual.config, actual.node)):
        raise Refused(why)
    return compared(desired, actual)


def compared(desired: Desired, actual: ActualVm | None) -> tuple[Step, ...]:
    """Plan the same, whosever the guest is, to show what differs. Nobody carries these out without `plan_vm`."""
    if desired.vm.type is GuestType.LXC:
        return tuple(_container_steps(desired, actual))
    return tuple(_steps(desired, actual))


def require_changeable(vm: Vm, todo: tuple[Step, ...]) -> None:
    """Refuse steps for a readonly guest."""
    if todo and vm.readonly:
        raise Refused(
            f"{label(vm)} is readonly in {DEFINITIONS}; refusing to {todo[0]} (edit the definitions if it may change)"
        )


def _steps(desired: Desired, actual: ActualVm | None) -> Iterator[Step]:
    fleet, vm = desired.fleet, desired.vm
    if actual is None or in_the_making(fleet, vm, actual):
        if fleet.template is None:
            raise FleetError(f"{vm.attribute}: no template to clone from; declare `template` in {DEFINITIONS}")
        if desired.unseen is not None:
            raise desired.unseen
        if desired.template is None:
            raise FleetError(
                f"template {fleet.template.vmid} does not exist on {template_node(fleet)}; make it, or correct "
                f"template.vmid in {DEFINITIONS}"
            )
        clone = clone_of_template(fleet, vm)
        yield steps.AwaitClone(clone.node, vm.vmid, actual.clone_task) if actual and actual.clone_task else clone
        actual = cloned(clone, desired.template)
    node = actual.node or fleet.node_of(vm)
    yield from _place(fleet, vm, actual)
    changes = tuple(options(fleet, vm, actual.config, desired.template))
    changing = {change.key for change in changes}
    waits = tuple(change.key for change in changes if identity.of_change(actual, change))
    if changes:
        yield steps.Configure(node, vm.vmid, changes, actual.config.digest, waits)
    yield from disks(fleet, vm, node, actual)
    changes = tuple(cloud_init(vm, desired.host, actual.config))
    if changes:
        yield steps.CloudInit(node, vm.vmid, changes, actual.config.digest, running=actual.running)
    yield from impossible(vm, node, actual.config)
    if desired.unseen is not None and (left := inheritable(vm, actual.config)):
        what = f"whether {' and '.join(left)} came from its template is not known: {desired.unseen}"
        yield Note(node, vm.vmid, what)
    if not actual.running:
        yield from taken_up(vm, node, actual, changing)
        yield steps.Start(node, vm.vmid)
    elif actual.paused:
        yield steps.Resume(node, vm.vmid)
    else:
        yield from reboot_or_not(vm, node, actual, changing, waits, SHUTDOWN_SECONDS)


def _container_steps(desired: Desired, actual: ActualVm | None) -> Iterator[Step]:
    fleet, vm = desired.fleet, desired.vm
    if actual is None:
        yield creation(fleet, vm, desired.host)
        return
    yield from _place(fleet, vm, actual)
    yield from container_steps(fleet, vm, actual.node or fleet.node_of(vm), actual.config)
    if not actual.running:
        yield steps.Start(actual.node or fleet.node_of(vm), vm.vmid, type=vm.type)


def _place(fleet: Fleet, vm: Vm, actual: ActualVm) -> Iterator[Step]:
    """Say where a guest should run if it runs elsewhere; it is left to people to move it."""
    if vm.node and actual.node and vm.node != actual.node:
        why = f"it runs on {actual.node}, {vm.attribute}.node says {vm.node}"
        remedy = f"`nixherd vm migrate {vm.name} {vm.node}` moves it, or correct the definitions"
        yield Cannot(actual.node, vm.vmid, "node", why, remedy, type=vm.type)


def in_the_making(fleet: Fleet, vm: Vm, actual: ActualVm) -> bool:
    """Tell whether a task of ours is cloning the VM. Its name and mark may exist before its disk.

    Raise FleetError for an unfinished clone that none of our tasks works on.
    """
    if actual.config.lock != "clone" or vm.type is not GuestType.QEMU:
        return False
    if actual.clone_task is None:  # its lock is beyond what a token may clear
        raise FleetError(
            f"vm {vm.vmid} on {actual.node or fleet.node_of(vm)} is an unfinished clone and no task of ours is at work "
            f"on it; when nobody else's is, remove it on the node: `qm unlock {vm.vmid} && qm destroy {vm.vmid}`, "
            "then run again"
        )
    return True


def clone_of_template(fleet: Fleet, vm: Vm, *, full: bool = True) -> steps.Clone:
    """Return the step that clones the declared template. A linked clone stays on the template's storage."""
    assert fleet.template is not None
    return replace(clone_of(fleet, vm, fleet.template.vmid, template_node(fleet), full=full), is_template=True)


def clone_of(fleet: Fleet, vm: Vm, source: int, node: str, *, full: bool = True) -> steps.Clone:
    """Return the step that clones another VM, which is on this node."""
    notes, storage = identity.marked(fleet, vm, vm.settings.description or ""), fleet.storage_of(vm) if full else None
    copy = (fleet.node_of(vm), vm.vmid, vm.name, source, node, notes, storage, vm.settings.pool)
    return steps.Clone(*copy, full=full, is_template=False)


def cloned(clone: steps.Clone, template: VmConfig) -> ActualVm:
    """Return what the server makes of the template: a copy of its options, without its identity.

    Tags and protection are copied, volumes that are attached nowhere are not.
    """
    gone = ("template", "digest", "lock", "pending", *template.unused)
    values: dict[str, Any] = {key: value for key, value in template.values.items() if key not in gone}
    values |= {"name": clone.name, "description": clone.description}
    return ActualVm(VmConfig(values), running=False)


def disks(fleet: Fleet, vm: Vm, node: str, actual: ActualVm) -> Iterator[Step]:
    """Grow the boot disk to its declared size, and make or grow the further disks.

    A disk that waits for the next start does not exist yet: it is neither made again nor grown.
    """
    config = actual.config
    if vm.disk is not None:
        disk = config.boot_disk
        going = None if disk else next((row.key for row in actual.pending if _goes(actual, row.key)), None)
        if going is not None:
            yield _detached(vm, node, going, f"{vm.attribute}.disk")
        elif disk is None or disk.size is None:
            raise Refused(f"{label(vm)} on {node}: no boot disk with a size; correct its boot order")
        else:
            yield from _sized(vm, node, actual, disk, vm.disk, f"{vm.attribute}.disk")
    for device in vm.settings.disks:
        where, present = f"{vm.attribute}.disks.{device.name}", config.drives.get(device.name)
        assert device.size is not None
        if present is not None and present.size is not None:
            yield from _sized(vm, node, actual, present, device.size, f"{where}.size")
        elif present is None and _goes(actual, device.name):
            yield _detached(vm, node, device.name, where)
        elif present is None:
            yield from _missing(fleet, vm, node, actual, device)
    for name, each in sorted(config.unused.items()):
        yield Note(node, vm.vmid, f"{name} ({_described(actual, name, each.volume)}) is attached nowhere")


def _goes(actual: ActualVm, disk: str) -> bool:
    row = actual.waiting(disk)
    return row is not None and row.after is None and identity.is_elsewhere(actual, disk)


def _detached(vm: Vm, node: str, disk: str, where: str) -> Cannot:
    why = f"{label(vm)} loses it at its next start, {where} declares it"
    remedy = f"take that back (`qm set {vm.vmid} --revert {disk}` on {node}), or correct the definitions"
    return Cannot(node, vm.vmid, disk, why, remedy, of_row=Row.RESIZE)


def _sized(vm: Vm, node: str, actual: ActualVm, disk: Drive, target: int, where: str) -> Iterator[Step]:
    assert disk.size is not None
    if disk.size < target and identity.is_elsewhere(actual, disk.name):
        sizes = f"with {format_size(disk.size)} and cannot be grown to {format_size(target)} before"
        why = f"it waits for the next start of {label(vm)} {sizes}"
        remedy = f"{'reboot' if actual.running else 'start'} it, then run again"
        yield Cannot(node, vm.vmid, disk.name, why, remedy, of_row=Row.RESIZE)
        return
    template = actual.config.digest is None  # planned on what the clone will be
    yield from grown(vm, node, disk.name, disk.size, target, actual.config, where, of_template=template)


def _missing(fleet: Fleet, vm: Vm, node: str, actual: ActualVm, device: Device) -> Iterator[Step]:
    """Make a declared disk that is missing, unless an unused one may be it, only detached."""
    assert device.size is not None
    config, size = actual.config, format_size(device.size)
    for name, volume in sorted((name, each.volume) for name, each in config.unused.items()):
        if actual.unused.get(name) in (None, device.size):
            what = f"{name} ({_described(actual, name, volume)})"
            new = f"`nixherd vm add-disk {vm.name} {device.name} {size}`"
            why = f"{label(vm)} lacks it; {what} is attached nowhere and may be it"
            remedy = f"attach that (`qm set {vm.vmid} --{device.name} {volume}` on {node}), or make a new one: {new}"
            yield Cannot(node, vm.vmid, device.name, why, remedy, of_row=Row.RESIZE)
            return
    storage = device.storage or fleet.storage_of(vm) or ""
    later = identity.waits(actual, device.name, storage)
    yield steps.AddDisk(node, vm.vmid, device.name, storage, device.size, written(device.values), config.digest, later)


def _described(actual: ActualVm, name: str, volume: str) -> str:
    size = actual.unused.get(name)
    return f"{volume}, {'of unknown size' if size is None else format_size(size)}"


def drift(vm: Vm, node: str, actual: ActualVm | None) -> tuple[Step, ...]:
    """Return the differences between an imported guest's `specs` and reality, as far as they can be compared.

    `specs` are free in form: a number of cores or MiB and a size are compared, "passthrough" is not.
    """
    if actual is None:
        why = f"documented as {vm.attribute}, not there"
        return (Cannot(node, vm.vmid, vm.name, why, "correct that", type=vm.type),)
    return tuple(steps.Drift(actual.node, vm.vmid, *pair, type=vm.type) for pair in _pairs(vm, actual))


def _pairs(vm: Vm, actual: ActualVm) -> Iterator[tuple[str, str, str]]:
    specs, config = vm.specs, actual.config
    documents = specs if isinstance(specs, Mapping) else {}
    numbers = {"cores": config.cores * config.sockets, "memory": config.memory}
    for key, number in numbers.items():
        documented = documents.get(key)
        if isinstance(documented, int) and not isinstance(documented, bool) and number != documented:
            yield key, str(documented), "unknown" if number is None else str(number)
    disk = config.root or config.boot_disk
    documented = documents.get("disk")
    size = size_or_none(documented) if isinstance(documented, str) else None
    if size is not None and disk is not None and disk.size is not None and disk.size != size:
        yield "disk", format_size(size), format_size(disk.size)
    storage = documents.get("storage")
    if isinstance(storage, str) and disk is not None and disk.storage != storage:
        yield "storage", storage, disk.storage
    status, running = vm.status, "running" if actual.running else "stopped"
    if status in ("running", "stopped") and status != running:
        yield "status", str(status), running


def reboot_or_not(
    vm: Vm, node: str, actual: ActualVm, changed: Collection[str], waits: Collection[str], timeout: int
) -> Iterator[Step]:
    """Return the reboot for what waits: of those `changed` now these wait, and others did before.

    No reboot while something waits that could not be plugged in: the next start may fail by it.
    """
    left = [row for row in actual.pending if row.key not in changed]
    failed = [row.key for row in left if row.after is not None and identity.is_stuck(actual, row)]
    because = tuple(sorted({*waits, *(row.key for row in left if row.key not in failed)}))
    for key in failed:
        yield Cannot(
            *(node, vm.vmid, key),
            "it could not be plugged in while the machine runs and waits for its next start, which may fail by it",
            f"take it back (`qm set {vm.vmid} --revert {key}` on {node}), or reboot when it is right",
        )
    if because and not failed:
        yield steps.Reboot(node, vm.vmid, timeout, because)
    elif because:
        yield Note(node, vm.vmid, f"waits for its next start as well: {', '.join(because)}")


def taken_up(vm: Vm, node: str, actual: ActualVm, changed: Collection[str]) -> Iterator[Note]:
    """Note what a VM that is off takes up at its start: options that were set while it ran."""
    names = ", ".join(row.key for row in actual.pending if row.key not in changed)
    if names:
        yield Note(node, vm.vmid, f"waits for its next start: {names}")
