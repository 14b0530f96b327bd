"""Resource pools."""

from typing import Any

from lab.api.errors import ApiError
from lab.api.formats import split_list
from lab.api.routes import Call, route
from lab.api.state import State


def _visible(call: Call) -> list[str]:
    allowed = call.emulator.permissions.allowed
    return [name for name in call.emulator.state.pools if allowed(call.user, f"/pool/{name}", ["Pool.Audit"])]


def _members(call: Call, record: dict[str, Any]) -> list[dict[str, Any]]:
    state, statistics = call.emulator.state, call.emulator.statistics
    vms = [state.vms[int(vmid)] for vmid in record.get("members", []) if int(vmid) in state.vms]
    rows = [statistics.vm_row(vm, bare=True) for vm in vms]
    return rows + [
        statistics.storage_row(state.storages[name]) for name in record.get("storages", []) if name in state.storages
    ]


@route("GET", "/pools")
def listing(call: Call) -> Any:
    """List the pools that may be audited; a pool requested by name is shown to everybody, with all its members."""
    poolid = call.params.get("poolid")
    pools = call.emulator.state.pools
    if poolid and poolid not in pools:
        raise ApiError(f"pool '{poolid}' does not exist")
    rows = []
    for name in [poolid] if poolid else _visible(call):
        comment = {"comment": pools[name]["comment"]} if pools[name].get("comment") else {}
        rows.append({"poolid": name, **comment, **({"members": _members(call, pools[name])} if poolid else {})})
    return rows


@route("GET", "/pools/{poolid}")
def read(call: Call) -> Any:
    record = _get(call.emulator.state, call.params["poolid"], "read")
    return {**({"comment": record["comment"]} if record.get("comment") else {}), "members": _members(call, record)}


def _get(state: State, name: str, verb: str) -> dict[str, Any]:
    if name not in state.pools:
        raise ApiError(f"{verb} pool failed: pool '{name}' does not exist")
    return state.pools[name]


@route("POST", "/pools")
def create(call: Call) -> Any:
    name, pools = call.params["poolid"], call.emulator.state.pools
    if name in pools:
        raise ApiError(f"create pool failed: pool '{name}' already exists")
    pools[name] = {"comment": call.params.get("comment", ""), "members": []}


@route("PUT", "/pools/{poolid}")
@route("PUT", "/pools")
def update(call: Call) -> Any:
    state = call.emulator.state
    record = _get(state, call.params["poolid"], "update")
    if "comment" in call.params:
        record["comment"] = call.params["comment"]
    members: list[int] = record.setdefault("members", [])
    for vmid in map(int, split_list(call.params.get("vms", ""))):
        call.emulator.permissions.require(call.user, f"/vms/{vmid}", ["Permissions.Modify", "VM.Allocate"], any_of=True)
        if call.params.get("delete"):
            if vmid not in members:
                raise ApiError(f"update pools failed: VM {vmid} is not a pool member")
            members.remove(vmid)
            continue
        if vmid not in state.vms:
            raise ApiError(f"update pools failed: VM {vmid} does not exist")
        if vmid in members:
            raise ApiError(f"update pools failed: VM {vmid} is already a pool member")
        other = state.pool_of(vmid)
        if other and not call.params.get("allow-move"):
            raise ApiError(
                f"update pools failed: VM {vmid} belongs already to pool '{other}' and 'allow-move' is not set"
            )
        if other:
            state.pools[other]["members"].remove(vmid)
        members.append(vmid)


@route("DELETE", "/pools/{poolid}")
@route("DELETE", "/pools")
def delete(call: Call) -> Any:
    name, state = call.params["poolid"], call.emulator.state
    record = _get(state, name, "delete")
    if record.get("members"):
        raise ApiError(f"delete pool failed: pool '{name}' is not empty (contains VM {record['members'][0]})")
    del state.pools[name]
