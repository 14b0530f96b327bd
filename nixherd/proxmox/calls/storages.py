"""The cluster and its nodes, storages as a node sees them, their volumes, and backups."""

import re
from pathlib import Path
from typing import Any

from nixherd.errors import ApiError
from nixherd.proxmox.answers import Node, PciMapping, Permissions, Presence, Resource, Storage, Upid, Version, Volume
from nixherd.proxmox.calls.base import Calls, unless, upid_of
from nixherd.proxmox.wire import Upload

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


_NO_STORAGE = r"No such storage|storage '[^']*' (does not exist|is not available on node)"


class Storages(Calls):
    def storage(self, node: str, storage: str) -> Storage | None:
        """A storage as that node sees it; None when the node knows no such storage."""
        data = unless(_NO_STORAGE, lambda: self._get("nodes", node, "storage", storage, "status"))
        return None if data is None else Storage.of(storage, data)

    def storages(self, node: str) -> tuple[Storage, ...]:
        """The storages of a node that the token may see, by name."""
        rows = (Storage.of(str(row["storage"]), row) for row in self._get("nodes", node, "storage"))
        return tuple(sorted(rows, key=lambda row: row.name))

    def volumes(
        self, node: str, storage: str, *, content: str | None = None, vmid: int | None = None
    ) -> tuple[Volume, ...]:
        """The volumes of a storage, oldest first; of one guest, or of one kind (`images`, `backup`, …)."""
        rows = self._get("nodes", node, "storage", storage, "content", content=content, vmid=vmid)
        found = (Volume.of(row) for row in rows)
        kept = (each for each in found if content is None or each.content == content)
        return tuple(sorted(kept, key=lambda each: (each.ctime or 0, each.volid)))

    def archived_text(self, node: str, archive: str) -> str:
        """The configuration in a backup, with the lines that say which drives it holds.

        The guard counts it as looking inside the guest.
        """
        return str(self._get("nodes", node, "vzdump", "extractconfig", volume=archive))

    def remove_volume(self, node: str, volid: str) -> Upid | None:
        """Begin to remove a volume; None where the server did it at once."""
        storage = volid.partition(":")[0]
        data = self._delete("nodes", node, "storage", storage, "content", *volid.split("/"))
        return None if data is None else upid_of(data)

    def download(self, node: str, storage: str, url: str, filename: str, sha256: str) -> Upid:
        """Have the node fetch an image to import from; one of another SHA-256 is thrown away by it."""
        checksum = {"checksum": sha256, "checksum-algorithm": "sha256"}
        path = ("nodes", node, "storage", storage, "download-url")
        return upid_of(self._post(*path, content="import", filename=filename, url=url, **checksum))

    def upload(self, node: str, storage: str, file: Path, filename: str, sha256: str) -> Upid:
        """Send an image to import from there; the task that follows compares its SHA-256."""
        fields = {"content": "import", "checksum": sha256, "checksum-algorithm": "sha256"}
        body = Upload(file, filename, fields)
        return upid_of(self._send(body, "nodes", node, "storage", storage, "upload"))
