"""What our operations know of a pyinfra host: its place in the fleet, its connector, and the stage of the run."""

from typing import TYPE_CHECKING

from pyinfra.api.host import Host
from pyinfra.api.state import StateStage

from nixherd.deploy.run import Rollouts
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Fleet, Vm
from nixherd.fleet.models import Host as FleetHost
from nixherd.gate.results import Result
from nixherd.nix.builder import Builder
from nixherd.nix.commands import Evaluated
from nixherd.nix.evaluator import Evaluator
from nixherd.once import OncePer
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.pyinfra_glue.context import Context
from nixherd.run import Run

if TYPE_CHECKING:
    from nixherd.pyinfra_glue.fleet import FleetConnector


def context_of(host: Host) -> Context | None:
    """What the run is about; None for a host of an inventory that is not ours."""
    context: Context | None = host.data.get("context")
    return context


def _context(host: Host) -> Context:
    context: Context = host.data.context
    return context


def fleet_of(host: Host) -> Fleet:
    return _context(host).fleet


def flake_of(host: Host) -> str:
    """The fleet as it was named: a locked reference, or its directory."""
    return _context(host).flake


def run_of(host: Host) -> Run:
    return _context(host).run


def keys_of(host: Host) -> HostKeys:
    return _context(host).keys


def evaluator_of(host: Host) -> Evaluator:
    return _context(host).evaluator


def builder_of(host: Host) -> Builder:
    return _context(host).builder


def hypervisor_of(host: Host) -> Hypervisor:
    return _context(host).hypervisor


def rollouts_of(host: Host) -> Rollouts:
    return _context(host).rollouts


def gate_results(host: Host) -> OncePer[tuple[str, ...], list[Result]]:
    """The quality gate's, by the tools that are left out."""
    return _context(host).gate


def fleet_host(host: Host) -> FleetHost:
    return fleet_of(host).hosts[host.data.host_id]


def vm_of(host: Host) -> Vm | None:
    return fleet_of(host).vm_of(host.data.host_id)


def connector_of(host: Host) -> "FleetConnector":
    connector: FleetConnector = host.connector  # type: ignore[assignment]
    return connector


def executing(host: Host) -> bool:
    return bool(host.state.current_stage >= StateStage.Execute)


def failed(host: Host) -> bool:
    """Whether this host was refused already, so that its remaining rows have nothing to do."""
    return host in host.state.failed_hosts


def selection(host: Host) -> tuple[str, ...]:
    """The ids of all NixOS hosts of this run that we could install: they are evaluated and built together."""
    fleet, state = fleet_of(host), host.state
    limited = (each.data.host_id for each in state.inventory if state.is_host_in_limit(each))
    vms = {host_id: fleet.vm_of(host_id) for host_id in limited if fleet.hosts[host_id].is_nixos}
    return tuple(sorted(host_id for host_id, vm in vms.items() if vm is None or vm.is_managed))


def evaluated(host: Host) -> Evaluated:
    """What the flake says of this host, evaluated once for all hosts of the run. FleetError when it has none for it."""
    return evaluator_of(host).evaluate(selection(host), host.data.host_id)


def build_selection(host: Host) -> None:
    """Build what the hosts of this run need, all in one go. FleetError when it fails for this one."""
    builder_of(host).build(selection(host), host.data.host_id)
