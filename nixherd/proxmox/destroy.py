"""Destroying a guest: named twice, backed up first, claimed, and only then removed.

DELETE takes no digest, so between looking and removing somebody could put another guest under the VMID. The guest is
claimed before: a line in its notes, written on the very configuration that was judged (its digest). Whoever changes
the guest meanwhile makes the claim fail, and it is judged anew.
"""

import time
from dataclasses import dataclass, replace

from nixherd.errors import FleetError, Refused, Usage
from nixherd.models import Fleet, Vm
from nixherd.proxmox import differences, verbs
from nixherd.proxmox.actions import TASK_SECONDS, Steps, backup_storage
from nixherd.proxmox.apply import achieve, apply
from nixherd.proxmox.client import Client
from nixherd.proxmox.errors import OutcomeUnknown
from nixherd.proxmox.identity import label, require_may_change
from nixherd.proxmox.models import VmConfig
from nixherd.proxmox.observe import observe
from nixherd.proxmox.plan import SHUTDOWN_SECONDS, ActualVm
from nixherd.proxmox.steps import Backup, Change, Configure, Destroy
from nixherd.proxmox.tasks import Progress
from nixherd.proxmox.tasks import wait as wait_for
from nixherd.sizes import format_size

CLAIM = "nixherd destroys this guest"
FRESH = 3600  # seconds for which the backup of a killed run stands for the guest
# Tasks that leave what a guest holds as it was. One that is shut down after its backup was started after it.
_HARMLESS = ("vzdump", "qmstop", "qmshutdown", "qmdestroy", "vzstop", "vzshutdown", "vzdestroy")


@dataclass(frozen=True, slots=True)
class DestroyAction:
    """Remove the guest. `name` and `vmid` are what the operator typed: both must be the guest's.

    `stop`: also when it runs, which is shut down then. `backup`: first, to `storage`, and seen there.
    """

    name: str
    vmid: int
    stop: bool = False
    backup: bool = True
    storage: str | None = None
    purge: bool = False
    verb: str = "destroy"

    def plan(self, client: Client, fleet: Fleet, vm: Vm) -> Steps:
        self._require_both_names(vm)
        require_may_change(vm, self.verb)
        actual = observe(client, fleet, vm)
        if actual is None:
            return ()
        self._judge(fleet, vm, actual)
        off = verbs.shutdown(fleet, vm, actual, force=True)
        saved = _still_good(client, vm, actual)
        save = self._backup(client, fleet, vm, actual) if self.backup and not saved else ()
        return (*off, *save, self._step(vm, actual, saved))

    def run(
        self, client: Client, fleet: Fleet, vm: Vm, *, timeout: float = TASK_SECONDS, progress: Progress | None = None
    ) -> Steps:
        """Returns the steps with what was removed in the last of them."""
        done = list[Steps]()
        first = self.plan(client, fleet, vm)
        if not first:
            return ()
        assert isinstance(first[-1], Destroy)
        seen = first[-1]

        def off(actual: ActualVm | None) -> Steps:
            return verbs.shutdown(fleet, vm, actual, timeout=SHUTDOWN_SECONDS, force=True)

        done.append(achieve(client, fleet, vm, off, timeout=timeout, progress=progress, what=self.verb))
        target = seen
        for step in first:
            if isinstance(step, Backup):
                target = replace(seen, backup=_save(client, step, timeout, progress))
                done.append((step,))
        self._claim(client, fleet, vm, target, timeout)
        if progress:
            progress(str(target))
        _remove(client, fleet, vm, target, timeout, progress)
        done.append((target,))
        return tuple(step for steps in done for step in steps)

    def _require_both_names(self, vm: Vm) -> None:
        if (self.name, self.vmid) != (vm.name, vm.vmid):
            raise Usage(
                f"to destroy {label(vm)} name both, {vm.name} and {vm.vmid}; {self.name} and {self.vmid} were given"
            )

    def _judge(self, fleet: Fleet, vm: Vm, actual: ActualVm) -> None:
        """Refused when the guest is not the one that is declared, or must not go."""
        found = verbs.ours(fleet, vm, actual)
        declared = next((card.values.get("macaddr") for card in vm.settings.networks if card.name == "net0"), None)
        mac = _mac(found.config)
        if declared and declared.lower() != mac:
            raise Refused(
                f"{label(vm)} on {found.node} has net0 {mac}, {vm.attribute} declares {declared.lower()}: "
                "it is another machine; not destroyed"
            )
        if found.config.flag("protection"):
            raise Refused(
                f"{label(vm)} on {found.node} is protected (protection: 1); set {vm.attribute}.protection = false and "
                "bring that there first"
            )
        if found.running and not self.stop:
            raise Usage(f"{label(vm)} runs; shut it down first, or say that it may be stopped (--stop)")

    def _backup(self, client: Client, fleet: Fleet, vm: Vm, actual: ActualVm) -> Steps:
        place = backup_storage(client, fleet, actual.node, self.storage)
        notes = f"{vm.name}, by nixherd before it was destroyed"
        return (Backup(actual.node, vm.vmid, place, "stop", notes=notes, type=vm.type),)

    def _step(self, vm: Vm, actual: ActualVm, saved: str | None) -> Destroy:
        drives = [*actual.config.drives.values(), *([actual.config.root] if actual.config.root else [])]
        volumes = tuple(
            f"{drive.volume} ({format_size(drive.size) if drive.size else '?'})"
            for drive in drives
            if ":" in drive.volume and (not drive.cdrom or drive.is_cloudinit)
        )
        return Destroy(actual.node, vm.vmid, vm.name, _mac(actual.config), volumes, saved, self.purge, type=vm.type)

    def _claim(self, client: Client, fleet: Fleet, vm: Vm, seen: Destroy, timeout: float) -> None:
        """Write into the guest's notes that it is destroyed, on the very configuration that was judged."""

        def replan(actual: ActualVm | None) -> Steps:
            if actual is None:
                raise FleetError(f"{label(vm)} went away while it was being destroyed; look at its node's task list")
            replace(self, stop=False)._judge(fleet, vm, actual)
            now = self._step(vm, actual, seen.backup)
            if (now.node, now.mac, set(now.volumes)) != (seen.node, seen.mac, set(seen.volumes)):
                raise Refused(f"{label(vm)} changed since it was looked at; then: {seen}; now: {now}; not destroyed")
            before = actual.config.description.rstrip()
            lines = [line for line in before.splitlines() if not line.startswith(CLAIM)]
            note = "\n".join([*lines, f"{CLAIM}{f'; backup: {seen.backup}' if seen.backup else ''}"])
            if note == before:
                return ()
            change = Change("description", differences.short(before), CLAIM, note)
            return (Configure(actual.node, vm.vmid, (change,), actual.config.digest, type=vm.type),)

        achieve(client, fleet, vm, replan, timeout=timeout, what="claim")


def _still_good(client: Client, vm: Vm, actual: ActualVm) -> str | None:
    """The backup that a killed run made, while it holds what the guest does: it is there, and nothing was done since.

    Others' tasks may be hidden from our token, so it must be new as well.
    """
    claimed = claimed_backup(actual.config)
    if claimed is None or actual.running:
        return None
    rows = client.volumes(actual.node, claimed.partition(":")[0], content="backup", vmid=vm.vmid)
    made = next((row.ctime or 0 for row in rows if row.volid == claimed and row.size), 0)
    since = (task for task in client.tasks(actual.node, active=False, vmid=vm.vmid) if task.starttime >= made)
    if time.time() - made > FRESH or any(task.type not in _HARMLESS for task in since):
        return None
    return claimed


def claimed_backup(config: VmConfig) -> str | None:
    """The backup that an earlier run, killed after it had claimed the guest, had made."""
    line = next((line for line in config.description.splitlines() if line.startswith(CLAIM)), "")
    return line.partition("; backup: ")[2] or None


def _mac(config: VmConfig) -> str | None:
    card = config.nets.get("net0")
    return card.mac if card else None


def _save(client: Client, step: Backup, timeout: float, progress: Progress | None) -> str:
    """Back the guest up and see the archive on the storage; its volume id. FleetError when it is not there."""

    def there() -> dict[str, int]:
        rows = client.volumes(step.node, step.storage, content="backup", vmid=step.vmid)
        return {row.volid: row.size for row in rows}

    before = there()
    apply(client, step, timeout=timeout, progress=progress)
    new = {volid: size for volid, size in there().items() if volid not in before and size > 0}
    if not new:
        raise FleetError(f"the backup of {step.guest} is not on {step.storage}, whatever its task says; not destroyed")
    return max(new)


def _remove(client: Client, fleet: Fleet, vm: Vm, target: Destroy, timeout: float, progress: Progress | None) -> None:
    try:
        wait_for(client, client.destroy(target.node, vm.vmid, vm.type, purge=target.purge), timeout, progress)
    except OutcomeUnknown:
        if observe(client, fleet, vm) is not None:
            raise
    if observe(client, fleet, vm) is not None:
        raise FleetError(f"{label(vm)} is still there although its removal ended well; look at it by hand")
