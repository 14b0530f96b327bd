"""A guest as it was observed, and what of its options waits for its next start. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nixherd.proxmox.answers import Pending, Upid
from nixherd.proxmox.config import VmConfig, hotplug_features, properties
from nixherd.proxmox.steps import Change


@dataclass(frozen=True, slots=True)
class ActualVm:
    """A guest as it was observed. `clone_task` is our clone of it while that still runs.

    `node` is where it was found; `pending` what waits for its next start. `unused` has the sizes in bytes of the
    volumes that are attached nowhere, by their names, None where they are not known.
    """

    config: VmConfig
    running: bool
    clone_task: Upid | None = None
    node: str = ""
    paused: bool = False
    pending: tuple[Pending, ...] = ()
    unused: Mapping[str, int | None] = field(default_factory=dict)

    def waiting(self, key: str) -> Pending | None:
        """What of this option waits for the next start."""
        return next((each for each in self.pending if each.key == key), None)

    def in_force(self, key: str) -> str | None:
        """The option as the guest has it now, whatever waits."""
        row = self.waiting(key)
        return self.config.text(key) if row is None else row.before


# Options that a running VM takes over at once; network cards and SCSI or virtio disks are plugged in and out.
_AT_ONCE = frozenset(("affinity", "cpulimit", "cpuunits", "description", "hookscript", "name", "onboot")) | frozenset(
    ("protection", "shares", "startup", "tags", "vmstatestorage")
)
_PLUGGED = {re.compile(r"net\d+", re.ASCII): "network", re.compile(r"(scsi|virtio)\d+", re.ASCII): "disk"}


def _kind(key: str) -> str | None:
    """What of `hotplug` the option is plugged in by."""
    return next((kind for pattern, kind in _PLUGGED.items() if pattern.fullmatch(key)), None)


def waits(actual: ActualVm, key: str, value: object) -> bool:
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


def is_stuck(actual: ActualVm, row: Pending) -> bool:
    """Whether what waits should have been plugged in or out of the running VM, and was not: that failed."""
    kind = _kind(row.key)
    if not actual.running or kind not in hotplug_features(actual.in_force("hotplug")):
        return False
    return kind == "network" or volume_of(row.before) != volume_of(row.after)


def of_change(actual: ActualVm, change: Change) -> bool:
    return waits(actual, change.key, change.value)


def is_elsewhere(actual: ActualVm, disk: str) -> bool:
    """Whether what the configuration shows as this disk is not what the VM has now: it can only wait, or go."""
    row = actual.waiting(disk)
    return row is not None and volume_of(row.before) != volume_of(row.after)
