"""The lab's emulator in this process, behind the typed calls and the guard, without HTTP: a look takes microseconds."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from lab.api.errors import ApiError as Answer
from lab.api.permissions import User
from nixherd.fleet.models import Fleet
from nixherd.proxmox.calls import Agent, Guests, Storages
from nixherd.proxmox.client import Client
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.wire import Tasks, Upload, error_of
from tests.lab.api_node import GIB, SECRET, Node

WHO = User("nixherd@pve", "fleet", privsep=True)
# docs/proxmox.md, word for word
RECIPE = [
    *("VM.Allocate", "VM.Audit", "VM.Clone", "VM.PowerMgmt", "VM.Migrate", "VM.Backup", "VM.Snapshot"),
    *("VM.Snapshot.Rollback", "VM.Config.CPU", "VM.Config.Memory", "VM.Config.Options", "VM.Config.Disk"),
    *("VM.Config.Network", "VM.Config.HWType", "VM.Config.Cloudinit", "VM.GuestAgent.Unrestricted"),
]


class InProcess(Guests, Storages, Tasks, Agent):
    """Its requests are in `sent`, with the last parameters of each in `params`.

    Each of `before` sees a request, as (method, path), before it is made.
    """

    def __init__(self, node: Node, fleet: Fleet) -> None:
        super().__init__()
        self.node, self.policy = node, Policy.from_fleet(fleet)
        self.token_id, self.under_way = WHO.name, set[str]()
        self.sent: list[str] = []
        self.params: dict[str, dict[str, str]] = {}
        self.before: list[Callable[[str, str], None]] = []

    @property
    def client(self) -> Client:
        return cast(Client, self)

    @property
    def accepted_changes(self) -> int:
        return len(self.changes())

    def recount(self, by: int) -> None:
        """Which of them counted as changes is not what is tested here."""

    def changes(self) -> list[str]:
        return [each for each in self.sent if not each.startswith("GET ")]

    def _ask(self, method: str, path: Sequence[object], parameters: Mapping[str, object] | Upload) -> Any:
        if isinstance(parameters, Upload):
            raise NotImplementedError("nothing is uploaded here")
        where = "/" + "/".join(map(str, path))
        given = {key: value for key, value in parameters.items() if value is not None}
        form = {key: str(int(value) if isinstance(value, bool) else value) for key, value in given.items()}
        self.policy.check(method, where, form)
        for each in self.before:
            each(method, where)
        self.sent.append(f"{method} {where}")
        self.params[self.sent[-1]] = form
        try:
            data = self.node.call(method, where, form, WHO)
        except Answer as error:
            body = json.dumps({"message": error.message, "errors": getattr(error, "errors", {})}).encode()
            raise error_of(method, where, error.status, "", body, WHO.name) from error
        return json.loads(json.dumps(data))


def state(
    vms: dict[str, Any], volumes: dict[str, int], *, pool: tuple[int, ...] = (), wide: bool = False
) -> dict[str, Any]:
    """A node with these guests and volumes (bytes), and a token with the documented rights and no more.

    `wide`: with them on all VMIDs as well, so that they do not go with a guest.

    Storages: `nvmeprom` (thin), `files` (a directory), `local` (backups and ISOs).
    """
    storages = {
        "nvmeprom": {"type": "lvmthin", "content": "images,rootdir"},
        "files": {"type": "dir", "path": "/srv/files", "content": "images,rootdir"},
        "local": {"type": "dir", "path": "/var/lib/vz", "content": "backup,iso"},
    }
    return {
        "version": 9,
        "nodes": {"prom": {"cpus": 2, "memory": 8 * GIB, "bridges": {"vmbr0": {}}}},
        "storages": {
            name: {
                **{**about, "total": 9000 * GIB, "avail": 9000 * GIB},
                "volumes": {
                    volid: {"content": "iso" if ":iso/" in volid else "images", "format": "raw", "size": size}
                    for volid, size in volumes.items()
                    if volid.startswith(f"{name}:")
                },
            }
            for name, about in storages.items()
        },
        "roles": {"Nixherd": RECIPE},
        "users": {"nixherd@pve": {"enable": 1, "tokens": {"fleet": {"secret": SECRET, "privsep": 1}}}},
        "pools": {"nixherd": {"members": list(pool)}},
        "acl": [
            {"path": path, "type": kind, "ugid": ugid, "roleid": role, "propagate": 1}
            for path, role in (
                ("/pool/nixherd", "Nixherd"),
                *([("/vms", "Nixherd")] if wide else []),
                *((f"/storage/{name}", "PVEDatastoreUser") for name in storages),
                ("/sdn/zones/localnetwork/vmbr0", "PVESDNUser"),
            )
            for kind, ugid in (("user", WHO.userid), ("token", WHO.name))
        ],
        "vms": vms,
    }


def images(node: Node) -> set[str]:
    """The guests' volumes that the storages have, as the emulator knows them."""
    storages = node.emulator.state.storages.values()
    return {volid for storage in storages for volid, about in storage.volumes.items() if about.content != "backup"}


def archives(node: Node) -> dict[str, dict[str, Any]]:
    """What the backups hold, by volid."""
    volumes = node.emulator.state.storages["local"].volumes
    return {volid: about.archive or {} for volid, about in volumes.items() if about.content == "backup"}
