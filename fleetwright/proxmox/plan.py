"""What has to be done to a VM so that it is as declared: a pure function from values to steps.

The steps are what a plan prints (`str(step)`) and what `apply.ensure` carries out: the same objects. Observing
again after they were carried out gives none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fleetwright.errors import FleetError, Refused
from fleetwright.models import Fleet, GuestType, Host, Vm, format_size
from fleetwright.proxmox.models import Upid, VmConfig, encode_ssh_keys, is_true
from fleetwright.proxmox.policy import DEFINITIONS

ADDRESSING = "ip=dhcp"
_AT_START = ("agent", "cores", "memory", "sockets")  # what a running VM takes up at its next start only


class Row(StrEnum):
    """The rows of provisioning that the hypervisor carries out, in their order."""

    CLONE = "clone"
    CONFIGURE = "configure"
    RESIZE = "resize"
    CLOUD_INIT = "cloud-init"
    START = "start"


@dataclass(frozen=True, slots=True)
class ActualVm:
    """A VM as it was observed. `clone_task` is our clone of it while that still runs."""

    config: VmConfig
    running: bool
    clone_task: Upid | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One option of a VM's configuration; `before` and `after` as people read them, `value` as it is sent."""

    key: str
    before: str
    after: str
    value: object

    def __str__(self) -> str:
        return f"{self.key} {self.before} → {self.after}"


@dataclass(frozen=True, slots=True)
class Clone:
    """Make the VM from the template, whole, on its own storage, with our mark on it from the first moment."""

    node: str
    vmid: int
    name: str
    template: int
    template_node: str
    description: str
    storage: str | None = None
    pool: str | None = None
    row = Row.CLONE

    def __str__(self) -> str:
        where = f" on {self.storage}" if self.storage else ""
        return f"clone template {self.template} to vm {self.vmid} ({self.name}){where}"


@dataclass(frozen=True, slots=True)
class AwaitClone:
    """An earlier run's clone is still at work: wait for it instead of beginning another."""

    node: str
    vmid: int
    upid: Upid
    row = Row.CLONE

    def __str__(self) -> str:
        return f"wait for the clone of vm {self.vmid} that is under way"


@dataclass(frozen=True, slots=True)
class Configure:
    """Set what the definitions declare."""

    node: str
    vmid: int
    changes: tuple[Change, ...]
    digest: str | None = None
    running: bool = False
    row = Row.CONFIGURE

    def __str__(self) -> str:
        waits = self.running and any(change.key in _AT_START for change in self.changes)
        return f"set {_listed(self.changes)}{' (from its next start on)' if waits else ''}"


@dataclass(frozen=True, slots=True)
class Resize:
    """Grow the boot disk; sizes in bytes."""

    node: str
    vmid: int
    disk: str
    before: int
    after: int
    digest: str | None = None
    row = Row.RESIZE

    def __str__(self) -> str:
        return f"grow {self.disk} {format_size(self.before)} → {format_size(self.after)}"


@dataclass(frozen=True, slots=True)
class CloudInit:
    """Say who may log in, and how the machine gets its address."""

    node: str
    vmid: int
    changes: tuple[Change, ...]
    digest: str | None = None
    running: bool = False
    row = Row.CLOUD_INIT

    def __str__(self) -> str:
        return f"set cloud-init {_listed(self.changes)}"


@dataclass(frozen=True, slots=True)
class Start:
    """Switch the VM on."""

    node: str
    vmid: int
    row = Row.START

    def __str__(self) -> str:
        return f"start vm {self.vmid}"


Step = Clone | AwaitClone | Configure | Resize | CloudInit | Start


def _listed(changes: tuple[Change, ...]) -> str:
    return ", ".join(str(change) for change in changes)


def mark(fleet: Fleet, vm: Vm) -> str:
    """The line in a VM's description that makes it ours. A copy of the VM carries it too, but not its VMID."""
    return f"fleetwright fleet={fleet.id} vmid={vm.vmid}"


def is_ours(fleet: Fleet, vm: Vm, config: VmConfig) -> bool:
    """Whether the guest under the VM's VMID is the one that this fleet made: VMID, name and mark."""
    lines = {line.strip() for line in config.description.splitlines()}
    return config.name == vm.name and mark(fleet, vm) in lines and not config.is_template


def plan_vm(fleet: Fleet, vm: Vm, host: Host, actual: ActualVm | None, template: VmConfig | None) -> tuple[Step, ...]:
    """The steps that make a managed VM as declared, in order; `actual` is None while it does not exist.

    For a VM that is still to be cloned the later steps are planned on what the clone will be.

    Raises Refused when the guest is not ours, when its disk would have to shrink, or when a readonly VM
    would need any step; FleetError when there is nothing to clone from.
    """
    if not vm.is_managed or vm.type is not GuestType.QEMU:
        raise Refused(f"{vm.attribute} in {DEFINITIONS} is {_kind(vm)}; only managed VMs are provisioned")
    steps = tuple(_steps(fleet, vm, host, actual, template))
    if steps and vm.readonly:
        raise Refused(
            f"vm {vm.vmid} ({vm.name}) is readonly in {DEFINITIONS}; refusing to {steps[0]} "
            "(edit the definitions if it may change)"
        )
    return steps


def _kind(vm: Vm) -> str:
    return f"a container ({vm.type})" if vm.is_managed else f"{vm.origin}, documented only"


def _steps(fleet: Fleet, vm: Vm, host: Host, actual: ActualVm | None, template: VmConfig | None) -> Iterator[Step]:
    node = fleet.node_of(vm)
    if actual is None or _is_unfinished(fleet, vm, actual):
        if fleet.template is None:
            raise FleetError(f"{vm.attribute}: no template to clone from; declare `template` in {DEFINITIONS}")
        if template is None:
            raise FleetError(
                f"template {fleet.template.vmid} does not exist on {template_node(fleet)}; make it, or correct "
                f"template.vmid in {DEFINITIONS}"
            )
        clone = _clone(fleet, vm)
        yield AwaitClone(node, vm.vmid, actual.clone_task) if actual and actual.clone_task else clone
        actual = cloned(clone, template)
    elif not is_ours(fleet, vm, actual.config):
        raise Refused(not_ours(fleet, vm, actual.config))
    changes = tuple(_configuration(vm, actual.config, template))
    if changes:
        yield Configure(node, vm.vmid, changes, actual.config.digest, actual.running)
    yield from _resize(vm, node, actual.config)
    changes = tuple(_cloud_init(host, actual.config))
    if changes:
        yield CloudInit(node, vm.vmid, changes, actual.config.digest, actual.running)
    if not actual.running:
        yield Start(node, vm.vmid)


def _is_unfinished(fleet: Fleet, vm: Vm, actual: ActualVm) -> bool:
    """Whether the VM is a clone in the making, by a task of ours. Its name and mark may be there before its disk."""
    if actual.config.lock != "clone":
        return False
    if actual.clone_task is None:
        raise Refused(
            f"vm {vm.vmid} on {fleet.node_of(vm)} is an unfinished clone and no task of ours is at work on it; when "
            f"nobody else's is, remove it on the node: `qm unlock {vm.vmid} && qm destroy {vm.vmid}`, then run again"
        )
    return True


def not_ours(fleet: Fleet, vm: Vm, config: VmConfig) -> str:
    """Why a guest that is not `is_ours` is not, and what to do."""
    found = f"vm {vm.vmid} on {fleet.node_of(vm)} exists but is not this fleet's"
    if config.is_template:
        return f"{found}: it is a template; give {vm.attribute} another VMID in {DEFINITIONS}"
    if config.name != vm.name:
        return (
            f"{found}: its name is {config.name or 'empty'}, not {vm.name}; "
            f"give {vm.attribute} another VMID in {DEFINITIONS}"
        )
    return (
        f"{found}: its notes lack the line `{mark(fleet, vm)}`; give {vm.attribute} another VMID in {DEFINITIONS}, "
        "or add that line by hand to hand the VM over"
    )


def template_node(fleet: Fleet) -> str:
    """The node the template lives on: its own `node` in the definitions, else the endpoint's."""
    assert fleet.template is not None
    assert fleet.endpoint is not None
    return str(fleet.template.extra.get("node") or fleet.endpoint.node)


def _clone(fleet: Fleet, vm: Vm) -> Clone:
    assert fleet.template is not None
    pool = vm.extra.get("pool")
    return Clone(
        node=fleet.node_of(vm),
        vmid=vm.vmid,
        name=vm.name,
        template=fleet.template.vmid,
        template_node=template_node(fleet),
        description=mark(fleet, vm),
        storage=fleet.storage_of(vm),
        pool=str(pool) if pool else None,
    )


def cloned(clone: Clone, template: VmConfig) -> ActualVm:
    """What the server makes of the template: a copy of its options (also tags and protection), not of its identity."""
    gone = ("template", "digest", "lock", "pending")
    values: dict[str, Any] = {key: value for key, value in template.values.items() if key not in gone}
    values |= {"name": clone.name, "description": clone.description}
    return ActualVm(VmConfig(values), running=False)


def _configuration(vm: Vm, config: VmConfig, template: VmConfig | None) -> Iterator[Change]:
    if vm.cores is not None and config.cores != vm.cores:
        yield Change("cores", str(config.cores), str(vm.cores), vm.cores)
    if vm.cores is not None and config.sockets != 1:
        yield Change("sockets", str(config.sockets), "1", 1)
    if vm.memory is not None and config.memory != vm.memory:
        before = "?" if config.memory is None else str(config.memory)
        yield Change("memory", before, f"{vm.memory} MiB", str(vm.memory))
    if not config.agent_enabled:
        yield Change("agent", "off", "on", "enabled=1")
    missing = {tag.lower() for tag in vm.tags} - set(config.tags)
    if missing:
        tags = sorted(missing | set(config.tags))
        yield Change("tags", ",".join(config.tags) or "none", ",".join(tags), ";".join(tags))
    yield from _flags(vm, config, template)


def _flags(vm: Vm, config: VmConfig, template: VmConfig | None) -> Iterator[Change]:
    """`onboot` and `protection`: as declared; where nothing is declared, what the template left there goes."""
    for key in ("onboot", "protection"):
        declared = vm.extra.get(key)
        if declared is None and not (template and template.flag(key)):
            continue
        wanted = is_true(declared) if declared is not None else False
        if config.flag(key) != wanted:
            yield Change(key, "off" if wanted else "on", "on" if wanted else "off", wanted)


def _resize(vm: Vm, node: str, config: VmConfig) -> Iterator[Step]:
    if vm.disk is None:
        return
    disk = config.boot_disk
    if disk is None or disk.size is None:
        raise Refused(f"vm {vm.vmid} ({vm.name}) on {node}: no boot disk with a size; correct its boot order")
    if disk.size > vm.disk:
        whose = "its template's " if config.digest is None else ""
        raise Refused(
            f"vm {vm.vmid} ({vm.name}): {whose}{disk.name} has {format_size(disk.size)}, {DEFINITIONS} wants "
            f"{format_size(vm.disk)}; disks are never shrunk, correct {vm.attribute}.disk"
        )
    if disk.size < vm.disk:
        yield Resize(node, vm.vmid, disk.name, disk.size, vm.disk, config.digest)


def _cloud_init(host: Host, config: VmConfig) -> Iterator[Change]:
    user = config.text("ciuser")
    if user != host.user:
        yield Change("user", user or "none", host.user, host.user)
    keys = tuple(key.strip() for key in host.authorized_keys)
    if keys and config.ssh_keys != keys:
        yield Change("keys", str(len(config.ssh_keys)), f"{len(keys)} of {host.id}", encode_ssh_keys(keys))
    addressing = config.text("ipconfig0")
    if addressing != ADDRESSING:
        yield Change("network", addressing or "none", ADDRESSING, ADDRESSING)
    if is_true(config.values.get("ciupgrade", 1)):  # minutes of the first boot, for a system that is replaced
        yield Change("upgrade", "on", "off", False)


_OPTIONS: Mapping[str, str] = {
    "user": "ciuser",
    "keys": "sshkeys",
    "network": "ipconfig0",
    "upgrade": "ciupgrade",
}


def options(step: Configure | CloudInit) -> dict[str, object]:
    """The options of a step's changes as the API names and takes them."""
    return {_OPTIONS.get(change.key, change.key): change.value for change in step.changes}


def rows(steps: tuple[Step, ...], row: Row) -> tuple[Step, ...]:
    return tuple(step for step in steps if step.row is row)
