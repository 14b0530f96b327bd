"""The cluster and its nodes: which guests there are and where, which VMIDs are free, what this token may do."""

import re
from typing import Any

from nixherd.errors import ApiError
from nixherd.proxmox.calls.base import Calls, unless
from nixherd.proxmox.listings import Node, PciMapping, Presence, Resource
from nixherd.proxmox.models import Permissions, Version

_RELEASE = re.compile(r"[0-9]{1,4}(\.|$)")


class Cluster(Calls):
    def version(self) -> Version:
        data = self._get("version")
        if not isinstance(data, dict) or not _RELEASE.match(str(data.get("release"))):
            raise ApiError("GET /version: the answer is not the API's; does Proxmox VE listen there?", 200)
        return Version(str(data["version"]), str(data["release"]))

    def permissions(self) -> Permissions:
        """What this token may do, as the server computes it."""
        data = self._get("access", "permissions")
        paths = {
            path: {name: bool(int(propagate)) for name, propagate in privileges.items()}
            for path, privileges in data.items()
        }
        return Permissions(paths)

    def token_info(self, user: str, name: str) -> dict[str, Any]:
        """What is set of a token (`privsep`, `expire`); only its owner and those with User.Modify may ask."""
        data = self._get("access", "users", user, "token", name)
        return {**data, "privsep": int(data.get("privsep", 1)), "expire": int(data.get("expire") or 0)}

    def nodes(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.node_rows())

    def node_rows(self) -> tuple[Node, ...]:
        return tuple(sorted(map(Node.of, self._get("nodes")), key=lambda node: node.name))

    def node_addresses(self) -> dict[str, str]:
        """By address, the node that has it, as the cluster knows them; a token that may not see them is told none."""
        rows = self._get("cluster", "status")
        return {str(row["ip"]): str(row["name"]) for row in rows if row.get("type") == "node" and row.get("ip")}

    def interface_addresses(self, node: str) -> tuple[str, ...]:
        """The addresses that a node's network interfaces are configured with."""
        rows = self._get("nodes", node, "network")
        return tuple(str(row[key]) for row in rows for key in ("address", "address6") if row.get(key))

    def node_time(self, node: str) -> int:
        """The node's clock, seconds since 1970."""
        return int(self._get("nodes", node, "time")["time"])

    def resources(self) -> tuple[Resource, ...]:
        """The guests of the whole cluster that the token may see, by VMID, in one request."""
        rows = self._get("cluster", "resources", type="vm")
        found = (Resource.of(row) for row in rows if row.get("type") in ("qemu", "lxc"))
        return tuple(sorted(found, key=lambda row: row.vmid))

    def pool_members(self, pool: str) -> frozenset[int]:
        """The VMIDs of a pool's guests; who is in it is shown also to a token that may not look at the pool itself."""
        rows = self._get("pools", poolid=pool)
        found = (each for row in rows if row.get("poolid") == pool for each in row.get("members") or ())
        return frozenset(int(each["vmid"]) for each in found if "vmid" in each)

    def is_free(self, vmid: int) -> bool:
        """Whether no guest of the cluster has this VMID, also where the token may not see it."""
        try:
            self._get("cluster", "nextid", vmid=vmid)
        except ApiError as error:
            if error.status == 400 and "already exists" in error.errors.get("vmid", ""):
                return False
            raise
        return True

    def presence(self, vmid: int) -> Presence:
        """What a VMID is that no list shows. The server tells a taken one from a free one without any right."""
        try:
            return Presence.ABSENT if self.is_free(vmid) else Presence.NOT_VISIBLE
        except ApiError:
            return Presence.UNKNOWN

    def pci_mapping(self, name: str) -> PciMapping | None:
        """A PCI device that may be passed through by name; None when there is no such mapping."""
        data = unless("not found", lambda: self._get("cluster", "mapping", "pci", name))
        return None if data is None else PciMapping.of({"id": name, **data})
