"""The API's calls that are used, typed; together they are the Client of `client.py`.

Every method raises ApiError, and Refused where the policy says no.
"""

import base64
import re
import shlex
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nixherd.base.errors import ApiError, DeadlineExceeded, NotVisible, Usage
from nixherd.base.waiting import Backoff, poll
from nixherd.fleet.models import GuestType
from nixherd.proxmox import answers, wire
from nixherd.proxmox.config import VmConfig, is_true
from nixherd.proxmox.wire import Calls, Upload, guest_path, upid_of

_RELEASE = re.compile(r"[0-9]{1,4}(\.|$)")


class Cluster(Calls):
    def version(self) -> answers.Version:
        with self._get("version") as data:
            if not isinstance(data, dict) or not _RELEASE.match(str(data.get("release"))):
                raise ApiError("GET /version: the answer is not the API's; does Proxmox VE listen there?", 200)
            return answers.Version(str(data["version"]), str(data["release"]))

    def permissions(self) -> answers.Permissions:
        """Return what this token may do, as the server computes it."""
        with self._get("access", "permissions") as data:
            paths = {
                path: {name: bool(int(propagate)) for name, propagate in privileges.items()}
                for path, privileges in data.items()
            }
        return answers.Permissions(paths)

    def token_info(self, user: str, name: str) -> dict[str, Any]:
        """Return what is set of a token (`privsep`, `expire`); only its owner and those with User.Modify may ask."""
        with self._get("access", "users", user, "token", name) as data:
            return {**data, "privsep": int(data.get("privsep", 1)), "expire": int(data.get("expire") or 0)}

    def nodes(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.node_rows())

    def node_rows(self) -> tuple[answers.Node, ...]:
        with self._get("nodes") as rows:
            return tuple(sorted(map(answers.Node.of, rows), key=lambda node: node.name))

    def node_addresses(self) -> dict[str, str]:
        """Return the cluster's nodes by address; empty for a token that may not see them."""
        with self._get("cluster", "status") as rows:
            return {str(row["ip"]): str(row["name"]) for row in rows if row.get("type") == "node" and row.get("ip")}

    def interface_addresses(self, node: str) -> tuple[str, ...]:
        """Return the addresses that a node's network interfaces are configured with."""
        with self._get("nodes", node, "network") as rows:
            return tuple(str(row[key]) for row in rows for key in ("address", "address6") if row.get(key))

    def node_time(self, node: str) -> int:
        """Return the node's clock, seconds since 1970."""
        with self._get("nodes", node, "time") as data:
            return int(data["time"])

    def resources(self) -> tuple[answers.Resource, ...]:
        """Return the guests of the whole cluster that the token may see, by VMID, in one request."""
        with self._get("cluster", "resources", type="vm") as rows:
            guests = (answers.Resource.of(row) for row in rows if row.get("type") in ("qemu", "lxc"))
            return tuple(sorted(guests, key=lambda row: row.vmid))

    def all_resources(self) -> answers.Resources:
        """Return guests, storages and nodes of the whole cluster, as far as the token may see them, in one request."""
        with self._get("cluster", "resources") as rows:
            kinds = {
                kind: [row for row in rows if row.get("type") == kind] for kind in ("qemu", "lxc", "storage", "node")
            }
            return answers.Resources(
                tuple(map(answers.Resource.of, [*kinds["qemu"], *kinds["lxc"]])),
                tuple(map(answers.StorageRow.of, kinds["storage"])),
                tuple(map(answers.Node.of, kinds["node"])),
            )

    def pool_members(self, pool: str) -> frozenset[int]:
        """Return the VMIDs of a pool's guests.

        Who is in it is shown also to a token that may not look at the pool itself.
        """
        with self._get("pools", poolid=pool) as rows:
            members = (each for row in rows if row.get("poolid") == pool for each in row.get("members") or ())
            return frozenset(int(each["vmid"]) for each in members if "vmid" in each)

    def is_free(self, vmid: int) -> bool:
        """Tell whether no guest of the cluster has this VMID, also where the token may not see it."""
        try:
            self._ask("GET", ("cluster", "nextid"), {"vmid": vmid})
        except ApiError as error:
            if error.status == 400 and "already exists" in error.errors.get("vmid", ""):
                return False
            raise
        return True

    def presence(self, vmid: int) -> answers.Presence:
        """Tell a free VMID from a taken one that no list shows; the server says so without any right."""
        try:
            return answers.Presence.ABSENT if self.is_free(vmid) else answers.Presence.NOT_VISIBLE
        except ApiError:
            return answers.Presence.UNKNOWN

    def pci_mapping(self, name: str) -> answers.PciMapping | None:
        """Return a PCI device that may be passed through by name; None when the mapping does not exist."""
        try:
            with self._get("cluster", "mapping", "pci", name) as data:
                return answers.PciMapping.of({"id": name, **data})
        except ApiError as error:
            if error.status in (400, 500) and "not found" in str(error):
                return None
            raise


_NO_STORAGE = re.compile(r"No such storage|storage '[^']*' (does not exist|is not available on node)")


class Storages(Calls):
    def storage(self, node: str, storage: str) -> answers.Storage | None:
        """Return a storage as that node sees it; None when the node knows no such storage."""
        try:
            with self._get("nodes", node, "storage", storage, "status") as data:
                return answers.Storage.of(storage, data)
        except ApiError as error:
            if error.status in (400, 500) and _NO_STORAGE.search(str(error)):
                return None
            raise

    def storages(self, node: str) -> tuple[answers.Storage, ...]:
        """Return the storages of a node that the token may see, by name."""
        with self._get("nodes", node, "storage") as rows:
            storages = (answers.Storage.of(str(row["storage"]), row) for row in rows)
            return tuple(sorted(storages, key=lambda each: each.name))

    def volumes(
        self, node: str, storage: str, *, content: str | None = None, vmid: int | None = None
    ) -> tuple[answers.Volume, ...]:
        """Return the volumes of a storage, oldest first; of one guest, or of one kind (`images`, `backup`, …)."""
        with self._get("nodes", node, "storage", storage, "content", content=content, vmid=vmid) as rows:
            volumes = [answers.Volume.of(row) for row in rows]
        kept = (each for each in volumes if content is None or each.content == content)
        return tuple(sorted(kept, key=lambda each: (each.ctime or 0, each.volid)))

    def archived_text(self, node: str, archive: str) -> str:
        """Return the configuration in a backup, with the lines that say which drives it holds.

        The guard counts it as looking inside the guest.
        """
        return str(self._ask("GET", ("nodes", node, "vzdump", "extractconfig"), {"volume": archive}))

    def download(self, node: str, storage: str, url: str, filename: str, sha256: str) -> answers.Upid:
        """Have the node fetch an image to import from; one of another SHA-256 is thrown away by it."""
        checksum = {"checksum": sha256, "checksum-algorithm": "sha256"}
        parameters = {"content": "import", "filename": filename, "url": url, **checksum}
        return upid_of(self._ask("POST", ("nodes", node, "storage", storage, "download-url"), parameters))

    def upload(self, node: str, storage: str, file: Path, filename: str, sha256: str) -> answers.Upid:
        """Send an image to import from there; the task that follows compares its SHA-256."""
        fields = {"content": "import", "checksum": sha256, "checksum-algorithm": "sha256"}
        body = Upload(file, filename, fields)
        return upid_of(self._ask("POST", ("nodes", node, "storage", storage, "upload"), body))


QEMU = GuestType.QEMU
_MISSING = re.compile(r"Configuration file '.*' does not exist")


class Guests(Cluster):
    # looking

    def config(
        self, node: str, vmid: int, type: GuestType = QEMU, *, current: bool = False, snapshot: str | None = None
    ) -> VmConfig | None:
        """Return a guest's configuration, with what waits for its next start; None when the node has no such guest.

        `current`: without what waits; `snapshot`: as it was when that was taken, passwords hidden.
        """
        parameters = {"current": current or None, "snapshot": snapshot}
        try:
            with self._get(*guest_path(node, vmid, type), "config", **parameters) as data:
                return VmConfig.of(data)
        except ApiError as error:
            self._require_missing(vmid, error)
            return None

    def status(self, node: str, vmid: int, type: GuestType = QEMU) -> answers.VmStatus | None:
        """Return a guest's power, asked of the node itself; None when the node has no such guest.

        Raises NotVisible, too.
        """
        try:
            with self._get(*guest_path(node, vmid, type), "status", "current") as data:
                return answers.VmStatus.of(data, vmid=vmid)
        except ApiError as error:
            self._require_missing(vmid, error)
            return None

    def pending(self, node: str, vmid: int, type: GuestType = QEMU) -> tuple[answers.Pending, ...]:
        """Return what waits for the guest's next start."""
        with self._get(*guest_path(node, vmid, type), "pending") as rows:
            return tuple(sorted(filter(None, map(answers.Pending.of, rows)), key=lambda row: row.key))

    def cloudinit_differs(self, node: str, vmid: int) -> bool:
        """Tell whether the cloud-init options say something else than what is on the drive."""
        with self._get(*guest_path(node, vmid, QEMU), "cloudinit") as rows:
            return any("new" in row or "pending" in row or row.get("delete") for row in rows)

    def snapshots(self, node: str, vmid: int, type: GuestType = QEMU) -> tuple[answers.SnapshotRow, ...]:
        """Return the guest's snapshots, oldest first, without the row for its present state."""
        with self._get(*guest_path(node, vmid, type), "snapshot") as data:
            rows = [answers.SnapshotRow.of(row) for row in data]
        return tuple(sorted((row for row in rows if row.name != "current"), key=lambda row: (row.time or 0, row.name)))

    def can_snapshot(self, node: str, vmid: int, type: GuestType = QEMU) -> bool:
        """Tell whether all disks of the guest can be snapshotted where they are."""
        with self._get(*guest_path(node, vmid, type), "feature", feature="snapshot") as data:
            return is_true(data.get("hasFeature", 0))

    def snapshot_config(self, node: str, vmid: int, name: str, type: GuestType = QEMU) -> VmConfig:
        """Return the guest's configuration in a snapshot. The guard counts it as looking inside."""
        with self._get(*guest_path(node, vmid, type), "snapshot", name, "config") as data:
            return VmConfig.of(data)

    def _require_missing(self, vmid: int, error: ApiError) -> None:
        """Raise this error unless it means that the node has no such guest; NotVisible where it may not be seen."""
        if error.status == 500 and _MISSING.search(str(error)):
            return
        if error.status != 403:
            raise error
        # Permissions are checked before existence: a token that may only act in a pool sees this.
        presence = self.presence(vmid)
        if presence is answers.Presence.NOT_VISIBLE:
            raise NotVisible(f"guest {vmid}", vmid, self.token_id) from error
        if presence is answers.Presence.UNKNOWN:
            raise ApiError(f"guest {vmid}: whether there is one is unknown: {error}", 403) from error

    # changing

    def set_config(
        self, node: str, vmid: int, values: Mapping[str, object], type: GuestType = QEMU, *, digest: str | None = None
    ) -> None:
        """Set options. With the digest of the configuration they were decided on, a change since is an error."""
        self._ask("PUT", (*guest_path(node, vmid, type), "config"), {**values, "digest": digest})


AGENT_CALLS = 2  # in flight per node: each may block one of pvedaemon's three workers for seconds


class Agent(Calls):
    def __init__(self) -> None:
        self._agent_slots: dict[str, threading.Semaphore] = {}
        self._agent_lock = threading.Lock()

    @contextmanager
    def _agent(self, method: str, node: str, vmid: int, call: str, **parameters: Any) -> Iterator[Any]:
        with self._agent_lock:
            slots = self._agent_slots.setdefault(node, threading.Semaphore(AGENT_CALLS))
        with slots, self._asked(method, ("nodes", node, "qemu", vmid, "agent", call), parameters) as data:
            yield data

    def agent_info(self, node: str, vmid: int) -> dict[str, Any]:
        """Return the agent's version and commands. Raise AgentUnavailable when it does not answer."""
        with self._agent("GET", node, vmid, "info") as data:
            return dict(data["result"])

    def agent_interfaces(self, node: str, vmid: int) -> tuple[answers.Interface, ...]:
        """Return the guest's network interfaces, in its own order: loopback and docker's may come first."""
        with self._agent("GET", node, vmid, "network-get-interfaces") as data:
            return tuple(map(answers.Interface.of, data["result"]))

    def container_interfaces(self, node: str, vmid: int) -> tuple[answers.Interface, ...]:
        """Return a running container's network interfaces, as the node sees them."""
        with self._get(*guest_path(node, vmid, GuestType.LXC), "interfaces") as rows:
            return tuple(map(answers.Interface.of_container, rows or ()))

    def agent_read(self, node: str, vmid: int, path: str) -> str:
        """Return a file of the guest, as text. Raise ApiError when it does not exist."""
        with self._agent("GET", node, vmid, "file-read", file=path) as data:
            return wire.guest_text(str(data["content"]))

    def agent_exec(
        self, node: str, vmid: int, argv: Sequence[str], *, input: str | None = None, timeout: float = 300
    ) -> answers.ExecResult:
        """Run a command in the guest as root and wait for its end, `timeout` seconds at most; `input` is its stdin.

        Its result is given out once; when that answer is lost, AgentUnavailable is raised: run only what may
        run again. DeadlineExceeded when it does not end.
        """
        given = {} if input is None else {"input-data": input}
        with self._agent("POST", node, vmid, "exec", command=_plain(argv), **given) as data:
            pid = data["pid"]
        for _ in poll(timeout, Backoff(0.1, 1.0)):
            with self._agent("GET", node, vmid, "exec-status", pid=pid) as data:
                if not int(data["exited"]):
                    continue
                out, err = (wire.guest_text(str(data.get(key, ""))) for key in ("out-data", "err-data"))
                code, signal = (None if data.get(key) is None else int(data[key]) for key in ("exitcode", "signal"))
                return answers.ExecResult(code, out, err, signal)
        raise DeadlineExceeded(f"vm {vmid}: `{shlex.join(argv)}` in the guest: not done within {timeout:.0f} s")


def _plain(argv: Sequence[str]) -> list[str]:
    """Return the command, or a shell that decodes it: the agent hangs on characters outside latin-1."""
    if all(word.isascii() for word in argv):
        return list(argv)
    try:
        script = base64.b64encode(shlex.join(argv).encode()).decode()
    except UnicodeEncodeError:
        raise Usage(f"{shlex.join(argv)}: half a character cannot be sent to a guest; nothing was run") from None
    return ["/bin/sh", "-c", f'script=$(echo {script} | base64 -d) || exit 127; eval "$script"']
