"""The rows of provisioning: each looks at the VM, plans, and carries out the steps of its own row.

All of them act for the host whose VM it is, on the controller, through the guarded client.
"""

from collections.abc import Callable

from pyinfra import host
from pyinfra.api import operation

from nixherd.build import build, kexec_tarball
from nixherd.errors import FleetError, FleetInvalid, Refused
from nixherd.models import GuestType, Vm
from nixherd.preflight import preflight
from nixherd.proxmox.guest.apply import ensure, plan_of
from nixherd.proxmox.steps import Cannot, Row, Step, rows
from nixherd.reach import Epoch
from nixherd.session import ahead
from nixherd.survey import host_facts, hypervisor
from operations import installer
from operations.proxmox.acting import deadline_of
from operations.steps import (
    Commands,
    connector_of,
    decide,
    do,
    evaluated,
    executing,
    fleet_host,
    selection,
    session_of,
    vm_of,
)

# Seconds for a task of the hypervisor and for whoever holds its locks, unless the data `task_deadline` says so.
TASK_DEADLINE = 300.0
CLONE_DEADLINE = 3600.0


@operation()
def validate() -> Commands:
    """Refuse what cannot end well, before anything is changed: every reason at once, for this host alone."""
    yield from decide(host, _validate)


def _validate() -> Commands:
    session, vm, chosen = session_of(host), _managed_vm(), selection(host)
    about = evaluated(host)
    seen = hypervisor(session, vm)
    findings = [*preflight(session.fleet, vm, fleet_host(host), host_facts(about), seen)]
    if seen.actual is None:
        findings += installer.findings()
    if findings:
        raise FleetInvalid(findings)
    if seen.actual is None and executing(host):
        # Needed after the first boot: made while the hypervisor clones and boots. `host` is unknown to those threads.
        ahead(lambda: build(session, chosen, about.host_id), lambda: kexec_tarball(session))
    host.noop(f"{vm.name} may be provisioned")
    yield from ()


def _managed_guest() -> Vm:
    vm = vm_of(host)
    if vm is None:
        raise FleetError(
            f"{fleet_host(host).id} is no VM of vms/definitions.nix; "
            "deploys/install.py installs machines that SSH reaches"
        )
    if not vm.is_managed:
        raise Refused(
            f"vm {vm.vmid} ({vm.name}) is {vm.attribute} in vms/definitions.nix: documented, never changed; "
            "refusing to provision it"
        )
    return vm


def _managed_vm() -> Vm:
    vm = _managed_guest()
    if vm.type is not GuestType.QEMU:
        raise Refused(f"{vm.attribute} is a container (lxc); only virtual machines are provisioned by cloning")
    return vm


def _plan() -> tuple[Step, ...]:
    """What the VM needs now, looked up anew. Refused when a readonly VM needs anything, or the VM is not ours."""
    session = session_of(host)
    return plan_of(session.client, session.fleet, _managed_guest(), fleet_host(host))


def row(row: Row, deadline: float = TASK_DEADLINE, before: Callable[[], object] | None = None) -> Commands:
    """The steps of one row of the plan for the host's guest; what cannot be done of it fails the host after them."""
    session, vm = session_of(host), _managed_guest()
    deadline, planned = deadline_of(host, deadline), _plan()
    steps = rows(planned, row)
    obstacles = [str(step) for step in planned if isinstance(step, Cannot) and step.about is row]

    def act() -> None:
        if before:
            before()
        ensure(session.client, session.fleet, vm, fleet_host(host), row, timeout=deadline, progress=host.log)
        if obstacles:
            raise FleetError("; ".join(f"not as declared: {each}" for each in obstacles))

    if steps or obstacles:
        said = "; ".join(map(str, steps)) or f"nothing that can be done to {row}"
        yield from do(host, said, act, by_api=True)
    else:
        host.noop(f"vm {vm.vmid} ({vm.name}): nothing to {row}")


@operation()
def clone() -> Commands:
    """Clone the template, whole, with our mark on the copy from its first moment; the host key is made before."""

    def host_key() -> None:
        session_of(host).key_to_install(fleet_host(host).id)  # before anything boots

    yield from decide(host, lambda: row(Row.CLONE, CLONE_DEADLINE, host_key))


def cloud_init_row() -> Commands:
    """Who may log in to the fresh clone, and that it gets its address by DHCP, as the definitions say."""
    yield from row(Row.CLOUD_INIT)


@operation()
def start() -> Commands:
    """Switch the VM on."""
    yield from decide(host, lambda: row(Row.START))


@operation()
def address() -> Commands:
    """Wait for the machine, read its host key through the authenticated agent, pin it, and connect."""
    yield from decide(host, _address)


def _address() -> Commands:
    vm, connector = _managed_vm(), connector_of(host)
    connector.installs = True

    def act() -> None:
        place = connector.reach()
        what = {Epoch.CLONE: "the fresh clone", Epoch.INSTALLER: "the installer", Epoch.FINAL: "the installed system"}
        host.log(f"{what[place.epoch]} answers at {place.address}")

    if connector.place is not None:
        host.noop(f"vm {vm.vmid} ({vm.name}) answers at {connector.place.address}")
        return
    summary = f"find the address of vm {vm.vmid} ({vm.name}) and pin its host key"
    yield from do(host, summary, act, changes=False)


@operation()
def wait_for_ssh(timeout: float | None = None) -> Commands:
    """Wait until the machine answers by SSH with the host key that is pinned for it, `timeout` seconds at most."""

    def body() -> Commands:
        connector = connector_of(host)
        if connector.connected:
            host.noop(f"{fleet_host(host).id} answers")
            return
        summary = f"wait for {fleet_host(host).id} to answer by SSH"
        yield from do(host, summary, lambda: connector.reach(timeout, absent_ok=True), changes=False)

    yield from decide(host, body)
