"""Facts that the hypervisor knows: asked on the controller through the guarded API, not on the machine."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pyinfra.api.command import StringCommand

from nixherd.base.errors import FleetError
from nixherd.fleet.models import DEFINITIONS, Fleet, Vm
from nixherd.proxmox.errors import AgentUnavailable, NoAgent
from nixherd.proxmox.guest.identity import address_of, next_vmid
from nixherd.proxmox.guest.observe import find, interfaces_of
from nixherd.proxmox.hypervisor import Hypervisor

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client

Arguments = Mapping[str, Any]


class ApiQuery(StringCommand):
    """A fact's command that the connector answers itself; it reads like the command that would show the same."""

    def __init__(self, name: str, **arguments: str | int | None) -> None:
        self.query = name
        self.arguments: Arguments = {key: value for key, value in arguments.items() if value is not None}
        super().__init__("nixherd", "vm", name, *(str(value) for value in self.arguments.values()))


def answer(hypervisor: Hypervisor, host_id: str, query: ApiQuery) -> Any:
    """The answer as plain values; None where the host is not a guest, or the guest does not exist (yet).

    FleetError when the hypervisor cannot be asked, or the question makes no sense.
    """
    fleet, arguments = hypervisor.fleet, query.arguments
    vm = fleet.vm_of(host_id)
    match query.query:
        case "storage":
            return [asdict(each) for each in hypervisor.client.storages(_node(fleet, vm))]
        case "content":
            node, storage = _node(fleet, vm), str(arguments["storage"])
            rows = hypervisor.client.volumes(node, storage, content=arguments.get("content"))
            return [asdict(each) for each in rows]
        case "next-id":
            return next_vmid(hypervisor.client, fleet, str(arguments["range"]))
        case name:
            found = find(hypervisor.client, fleet, vm) if vm else None
            return _OF_A_GUEST[name](hypervisor.client, found[0], vm, arguments) if vm and found else None


def _node(fleet: Fleet, vm: Vm | None) -> str:
    """The node that the guest is declared on, else the endpoint's."""
    if vm is not None:
        return fleet.node_of(vm)
    if fleet.endpoint is None:
        raise FleetError(f"{DEFINITIONS}: proxmox: no endpoint is declared; add host and node")
    return fleet.endpoint.node


def _status(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    status = client.status(node, vm.vmid, vm.type)
    return None if status is None else {**asdict(status), "node": node, "type": str(vm.type)}


def _config(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    config = client.config(node, vm.vmid, vm.type)
    return None if config is None else dict(config.values)


def _address(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    config = client.config(node, vm.vmid, vm.type)
    if config is None:
        return None
    try:
        return address_of(config, interfaces_of(client, node, vm)) or "none"
    except (AgentUnavailable, NoAgent):
        return "unknown"


def _backups(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    storage = arguments.get("storage")
    able = [each for each in client.storages(node) if "backup" in each.content and storage in (None, each.name)]
    able = [each for each in able if each.enabled or storage]  # one that is switched off is as good as not there
    if away := next((each for each in able if each.away), None):
        raise FleetError(
            f"storage {away.name} on {node} {away.away}; which backups it has is not known, name another one (storage=)"
        )
    names = [storage] if storage else [each.name for each in able]
    found = [row for name in names for row in client.volumes(node, name, content="backup", vmid=vm.vmid)]
    return [asdict(row) for row in found]


def _tasks(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    limit = int(arguments.get("limit") or 20)
    rows = (row for active in (True, False) for row in client.tasks(node, active=active, vmid=vm.vmid, limit=limit))
    return [{**asdict(row), "upid": str(row.upid)} for row in rows]


def _pending(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    return [asdict(each) for each in client.pending(node, vm.vmid, vm.type)]


def _snapshots(client: "Client", node: str, vm: Vm, arguments: Arguments) -> Any:
    return [asdict(each) for each in client.snapshots(node, vm.vmid, vm.type)]


_OF_A_GUEST = {
    "status": _status,
    "config": _config,
    "ip": _address,
    "backups": _backups,
    "tasks": _tasks,
    "pending": _pending,
    "snapshots": _snapshots,
}
