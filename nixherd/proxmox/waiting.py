"""What waits for a VM's next start: which options do, which should not, and what may be done to a disk meanwhile."""

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from nixherd.fleet.models import Vm
from nixherd.proxmox.listings import Pending
from nixherd.proxmox.models import hotplug_features, properties
from nixherd.proxmox.steps import Cannot, Change, Note, Reboot, Step

if TYPE_CHECKING:
    from nixherd.proxmox.plan import ActualVm

# Options that a running VM takes over at once; network cards and SCSI or virtio disks are plugged in and out.
_AT_ONCE = frozenset(("affinity", "cpulimit", "cpuunits", "description", "hookscript", "name", "onboot")) | frozenset(
    ("protection", "shares", "startup", "tags", "vmstatestorage")
)
_PLUGGED = {re.compile(r"net\d+", re.ASCII): "network", re.compile(r"(scsi|virtio)\d+", re.ASCII): "disk"}


def _kind(key: str) -> str | None:
    """What of `hotplug` the option is plugged in by."""
    return next((kind for pattern, kind in _PLUGGED.items() if pattern.fullmatch(key)), None)


def waits(actual: "ActualVm", key: str, value: object) -> bool:
    """Whether the VM, while it runs, takes this value of the option up at its next start only (None: that it goes)."""
    if not actual.running or key in _AT_ONCE:
        return False
    if key == "balloon":  # the device itself is neither plugged in nor out
        return (actual.in_force(key) == "0") != (str(value) == "0")
    if actual.in_force(key) == _text(value):
        return False
    kind = _kind(key)
    return kind is None or kind not in hotplug_features(actual.in_force("hotplug"))


def _text(value: object) -> str | None:
    return None if value is None else str(int(value) if isinstance(value, bool) else value)


def volume_of(drive: str | None) -> str | None:
    """The volume in the text of a drive."""
    return None if drive is None else properties(drive, "file").get("file")


def is_stuck(actual: "ActualVm", row: Pending) -> bool:
    """Whether what waits should have been plugged in or out of the running VM, and was not: that failed."""
    kind = _kind(row.key)
    if not actual.running or kind not in hotplug_features(actual.in_force("hotplug")):
        return False
    return kind == "network" or volume_of(row.before) != volume_of(row.after)


def reboot_or_not(
    vm: Vm, node: str, actual: "ActualVm", changed: Collection[str], waits: Collection[str], timeout: int
) -> Iterator[Step]:
    """The reboot for what waits, when those `changed` are set and of them these wait.

    None while something waits that could not be plugged in: the next start may fail by it.
    """
    left = [row for row in actual.pending if row.key not in changed]
    failed = [row.key for row in left if row.after is not None and is_stuck(actual, row)]
    because = tuple(sorted({*waits, *(row.key for row in left if row.key not in failed)}))
    for key in failed:
        yield Cannot(
            *(node, vm.vmid, key),
            "it could not be plugged in while the machine runs and waits for its next start, which may fail by it",
            f"take it back (`qm set {vm.vmid} --revert {key}` on {node}), or reboot when it is right",
        )
    if because and not failed:
        yield Reboot(node, vm.vmid, timeout, because)
    elif because:
        yield Note(node, vm.vmid, f"waits for its next start as well: {', '.join(because)}")


def taken_up(vm: Vm, node: str, actual: "ActualVm", changed: Collection[str]) -> Iterator[Note]:
    """What waits for the start of a VM that is off: options that were set while it ran."""
    names = ", ".join(row.key for row in actual.pending if row.key not in changed)
    if names:
        yield Note(node, vm.vmid, f"waits for its next start: {names}")


def of_change(actual: "ActualVm", change: Change) -> bool:
    return waits(actual, change.key, change.value)


def is_elsewhere(actual: "ActualVm", disk: str) -> bool:
    """Whether what the configuration shows as this disk is not what the VM has now: it can only wait, or go."""
    row = actual.waiting(disk)
    return row is not None and volume_of(row.before) != volume_of(row.after)
