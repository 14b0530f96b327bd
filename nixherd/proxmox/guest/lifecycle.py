"""Verbs that make guests, bring them to their definition, move them, and switch them on and off."""

from dataclasses import dataclass

from nixherd.base.errors import FleetError, Usage
from nixherd.base.names import SECONDS, flag_of, text_of
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Host, Vm
from nixherd.proxmox import steps
from nixherd.proxmox.guest import names, reboots
from nixherd.proxmox.guest.apply import desired
from nixherd.proxmox.guest.desired import empty_vm
from nixherd.proxmox.guest.identity import label, require_may_change
from nixherd.proxmox.guest.observe import observe
from nixherd.proxmox.guest.plan import SHUTDOWN_SECONDS, Desired, clone_of, clone_of_template, in_the_making, plan_vm
from nixherd.proxmox.guest.verb import Guest, Verb, argument, flag, option
from nixherd.proxmox.steps import Cannot, Note, Reboot, Row, Steps, doable, nothing, rows


@dataclass(frozen=True)
class Switch(Verb):
    """A switch of power. A guest that is seen to be off in the middle of a reboot does not count as off."""

    asks = False  # its name says what it does

    def look(self, guest: Guest) -> Steps:
        actual, vm = guest.actual, guest.vm
        is_off = actual is not None and not actual.running
        if actual and is_off and (upid := reboots.under_way(guest.client, actual.node, vm.vmid)):
            return (steps.AwaitReboot(guest.ours.node, vm.vmid, upid, type=vm.type),)
        return self.switch(guest)

    def switch(self, guest: Guest) -> Steps:
        """Return the steps for a guest that is not in the middle of a reboot."""
        raise NotImplementedError


@dataclass(frozen=True)
class StartGuest(Switch):
    """Switch a guest on; a paused one goes on."""

    name = command = verb = "start"
    row = Row.START

    def switch(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        if seen.running:
            return (steps.Resume(seen.node, vm.vmid, type=vm.type),) if seen.paused else nothing("it runs")
        return (steps.Start(seen.node, vm.vmid, type=vm.type),)


@dataclass(frozen=True)
class StopGuest(Switch):
    """Pull the plug."""

    name = command = verb = "stop"

    def switch(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        return (steps.Stop(seen.node, vm.vmid, type=vm.type),) if seen.running else nothing("it does not run")


@dataclass(frozen=True)
class ShutdownGuest(Switch):
    """Ask a guest to power off: its agent, else ACPI.

    `force` pulls the plug after `timeout` seconds, and only then.
    """

    name = command = "shutdown"
    verb = "shut down"
    timeout: int = option(SECONDS, SHUTDOWN_SECONDS, "How long it may take to shut down.")
    force: bool = flag("Pull the plug when the time is over.")

    def switch(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        if not seen.running:
            return nothing("it does not run")
        if seen.paused and not self.force:
            raise Usage(f"{guest.label} is paused and cannot shut down; resume it first, or stop it")
        return (steps.Shutdown(seen.node, vm.vmid, self.timeout, self.force, type=vm.type),)


@dataclass(frozen=True)
class RebootGuest(Switch):
    """Shut a guest down and start it again; options that wait take effect.

    `always`: also when none waits.
    """

    name = command = verb = "reboot"
    idempotent = False
    always: bool = flag("Only when options wait for it.", option="--if-pending", negated=True)
    timeout: int = option(SECONDS, SHUTDOWN_SECONDS, "How long it may take to shut down.")

    def switch(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        if not seen.running:
            if self.always and seen.config.lock == "suspended":
                raise Usage(f"{guest.label} is suspended to disk and does not run; resume it")
            if self.always:
                raise Usage(f"{guest.label} does not run; start it")
            return nothing("it does not run, so that nothing waits for a reboot")
        waiting = tuple(each.key for each in seen.pending)
        if not (waiting or self.always):
            return nothing("nothing waits for a reboot")
        if seen.paused:
            raise Usage(f"{guest.label} is paused and cannot shut down for a reboot; resume it, or stop and start it")
        return (Reboot(seen.node, vm.vmid, self.timeout, waiting, type=vm.type),)


@dataclass(frozen=True)
class SuspendGuest(Verb):
    """Pause a guest, or write its memory to disk and switch it off."""

    name = command = verb = "suspend"
    asks = False
    to_disk: bool = flag("Write its memory to disk and switch it off.")

    def look(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        if seen.config.lock == "suspended" or (seen.paused and not self.to_disk):
            return nothing("it is suspended to disk" if seen.config.lock else "it is paused")
        if not seen.running:
            raise Usage(f"{guest.label} does not run; there is nothing to suspend")
        return (steps.Suspend(seen.node, vm.vmid, self.to_disk, type=vm.type),)


@dataclass(frozen=True)
class ResumeGuest(Verb):
    """Let a paused or suspended guest go on."""

    name = command = verb = "resume"

    def look(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        if seen.config.lock == "suspended":
            return (steps.Start(seen.node, vm.vmid, type=vm.type),)
        if seen.running:
            resume = (steps.Resume(seen.node, vm.vmid, type=vm.type),)
            return resume if seen.paused else nothing("it runs and is not paused")
        raise Usage(f"{guest.label} does not run and is not suspended; start it")


def host_of(fleet: Fleet, vm: Vm) -> Host:
    """Return the host that lives in a guest. Raise FleetError when none does."""
    host = fleet.hosts.get(vm.host_id or "")
    if host is None:
        raise FleetError(f"{vm.attribute} belongs to no host of {fleet.file}")
    return host


@dataclass(frozen=True)
class CreateGuest(Verb):
    """Make a declared guest: a clone of the template, or a container out of its archive.

    The clone is linked unless `full`. `source` names another managed guest to copy instead; `empty` makes a VM from its
    definition alone.
    """

    name = verb = "create"
    command = "clone"
    full: bool = flag("Link the clone: quick, bound to the template.", default=True, option="--linked", negated=True)
    source: str | None = option(
        text_of, help="Copy this guest, not the template.", option="--from", metavar="GUEST", guest=True
    )
    empty: bool = flag("No template: a VM from its definition alone, with empty disks.")

    def check(self, fleet: Fleet, vm: Vm) -> None:
        if self.empty and (self.source or not self.full):
            raise Usage("--empty copies nothing; leave --from and --linked out")
        host_of(fleet, vm)
        if self.source is None:
            return
        source = self._source(fleet)
        require_may_change(source, "clone")
        if source.vmid == vm.vmid or GuestType.LXC in (vm.type, source.type):
            raise Usage(f"{label(vm)} cannot be a copy of {label(source)}: one VM is copied to another")

    def _source(self, fleet: Fleet) -> Vm:
        vm = fleet.vms.get(self.source or "")
        if vm is None:
            known = ", ".join(sorted(fleet.vms))
            raise FleetError(f"source={self.source} is not a guest of {DEFINITIONS}; there are {known}")
        return vm

    def look(self, guest: Guest) -> Steps:
        if self.empty:
            return self._empty(guest)
        if self.source is not None:
            return self._copy(guest)
        client, fleet, vm, actual = guest.client, guest.fleet, guest.vm, guest.actual
        planned = rows(doable(plan_vm(desired(client, fleet, vm, host_of(fleet, vm)), actual)), Row.CLONE)
        if not planned:
            return nothing(f"it exists{f' on {actual.node}' if actual else ''}")
        return (clone_of_template(fleet, vm, full=self.full),) if isinstance(planned[0], steps.Clone) else planned

    def _copy(self, guest: Guest) -> Steps:
        """Make a VM out of another one: the template has no part in that, and is not asked for."""
        fleet, vm, actual = guest.fleet, guest.vm, guest.actual
        if actual is not None and in_the_making(fleet, vm, actual):
            assert actual.clone_task is not None
            return (steps.AwaitClone(actual.node or fleet.node_of(vm), vm.vmid, actual.clone_task),)
        if actual is not None:
            return nothing(f"it exists on {guest.ours.node}")
        source = self._source(fleet)
        seen = Guest(guest.client, fleet, source, observe(guest.client, fleet, source)).ours
        return (clone_of(fleet, vm, source.vmid, seen.node, full=self.full),)

    def _empty(self, guest: Guest) -> Steps:
        fleet, vm = guest.fleet, guest.vm
        host = host_of(fleet, vm)
        if vm.type is not GuestType.QEMU:
            return rows(doable(plan_vm(Desired(fleet, vm, host), guest.actual)), Row.CLONE)
        return (empty_vm(fleet, vm, host),) if guest.actual is None else nothing(f"it exists on {guest.ours.node}")

    def refusal(self, vm: Vm) -> str:
        return f"nothing was made; `nixherd vm apply {vm.name}` brings it to its definition"


@dataclass(frozen=True)
class ApplyDefinition(Verb):
    """Bring a managed guest to its definition, but for whether it runs.

    It reboots only with `allow_reboot`.
    """

    name = command = "apply"
    verb = "change"
    undo = True
    allow_reboot: bool = flag("Reboot it when options wait for that.")

    def check(self, fleet: Fleet, vm: Vm) -> None:
        host_of(fleet, vm)

    def _plan(self, guest: Guest) -> Steps:
        fleet, vm = guest.fleet, guest.vm
        return plan_vm(desired(guest.client, fleet, vm, host_of(fleet, vm)), guest.actual)

    def look(self, guest: Guest) -> Steps:
        planned = (step for step in doable(self._plan(guest)) if self.allow_reboot or not isinstance(step, Reboot))
        return tuple(step for step in planned if step.row is not Row.START)

    def judge(self, guest: Guest) -> Steps:
        undone = (Cannot, Note) if self.allow_reboot else (Cannot, Note, Reboot)
        return tuple(step for step in self._plan(guest) if isinstance(step, undone))


@dataclass(frozen=True)
class ConvertToTemplate(Verb):
    """Convert a stopped VM to a template, for good."""

    name = "template"
    verb = "convert"

    def look(self, guest: Guest) -> Steps:
        actual, vm = guest.actual, guest.vm
        if actual is not None and actual.config.is_template and actual.config.name == vm.name:
            return nothing("it is a template")
        seen = guest.ours
        if vm.type is not GuestType.QEMU:
            raise Usage(f"{guest.label} is a container; only VMs are converted to templates here")
        if seen.running:
            raise Usage(f"{guest.label} runs; shut it down before it becomes a template")
        return (steps.MakeTemplate(seen.node, vm.vmid),)


@dataclass(frozen=True)
class MigrateGuest(Verb):
    """Move a guest to the node TARGET, while it runs if it runs. A running container restarts for that."""

    name = command = verb = "migrate"
    target: str = argument(text_of)
    local_disks: bool = option(flag_of, False, "Take the disks along that only its node sees.")
    storage: str | None = option(text_of, help="Where local disks go on the target.", metavar="NAME")

    def __post_init__(self) -> None:
        super().__post_init__()
        names.require_node(self.target)

    def look(self, guest: Guest) -> Steps:
        seen, vm = guest.ours, guest.vm
        known = sorted(node.name for node in guest.client.node_rows())
        if self.target not in known:
            raise Usage(f"node {self.target} does not exist; the cluster has {', '.join(known)}")
        if seen.node == self.target:
            return nothing(f"it is on {self.target}")
        return (
            steps.Migrate(seen.node, vm.vmid, self.target, seen.running, self.local_disks, self.storage, type=vm.type),
        )
