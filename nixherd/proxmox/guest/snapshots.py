"""Going back to a snapshot: what the guest has that it lacks is said before, and what is there then is read back."""

from dataclasses import dataclass, replace

from nixherd.errors import ApiError, FleetError, Refused, Undecided
from nixherd.models import Fleet, Vm
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VmConfig, same_settings, unlike_snapshot
from nixherd.proxmox.guest import names, verbs
from nixherd.proxmox.guest.actual import ActualVm
from nixherd.proxmox.guest.apply import PATIENCE, achieve, require_awake
from nixherd.proxmox.guest.desired import short
from nixherd.proxmox.guest.identity import label, require_may_change
from nixherd.proxmox.guest.leftovers import kept, nameless
from nixherd.proxmox.guest.observe import lacking, observe
from nixherd.proxmox.guest.tasks import Progress, stands
from nixherd.proxmox.steps import Outcome, Rollback, Step

Steps = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class RollbackAction:
    """Go back to a snapshot, unless that was the last thing done to the guest. `asked`: by a person, always."""

    name: str
    asked: bool = False
    verb: str = "roll back"

    def __post_init__(self) -> None:
        names.require_snapshot(self.name)

    def plan(self, client: Client, fleet: Fleet, vm: Vm) -> Steps:
        require_may_change(vm, self.verb)
        actual = observe(client, fleet, vm)
        steps = self._look(client, fleet, vm, actual, asked=self.asked)
        require_awake(vm, actual, steps)
        return steps

    def run(
        self, client: Client, fleet: Fleet, vm: Vm, *, timeout: float = PATIENCE, progress: Progress | None = None
    ) -> Steps:
        """Returns the step with what the guest is then. FleetError where that is not what the snapshot has."""
        require_may_change(vm, self.verb)
        looks = 0

        def replan(actual: ActualVm | None) -> Steps:
            nonlocal looks
            looks += 1
            return self._look(client, fleet, vm, actual, asked=self.asked and looks == 1)

        done = achieve(client, fleet, vm, replan, timeout=timeout, progress=progress, what=self.verb)
        return self._read_back(client, fleet, vm, done) if done else done

    def _look(self, client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None, *, asked: bool) -> Steps:
        found = verbs.ours(fleet, vm, actual)
        there, last, same = client.snapshots(found.node, vm.vmid, vm.type), None, False
        if not asked:
            last = next(iter(client.tasks(found.node, active=False, vmid=vm.vmid, limit=1)), None)
            if found.config.text("parent") == self.name:
                then = client.snapshot_config(found.node, vm.vmid, self.name, vm.type)
                same = same_settings(found.config, then)
        steps = verbs.rollback(fleet, vm, found, self.name, there, last=last, unchanged=same)
        if not steps:
            return steps
        attached, waits = lacking(client, vm, found, self.name)
        return tuple(replace(step, lacks=attached, strays=waits) for step in steps if isinstance(step, Rollback))

    # What is there then

    def _read_back(self, client: Client, fleet: Fleet, vm: Vm, done: Steps) -> Outcome:
        """The step, with the guest as it was read back.

        FleetError where its configuration is not the snapshot's, Undecided where that cannot be read.
        """
        who = f"{label(vm)} was rolled back to {self.name}"
        try:
            now = observe(client, fleet, vm)
            if now is None:
                raise FleetError(f"{who}, and is not there any more; look at the tasks of its node")
            then = client.config(now.node, vm.vmid, vm.type, snapshot=self.name)
            status = client.status(now.node, vm.vmid, vm.type)
        except (ApiError, Refused) as error:
            raise Undecided(
                f"{who}, its task ended well; whether it is as the snapshot has it is not known: {error}"
            ) from error
        differs = unlike_snapshot(now.config, then) if then else ()
        found, lines = self._disks(client, vm, now)
        power = (status.paused and "paused") or status.status if status else None
        found = {"snapshot": self.name, "as_snapshot": not differs if then else None, "status": power, **found}
        lines = [f"it {stands(status)}", *lines]
        if differs and then:
            words = ", ".join(_differing(now.config, then, key) for key in differs)
            raise FleetError(
                f"{who}, its task ended well, and its configuration is not the snapshot's: {words}; "
                f"{'; '.join(lines)}; somebody may have changed it since: look at it, or roll it back again"
            )
        if then is None:
            raise Undecided(f"{who}, and has no such snapshot any more: whether it is as that was is not known")
        return Outcome(done, found=found, lines=[f"its configuration is that of snapshot {self.name}", *lines])

    def _disks(self, client: Client, vm: Vm, now: ActualVm) -> tuple[dict[str, object], list[str]]:
        """Its unused disks now, and volumes in its name that nothing names, as its storages tell."""
        unused = {name: each.volume for name, each in sorted(now.config.unused.items())}
        lines = [f"{name} {kept(client, vm, now, volume)}" for name, volume in unused.items()]
        named, strays = nameless(client, vm, now.node)
        return {"unused": unused, "unnamed": named}, [*lines, *strays]


def _differing(now: VmConfig, then: VmConfig, key: str) -> str:
    return f"{key} {short(now.text(key))} (there: {short(then.text(key))})"
