"""From a request of a known caller to the function that answers it: route, permissions, node, parameters."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from lab.api import served  # noqa: F401  (registers the routes)
from lab.api.emulator import Emulator
from lab.api.errors import ApiError, NotImplementedHere, PermissionDenied
from lab.api.parameters import checked, merge_uri
from lab.api.permissions import User
from lab.api.routes import REGISTRY, Call, find
from lab.api.schema import RouteSchema


def resolve(
    emulator: Emulator,
    user: User,
    method: str,
    path: str,
    params: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
) -> tuple[RouteSchema, Callable[[], Any]]:
    """Return the schema of the call and the function that runs it (blocking). Raises ApiError for a refusal."""
    match = find(method, path)
    schema = emulator.schema.route(match[0]) if match else None
    if not match or not schema:
        raise NotImplementedHere(method, path)
    key, uri = match
    merged = merge_uri(uri, params)
    _check_access(emulator, schema, user, path, merged)

    def work() -> Any:
        if method == "GET" and (guest := _GUEST.fullmatch(path)):
            emulator.qmeventd.looked(int(guest["vmid"]))
        emulator.tasks.here.node = emulator.state.name_of(merged.get("node"))
        nulls = frozenset(name for name, value in merged.items() if value is None)
        return REGISTRY[key](Call(emulator, user, method, path, checked(schema, merged), nulls, dict(files or {})))

    return schema, work


def _check_access(emulator: Emulator, schema: RouteSchema, user: User, path: str, params: Mapping[str, Any]) -> None:
    if user.token and not schema.allows_token:
        raise PermissionDenied(f"URI '{path}' not available with API token, need proper ticket.\n")
    emulator.permissions.check_call(user, schema.permissions, params)
    node = params.get("node")
    if schema.proxied and node not in emulator.state.nodes and node != "localhost":
        why = f"failed to get address info for: {node}: Temporary failure in name resolution"
        raise ApiError(f"hostname lookup '{node}' failed - {why}")
    if schema.proxied and emulator.faults.is_on("node-down") and emulator.faults.is_on("node-down", node=node):
        raise ApiError("No route to host", 595, body="")
    _require_here(emulator, path, params)


_GUEST = re.compile(r"/nodes/[^/]+/(?P<type>qemu|lxc)/(?P<vmid>\d+)(/.*)?")


def _require_here(emulator: Emulator, path: str, params: Mapping[str, Any]) -> None:
    """Require that the guest is on the requested node; elsewhere its configuration file is missing."""
    match = _GUEST.fullmatch(path)
    vm = emulator.state.vms.get(int(match["vmid"])) if match else None
    node = emulator.state.name_of(params.get("node"))
    if match is not None and vm is not None and vm.node != node:
        folder = "qemu-server" if match["type"] == "qemu" else "lxc"
        raise ApiError(f"Configuration file 'nodes/{node}/{folder}/{match['vmid']}.conf' does not exist")
