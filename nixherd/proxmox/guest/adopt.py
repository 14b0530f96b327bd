"""How guests come into a fleet and leave it: adopting one that was made elsewhere, and parting with a host's guests.

Adopting compares a guest with its definition, shows it, and puts our mark on the very configuration that was shown:
whoever changes the guest meanwhile makes the server refuse the old digest, and then it has to be shown anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from nixherd.base.errors import FAILURES, FleetError, NotVisible, Refused, Usage
from nixherd.base.names import format_size
from nixherd.base.terminal import worded
from nixherd.fleet.models import DEFINITIONS, Fleet, Host, Vm
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest import identity
from nixherd.proxmox.guest.apply import achieve, desired
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.identity import ActualVm, label
from nixherd.proxmox.guest.observe import holder, observe
from nixherd.proxmox.guest.plan import compared, drift
from nixherd.proxmox.guest.tasks import Progress
from nixherd.proxmox.steps import Mark, Note, Outcome, Row, Steps

LONGEST_NOTES = 8192  # characters that the server keeps


@dataclass(frozen=True, slots=True)
class Candidate:
    """A guest as it was shown. `differs` is what its definition says otherwise, in the words of a plan.

    `step` puts the mark there; None where that is there, or not needed.
    """

    node: str
    config: VmConfig
    running: bool
    differs: tuple[str, ...]
    step: Mark | None

    @property
    def known_by(self) -> str:
        """What a person tells it from others by: name, net0's MAC, its disks."""
        disks = [self.config.root] if self.config.root else [*self.config.drives.values()]
        shown = (f"{disk.name} {format_size(disk.size) if disk.size else '?'}" for disk in disks if not disk.cdrom)
        power = "running" if self.running else "stopped"
        facts = (f"named {self.config.name}", power, f"net0 {identity.mac_of(self.config) or 'without a MAC'}", *shown)
        return f"on {self.node}: {', '.join(facts)}"


def candidate(client: Client, fleet: Fleet, vm: Vm, host: Host | None) -> Candidate:
    """Look at the guest under the VM's VMID, and judge whether it may be adopted. Only GETs are sent.

    Raise Refused when it is another guest than the declared one, or another fleet's; raise FleetError while it is not
    there, or somebody is at work on it.
    """
    actual = observe(client, fleet, vm)
    if actual is None:
        remedy = "provision it" if vm.may_change else f"correct {vm.attribute} in {DEFINITIONS}"
        raise FleetError(f"{label(vm)} does not exist on {fleet.node_of(vm)}; there is nothing to adopt, {remedy}")
    if vm.is_managed and (why := identity.contradiction(fleet, vm, actual.config, actual.node)):
        raise Refused(why)
    step = (
        _mark(client, fleet, vm, actual) if vm.may_change and not identity.is_ours(fleet, vm, actual.config) else None
    )
    differs = _differences(client, fleet, vm, host, actual)
    return Candidate(actual.node, actual.config, actual.running, differs, step)


def adopt(client: Client, fleet: Fleet, vm: Vm, shown: Candidate, *, timeout: float, progress: Progress) -> Steps:
    """Put the mark on the guest that was shown, and see it there. Returns what was done; nothing where it is ours.

    Raise FleetError when the guest has changed since it was shown; otherwise raises as `candidate` and `achieve` do.
    """
    sent = list[Mark]()

    def replan(actual: ActualVm | None) -> Steps:
        if actual is None:
            raise FleetError(f"{label(vm)} went away since it was looked at; nothing was written")
        if identity.is_ours(fleet, vm, actual.config):
            return ()
        if changed := _changed(shown, actual):
            raise FleetError(f"{label(vm)} changed since it was shown ({', '.join(changed)}), not adopted; look again")
        sent.append(_mark(client, fleet, vm, actual, waiting=True))
        return (sent[-1],)

    done = achieve(client, fleet, vm, replan, timeout=timeout, progress=progress, what="adopt")
    return done or tuple(sent[-1:])  # the answer may be lost and the mark ours all the same


def _mark(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm, *, waiting: bool = False) -> Mark:
    """Return the step that marks the guest, unless that is forbidden. `waiting`: the caller waits for a lock."""
    name, config = label(vm), actual.config
    if config.lock == "suspended":
        raise FleetError(f"{name} is suspended to disk, so its notes cannot be written; resume it, then adopt it")
    if config.lock and not waiting:
        raise FleetError(f"{holder(client, fleet, vm, actual)}; adopt it when that is over")
    if why := identity.another_machine(vm, config, actual.node):
        raise Refused(f"{why}; give it another VMID in {DEFINITIONS}, or correct the MAC there")
    if identity.others_mark(fleet, vm, config):
        raise Refused(str(identity.why_not_ours(fleet, vm, config, actual.node)))
    line = identity.mark(fleet, vm)
    description = f"{line}\n{config.description}".rstrip("\n")  # what is there stays to the letter
    if len(description) > LONGEST_NOTES:
        raise FleetError(
            f"{name}: its notes have {len(config.description)} characters, and with our line more than the "
            f"{LONGEST_NOTES} that the server keeps; shorten them"
        )
    return Mark(actual.node, vm.vmid, line, description, config.digest, type=vm.type)


def _differences(client: Client, fleet: Fleet, vm: Vm, host: Host | None, actual: ActualVm) -> tuple[str, ...]:
    if not vm.is_managed:
        return tuple(map(str, drift(vm, actual.node, actual)))
    if host is None:
        raise FleetError(f"{vm.attribute} belongs to no host of {fleet.file}")
    try:
        steps = compared(desired(client, fleet, vm, host), actual)
    except Refused as error:  # a disk whose size nobody knows: to be seen to, and no reason not to be ours
        return (str(error),)
    return tuple(str(step) for step in steps if step.row is not Row.START and not isinstance(step, Note))


def _changed(shown: Candidate, actual: ActualVm) -> list[str]:
    """Return the options that differ from what was shown; who holds its lock does not count."""
    passing = {"digest", "lock"}
    before, now = shown.config.values, actual.config.values
    keys = sorted((before.keys() | now.keys()) - passing)
    moved = ["node"] if actual.node != shown.node else []
    return moved + [key for key in keys if before.get(key) != now.get(key)]


def require_both_names(vm: Vm, name: str, vmid: int) -> None:
    """Require that the operator named the guest by name and VMID: an error in one shows in the other."""
    if (name, vmid) != (vm.name, vm.vmid):
        raise Usage(
            f"to adopt a guest name both, as {DEFINITIONS} does: {vm.attribute} is {vm.name} and {vm.vmid}; {name} and "
            f"{vmid} were given"
        )


def needs_none(vm: Vm) -> str | None:
    """Say why a guest needs no mark; None where it needs one."""
    if vm.may_change:
        return None
    flag = "readonly" if vm.readonly else vm.attribute
    return f"it is {flag} in {DEFINITIONS}: what is never changed needs no mark; nothing was written"


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
        backup = done.observed.get("backup") if isinstance(done, Outcome) else None
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
        return f"; backup: {', '.join(self.backups)}" if self.backups else "; no backup of it can be seen"


def partings(
    client: Callable[[], Client], fleet: Fleet, guests: Sequence[Vm], destroy: DestroyGuest | None, *, keep: bool
) -> list[Parting]:
    """Return what becomes of each guest. `destroy` has the VMID that was named; its name is the guest's.

    Raise Usage where nobody said what becomes of a guest that exists; raise Refused where it must not go; raise
    FleetError where nobody knows whether it exists.
    """
    if keep:
        return [Parting(vm, Fate.KEPT) for vm in guests]
    if destroy and destroy.vmid not in [vm.vmid for vm in guests]:
        known = ", ".join(map(label, guests)) or "no guest"
        raise Usage(f"--destroy {destroy.vmid}: the host has {known} in {DEFINITIONS}, name that VMID")
    return [_parting(client, fleet, vm, destroy if destroy and destroy.vmid == vm.vmid else None) for vm in guests]


def _parting(client: Callable[[], Client], fleet: Fleet, vm: Vm, destroy: DestroyGuest | None) -> Parting:
    try:
        if destroy is not None:
            identity.require_may_change(vm, "destroy")  # which nobody needs to be asked for
            action = replace(destroy, vm=vm.name)
            if steps := action.plan(client(), fleet, vm):
                return Parting(vm, Fate.DESTROYED, action, tuple(map(str, steps)))
        elif observe(client(), fleet, vm) is not None:
            raise Usage(_ask_for_fate(vm))
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


def _ask_for_fate(vm: Vm) -> str:
    what = f"{label(vm)} is there; say what is to become of it"
    if vm.may_change:
        return f"{what}: --destroy {vm.vmid}, after a backup, or --keep-vm"
    why = "readonly" if vm.readonly else f"{vm.origin}, never changed"
    return f"{what}: --keep-vm leaves it; it is {why} in {DEFINITIONS}, which must let it be destroyed"


def _backups(client: Client, fleet: Fleet, vm: Vm) -> tuple[str, ...] | None:
    """Return the backups of it that its node's storages show, the newest first."""
    node = fleet.node_of(vm)
    try:
        storages = [each.name for each in client.storages(node) if "backup" in each.content and each.away is None]
        rows = [row for name in storages for row in client.volumes(node, name, content="backup", vmid=vm.vmid)]
    except FleetError:
        return None
    return tuple(row.volid for row in sorted(rows, key=lambda row: row.ctime or 0, reverse=True))
