"""What our operations know of a pyinfra host: its place in the fleet, its connector, and the stage of the run."""

from typing import TYPE_CHECKING

from pyinfra.api.host import Host
from pyinfra.api.state import StateStage

from nixherd.fleet.models import Host as FleetHost
from nixherd.fleet.models import Vm
from nixherd.nix.commands import Evaluated
from nixherd.pyinfra_glue.context import Context

if TYPE_CHECKING:
    from nixherd.pyinfra_glue.fleet import FleetConnector


def context_of(host: Host) -> Context:
    """What the run is about, of which a function takes what it uses."""
    context: Context = host.data.context
    return context


def fleet_host(host: Host) -> FleetHost:
    return context_of(host).fleet.hosts[host.data.host_id]


def vm_of(host: Host) -> Vm | None:
    return context_of(host).fleet.vm_of(host.data.host_id)


def connector_of(host: Host) -> "FleetConnector":
    connector: FleetConnector = host.connector  # type: ignore[assignment]
    return connector


def executing(host: Host) -> bool:
    return bool(host.state.current_stage >= StateStage.Execute)


def failed(host: Host) -> bool:
    """Whether this host was refused already, so that its remaining rows have nothing to do."""
    return host in host.state.failed_hosts


def limited_to(host: Host) -> tuple[str, ...]:
    """The ids of all hosts of this run."""
    state = host.state
    return tuple(sorted(each.data.host_id for each in state.inventory if state.is_host_in_limit(each)))


def selection(host: Host) -> tuple[str, ...]:
    """The ids of all NixOS hosts of this run that we could install: they are evaluated and built together."""
    fleet = context_of(host).fleet
    vms = {host_id: fleet.vm_of(host_id) for host_id in limited_to(host) if fleet.hosts[host_id].is_nixos}
    return tuple(sorted(host_id for host_id, vm in vms.items() if vm is None or vm.is_managed))


def evaluated(host: Host) -> Evaluated:
    """What the flake says of this host, evaluated once for all hosts of the run. FleetError when it has none for it."""
    return context_of(host).evaluator.evaluate(selection(host), host.data.host_id)


def build_selection(host: Host) -> None:
    """Build what the hosts of this run need, all in one go. FleetError when it fails for this one."""
    context_of(host).builder.build(selection(host), host.data.host_id)
