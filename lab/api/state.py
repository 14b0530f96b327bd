"""The node as values that change: virtual machines, storages, users. Loaded from a start state (JSON).

A start state has `version`, `release`, `qemu`, `clock`, `nodes`, `storages` (with `volumes` by volid), `users` (with
`tokens`), `roles`, `acl`, `pools`, `vms` by VMID, `tasks` and `task_seconds`; a missing key means empty. Sizes are in
bytes, a VM's memory in MiB. `qmeventd` and `lock_seconds` set some delays (QMEVENTD).
"""

import copy
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.api.errors import config_missing, vm_not_found

Config = dict[str, Any]
# Seconds from the end of a VM's QEMU to `qm cleanup` (`after`), for how long that waits for a VM that runs again
# (`waits`), and then until a rebooting VM starts (`restarts`); the last takes 2 to 6 on a real server.
QMEVENTD = {"after": 0.5, "waits": 30.0, "restarts": 1.0}
# Storages that allocate a volume's full size at once, unless they are configured as sparse.
THICK = {"lvm", "zfspool"}
_ESCAPED = re.compile(r"[^\x20-\x24\x26-\x7e]+")
# Storages with the same content on every node, whatever their configuration says.
SHARED = {"nfs", "cifs", "cephfs", "rbd", "iscsi", "iscsidirect", "pbs", "zfs"}


@dataclass
class Volume:
    """One volume. `size` is the guest's view, `used` the allocation; `parent` names the base of a linked clone."""

    content: str
    format: str
    size: int
    used: int = 0
    ctime: int = 0
    parent: str | None = None
    # The node of a volume without a guest; None for the first node.
    node: str | None = None
    # Of a backup: its content, notes and protection.
    notes: str | None = None
    protected: bool = False
    archive: dict[str, Any] | None = None


@dataclass
class Storage:
    """One storage; `total`, `used` and `avail` are from the start state, volumes count in addition."""

    name: str
    type: str
    content: str
    total: int
    used_at_start: int
    avail_at_start: int
    path: str | None = None
    sparse: bool = False
    shared: bool = False
    # The nodes that have it; None: all, each with its own volumes unless the storage is shared.
    nodes: list[str] | None = None
    prune: str | None = None
    # Whether it can be activated (disk mounted, server reachable); not tried when it is disabled.
    active: bool = True
    enabled: bool = True
    volumes: dict[str, Volume] = field(default_factory=dict)
    charged_at_start: int = 0

    @property
    def on_files(self) -> bool:
        """Return whether volumes are files below `path`; otherwise they are block devices."""
        return self.path is not None

    def charge(self, volume: Volume) -> int:
        """Return the bytes that the volume occupies on the storage."""
        return volume.size if self.type in THICK and not self.sparse else volume.used

    @property
    def usable(self) -> bool:
        return self.active and self.enabled

    @property
    def obstacle(self) -> str | None:
        """Return the server's error for using a storage that is unavailable."""
        if not self.enabled:
            return f"storage '{self.name}' is disabled"
        if self.active:
            return None
        if self.type == "dir":
            why = f"directory is expected to be a mount point but is not mounted: '{self.path}'"
            return f"unable to activate storage '{self.name}' - {why}"
        return f"storage '{self.name}' is not online"

    @property
    def _grown(self) -> int:
        return sum(map(self.charge, list(self.volumes.values()))) - self.charged_at_start

    @property
    def used(self) -> int:
        return self.used_at_start + self._grown

    @property
    def avail(self) -> int:
        return max(0, self.avail_at_start - self._grown)


@dataclass
class Snapshot:
    """A snapshot of a configuration. `snapstate` is set while it is created or removed."""

    config: Config
    snaptime: int
    description: str = ""
    parent: str | None = None
    vmstate: int = 0
    snapstate: str | None = None
    # With memory: whether the guest's agent was running, which it is again after a rollback.
    agent: bool = False


@dataclass
class Vm:
    """One guest: its configuration file and its power state."""

    vmid: int
    type: str
    node: str
    config: Config
    running: bool = False
    paused: bool = False
    pending: Config = field(default_factory=dict)
    pending_delete: set[str] = field(default_factory=set)
    # The pending deletions whose volume is deleted as well.
    pending_force: set[str] = field(default_factory=set)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    # What the cloud-init drive contains where a running VM's configuration differs; None: nothing.
    on_drive: dict[str, Any] = field(default_factory=dict)
    # Whether to start it again when its QEMU has ended.
    reboots: bool = False
    started: float = 0
    pid: int = 0
    firewall_rules: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_template(self) -> bool:
        return bool(self.config.get("template"))

    @property
    def name(self) -> str:
        """The name that lists show; never empty."""
        return str(self.config.get("name") or f"{'VM' if self.type == 'qemu' else 'CT'} {self.vmid}")

    @property
    def desired(self) -> Config:
        """The configuration with the changes that are pending until the next start."""
        kept = {key: value for key, value in self.config.items() if key not in self.pending_delete}
        return {**kept, **self.pending}

    def file(self) -> str:
        """The configuration file as the node stores it."""
        text = section(self.config)
        if self.pending or self.pending_delete:
            gone = ",".join(("!" if name in self.pending_force else "") + name for name in sorted(self.pending_delete))
            waiting = {**self.pending, **({"delete": gone} if gone else {})}
            text += "\n[PENDING]\n" + section(waiting)
        for name, snapshot in sorted(self.snapshots.items()):
            record = {
                key: getattr(snapshot, key) for key in ("snaptime", "parent", "snapstate") if getattr(snapshot, key)
            }
            text += f"\n[{name}]\n" + section({**snapshot.config, **record, "description": snapshot.description})
        return text

    def digest(self) -> str:
        """SHA-1 of the configuration file."""
        return hashlib.sha1(self.file().encode()).hexdigest()


def section(values: Mapping[str, Any]) -> str:
    """Format values like a configuration file; the description becomes a comment, non-ASCII is escaped."""
    lines = str(values.get("description") or "").split("\n") if values.get("description") else []
    description = "".join(f"#{_ESCAPED.sub(_escape, line)}\n" for line in lines)
    return description + "".join(f"{key}: {values[key]}\n" for key in sorted(values) if key != "description")


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


class Clock:
    """The node's time, starting at the state's `clock`."""

    def __init__(self, start: float | None) -> None:
        self._start = time.time() if start is None else start
        self._began = time.monotonic()

    def now(self) -> float:
        return self._start + time.monotonic() - self._began

    def seconds(self) -> int:
        return int(self.now())


class State:
    """Everything that the API knows."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        raw: dict[str, Any] = copy.deepcopy(dict(document))
        self.version: int = raw.get("version", 9)
        self.release: dict[str, str] = raw.get("release") or {
            "version": f"{self.version}.0.1",
            "release": f"{self.version}.0",
        }
        self.qemu: str = raw.get("qemu", "10.0.2" if self.version >= 9 else "9.2.0")
        self.clock = Clock(raw.get("clock"))
        self.nodes: dict[str, dict[str, Any]] = raw.get("nodes") or {"pve1": {}}
        self.storages = {name: _storage(name, record) for name, record in raw.get("storages", {}).items()}
        self.users: dict[str, dict[str, Any]] = raw.get("users", {})
        self.roles: dict[str, list[str]] = {name: _privileges(record) for name, record in raw.get("roles", {}).items()}
        self.acl: list[dict[str, Any]] = raw.get("acl", [])
        self.pools: dict[str, dict[str, Any]] = raw.get("pools", {})
        self.vms = {int(vmid): self._vm(int(vmid), record) for vmid, record in raw.get("vms", {}).items()}
        self.tasks: list[dict[str, Any]] = raw.get("tasks", [])
        self.task_seconds: dict[str, float] = raw.get("task_seconds", {})
        # Downloads by URL: `size`, `sha256`, and the volume that provides the content (`like`).
        self.web: dict[str, dict[str, Any]] = raw.get("web", {})
        self.qmeventd: dict[str, float] = {**QMEVENTD, **raw.get("qmeventd", {})}
        # Whether the statistics daemon is stopped and its samples are lost.
        self.unknown = False
        # How long to wait for the lock of a configuration file.
        self.lock_seconds: float = raw.get("lock_seconds", 10.0)
        self.pci_mappings: dict[str, dict[str, Any]] = raw.get("pci_mappings", {})

    @property
    def node(self) -> str:
        """The node that answers: the first one."""
        return next(iter(self.nodes))

    def name_of(self, node: Any) -> str:
        """Return the node that a request names; none and `localhost` mean the answering node."""
        return str(node) if node in self.nodes else self.node

    def vm(self, vmid: int) -> Vm:
        """Return the VM, for calls that read its configuration file."""
        vm = self.vms.get(vmid)
        if vm is None or vm.type != "qemu":
            raise config_missing(self.node, vmid)
        return vm

    def find_vm(self, vmid: int) -> Vm:
        """Return the VM, for calls that look up its node first."""
        vm = self.vms.get(vmid)
        if vm is None or vm.type != "qemu":
            raise vm_not_found(self.node, vmid)
        return vm

    def pool_of(self, vmid: int) -> str | None:
        members = ((name, record.get("members", [])) for name, record in list(self.pools.items()))
        return next((name for name, vmids in members if vmid in map(int, vmids)), None)

    def _vm(self, vmid: int, record: Mapping[str, Any]) -> Vm:
        pending = dict(record.get("pending", {}))
        deleted = [key for key in str(pending.pop("delete", "")).split(",") if key]
        running = record.get("status") == "running"
        return Vm(
            vmid=vmid,
            type=record.get("type", "qemu"),
            node=record.get("node", self.node),
            config=dict(record.get("config", {})),
            running=running,
            pending=pending,
            pending_delete={key.lstrip("!") for key in deleted},
            pending_force={key[1:] for key in deleted if key.startswith("!")},
            snapshots={name: _snapshot(snapshot) for name, snapshot in record.get("snapshots", {}).items()},
            started=self.clock.now() - record.get("uptime", 60) if running else 0,
            pid=record.get("pid", 1000 + vmid) if running else 0,
        )


def _snapshot(record: Mapping[str, Any]) -> Snapshot:
    return Snapshot(
        config=dict(record.get("config", {})),
        snaptime=record.get("snaptime", 0),
        description=record.get("description", ""),
        parent=record.get("parent"),
        vmstate=1 if record.get("vmstate") else 0,
        snapstate=record.get("snapstate"),
    )


def _privileges(record: Any) -> list[str]:
    """Return a custom role's privileges: from a list, a comma-separated text, or an object with `privs`."""
    privileges = record.get("privs", "") if isinstance(record, dict) else record
    return [p for p in privileges.split(",") if p] if isinstance(privileges, str) else list(privileges)


def _storage(name: str, record: Mapping[str, Any]) -> Storage:
    storage = Storage(
        name=name,
        type=record.get("type", "dir"),
        path=record.get("path"),
        content=record.get("content", "images,rootdir"),
        total=record.get("total", 0),
        used_at_start=record.get("used", 0),
        avail_at_start=record.get("avail", record.get("total", 0) - record.get("used", 0)),
        sparse=bool(record.get("sparse")),
        shared=bool(record.get("shared")) or record.get("type") in SHARED,
        nodes=record.get("nodes"),
        prune=record.get("prune-backups"),
        active=bool(int(record.get("active", 1))),
        enabled=not int(record.get("disable", 0)),
        volumes={volid: _volume(volume) for volid, volume in record.get("volumes", {}).items()},
    )
    storage.charged_at_start = sum(map(storage.charge, storage.volumes.values()))
    return storage


def _volume(record: Mapping[str, Any]) -> Volume:
    return Volume(
        content=record.get("content", "images"),
        format=record.get("format", "raw"),
        size=record.get("size", 0),
        used=record.get("used", 0),
        ctime=record.get("ctime", 0),
        parent=record.get("parent"),
        node=record.get("node"),
        notes=record.get("notes"),
        protected=bool(record.get("protected")),
        archive=record.get("archive"),
    )


def load(text: str) -> dict[str, Any]:
    """Load a start state from its JSON text."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("a start state is a JSON object")
    return document
