"""The cluster: resources, free VMIDs, options."""

from typing import Any

from lab.api.errors import ApiError, ParameterError
from lab.api.formats import split_list
from lab.api.nodes import task_rows
from lab.api.routes import Call, route
from lab.api.state import Vm

FIRST_VMID, LAST_VMID = 100, 1_000_000


@route("GET", "/cluster/nextid")
def next_vmid(call: Call) -> Any:
    """Return the lowest free VMID as text. Nothing is reserved."""
    taken = call.emulator.state.vms
    requested = call.params.get("vmid")
    if requested is not None:
        if requested in taken:
            raise ParameterError({"vmid": f"VM {requested} already exists"})
        return str(requested)
    free = next((vmid for vmid in range(FIRST_VMID, LAST_VMID) if vmid not in taken), None)
    if free is None:
        raise ApiError(f"unable to get any free VMID in range [{FIRST_VMID}, {LAST_VMID - 1}]")
    return str(free)


@route("GET", "/cluster/resources")
def resources(call: Call) -> Any:
    emulator, kind = call.emulator, call.params.get("type")
    state, statistics, allowed = emulator.state, emulator.statistics, emulator.permissions.allowed
    rows: list[dict[str, Any]] = []
    if kind is None:
        pools = (name for name in state.pools if allowed(call.user, f"/pool/{name}", ["Pool.Audit"]))
        rows += [{"id": f"/pool/{name}", "pool": name, "type": "pool"} for name in pools]
    if kind in (None, "vm"):
        vms = (vm for vm in list(state.vms.values()) if allowed(call.user, f"/vms/{vm.vmid}", ["VM.Audit"]))
        rows += [statistics.vm_row(vm, lock=emulator.lock_of(vm), pool=_pool_shown(call, vm)) for vm in vms]
    if kind in (None, "node"):
        rows += [
            statistics.node_row(node, whole=allowed(call.user, f"/nodes/{node}", ["Sys.Audit"])) for node in state.nodes
        ]
    if kind in (None, "storage"):
        storages = (
            s for name, s in state.storages.items() if allowed(call.user, f"/storage/{name}", ["Datastore.Audit"])
        )
        rows += [
            statistics.storage_row(storage, node)
            for storage in storages
            for node in state.nodes
            if storage.enabled and (storage.nodes is None or node in storage.nodes)
        ]
    if kind in (None, "sdn") and allowed(call.user, "/sdn/zones/localnetwork", ["SDN.Audit", "SDN.Use"], any_of=True):
        rows += [_zone_row(state.version, node) for node in state.nodes]
    return rows


def _pool_shown(call: Call, vm: Vm) -> str | None:
    pool = call.emulator.state.pool_of(vm.vmid)
    return pool if pool and call.emulator.permissions.allowed(call.user, f"/pool/{pool}", ["Pool.Audit"]) else None


def _zone_row(version: int, node: str) -> dict[str, Any]:
    zone = "localnetwork"
    if version >= 9:
        row = {"id": f"network/{node}/zone/{zone}", "network": zone, "network-type": "zone", "type": "network"}
    else:
        row = {"id": f"sdn/{node}/{zone}", "sdn": zone, "type": "sdn"}
    return {**row, "node": node, "status": "ok"}


@route("GET", "/cluster/status")
def status(call: Call) -> Any:
    state, down = call.emulator.state, call.emulator.statistics.down
    many = len(state.nodes) > 1
    cluster = {"id": "cluster", "name": "lab", "type": "cluster", "version": 1, "quorate": 1, "nodes": len(state.nodes)}
    return [
        *([cluster] if many else []),
        *(
            {
                "id": f"node/{name}",
                "name": name,
                "type": "node",
                "ip": record.get("ip", "127.0.0.1"),
                "level": "",
                "local": int(name == state.node),
                "nodeid": number if many else 0,
                "online": int(not down(name)),
            }
            for number, (name, record) in enumerate(state.nodes.items(), 1)
        ),
    ]


@route("GET", "/cluster/options")
def options(call: Call) -> Any:
    """Return the cluster's options; a caller without audit rights gets only the tags of visible guests."""
    allowed = call.emulator.permissions.allowed
    vms = [vm for vm in list(call.emulator.state.vms.values()) if allowed(call.user, f"/vms/{vm.vmid}", ["VM.Audit"])]
    tags = {"allowed-tags": sorted({tag for vm in vms for tag in split_list(str(vm.config.get("tags", "")))})}
    return tags | ({"description": "", "mac_prefix": "BC:24:11"} if allowed(call.user, "/", ["Sys.Audit"]) else {})


@route("GET", "/cluster/tasks")
def tasks(call: Call) -> Any:
    """List the tasks of all nodes, running ones first.

    A caller without audit rights sees only their own; a token is not a user and sees none.
    """
    audits = call.emulator.permissions.allowed(call.user, "/", ["Sys.Audit"])
    rows = task_rows(call, running=True)[:50] + task_rows(call, running=False)[:50]
    newest = call.emulator.tasks.ended_last
    shown = []
    for row in rows:
        row["user"], _, token = row["user"].partition("!")
        row |= {"tokenid": token} if token else {}
        if audits or row["user"] == call.user.name:
            # the running tasks that the node had recorded when the latest one ended
            saved: int | str = 1 if newest is not None and row["upid"] == newest.upid else row.get("saved", "1")
            shown.append({key: value for key, value in row.items() if key not in ("pid", "pstart")} | {"saved": saved})
    return shown


def _mapping_row(name: str, record: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "type": "pci", "map": list(record.get("map", [])), "description": record.get("description", "")}


_USES = ["Mapping.Audit", "Mapping.Use", "Mapping.Modify"]


@route("GET", "/cluster/mapping/pci")
def pci_mappings(call: Call) -> Any:
    allowed = call.emulator.permissions.allowed
    mappings = call.emulator.state.pci_mappings
    return [
        _mapping_row(name, record)
        for name, record in mappings.items()
        if allowed(call.user, f"/mapping/pci/{name}", _USES, any_of=True)
    ]


@route("GET", "/cluster/mapping/pci/{id}")
def pci_mapping(call: Call) -> Any:
    name, mappings = call.params["id"], call.emulator.state.pci_mappings
    call.emulator.permissions.require(call.user, f"/mapping/pci/{name}", _USES, any_of=True)
    if name not in mappings:
        raise ApiError(f"pci device mapping '{name}' not found")
    return _mapping_row(name, mappings[name])


@route("GET", "/cluster/ha/resources")
def ha_resources(call: Call) -> Any:
    return []
