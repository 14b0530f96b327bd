"""Everything that may be asked of one guest, as values: what it looks at, the steps that follow, and carrying them out.

Operations, deploys and `nixherd vm` are made of these and of nothing else, so that a plan and what is done are the
same steps everywhere. `plan` sends GETs only. Both refuse, before anything is sent, a guest that the definitions do
not let be changed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from nixherd.errors import Usage
from nixherd.models import Fleet, GuestType, Host, Vm
from nixherd.proxmox.answers import SnapshotRow
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest import names, reboots, verbs
from nixherd.proxmox.guest.actual import ActualVm
from nixherd.proxmox.guest.apply import PATIENCE, achieve, desired, require_awake
from nixherd.proxmox.guest.backups import BackupAction, RestoreAction
from nixherd.proxmox.guest.desired import empty_vm
from nixherd.proxmox.guest.identity import label, require_may_change
from nixherd.proxmox.guest.observe import memory_of, observe
from nixherd.proxmox.guest.plan import SHUTDOWN_SECONDS, Desired, clone_of, clone_of_template, in_the_making, plan_vm
from nixherd.proxmox.guest.snapshots import RollbackAction
from nixherd.proxmox.guest.storages import require_can_snapshot, require_in_no_snapshot, require_places
from nixherd.proxmox.guest.tasks import Progress
from nixherd.proxmox.steps import (
    AwaitClone,
    AwaitReboot,
    Cannot,
    Clone,
    MoveDisk,
    Note,
    Reboot,
    Row,
    Step,
    doable,
    nothing,
    rows,
    why_nothing,
)
from nixherd.settings import Device

Steps = tuple[Step, ...]
TASK_SECONDS = PATIENCE


class Action(Protocol):
    """Something asked of one guest; `verb` is how a refusal names it: "shut down"."""

    @property
    def verb(self) -> str: ...

    def plan(self, client: Client, fleet: Fleet, vm: Vm) -> Steps:
        """The steps that would be carried out now; none where nothing is left to do."""

    def run(
        self, client: Client, fleet: Fleet, vm: Vm, *, timeout: float = TASK_SECONDS, progress: Progress | None = None
    ) -> Steps:
        """Carry the steps out and look again until none is left; returns those that were."""


@runtime_checkable
class Judged(Action, Protocol):
    """An action that can say what it leaves: words, and steps that nobody allowed."""

    def left(self, client: Client, fleet: Fleet, vm: Vm) -> Steps | None:
        """What of the guest is not as it was asked for, and this action does not change; what should be known of it.

        None where there is nothing to judge.
        """


def left_by(action: Action, client: Client, fleet: Fleet, vm: Vm) -> Steps | None:
    """What an action leaves; None where it cannot tell, or there is nothing to judge."""
    return action.left(client, fleet, vm) if isinstance(action, Judged) else None


Look = Callable[[Client, Fleet, Vm, ActualVm | None], Steps]


@dataclass(frozen=True, slots=True)
class Verb:
    """An action that is repeated until looking finds nothing left to do.

    `ask` is how it is looked first for a person, who wants it done now: it may refuse what `look` calls done already.
    `judge` finds what is left when it has ended; `check` finds words that can never be meant of this guest, before
    anything is asked of the server.
    """

    verb: str
    look: Look
    ask: Look | None = None
    judge: Look | None = field(default=None, kw_only=True)
    check: Callable[[Vm], None] | None = field(default=None, kw_only=True)

    def plan(self, client: Client, fleet: Fleet, vm: Vm) -> Steps:
        self._require(vm)
        look, actual = self.ask or self.look, observe(client, fleet, vm)
        steps = require_places(client, look(client, fleet, vm, actual))
        require_awake(vm, actual, steps)
        return steps

    def run(
        self, client: Client, fleet: Fleet, vm: Vm, *, timeout: float = TASK_SECONDS, progress: Progress | None = None
    ) -> Steps:
        self._require(vm)
        first = [self.ask] if self.ask else []

        def replan(actual: ActualVm | None) -> Steps:
            look = first.pop() if first else self.look
            return require_places(client, look(client, fleet, vm, actual))

        return achieve(client, fleet, vm, replan, timeout=timeout, progress=progress, what=self.verb)

    def _require(self, vm: Vm) -> None:
        require_may_change(vm, self.verb)
        if self.check:
            self.check(vm)

    def left(self, client: Client, fleet: Fleet, vm: Vm) -> Steps | None:
        return self.judge(client, fleet, vm, observe(client, fleet, vm)) if self.judge else None


def waiting(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
    """Of a guest whose options were set: which wait."""
    keys = ", ".join(each.key for each in actual.pending) if actual else ""
    return (Note(actual.node, vm.vmid, f"waits for its next start: {keys}", type=vm.type),) if actual and keys else ()


# Power


def _switch(verb: str, plan: Callable[[Fleet, Vm, ActualVm | None], Steps]) -> Action:
    """A switch of power. A guest that is off in the middle of a reboot, as far as that can be seen, is no guest off."""

    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        if actual is not None and not actual.running and (upid := reboots.under_way(client, actual.node, vm.vmid)):
            verbs.ours(fleet, vm, actual)
            return (AwaitReboot(actual.node, vm.vmid, upid, type=vm.type),)
        return plan(fleet, vm, actual)

    return Verb(verb, look)


def start() -> Action:
    return _switch("start", verbs.start)


def stop() -> Action:
    return _switch("stop", verbs.stop)


def shutdown(*, timeout: int = SHUTDOWN_SECONDS, force: bool = False) -> Action:
    return _switch(
        "shut down", lambda fleet, vm, actual: verbs.shutdown(fleet, vm, actual, timeout=timeout, force=force)
    )


def reboot(*, timeout: int = SHUTDOWN_SECONDS, always: bool = False) -> Action:
    return _switch("reboot", lambda fleet, vm, actual: verbs.reboot(fleet, vm, actual, timeout=timeout, always=always))


def suspend(*, to_disk: bool = False) -> Action:
    return Verb("suspend", lambda client, fleet, vm, actual: verbs.suspend(fleet, vm, actual, to_disk=to_disk))


def resume() -> Action:
    return Verb("resume", lambda client, fleet, vm, actual: verbs.resume(fleet, vm, actual))


# Desired state


def as_declared(host: Host, *, allow_reboot: bool = False) -> Action:
    """Everything that the definitions say of the guest, but whether it runs. Reboots only with `allow_reboot`."""

    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        steps = doable(plan_vm(desired(client, fleet, vm, host), actual))
        wanted = (step for step in steps if allow_reboot or not isinstance(step, Reboot))
        return tuple(step for step in wanted if step.row is not Row.START)

    def judge(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        steps = plan_vm(desired(client, fleet, vm, host), actual)
        undone = (Cannot, Note) if allow_reboot else (Cannot, Note, Reboot)
        return tuple(step for step in steps if isinstance(step, undone))

    return Verb("change", look, judge=judge)


def _or_refused(look: Look, remedy: str) -> Look:
    """`look` for a person: where nothing is left to do, what was found is a refusal. `{0}` is the guest's name."""

    def ask(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        steps = look(client, fleet, vm, actual)
        if not steps:
            raise Usage(f"{label(vm)}: {why_nothing(steps)}; {remedy.format(vm.name)}")
        return steps

    return ask


_NOT_MADE = "nothing was made; `nixherd vm apply {0}` brings it to its definition"


def create(host: Host, *, full: bool = True, source: Vm | None = None, asked: bool = False) -> Action:
    """Make the guest: a clone of the declared template (linked unless `full`), a container out of its archive.

    With `source` it is a copy of that guest, which must be ours and may be changed as well. `asked`: by a person, who
    is refused where the guest is there.
    """
    if source is not None:
        require_may_change(source, "clone")

    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        if source is not None:
            return _copy(client, fleet, vm, actual, source, full=full)
        steps = rows(doable(plan_vm(desired(client, fleet, vm, host), actual)), Row.CLONE)
        if not steps:
            return nothing(f"it exists{f' on {actual.node}' if actual else ''}")
        return (clone_of_template(fleet, vm, full=full),) if isinstance(steps[0], Clone) else steps

    return Verb("create", look, _or_refused(look, _NOT_MADE) if asked else None)


def _copy(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None, source: Vm, *, full: bool) -> Steps:
    """The making of a VM out of another one: the template is nothing to that, and is not asked for."""
    if source.vmid == vm.vmid or GuestType.LXC in (vm.type, source.type):
        raise Usage(f"{label(vm)} cannot be a copy of {label(source)}: one VM is copied to another")
    if actual is not None and in_the_making(fleet, vm, actual):
        assert actual.clone_task is not None
        return (AwaitClone(actual.node or fleet.node_of(vm), vm.vmid, actual.clone_task),)
    if actual is not None:
        return nothing(f"it exists on {verbs.ours(fleet, vm, actual).node}")
    found = verbs.ours(fleet, source, observe(client, fleet, source))
    return (clone_of(fleet, vm, source.vmid, found.node, full=full),)


def create_empty(host: Host, *, asked: bool = False) -> Action:
    """Make a VM from its definition alone, without a template; its disks are empty. `asked`: as for `create`."""

    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        if vm.type is not GuestType.QEMU:
            return rows(doable(plan_vm(Desired(fleet, vm, host), actual)), Row.CLONE)
        if actual is None:
            return (empty_vm(fleet, vm, host),)
        verbs.ours(fleet, vm, actual)
        return nothing(f"it exists on {actual.node}")

    return Verb("create", look, _or_refused(look, _NOT_MADE) if asked else None)


def configure(values: dict[str, object]) -> Action:
    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        return verbs.configure(fleet, vm, actual, values)

    return Verb("configure", look, judge=waiting, check=lambda vm: names.require_options(vm, values))


def device(device: Device) -> Action:
    """A network card or passed-through device with these properties, what is not said as it is."""

    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        return verbs.device(fleet, vm, actual, device)

    return Verb("configure", look, judge=waiting, check=lambda vm: names.require_options(vm, {device.name: device}))


def resize(size: int, *, disk: str | None = None) -> Action:
    return Verb(
        "resize",
        lambda client, fleet, vm, actual: verbs.resize(fleet, vm, actual, size, disk=disk),
        check=lambda vm: names.require_disk(vm, disk) if disk is not None else None,
    )


def add_disk(disk: str, size: int, *, storage: str | None = None) -> Action:
    names.require_storage(storage)
    return Verb(
        "add a disk to",
        lambda client, fleet, vm, actual: verbs.add_disk(fleet, vm, actual, disk, size, storage=storage),
        judge=waiting,
        check=lambda vm: verbs.require_addable(vm, disk),
    )


def move_disk(disk: str, storage: str, *, keep_source: bool = False) -> Action:
    names.require_storage(storage)

    def check(vm: Vm) -> None:
        names.require_disk(vm, disk, unused=True)
        verbs.require_movable(vm, disk)

    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        steps = verbs.move_disk(fleet, vm, actual, disk, storage, keep_source=keep_source)
        for step in steps:
            if isinstance(step, MoveDisk) and not step.keep_source:
                require_in_no_snapshot(client, vm, step)
        return steps

    return Verb("move a disk of", look, check=check)


def regenerate() -> Action:
    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        found = verbs.ours(fleet, vm, actual)
        differs = found.config.has_cloudinit_drive and client.cloudinit_differs(found.node, vm.vmid)
        return verbs.regenerate(fleet, vm, actual, differs=differs)

    return Verb("write the cloud-init drive of", look, check=verbs.require_cloudinit)


def cloudinit_drive(drive: str = "ide2", *, storage: str | None = None) -> Action:
    """Give a VM a cloud-init drive, unless it has one."""
    names.require_drive(drive)
    names.require_storage(storage)

    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        return verbs.cloudinit_drive(fleet, vm, actual, drive, storage=storage)

    return Verb("add a cloud-init drive to", look, judge=waiting, check=verbs.require_cloudinit)


def make_template() -> Action:
    return Verb("convert", lambda client, fleet, vm, actual: verbs.make_template(fleet, vm, actual))


# Snapshots


def snapshots_of(client: Client, vm: Vm, actual: ActualVm | None) -> tuple[SnapshotRow, ...]:
    return client.snapshots(actual.node, vm.vmid, vm.type) if actual else ()


def told(steps: Steps, **known: Any) -> Steps:
    """The one step with what is known of it beside; what was said where there is none."""
    return tuple(replace(step, **known) for step in steps) if steps else steps


def snapshot(name: str, *, description: str = "", with_memory: bool = False, asked: bool = False) -> Action:
    """Take a snapshot, unless there is one of that name. `asked`: by a person, who is refused then."""
    names.require_snapshot(name)

    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        there = snapshots_of(client, vm, actual)
        steps = verbs.snapshot(fleet, vm, actual, name, there, description=description, with_memory=with_memory)
        if steps and actual:
            require_can_snapshot(client, vm, actual)
        return steps

    remedy = f"nothing was taken: choose another name, or delete that one (`nixherd vm snapshot {{0}} {name} --delete`)"
    return Verb("snapshot", look, _or_refused(look, remedy) if asked else None)


def delete_snapshot(name: str, *, asked: bool = False) -> Action:
    """Delete a snapshot, if there is one of that name. `asked`: by a person, who is refused when there is none."""
    names.require_snapshot(name)

    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        there = snapshots_of(client, vm, actual)
        steps = verbs.delete_snapshot(fleet, vm, actual, name, there)
        memory = any(row.with_memory for row in there if row.name == name)
        return told(steps, memory=memory_of(client, vm, actual.node, name)) if actual and memory else steps

    return Verb("delete a snapshot of", look, _or_refused(look, "nothing was deleted") if asked else None)


def rollback(name: str, *, asked: bool = False) -> Action:
    """Go back to a snapshot, as `RollbackAction` says."""
    return RollbackAction(name, asked)


# Backups


def backup_storage(client: Client, fleet: Fleet, node: str, wanted: str | None) -> str:
    """Where backups go: the one named, else `proxmox.backupStorage`, else the node's only storage that takes them.

    Usage when none of these tells.
    """
    if wanted or (fleet.endpoint and fleet.endpoint.backup_storage):
        return wanted or str(fleet.endpoint and fleet.endpoint.backup_storage)
    able = [each for each in client.storages(node) if "backup" in each.content]
    fitting = [each.name for each in able if each.away is None]
    if len(fitting) == 1:
        return fitting[0]
    found = f"{', '.join(fitting)} all do" if fitting else "none does"
    found += "".join(f"; {each.name} {each.away}" for each in able if each.away)
    raise Usage(
        f"which storage of {node} takes backups is not clear ({found}); name one, or declare proxmox.backupStorage "
        "in vms/definitions.nix"
    )


def backup(
    *,
    storage: str | None = None,
    mode: str = "snapshot",
    newer_than: int | None = None,
    notes: str = "",
    protected: bool = False,
) -> Action:
    """A backup, unless there is one less than `newer_than` seconds old; no older one is pruned."""
    names.require_storage(storage)
    return BackupAction(
        lambda client, fleet, node: backup_storage(client, fleet, node, storage),
        mode=mode,
        newer_than=newer_than,
        notes=notes,
        protected=protected,
    )


def restore(
    archive: str,
    *,
    storage: str | None = None,
    overwrite: bool = False,
    asked: bool = False,
    discard: tuple[str, ...] = (),
) -> Action:
    """Make the guest out of a backup, as `RestoreAction` says."""
    names.require_storage(storage)
    return RestoreAction(archive, storage, overwrite, asked, discard=discard)


# Moving


def migrate(target: str, *, local_disks: bool = False, storage: str | None = None) -> Action:
    names.require_node(target)
    names.require_storage(storage)

    def look(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None) -> Steps:
        nodes = [node.name for node in client.node_rows()]
        return verbs.migrate(fleet, vm, actual, target, nodes=nodes, local_disks=local_disks, storage=storage)

    return Verb("migrate", look)
