"""The rows of provisioning that are more than one verb: what is checked first, the clone, and reaching the machine."""

from pyinfra import host

from nixherd.errors import FleetInvalid
from nixherd.locate.reach import Epoch
from nixherd.once import ahead
from nixherd.proxmox.preflight import preflight
from nixherd.proxmox.provisioning_survey import host_facts, survey
from nixherd.proxmox.steps import Row
from nixherd.pyinfra_glue.guests import managed_vm, row
from nixherd.pyinfra_glue.hosts import connector_of, context_of, evaluated, executing, fleet_host, selection
from nixherd.pyinfra_glue.installing import findings as obstacles_of
from nixherd.pyinfra_glue.operation import Change, NoChange, Planned, operation

CLONE_DEADLINE = 3600.0


@operation()
def validate() -> Planned:
    """Refuse what cannot end well, before anything is changed: every reason at once, for this host alone."""
    vm, chosen, builder = managed_vm(), selection(host), context_of(host).builder
    config = evaluated(host)
    seen = survey(context_of(host).hypervisor, vm)
    findings = [*preflight(context_of(host).fleet, vm, fleet_host(host), host_facts(config), seen)]
    if seen.actual is None:
        findings += obstacles_of(host)
    if findings:
        raise FleetInvalid(findings)
    if seen.actual is None and executing(host):
        # Needed after the first boot: made while the hypervisor clones and boots. `host` is unknown to those threads.
        ahead(lambda: builder.build(chosen, config.host_id), builder.kexec_tarball)
    return NoChange(f"{vm.name} may be provisioned")


@operation()
def clone() -> Planned:
    """Clone the template, whole, with our mark on the copy from its first moment; the host key is made before."""

    def host_key() -> None:
        context_of(host).keys.to_install(fleet_host(host).id)  # before anything boots

    return row(Row.CLONE, CLONE_DEADLINE, host_key)


@operation()
def address() -> Planned:
    """Wait for the machine, read its host key through the authenticated agent, pin it, and connect."""
    vm, connector = managed_vm(), connector_of(host)
    connector.installs = True
    if connector.place is not None:
        return NoChange(f"vm {vm.vmid} ({vm.name}) answers at {connector.place.address}")

    def reach() -> None:
        place = connector.reach()
        what = {Epoch.CLONE: "the fresh clone", Epoch.INSTALLER: "the installer", Epoch.FINAL: "the installed system"}
        host.log(f"{what[place.epoch]} answers at {place.address}")

    return Change(f"find the address of vm {vm.vmid} ({vm.name}) and pin its host key", reach, changes=False)


@operation()
def wait_for_ssh(timeout: float | None = None) -> Planned:
    """Wait until the machine answers by SSH with the host key that is pinned for it, `timeout` seconds at most."""
    connector, host_id = connector_of(host), fleet_host(host).id
    if connector.connected:
        return NoChange(f"{host_id} answers")
    return Change(
        f"wait for {host_id} to answer by SSH", lambda: connector.reach(timeout, absent_ok=True), changes=False
    )
