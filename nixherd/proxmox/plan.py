"""What has to be done to a guest so that it is as declared: a pure function from values to steps.

The steps are what a plan prints and what `apply` carries out: the same objects. Observing again after they were
carried out gives none. A running machine is never interrupted as a side effect: the step that does is a Reboot, which
nobody carries out unless told to.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nixherd.errors import FleetError, Refused
from nixherd.fleet.models import Fleet, GuestType, Host, Vm
from nixherd.proxmox import differences, disks, waiting
from nixherd.proxmox.containers import container_steps, creation
from nixherd.proxmox.identity import label, marked, why_not_ours
from nixherd.proxmox.listings import Pending
from nixherd.proxmox.models import Upid, VmConfig
from nixherd.proxmox.policy import DEFINITIONS
from nixherd.proxmox.steps import AwaitClone, Cannot, Clone, CloudInit, Configure, Note, Resume, Start, Step

SHUTDOWN_SECONDS = 180  # what a guest gets to shut down in before it is started again


@dataclass(frozen=True, slots=True)
class Desired:
    """A managed guest as the definitions want it; `template` is what it is cloned from, None if there is none.

    `unseen` is why the template could not be looked at: an obstacle to cloning alone. `host` says who may log in to
    the clone.
    """

    fleet: Fleet
    vm: Vm
    host: Host
    template: VmConfig | None = None
    unseen: FleetError | None = None


@dataclass(frozen=True, slots=True)
class ActualVm:
    """A guest as it was observed. `clone_task` is our clone of it while that still runs.

    `node` is where it was found; `pending` what waits for its next start. `unused` has the sizes in bytes of the
    volumes that are attached nowhere, by their names, None where they are not known.
    """

    config: VmConfig
    running: bool
    clone_task: Upid | None = None
    node: str = ""
    paused: bool = False
    pending: tuple[Pending, ...] = ()
    unused: Mapping[str, int | None] = field(default_factory=dict)

    def waiting(self, key: str) -> Pending | None:
        """What of this option waits for the next start."""
        return next((each for each in self.pending if each.key == key), None)

    def in_force(self, key: str) -> str | None:
        """The option as the guest has it now, whatever waits."""
        row = self.waiting(key)
        return self.config.text(key) if row is None else row.before


def plan_vm(desired: Desired, actual: ActualVm | None) -> tuple[Step, ...]:
    """The steps that make a managed guest as declared, in order; `actual` is None while it does not exist.

    For a VM that is still to be cloned the later steps are planned on what the clone will be. What cannot be done
    is a Cannot among them, saying why. Whether a readonly guest may have any is for whoever carries them out.

    Raises Refused when the guest is not ours or not managed; FleetError when there is nothing to make it from.
    """
    fleet, vm = desired.fleet, desired.vm
    if not vm.is_managed:
        raise Refused(f"{vm.attribute} in {DEFINITIONS} is documented only; only managed VMs are changed")
    if actual and not in_the_making(fleet, vm, actual) and (why := why_not_ours(fleet, vm, actual.config, actual.node)):
        raise Refused(why)
    return compared(desired, actual)


def compared(desired: Desired, actual: ActualVm | None) -> tuple[Step, ...]:
    """The same, whosever the guest is: for showing what differs. Nobody carries these out without `plan_vm`."""
    if desired.vm.type is GuestType.LXC:
        return tuple(_container_steps(desired, actual))
    return tuple(_steps(desired, actual))


def require_changeable(vm: Vm, steps: tuple[Step, ...]) -> None:
    """Refused when a readonly guest would need any of these."""
    if steps and vm.readonly:
        raise Refused(
            f"{label(vm)} is readonly in {DEFINITIONS}; refusing to {steps[0]} (edit the definitions if it may change)"
        )


def _steps(desired: Desired, actual: ActualVm | None) -> Iterator[Step]:
    fleet, vm = desired.fleet, desired.vm
    if actual is None or in_the_making(fleet, vm, actual):
        if fleet.template is None:
            raise FleetError(f"{vm.attribute}: no template to clone from; declare `template` in {DEFINITIONS}")
        if desired.unseen is not None:
            raise desired.unseen
        if desired.template is None:
            raise FleetError(
                f"template {fleet.template.vmid} does not exist on {template_node(fleet)}; make it, or correct "
                f"template.vmid in {DEFINITIONS}"
            )
        clone = clone_of_template(fleet, vm)
        yield AwaitClone(clone.node, vm.vmid, actual.clone_task) if actual and actual.clone_task else clone
        actual = cloned(clone, desired.template)
    node = actual.node or fleet.node_of(vm)
    yield from _place(fleet, vm, actual)
    changes = tuple(differences.options(fleet, vm, actual.config, desired.template))
    changing = {change.key for change in changes}
    waits = tuple(change.key for change in changes if waiting.of_change(actual, change))
    if changes:
        yield Configure(node, vm.vmid, changes, actual.config.digest, waits)
    yield from disks.disks(fleet, vm, node, actual)
    changes = tuple(differences.cloud_init(vm, desired.host, actual.config))
    if changes:
        yield CloudInit(node, vm.vmid, changes, actual.config.digest, actual.running)
    yield from differences.impossible(vm, node, actual.config)
    if desired.unseen is not None and (left := differences.inheritable(vm, actual.config)):
        what = f"whether {' and '.join(left)} came from its template is not known: {desired.unseen}"
        yield Note(node, vm.vmid, what)
    if not actual.running:
        yield from waiting.taken_up(vm, node, actual, changing)
        yield Start(node, vm.vmid)
    elif actual.paused:
        yield Resume(node, vm.vmid)
    else:
        yield from waiting.reboot_or_not(vm, node, actual, changing, waits, SHUTDOWN_SECONDS)


def _container_steps(desired: Desired, actual: ActualVm | None) -> Iterator[Step]:
    fleet, vm = desired.fleet, desired.vm
    if actual is None:
        yield creation(fleet, vm, desired.host)
        return
    yield from _place(fleet, vm, actual)
    yield from container_steps(fleet, vm, actual.node or fleet.node_of(vm), actual.config)
    if not actual.running:
        yield Start(actual.node or fleet.node_of(vm), vm.vmid, type=vm.type)


def _place(fleet: Fleet, vm: Vm, actual: ActualVm) -> Iterator[Step]:
    """A guest is found wherever it runs; where it should run is said, and left to whoever may move it."""
    if vm.node and actual.node and vm.node != actual.node:
        yield Cannot(
            actual.node,
            vm.vmid,
            "node",
            f"it runs on {actual.node}, {vm.attribute}.node says {vm.node}",
            f"`nixherd vm migrate {vm.name} {vm.node}` moves it, or correct the definitions",
            type=vm.type,
        )


def in_the_making(fleet: Fleet, vm: Vm, actual: ActualVm) -> bool:
    """Whether the VM is a clone in the making, by a task of ours. Its name and mark may be there before its disk.

    FleetError when it is one, and nobody of ours is at work on it.
    """
    if actual.config.lock != "clone" or vm.type is not GuestType.QEMU:
        return False
    if actual.clone_task is None:  # its lock is beyond what a token may clear
        raise FleetError(
            f"vm {vm.vmid} on {actual.node or fleet.node_of(vm)} is an unfinished clone and no task of ours is at work "
            f"on it; when nobody else's is, remove it on the node: `qm unlock {vm.vmid} && qm destroy {vm.vmid}`, "
            "then run again"
        )
    return True


def template_node(fleet: Fleet) -> str:
    """The node the template lives on: its own `node` in the definitions, else the endpoint's."""
    assert fleet.template is not None
    assert fleet.endpoint is not None
    return fleet.template.node or fleet.endpoint.node


def clone_of_template(fleet: Fleet, vm: Vm, *, full: bool = True) -> Clone:
    """The VM's making out of the declared template. A linked clone stays on the template's storage."""
    assert fleet.template is not None
    return replace(clone_of(fleet, vm, fleet.template.vmid, template_node(fleet), full=full), is_template=True)


def clone_of(fleet: Fleet, vm: Vm, source: int, node: str, *, full: bool = True) -> Clone:
    """The VM's making out of another one, which is on this node."""
    return Clone(
        node=fleet.node_of(vm),
        vmid=vm.vmid,
        name=vm.name,
        template=source,
        template_node=node,
        description=marked(fleet, vm, vm.settings.description or ""),
        storage=fleet.storage_of(vm) if full else None,
        pool=vm.settings.pool,
        full=full,
        is_template=False,
    )


def cloned(clone: Clone, template: VmConfig) -> ActualVm:
    """What the server makes of the template: a copy of its options (also tags and protection), not of its identity.

    What is attached nowhere is not copied.
    """
    gone = ("template", "digest", "lock", "pending", *template.unused)
    values: dict[str, Any] = {key: value for key, value in template.values.items() if key not in gone}
    values |= {"name": clone.name, "description": clone.description}
    return ActualVm(VmConfig(values), running=False)
