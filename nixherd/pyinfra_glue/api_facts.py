"""Facts that the hypervisor knows: asked on the controller through the guarded API, not on the machine."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from pyinfra.api.command import StringCommand

from nixherd.errors import FleetError
from nixherd.fleet.models import Vm
from nixherd.proxmox.errors import AgentUnavailable
from nixherd.proxmox.guest.identity import address_of, next_vmid
from nixherd.proxmox.guest.observe import find, interfaces_of
from nixherd.proxmox.hypervisor import Hypervisor


class ApiQuery(StringCommand):
    """A fact's command that the connector answers itself; it reads like the command that would show the same."""

    def __init__(self, name: str, **arguments: str | int | None) -> None:
        self.query = name
        self.arguments = {key: value for key, value in arguments.items() if value is not None}
        super().__init__("nixherd", "vm", name, *(str(value) for value in self.arguments.values()))


def answer(hypervisor: Hypervisor, host_id: str, query: ApiQuery) -> Any:
    """The answer as plain values; None where the host is not a guest, or the guest does not exist (yet).

    FleetError when the hypervisor cannot be asked, or the question makes no sense.
    """
    return _ANSWERS[query.query](hypervisor, hypervisor.fleet.vm_of(host_id), query.arguments)


Arguments = Mapping[str, Any]
Answer = Callable[[Hypervisor, Vm | None, Arguments], Any]


def _of_guest(
    ask: Callable[[Hypervisor, Vm, str, Arguments], Any],
) -> Callable[[Hypervisor, Vm | None, Arguments], Any]:
    """A question about a guest that is there; it gets the node where it is."""

    def asked(hypervisor: Hypervisor, vm: Vm | None, arguments: Arguments) -> Any:
        found = find(hypervisor.client, hypervisor.fleet, vm) if vm else None
        return None if vm is None or found is None else ask(hypervisor, vm, found[0], arguments)

    return asked


def _status(hypervisor: Hypervisor, vm: Vm, node: str, arguments: Arguments) -> Any:
    status = hypervisor.client.status(node, vm.vmid, vm.type)
    return None if status is None else {**asdict(status), "node": node, "type": str(vm.type)}


def _config(hypervisor: Hypervisor, vm: Vm, node: str, arguments: Arguments) -> Any:
    config = hypervisor.client.config(node, vm.vmid, vm.type)
    return None if config is None else dict(config.values)


def _address(hypervisor: Hypervisor, vm: Vm, node: str, arguments: Arguments) -> Any:
    config = hypervisor.client.config(node, vm.vmid, vm.type)
    try:
        return address_of(config, interfaces_of(hypervisor.client, node, vm)) if config else None
    except AgentUnavailable:
        return None


def _backups(hypervisor: Hypervisor, vm: Vm, node: str, arguments: Arguments) -> Any:
    client, wanted = hypervisor.client, arguments.get("storage")
    able = [each for each in client.storages(node) if "backup" in each.content and wanted in (None, each.name)]
    able = [each for each in able if each.enabled or wanted]  # one that is switched off is as good as not there
    if away := next((each for each in able if each.away), None):
        raise FleetError(
            f"storage {away.name} on {node} {away.away}; which backups it has is not known, name another one (storage=)"
        )
    names = [wanted] if wanted else [each.name for each in able]
    found = [row for name in names for row in client.volumes(node, name, content="backup", vmid=vm.vmid)]
    return [asdict(row) for row in found]


def _tasks(hypervisor: Hypervisor, vm: Vm, node: str, arguments: Arguments) -> Any:
    limit = int(arguments.get("limit") or 20)
    rows = (
        *hypervisor.client.tasks(node, vmid=vm.vmid, limit=limit),
        *hypervisor.client.tasks(node, active=False, vmid=vm.vmid, limit=limit),
    )
    return [{**asdict(row), "upid": str(row.upid)} for row in rows]


def _storages(hypervisor: Hypervisor, vm: Vm | None, arguments: Arguments) -> Any:
    return [asdict(each) for each in hypervisor.client.storages(_node(hypervisor, vm))]


def _node(hypervisor: Hypervisor, vm: Vm | None) -> str:
    """The node that the guest is declared on, else the endpoint's."""
    if vm is not None:
        return hypervisor.fleet.node_of(vm)
    if hypervisor.fleet.endpoint is None:
        raise FleetError("vms/definitions.nix: proxmox: no endpoint is declared; add host and node")
    return hypervisor.fleet.endpoint.node


def _content(hypervisor: Hypervisor, vm: Vm | None, arguments: Arguments) -> Any:
    node = _node(hypervisor, vm)
    rows = hypervisor.client.volumes(node, str(arguments["storage"]), content=arguments.get("content"))
    return [asdict(each) for each in rows]


def _pending(hypervisor: Hypervisor, vm: Vm, node: str, arguments: Arguments) -> Any:
    return [asdict(each) for each in hypervisor.client.pending(node, vm.vmid, vm.type)]


def _snapshots(hypervisor: Hypervisor, vm: Vm, node: str, arguments: Arguments) -> Any:
    return [asdict(each) for each in hypervisor.client.snapshots(node, vm.vmid, vm.type)]


def _next_vmid(hypervisor: Hypervisor, vm: Vm | None, arguments: Arguments) -> Any:
    return next_vmid(hypervisor.client, hypervisor.fleet, str(arguments["range"]))


_ANSWERS: Mapping[str, Answer] = {
    "status": _of_guest(_status),
    "config": _of_guest(_config),
    "ip": _of_guest(_address),
    "backups": _of_guest(_backups),
    "tasks": _of_guest(_tasks),
    "pending": _of_guest(_pending),
    "snapshots": _of_guest(_snapshots),
    "storage": _storages,
    "content": _content,
    "next-id": _next_vmid,
}
