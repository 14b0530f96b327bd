"""Operations on virtual machines: each looks at the VM, plans, and carries out the steps of its own row.

All of them act for the host whose VM it is, on the controller, through the guarded client.
"""

from collections.abc import Iterator

from pyinfra import host
from pyinfra.api import operation

from fleetwright.build import ahead, build, evaluate, kexec_tarball
from fleetwright.errors import FleetError, FleetInvalid, Refused
from fleetwright.models import GuestType, Vm
from fleetwright.preflight import HostFacts, preflight
from fleetwright.proxmox.apply import apply, observe
from fleetwright.proxmox.plan import Row, Step, plan_vm, rows
from fleetwright.reach import Epoch
from operations.steps import Commands, connector_of, decide, do, executing, fleet_host, session_of, vm_of

CLONE_DEADLINE = 3600.0  # seconds
TASK_DEADLINE = 300.0


@operation()
def validate(hosts: tuple[str, ...]) -> Commands:
    """Refuse what cannot end well, before anything is changed: every reason at once, for this host alone.

    Args:
        hosts: the ids of all hosts of this run; they are evaluated and built together.
    """
    yield from decide(host, lambda: _validate(hosts))


def _validate(hosts: tuple[str, ...]) -> Commands:
    session, vm = session_of(host), _managed_vm()
    steps = _plan()
    if any(step.row is Row.CLONE for step in steps):
        about = evaluate(session, hosts)[fleet_host(host).id]
        facts = HostFacts(about.boot_loader, about.devices, about.hostname, about.grub_efi)
        findings = list(preflight(session.fleet, vm, facts, session.client))
        problem = session.key_problem(about.host_id)
        if problem:
            findings.append(problem)
        if findings:
            raise FleetInvalid(findings)
        if executing(host):
            # Needed after the first boot: made while the hypervisor clones and boots.
            ahead(lambda: build(session, hosts), lambda: kexec_tarball(session))
    host.noop(f"{vm.name} may be provisioned")
    return
    yield


def _managed_vm() -> Vm:
    vm = vm_of(host)
    if vm is None:
        raise FleetError(
            f"{fleet_host(host).id} is no VM of vms/definitions.nix; deploys/install.py installs machines that SSH reaches"
        )
    if not vm.is_managed:
        raise Refused(
            f"vm {vm.vmid} ({vm.name}) is {vm.attribute} in vms/definitions.nix: documented, never changed; refusing to provision it"
        )
    if vm.type is not GuestType.QEMU:
        raise Refused(f"{vm.attribute} is a container (lxc); only virtual machines are provisioned by cloning")
    return vm


def _plan() -> tuple[Step, ...]:
    """What the VM needs now, looked up anew. Refused when a readonly VM needs anything, or the VM is not ours."""
    session, vm = session_of(host), _managed_vm()
    actual, template = observe(session.client, session.fleet, vm)
    return plan_vm(session.fleet, vm, fleet_host(host), actual, template)


def _row(row: Row, deadline: float) -> Iterator[Commands]:
    session, vm = session_of(host), _managed_vm()
    steps = rows(_plan(), row)
    if not steps:
        host.noop(f"vm {vm.vmid} ({vm.name}): nothing to {row}")
    for step in steps:
        yield do(host, str(step), lambda step=step: apply(session.client, step, deadline, host.log))


def _vm_operation(row: Row, deadline: float = TASK_DEADLINE) -> Commands:
    def body() -> Commands:
        for commands in _row(row, deadline):
            yield from commands

    yield from decide(host, body)


@operation()
def clone() -> Commands:
    """Clone the template, whole, with our mark on the copy from its first moment; the host key is made before."""

    def body() -> Commands:
        session, host_id = session_of(host), fleet_host(host).id
        for commands in _row(Row.CLONE, CLONE_DEADLINE):
            if executing(host):
                session.key_to_install(host_id)  # before anything boots
            yield from commands

    yield from decide(host, body)


@operation()
def configure() -> Commands:
    """Set what the definitions declare, on the configuration it was decided on (its digest)."""
    yield from _vm_operation(Row.CONFIGURE)


@operation()
def resize() -> Commands:
    """Grow the boot disk to its declared size; never shrink it."""
    yield from _vm_operation(Row.RESIZE)


@operation()
def cloud_init() -> Commands:
    """Say who may log in to the fresh clone, and that it gets its address by DHCP."""
    yield from _vm_operation(Row.CLOUD_INIT)


@operation()
def start() -> Commands:
    """Switch the VM on."""
    yield from _vm_operation(Row.START)


@operation()
def address() -> Commands:
    """Wait for the machine, read its host key through the authenticated agent, pin it, and connect."""
    yield from decide(host, _address)


def _address() -> Commands:
    vm, connector = _managed_vm(), connector_of(host)

    def act() -> None:
        place = connector.reach()
        what = {Epoch.CLONE: "the fresh clone", Epoch.INSTALLER: "the installer", Epoch.FINAL: "the installed system"}
        host.log(f"{what[place.epoch]} answers at {place.address}")

    if connector.place is not None:
        host.noop(f"vm {vm.vmid} ({vm.name}) answers at {connector.place.address}")
        return
    yield from do(host, f"find the address of vm {vm.vmid} ({vm.name}) and pin its host key", act)
