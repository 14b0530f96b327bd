"""What becomes of the guests of a host that leaves the fleet: destroyed, left alone, or not there at all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from nixherd.errors import FAILURES, FleetError, Refused, Usage
from nixherd.faults import worded
from nixherd.fleet.models import Fleet, Vm
from nixherd.proxmox.client import Client
from nixherd.proxmox.errors import NotVisible
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.identity import label, require_may_change
from nixherd.proxmox.guest.observe import observe
from nixherd.proxmox.guest.tasks import Progress
from nixherd.proxmox.steps import Outcome


class Fate(StrEnum):
    DESTROYED = "destroyed"
    KEPT = "kept"
    ABSENT = "absent"


@dataclass(frozen=True)
class Parting:
    """What is to become of one guest, or has. `action` destroys it, by `steps`.

    `backups` are those that are seen of it then, None where nobody could look or nobody was asked.
    """

    vm: Vm
    fate: Fate
    action: DestroyGuest | None = None
    steps: tuple[str, ...] = ()
    backups: tuple[str, ...] | None = None

    def run(self, client: Client, fleet: Fleet, timeout: float, progress: Progress) -> "Parting":
        """Destroy it where that was asked for. What is known of it then."""
        if self.action is None:
            return self
        done = self.action.run(client, fleet, self.vm, timeout=timeout, progress=progress)
        backup = done.found.get("backup") if isinstance(done, Outcome) else None
        seen = (str(backup),) if backup else _backups(client, fleet, self.vm)
        return replace(self, steps=tuple(map(str, done)), backups=seen)

    def __str__(self) -> str:
        match self.fate:
            case Fate.KEPT:
                return f"{label(self.vm)} is left alone and was not looked at; nixherd changes it no more"
            case Fate.ABSENT:
                return f"{label(self.vm)} is not there{self._saved()}"
        return f"{label(self.vm)} is destroyed{self._saved()}"

    def _saved(self) -> str:
        if self.backups is None:
            return "; whether there are backups of it is not known"
        return f"; backup: {', '.join(self.backups)}" if self.backups else "; there is no backup of it to be seen"


def partings(
    client: Callable[[], Client], fleet: Fleet, guests: Sequence[Vm], destroy: DestroyGuest | None, *, keep: bool
) -> list[Parting]:
    """What is to become of each, as it was asked for. `destroy` has the VMID that was named; its name is the guest's.

    Usage where nobody said what is to become of one that is there; Refused where it must not go; FleetError where
    nobody knows whether it is there.
    """
    if keep:
        return [Parting(vm, Fate.KEPT) for vm in guests]
    if destroy and destroy.vmid not in [vm.vmid for vm in guests]:
        there = ", ".join(map(label, guests)) or "no guest"
        raise Usage(f"--destroy {destroy.vmid}: the host has {there} in vms/definitions.nix, name that VMID")
    return [_parting(client, fleet, vm, destroy if destroy and destroy.vmid == vm.vmid else None) for vm in guests]


def _parting(client: Callable[[], Client], fleet: Fleet, vm: Vm, destroy: DestroyGuest | None) -> Parting:
    try:
        if destroy is not None:
            require_may_change(vm, "destroy")  # which nobody needs to be asked for
            action = replace(destroy, vm=vm.name)
            if steps := action.plan(client(), fleet, vm):
                return Parting(vm, Fate.DESTROYED, action, tuple(map(str, steps)))
        elif observe(client(), fleet, vm) is not None:
            raise Usage(_ask(vm))
        return Parting(vm, Fate.ABSENT, backups=_backups(client(), fleet, vm))
    except NotVisible as error:
        raise Refused(f"{error}; or leave it where it is (--keep-vm)") from error
    except Refused as error:
        raise Refused(f"{error}; or leave it where it is (--keep-vm)") from error
    except Usage:
        raise
    except FAILURES as error:
        failure = worded(error, f"looking for {label(vm)}")
        failure.args = (
            f"whether {label(vm)} is there is not known: {failure}; nothing was changed, --keep-vm does not ask",
            *failure.args[1:],
        )
        raise failure from error


def _ask(vm: Vm) -> str:
    what = f"{label(vm)} is there; say what is to become of it"
    if vm.may_change:
        return f"{what}: --destroy {vm.vmid}, after a backup, or --keep-vm"
    why = "readonly" if vm.readonly else f"{vm.origin}, never changed"
    return (
        f"{what}: --keep-vm leaves it; it is {why} in vms/definitions.nix, so it can be destroyed only when they say so"
    )


def _backups(client: Client, fleet: Fleet, vm: Vm) -> tuple[str, ...] | None:
    """The backups of it that its node's storages show, the newest first."""
    node = fleet.node_of(vm)
    try:
        storages = [each.name for each in client.storages(node) if "backup" in each.content and each.away is None]
        rows = [row for name in storages for row in client.volumes(node, name, content="backup", vmid=vm.vmid)]
    except FleetError:
        return None
    return tuple(row.volid for row in sorted(rows, key=lambda row: row.ctime or 0, reverse=True))
