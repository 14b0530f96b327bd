"""Destroying a guest: named twice, all that goes with it announced and saved first, claimed, and only then removed.

DELETE takes no digest, so between looking and removing somebody could put another guest under the VMID, or another disk
into this one. The guest is claimed before: a line in its notes, written on the very configuration that was judged (its
digest). Whoever changes the guest meanwhile makes the claim fail, and it is judged anew.
"""

from dataclasses import dataclass, replace

from nixherd.base.errors import FleetError, NotVisible, OutcomeUnknown, Refused, StillRunning, Usage
from nixherd.base.names import Whole, text_of
from nixherd.fleet.models import Fleet, Vm
from nixherd.proxmox.belongings import Belongings, Part
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest import aftermath, names, removal
from nixherd.proxmox.guest.apply import achieve, apply
from nixherd.proxmox.guest.archive import Saved, saved
from nixherd.proxmox.guest.backups import backup_storage
from nixherd.proxmox.guest.identity import ActualVm, another_machine, label, mac_of
from nixherd.proxmox.guest.lifecycle import ShutdownGuest
from nixherd.proxmox.guest.observe import belongings_of, observe, pool_of, still_there, with_storages
from nixherd.proxmox.guest.removal import CLAIM, Claim, claim_in
from nixherd.proxmox.guest.storages import require_places
from nixherd.proxmox.guest.tasks import Progress
from nixherd.proxmox.guest.verb import TASK_SECONDS, Guest, Verb, argument, discarded, flag, option
from nixherd.proxmox.steps import AwaitRemoval, Backup, Destroy, Outcome, Steps, nothing

__all__ = ["CLAIM", "DestroyGuest", "claimed_backup"]


@dataclass(frozen=True)
class DestroyGuest(Verb):
    """Remove a guest with all that belongs to it, after a backup that holds it. Name and VMID are both asked for.

    One that runs is refused unless `stop`, which shuts it down. The backup goes to `storage` and is seen there, unless
    `backup` is false: then all is given up. What it leaves out (backup=0, unused disks, snapshots) is named, and goes
    only when `discard` has it: `scsi1`, `unused0`, `snapshot:clean`.
    """

    name = command = verb = "destroy"
    asks = True
    vm: str = argument(text_of, itself=True)
    vmid: int = argument(Whole(100))
    stop: bool = flag("Also when it runs.")
    backup: bool = flag("Make no backup: all of it is given up.", default=True, option="--no-backup", negated=True)
    storage: str | None = option(text_of, help="Where the backup goes.", metavar="NAME")
    purge: bool = flag("Also from backup jobs, replication and HA.")
    discard: tuple[str, ...] = discarded("no backup holds it")

    def check(self, fleet: Fleet, vm: Vm) -> None:
        for name in self.discard:
            names.require_part(vm, name)

    def require(self, fleet: Fleet, vm: Vm) -> None:
        if (self.vm, self.vmid) != (vm.name, vm.vmid):
            raise Usage(f"to destroy {label(vm)} name both, {vm.name} and {vm.vmid}, not {self.vm} and {self.vmid}")
        super().require(fleet, vm)

    def plan(self, client: Client, fleet: Fleet, vm: Vm) -> Steps:
        self.require(fleet, vm)
        try:
            actual = observe(client, fleet, vm)
        except NotVisible:  # the last that a removal does is to take the rights away
            if (going := removal.removal_of(client, vm, fleet.node_of(vm))) is None:
                raise
            return (AwaitRemoval(fleet.node_of(vm), vm.vmid, going, type=vm.type),)
        if actual is None:
            return nothing("it is not there")
        if under_way := removal.under_way(client, vm, actual):
            return (AwaitRemoval(actual.node, vm.vmid, under_way, type=vm.type),)
        self._judge(client, fleet, vm, actual)
        belongings = with_storages(client, actual.node, vm.vmid, belongings_of(client, vm, actual.node))
        self._require_names(vm, belongings)
        off = ShutdownGuest(force=True).switch(Guest(client, fleet, vm, actual))
        relied = self._relied_on(client, vm, actual, belongings)
        save: Steps = ()
        if self.backup and not relied:
            self._require_saving(vm, actual, belongings)
            save = self._backup(client, fleet, vm, actual)
        return (*off, *save, self._step(vm, actual, belongings, relied, pool_of(client, vm)))

    def run(
        self, client: Client, fleet: Fleet, vm: Vm, *, timeout: float = TASK_SECONDS, progress: Progress | None = None
    ) -> Steps:
        """Return the steps, with what was removed in the last of them."""
        say, first = progress or (lambda _: None), self.plan(client, fleet, vm)
        if first and isinstance(first[0], AwaitRemoval):
            return self._after_another(client, fleet, vm, first[0], timeout, say)
        if not first:
            return first
        assert isinstance(first[-1], Destroy)
        target, done = first[-1], list[Steps]()

        def off(actual: ActualVm | None) -> Steps:
            return ShutdownGuest(force=True).switch(Guest(client, fleet, vm, actual))

        done.append(achieve(client, fleet, vm, off, timeout=timeout, progress=progress, what=self.verb))
        try:
            return self._save_and_remove(client, fleet, vm, first, done, timeout, say)
        except FleetError as error:
            told = [str(error)]
            if did := [str(step) for steps in done for step in steps]:
                told.append(f"before that, this was done: {', '.join(did)}")
            if did or isinstance(error, aftermath.UNKNOWN):
                told.append(_how_it_stands(client, fleet, vm, target.belongings))
            error.args = ("; ".join(told), *error.args[1:])
            raise

    def _save_and_remove(
        self, client: Client, fleet: Fleet, vm: Vm, first: Steps, done: list[Steps], timeout: float, say: Progress
    ) -> Steps:
        """Back the guest up and remove it, once it is off; what was done is added to `done`."""
        target = first[-1]
        assert isinstance(target, Destroy)
        before = removal.tasks_of(client, target)
        claim = removal.relied_on(client, fleet, vm) if target.backup else Claim()
        for step in (each for each in first if isinstance(each, Backup)):
            _await_unlocked(client, fleet, vm, step, timeout, say)
            claim = _save(client, step, timeout, say)
            assert claim.archive
            self._require_saved(vm, target.belongings, saved(client, step.node, claim.archive, claim.task, vm.type))
            target = replace(target, backup=claim.archive)
            done.append((step,))

        def judge(actual: ActualVm) -> Belongings:
            replace(self, stop=False)._judge(client, fleet, vm, actual)
            if (actual.node, mac_of(actual.config)) != (target.node, target.mac):
                raise Refused(f"{label(vm)} on {actual.node} is not the guest that was looked at; not destroyed")
            if target.backup:
                removal.require_untouched(client, vm, target, before)
            return belongings_of(client, vm, actual.node)

        removed = removal.claim_and_remove(client, fleet, vm, target, claim, judge, timeout, say)
        steps = [step for steps in (*done, (removed,)) for step in steps]
        given_up = removed.given_up if removed.saving else removed.belongings.names
        observed = {"backup": removed.backup, "given_up": list(given_up)}
        return Outcome(steps, observed=observed | {"left": list(removed.left), "unseen": list(removed.unseen)})

    def _after_another(
        self, client: Client, fleet: Fleet, vm: Vm, step: AwaitRemoval, timeout: float, say: Progress
    ) -> Steps:
        """Wait for the removal that an earlier run began, and do what is left to do then."""
        try:
            removal.wait_for(client, step.upid, timeout, say)
        except (OutcomeUnknown, StillRunning) as error:
            error.args = (f"{error}; {_how_it_stands(client, fleet, vm)}", *error.args[1:])
            raise
        done = (step, *self.run(client, fleet, vm, timeout=timeout, progress=say))
        if len(done) == 1:
            removal.require_removed(client, vm, step.node, step.upid)
        return done

    # What must be so

    def _judge(self, client: Client, fleet: Fleet, vm: Vm, actual: ActualVm) -> None:
        """Refuse a guest that is not the declared one, or must not be destroyed."""
        seen = Guest(client, fleet, vm, actual).ours
        if why := another_machine(vm, seen.config, seen.node):
            raise Refused(f"{why}; not destroyed")
        if seen.config.flag("protection"):
            raise Refused(
                f"{label(vm)} on {seen.node} is protected (protection: 1); set {vm.attribute}.protection = false and "
                "bring that there first"
            )
        if seen.running and not self.stop:
            raise Usage(f"{label(vm)} runs; shut it down first, or say that it may be stopped (--stop)")

    def _require_names(self, vm: Vm, belongings: Belongings) -> None:
        for name in self.discard:
            if name not in belongings.names:
                known = ", ".join(belongings.names) or "nothing"
                raise Usage(f"--discard {name}: {label(vm)} has no {name}; with it would go {known}")

    def _require_saving(self, vm: Vm, actual: ActualVm, belongings: Belongings) -> None:
        """Refuse, before anything is done, when a backup would lack something that is to be kept."""
        if actual.config.lock == "suspended":
            raise Refused(
                f"{label(vm)} on {actual.node} is suspended to disk, so that no backup can be made; resume it and shut "
                "it down, or give all of it up (--no-backup); not destroyed"
            )
        lost = tuple(part for part in belongings.parts if part.unsaved and part.name not in self.discard)
        if lost:
            raise Refused(
                f"{label(vm)} on {actual.node}: a backup does not hold {belongings.shown(lost)}; not destroyed: keep "
                f"what is needed, then name what may go: {_discards(lost)}"
            )

    def _missing(self, belongings: Belongings, archive: Saved) -> tuple[Part, ...]:
        """Return the parts that are to be kept and cannot be restored from a backup."""
        kept = (part for part in belongings.parts if not part.remade and part.name not in self.discard)
        return tuple(part for part in kept if archive.why_not(part.volume))

    def _require_saved(self, vm: Vm, belongings: Belongings, archive: Saved) -> None:
        """Refuse when the backup that was made lacks, or may lack, something that is to be kept."""
        missing = self._missing(belongings, archive)
        if missing:
            what = "it is not known whether" if archive.unknown else "not all is saved:"
            why = f" ({archive.unknown})" if archive.unknown else ""
            verb = "holds" if archive.unknown else "does not hold"
            raise Refused(
                f"{label(vm)}: {what} {archive.archive} {verb} {belongings.shown(missing)}{why}; not destroyed, the "
                f"backup stays; name what may go without: {_discards(missing)}"
            )

    # What is done

    def _relied_on(self, client: Client, vm: Vm, actual: ActualVm, belongings: Belongings) -> str | None:
        """Return the backup that a killed run made, as long as it still holds everything that is to be kept."""
        claim = claim_in(actual.config)
        if claim is None or claim.archive is None or not removal.is_still_good(client, vm, actual, claim.archive):
            return None
        archive = saved(client, actual.node, claim.archive, claim.task, vm.type)
        return None if self._missing(belongings, archive) else claim.archive

    def _backup(self, client: Client, fleet: Fleet, vm: Vm, actual: ActualVm) -> Steps:
        place = backup_storage(client, fleet, actual.node, self.storage)
        notes = f"{vm.name}, by nixherd before it was destroyed"
        step = Backup(actual.node, vm.vmid, place, "stop", notes=notes, type=vm.type)
        return require_places(client, (step,))

    def _step(self, vm: Vm, actual: ActualVm, belongings: Belongings, backup: str | None, pool: str | None) -> Destroy:
        return Destroy(
            *(actual.node, vm.vmid, vm.name, mac_of(actual.config), belongings),
            backup=backup,
            given_up=tuple(name for name in belongings.names if name in self.discard),
            saving=self.backup or backup is not None,
            purge=self.purge,
            pool=pool,
            type=vm.type,
        )


def _how_it_stands(client: Client, fleet: Fleet, vm: Vm, announced: Belongings | None = None) -> str:
    """Describe the guest after a failure, and which of the volumes announced are gone already."""
    try:
        now = observe(client, fleet, vm)
    except FleetError as error:
        return f"whether {label(vm)} is there now is not known ({error})"
    if now is None:
        return f"{label(vm)} is not there any more"
    begun = now.config.lock == "destroyed"
    words = [
        f"{label(vm)} is there on {now.node}, {'its removal has begun' if begun else 'not destroyed'}, and "
        f"{'runs' if now.running else 'is off'}"
    ]
    try:
        remaining = still_there(client, now.node, vm.vmid, announced) if announced else frozenset()
    except FleetError as error:
        return f"{words[0]}; which of its volumes are there is not known ({error})"
    seen = announced.volumes & announced.sizes.keys() if announced else frozenset()
    if gone := sorted(seen - remaining):
        words.append(f"not seen on the storages any more: {', '.join(gone)}")
    return "; ".join(words)


def _discards(parts: tuple[Part, ...]) -> str:
    return " ".join(f"--discard {name}" for name in dict.fromkeys(part.name for part in parts))


def claimed_backup(config: VmConfig) -> str | None:
    """Return the backup that an earlier run, killed after it had claimed the guest, had made."""
    claim = claim_in(config)
    return claim.archive if claim else None


def _await_unlocked(client: Client, fleet: Fleet, vm: Vm, step: Backup, timeout: float, say: Progress) -> None:
    """Wait while the guest is locked: a killed run's backup may still be at work.

    Raise Locked when that takes too long.
    """

    def locked(actual: ActualVm | None) -> Steps:
        return (step,) if actual and actual.config.lock else ()

    achieve(client, fleet, vm, locked, timeout=timeout, progress=say, what="back up")


def _save(client: Client, step: Backup, timeout: float, say: Progress) -> Claim:
    """Back the guest up and see the archive on the storage. Raise FleetError when it is not there."""

    def there() -> dict[str, int]:
        rows = client.volumes(step.node, step.storage, content="backup", vmid=step.vmid)
        return {row.volid: row.size for row in rows}

    before = there()
    task = apply(client, step, timeout=timeout, progress=say)
    new = {volid: size for volid, size in there().items() if volid not in before and size > 0}
    if not new:
        raise FleetError(f"the backup of {step.guest} is not on {step.storage}, whatever its task says; not destroyed")
    return Claim(max(new), task)
