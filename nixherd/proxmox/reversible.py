"""Risky steps made reversible: a snapshot before, removed or kept after."""

import time
from dataclasses import dataclass, field

from nixherd.errors import FleetError, Usage
from nixherd.models import Fleet, Vm
from nixherd.proxmox.actions import TASK_SECONDS, Action, Steps, delete_snapshot, left_by, snapshot, snapshots_of
from nixherd.proxmox.client import Client
from nixherd.proxmox.identity import label
from nixherd.proxmox.observe import observe
from nixherd.proxmox.plan import ActualVm
from nixherd.proxmox.snapshotting import require_can_snapshot
from nixherd.proxmox.steps import DeleteSnapshot, MoveDisk, Snapshot
from nixherd.proxmox.tasks import Progress

FRESH = 3600  # seconds for which the snapshot of a killed run serves
KEEP, REMOVE = "keep", "remove"


@dataclass(frozen=True, slots=True)
class Reversible:
    """Another action, with a snapshot taken before it; `keep` leaves it there when all went well.

    A snapshot that is to be removed has one name per verb: the one that a run killed within the last hour left holds
    the state before that run, and serves. An older one is somebody's way back, and neither used nor removed: Usage.
    When the action fails the snapshot stays, and the error says how to go back to it.
    """

    action: Action
    keep: bool
    began: float = field(default_factory=time.time)

    @property
    def verb(self) -> str:
        return self.action.verb

    @property
    def name(self) -> str:
        what = self.verb.split()[0]
        when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(self.began))
        return f"before-{what}-{when}" if self.keep else f"undo-{what}"

    def plan(self, client: Client, fleet: Fleet, vm: Vm) -> Steps:
        steps = self.action.plan(client, fleet, vm)
        if not steps:
            return steps
        for step in steps:
            if isinstance(step, MoveDisk) and not (step.keep_source or step.disk.startswith("unused")):
                raise Usage(
                    f"{label(vm)}: with a snapshot before it, {step.disk} cannot be moved and deleted; let it stay as "
                    "an unused disk (--keep-source), or leave --snapshot out"
                )
        actual = observe(client, fleet, vm)
        self._require_no_old_one(client, vm, actual)
        if actual:
            require_can_snapshot(client, vm, actual)
        node = steps[0].node
        after = () if self.keep else (DeleteSnapshot(node, vm.vmid, self.name, type=vm.type),)
        return (Snapshot(node, vm.vmid, self.name, type=vm.type), *steps, *after)

    def run(
        self, client: Client, fleet: Fleet, vm: Vm, *, timeout: float = TASK_SECONDS, progress: Progress | None = None
    ) -> Steps:
        planned = self.plan(client, fleet, vm)
        if not planned:
            return planned
        before = snapshot(self.name, description=f"before nixherd was to {self.verb} it")
        done = [before.run(client, fleet, vm, timeout=timeout, progress=progress)]
        try:
            done.append(self.action.run(client, fleet, vm, timeout=timeout, progress=progress))
        except FleetError as error:
            back = f"`nixherd vm rollback {vm.name} {self.name}`"
            error.args = (f"{error}; the state before is in snapshot {self.name}: {back}", *error.args[1:])
            raise
        if not self.keep:
            done.append(delete_snapshot(self.name).run(client, fleet, vm, timeout=timeout, progress=progress))
        return tuple(step for steps in done for step in steps)

    def left(self, client: Client, fleet: Fleet, vm: Vm) -> Steps | None:
        return left_by(self.action, client, fleet, vm)

    def _require_no_old_one(self, client: Client, vm: Vm, actual: ActualVm | None) -> None:
        there = snapshots_of(client, vm, actual)
        old = next((row for row in there if row.name == self.name and self.began - (row.time or 0) > FRESH), None)
        if old is None:
            return
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(old.time)) if old.time else "some time"
        command = f"{vm.name} {old.name}"
        raise Usage(
            f"{label(vm)} has a snapshot {old.name} of {when}, left by an action that failed; go back to it "
            f"(`nixherd vm rollback {command}`) or remove it (`nixherd vm snapshot {command} --delete`) first"
        )


def reversible(action: Action, snapshot: str | None) -> Action:
    """The action as it is, or with a snapshot that is to be kept (`keep`) or removed (`remove`) after it.

    Usage for any other word.
    """
    if not snapshot:
        return action
    if snapshot not in (KEEP, REMOVE):
        raise Usage(f"snapshot={snapshot}: write {KEEP} or {REMOVE}, or leave it out")
    return Reversible(action, snapshot == KEEP)
