"""Snapshots and backups of guests."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nixherd.fleet.models import GuestType
from nixherd.proxmox.calls.guests import Guests
from nixherd.proxmox.config import VmConfig, unlike_snapshot
from nixherd.proxmox.route import NODE, Effect, Kind, Route, each, on_guests
from nixherd.proxmox.steps.base import QEMU, Step


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
    requests = on_guests("POST", "/snapshot/{snapname}/rollback", Effect.DATA, {"start": Kind.BOOLEAN})

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
        **{"vmid": Kind.VMIDS, "storage": Kind.STORAGE, "remove": Kind.ZERO, "notes-template": Kind.TEXT},
        **each(Kind.NAME, "mode compress"),
        **each(Kind.INTEGER, "zstd bwlimit"),
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

    def places(self) -> Iterator[tuple[str, str, str]]:
        yield self.node, self.storage, "backup"

    def __str__(self) -> str:
        return f"back {self.guest} up to {self.storage}"
