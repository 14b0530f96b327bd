"""Backups of one guest: made unless one is new enough, and seen on the storage in the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from nixherd.errors import ApiError, FleetError
from nixherd.fleet.models import Fleet, Vm
from nixherd.proxmox import afterwards, verbs
from nixherd.proxmox.apply import PATIENCE, achieve, require_awake
from nixherd.proxmox.client import Client
from nixherd.proxmox.errors import TaskForgotten
from nixherd.proxmox.identity import require_may_change
from nixherd.proxmox.listings import Volume
from nixherd.proxmox.observe import observe
from nixherd.proxmox.outcome import Outcome
from nixherd.proxmox.places import require_places
from nixherd.proxmox.plan import ActualVm
from nixherd.proxmox.steps import Backup, Step
from nixherd.proxmox.tasks import Progress
from nixherd.sizes import human

Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class BackupAction:
    """Back a guest up to the storage that `place` tells of its node, unless it has a backup there newer than said.

    `newer_than` is seconds; None: always. No older backup is pruned.
    """

    place: Callable[[Client, Fleet, str], str]
    mode: str = "snapshot"
    newer_than: int | None = None
    notes: str = ""
    protected: bool = False
    verb: str = "back up"

    def plan(self, client: Client, fleet: Fleet, vm: Vm) -> Steps:
        require_may_change(vm, self.verb)
        actual = observe(client, fleet, vm)
        steps = self._look(client, fleet, vm, actual)
        require_awake(vm, actual, steps)
        return steps

    def run(
        self, client: Client, fleet: Fleet, vm: Vm, *, timeout: float = PATIENCE, progress: Progress | None = None
    ) -> Steps:
        """Returns the step with the volume that it made. FleetError when that is not there, whatever its task says."""
        steps = self.plan(client, fleet, vm)
        if not steps:
            return steps
        [step] = steps
        assert isinstance(step, Backup)
        before = _volumes(client, step)

        def replan(actual: ActualVm | None) -> Steps:
            return self._look(client, fleet, vm, actual)

        try:
            done = achieve(client, fleet, vm, replan, timeout=timeout, progress=progress, what=self.verb)
        except afterwards.UNKNOWN as error:
            new, why = _new(client, step, before)
            if not new or not isinstance(error, TaskForgotten):  # one that is still at work is not whole
                error.args = (f"{error}; {why}", *error.args[1:])
                raise
            done = (step,)  # it is there, whoever has forgotten how
        return _seen(client, step, before, done)

    def _look(self, client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        found = verbs.ours(fleet, vm, actual)
        place = self.place(client, fleet, found.node)
        there: tuple[Volume, ...] = ()
        if self.newer_than is not None:
            there = client.volumes(found.node, place, content="backup", vmid=vm.vmid)
        steps = verbs.backup(
            *(fleet, vm, actual, place, there),
            now=int(time.time()),
            newer_than=self.newer_than,
            mode=self.mode,
            notes=self.notes,
            protected=self.protected,
        )
        return require_places(client, steps)


def _volumes(client: Client, step: Backup) -> dict[str, Volume]:
    rows = client.volumes(step.node, step.storage, content="backup", vmid=step.vmid)
    return {row.volid: row for row in rows if row.size > 0}


def _new(client: Client, step: Backup, before: dict[str, Volume]) -> tuple[list[str], str]:
    """The backups that the storage has and did not have before, and in words; none where it cannot be looked at."""
    try:
        new = sorted(_volumes(client, step).keys() - before.keys())
    except ApiError as error:
        return [], f"which backups {step.storage} has now is not known ({error})"
    return new, f"new on {step.storage}: {', '.join(new) or 'none'}"


def _seen(client: Client, step: Backup, before: dict[str, Volume], done: Steps) -> Outcome:
    """The steps, with the volume that is new on the storage."""
    new = [row for volid, row in _volumes(client, step).items() if volid not in before]
    if not done:
        return Outcome(done, why="another run has just made one")
    if not new:
        raise FleetError(
            f"the backup of {step.guest} ended well, and no new one is to be seen on {step.storage}; look there: "
            f"`pvesm list {step.storage} --vmid {step.vmid}` on {step.node}"
        )
    made = max(new, key=lambda row: (row.ctime or 0, row.volid))
    return Outcome(
        done, found={"volume": made.volid, "size": made.size}, lines=(f"made {made.volid} ({human(made.size)})",)
    )
