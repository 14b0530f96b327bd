"""Switching guests on and off, and saving their state: snapshots and backups."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nixherd.fleet.models import GuestType
from nixherd.proxmox.answers import VmStatus
from nixherd.proxmox.calls import Guests
from nixherd.proxmox.config import VmConfig, unlike_snapshot
from nixherd.proxmox.route import NODE, Effect, Kind, Parameters, Requests, Route, each, on_guests
from nixherd.proxmox.steps.base import QEMU, Await, Row, Step


def _switch(verb: str, parameters: Parameters | None = None, **rest: Any) -> Requests:
    return on_guests("POST", f"/status/{verb}", Effect.POWER, parameters, **rest)


@dataclass(frozen=True, slots=True)
class Power(Step):
    """A switch of power, which is done when the guest stands where it was meant to."""


@dataclass(frozen=True, slots=True)
class Start(Power):
    """Switch the guest on, also from a suspension to disk."""

    row = Row.START
    requests = _switch("start", trial=True)

    def is_reached(self, status: VmStatus) -> bool:
        return status.running and not status.paused

    def __str__(self) -> str:
        return f"start {self.guest}"


@dataclass(frozen=True, slots=True)
class Stop(Power):
    """Pull the plug."""

    interrupts = True
    requests = _switch("stop", trial=True)

    def is_reached(self, status: VmStatus) -> bool:
        return not status.running

    def __str__(self) -> str:
        return f"stop {self.guest} at once"


@dataclass(frozen=True, slots=True)
class Shutdown(Power):
    """Ask the guest (its agent, else ACPI) to power off; `force`: pull the plug after `timeout` seconds."""

    timeout: int
    force: bool = False
    interrupts = True
    requests = _switch("shutdown", {"timeout": Kind.INTEGER, "forceStop": Kind.BOOLEAN})

    def is_reached(self, status: VmStatus) -> bool:
        return not status.running

    def parameters(self) -> Mapping[str, object]:
        return {"timeout": self.timeout, "forceStop": self.force}

    def __str__(self) -> str:
        then = ", pull the plug then" if self.force else ""
        return f"shut {self.guest} down within {self.timeout} s{then}"


@dataclass(frozen=True, slots=True)
class Reboot(Power):
    """Shut the guest down and start it again; `because` names the options that wait for it."""

    timeout: int
    because: tuple[str, ...] = ()
    interrupts = True
    repeatable = False
    task_types = ("qmreboot", "vzreboot")
    requests = _switch("reboot", {"timeout": Kind.INTEGER})

    def parameters(self) -> Mapping[str, object]:
        return {"timeout": self.timeout}

    def __str__(self) -> str:
        why = f" so that {', '.join(self.because)} take effect" if self.because else ""
        return f"reboot {self.guest}{why}"


@dataclass(frozen=True, slots=True)
class AwaitReboot(Await):
    """The guest is off in the middle of a reboot, and about to be started again: wait for that."""

    what = "reboot"


@dataclass(frozen=True, slots=True)
class Suspend(Power):
    """Pause the guest, or write its memory to disk and switch it off."""

    to_disk: bool = False
    interrupts = True
    requests = _switch("suspend", vm={"todisk": Kind.BOOLEAN})

    def is_reached(self, status: VmStatus) -> bool:
        if self.to_disk:
            return status.lock == "suspended" and not status.running
        return status.running and status.paused

    def parameters(self) -> Mapping[str, object]:
        return {"todisk": True} if self.to_disk else {}

    def __str__(self) -> str:
        return f"suspend {self.guest}{' to disk' if self.to_disk else ''}"


@dataclass(frozen=True, slots=True)
class Resume(Power):
    """Let a paused guest go on."""

    row = Row.START
    requests = _switch("resume")

    def is_reached(self, status: VmStatus) -> bool:
        return status.running and not status.paused

    def __str__(self) -> str:
        return f"resume {self.guest}"


@dataclass(frozen=True, slots=True)
class OfSnapshot(Step):
    """A step that is done to one snapshot."""

    name: str

    def names(self) -> Mapping[str, object]:
        return {"node": self.node, "vmid": self.vmid, "snapname": self.name}

    def seen(self, client: Guests, node: str, config: VmConfig) -> Iterator[str]:
        rows = client.snapshots(node, self.vmid, self.type)
        words = [f"{row.name}{f' (state: {row.state})' if row.state else ''}" for row in rows]
        yield f"its snapshots: {', '.join(words) or 'none'}"


@dataclass(frozen=True, slots=True)
class Snapshot(OfSnapshot):
    """Take a snapshot; `with_memory`: of a running VM, so that going back to it brings it back running."""

    description: str = ""
    with_memory: bool = False
    requests = on_guests(
        *("POST", "/snapshot", Effect.DATA, {"snapname": Kind.NAME, "description": Kind.TEXT}),
        vm={"vmstate": Kind.BOOLEAN},
        required=("snapname",),
    )

    def parameters(self) -> Mapping[str, object]:
        memory = {"vmstate": True} if self.with_memory and self.type is QEMU else {}
        return {"snapname": self.name, "description": self.description or None, **memory}

    def __str__(self) -> str:
        return f"snapshot {self.guest} as {self.name}{' with its memory' if self.with_memory else ''}"


@dataclass(frozen=True, slots=True)
class Rollback(OfSnapshot):
    """Put disks and configuration back; what was done since is lost. Without memory in it the guest is off then.

    `lacks`: disks that it did not have then; `strays`: such as only wait for its next start, which nothing names then.
    """

    lacks: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    interrupts = True
    repeatable = False
    task_types = ("qmrollback", "vzrollback")
    requests = on_guests("POST", "/snapshot/{snapname}/rollback", Effect.DATA)

    def seen(self, client: Guests, node: str, config: VmConfig) -> Iterator[str]:
        then = client.config(node, self.vmid, self.type, snapshot=self.name)
        if then is None:
            return
        differs = unlike_snapshot(config, then)
        other = f"is not that of snapshot {self.name}: {', '.join(differs)}"
        same = f"is that of snapshot {self.name}, which says nothing of what is on its disks"
        yield f"its configuration {other if differs else same}"

    def __str__(self) -> str:
        kept = f"; stays as an unused disk: {', '.join(self.lacks)}" if self.lacks else ""
        if self.strays:
            kept += f"; only waits for its next start, stays on its storage, named by nothing: {', '.join(self.strays)}"
        return f"roll {self.guest} back to {self.name}; what was done since is lost{kept}"


@dataclass(frozen=True, slots=True)
class DeleteSnapshot(OfSnapshot):
    """`memory` is the volume that holds the guest's and goes too; None where there is none."""

    memory: str | None = None
    requests = on_guests("DELETE", "/snapshot/{snapname}", Effect.DESTROY)

    def __str__(self) -> str:
        memory = f" with its memory {self.memory}" if self.memory else ""
        return f"delete snapshot {self.name} of {self.guest}{memory}"


_VZDUMP = Route(
    *("POST", f"{NODE}/vzdump", Effect.DATA),
    {
        **{"vmid": Kind.VMID, "storage": Kind.STORAGE, "remove": Kind.ZERO, "notes-template": Kind.TEXT},
        **each(Kind.NAME, "mode compress"),
        "protected": Kind.BOOLEAN,
    },
    # without `remove` older backups are pruned
    required=("vmid", "storage", "remove"),
)


@dataclass(frozen=True, slots=True)
class Backup(Step):
    """Save the guest. `mode` is snapshot, suspend or stop; no older backup is pruned."""

    storage: str
    mode: str = "snapshot"
    compress: str = "zstd"
    notes: str = ""
    protected: bool = False
    repeatable = False
    task_types = ("vzdump",)
    requests = dict.fromkeys(GuestType, _VZDUMP)

    def parameters(self) -> Mapping[str, object]:
        notes = {"notes-template": self.notes} if self.notes else {}
        rest = {"mode": self.mode, "compress": self.compress, "protected": self.protected or None, **notes}
        return {"vmid": str(self.vmid), "storage": self.storage, "remove": False, **rest}

    @property
    def content(self) -> str:
        return "backup"

    def __str__(self) -> str:
        return f"back {self.guest} up to {self.storage}"
