"""What our operations know of a pyinfra host: its place in the fleet, its connector, and the stage of the run."""

from typing import TYPE_CHECKING

from pyinfra.api.host import Host
from pyinfra.api.state import StateStage

from nixherd.fleet.models import Host as FleetHost
from nixherd.fleet.models import Vm
from nixherd.nix.builder import build
from nixherd.nix.commands import Evaluated
from nixherd.nix.evaluator import evaluate
from nixherd.session import Session

if TYPE_CHECKING:
    from nixherd.pyinfra_glue.fleet import FleetConnector


def session_of(host: Host) -> Session:
    session: Session = host.data.session
    return session


def fleet_host(host: Host) -> FleetHost:
    return session_of(host).host(host.data.host_id)


def vm_of(host: Host) -> Vm | None:
    return session_of(host).vm(host.data.host_id)


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
    session, state = session_of(host), host.state
    limited = (each.data.host_id for each in state.inventory if state.is_host_in_limit(each))
    vms = {host_id: session.vm(host_id) for host_id in limited if session.host(host_id).is_nixos}
    return tuple(sorted(host_id for host_id, vm in vms.items() if vm is None or vm.is_managed))


def evaluated(host: Host) -> Evaluated:
    """What the flake says of this host, evaluated once for all hosts of the run. FleetError when it has none for it."""
    return evaluate(session_of(host), selection(host), host.data.host_id)


def build_selection(host: Host) -> None:
    """Build what the hosts of this run need, all in one go. FleetError when it fails for this one."""
    build(session_of(host), selection(host), host.data.host_id)
