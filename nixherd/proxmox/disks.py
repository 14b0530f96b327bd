"""A VM's declared disks: which are made, which grown, and which can only be spoken of."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nixherd.errors import Refused
from nixherd.fleet.models import Fleet, Vm
from nixherd.fleet.settings import Device
from nixherd.proxmox.differences import grown
from nixherd.proxmox.identity import label
from nixherd.proxmox.models import Drive
from nixherd.proxmox.steps import AddDisk, Cannot, Note, Row, Step
from nixherd.proxmox.waiting import is_elsewhere, waits
from nixherd.sizes import format_size

if TYPE_CHECKING:
    from nixherd.proxmox.plan import ActualVm


def disks(fleet: Fleet, vm: Vm, node: str, actual: "ActualVm") -> Iterator[Step]:
    """The boot disk grown to its declared size, and the further disks made or grown.

    A disk that waits for the next start is not there yet: it is neither made again nor grown.
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
        where, there = f"{vm.attribute}.disks.{device.name}", config.drives.get(device.name)
        assert device.size is not None
        if there is not None and there.size is not None:
            yield from _sized(vm, node, actual, there, device.size, f"{where}.size")
        elif there is None and _goes(actual, device.name):
            yield _detached(vm, node, device.name, where)
        elif there is None:
            yield from _missing(fleet, vm, node, actual, device)
    for name, each in sorted(config.unused.items()):
        yield Note(node, vm.vmid, f"{name} ({_described(actual, name, each.volume)}) is attached nowhere")


def _goes(actual: "ActualVm", disk: str) -> bool:
    row = actual.waiting(disk)
    return row is not None and row.after is None and is_elsewhere(actual, disk)


def _detached(vm: Vm, node: str, disk: str, where: str) -> Cannot:
    return Cannot(
        *(node, vm.vmid, disk),
        f"{label(vm)} loses it at its next start, {where} declares it",
        f"take that back (`qm set {vm.vmid} --revert {disk}` on {node}), or correct the definitions",
        about=Row.RESIZE,
    )


def _sized(vm: Vm, node: str, actual: "ActualVm", disk: Drive, wanted: int, where: str) -> Iterator[Step]:
    assert disk.size is not None
    if disk.size < wanted and is_elsewhere(actual, disk.name):
        yield Cannot(
            *(node, vm.vmid, disk.name),
            f"it waits for the next start of {label(vm)} with {format_size(disk.size)} and cannot be grown to "
            f"{format_size(wanted)} before",
            f"{'reboot' if actual.running else 'start'} it, then run again",
            about=Row.RESIZE,
        )
        return
    template = actual.config.digest is None  # planned on what the clone will be
    yield from grown(vm, node, disk.name, disk.size, wanted, actual.config, where, of_template=template)


def _missing(fleet: Fleet, vm: Vm, node: str, actual: "ActualVm", device: Device) -> Iterator[Step]:
    """A disk that is declared and not there: made, unless it may have been there before and only been detached."""
    assert device.size is not None
    config, size = actual.config, format_size(device.size)
    for name, volume in sorted((name, each.volume) for name, each in config.unused.items()):
        if actual.unused.get(name) in (None, device.size):
            yield Cannot(
                *(node, vm.vmid, device.name),
                f"{label(vm)} lacks it; {name} ({_described(actual, name, volume)}) is attached nowhere and may be it",
                f"attach that (`qm set {vm.vmid} --{device.name} {volume}` on {node}), or make a new one: "
                f"`nixherd vm add-disk {vm.name} {device.name} {size}`",
                about=Row.RESIZE,
            )
            return
    storage = device.storage or fleet.storage_of(vm) or ""
    rest = ",".join(f"{key}={value}" for key, value in device.values.items())
    later = waits(actual, device.name, storage)
    yield AddDisk(node, vm.vmid, device.name, storage, device.size, rest, config.digest, later)


def _described(actual: "ActualVm", name: str, volume: str) -> str:
    size = actual.unused.get(name)
    return f"{volume}, {'of unknown size' if size is None else format_size(size)}"
