"""The statistics daemon's latest samples of VMs, which lists show a few seconds late."""

import threading
from dataclasses import dataclass
from typing import Any

from lab.api.drives import boot_disk_size
from lab.api.faults import Faults
from lab.api.state import State, Storage, Vm

PERIOD = 10.0


@dataclass(frozen=True)
class Sample:
    """One VM in the daemon's latest round."""

    name: str
    running: bool
    uptime: int
    maxmem: int
    maxcpu: int
    maxdisk: int
    template: int


def memory_bytes(vm: Vm) -> int:
    """Return the VM's memory; the default is 512 MiB."""
    memory = str(vm.config.get("memory", 512)).removeprefix("current=")
    return int(memory) << 20


def processors(vm: Vm) -> int:
    return int(vm.config.get("vcpus") or int(vm.config.get("sockets", 1)) * int(vm.config.get("cores", 1)))


class Statistics:
    """Samples of all VMs, taken every ten seconds."""

    def __init__(self, state: State, faults: Faults) -> None:
        self._state, self._faults = state, faults
        self._mutex = threading.Lock()
        self.frozen: dict[int, str] | None = None
        self._samples = self._round()
        self._taken = self._began = state.clock.now()

    def _round(self) -> dict[int, Sample]:
        return {vmid: self._sample(vm) for vmid, vm in list(self._state.vms.items())}

    def _sample(self, vm: Vm) -> Sample:
        uptime = int(self._state.clock.now() - vm.started) if vm.running else 0
        template = int(vm.is_template)
        return Sample(
            vm.name, vm.running, uptime, memory_bytes(vm), processors(vm), boot_disk_size(vm.config), template
        )

    def _current(self) -> dict[int, Sample]:
        with self._mutex:
            now = self._state.clock.now()
            if now - self._taken >= PERIOD:
                self._taken = now
                self._samples = self._round()
            return self._samples

    def see(self, vm: Vm) -> None:
        """Sample this VM now; the next round of all VMs stays as scheduled."""
        if self.frozen is None:
            self._current()[vm.vmid] = self._sample(vm)

    def freeze(self, on: bool) -> None:
        """Keep showing the current samples while this is on; on a real server this applies to single guests as well."""
        self.frozen = {vmid: vm.node for vmid, vm in list(self._state.vms.items())} if on else None
        self._samples = self._round()

    def _current_or_frozen(self) -> dict[int, Sample]:
        return self._samples if self.frozen is not None else self._current()

    def vm_row(self, vm: Vm, *, lock: str | None = None, pool: str | None = None, bare: bool = False) -> dict[str, Any]:
        """Return the VM's row in /cluster/resources, without name and sizes until the first sample. `bare`: for pools.

        `pool` is shown to callers who may audit it.
        """
        sample = self._current_or_frozen().get(vm.vmid)
        row: dict[str, Any] = {
            "id": f"{vm.type}/{vm.vmid}",
            "type": vm.type,
            "vmid": vm.vmid,
            "node": (self.frozen or {}).get(vm.vmid, vm.node),
            "status": "unknown",
        }
        if self.down(vm.node) or self._state.unknown:
            sample = None
        if sample:
            row.update(
                name=sample.name,
                status="running" if sample.running else "stopped",
                uptime=sample.uptime,
                maxmem=sample.maxmem,
                maxcpu=sample.maxcpu,
                maxdisk=sample.maxdisk,
                template=sample.template,
                **dict.fromkeys(("cpu", "mem", "disk", "diskread", "diskwrite", "netin", "netout"), 0),
            )
            if self._state.version >= 9:
                row["memhost"] = 0
        if bare:
            return row
        current = {"lock": lock, "tags": vm.config.get("tags"), "pool": pool}
        return {**row, **{key: value for key, value in current.items() if value}}

    def down(self, node: str) -> bool:
        """Return whether the node is unreachable."""
        return self._faults.is_on("node-down") and self._faults.is_on("node-down", node=node)

    def node_uptime(self, node: str) -> int:
        return int(self._state.nodes[node].get("uptime", 3600) + self._state.clock.now() - self._began)

    def node_row(self, node: str, *, whole: bool) -> dict[str, Any]:
        """Return the node's row; without audit rights only its existence."""
        record = self._state.nodes[node]
        row: dict[str, Any] = {"id": f"node/{node}", "node": node, "type": "node", "status": "online", "level": ""}
        row["cgroup-mode"] = record.get("cgroup_mode", 2)
        if self.down(node):
            return {**row, "status": "offline"}
        if self._state.unknown:
            return {key: row[key] for key in ("id", "node", "type")} | {"status": "unknown"}
        if not whole:
            return row
        root = record.get("rootfs", {})
        sizes = {"maxcpu": record.get("cpus", 1), "maxmem": record.get("memory", 0), "maxdisk": root.get("total", 0)}
        return {**row, **sizes, "cpu": 0, "mem": 0, "disk": root.get("used", 0), "uptime": self.node_uptime(node)}

    def storage_row(self, storage: Storage, node: str | None = None) -> dict[str, Any]:
        node = node or self._state.node
        known = storage.usable and not self._state.unknown
        sizes = {"disk": storage.used, "maxdisk": storage.total} if known else {}
        return {
            "id": f"storage/{node}/{storage.name}",
            "type": "storage",
            "node": node,
            "storage": storage.name,
            "plugintype": storage.type,
            "status": "available" if known else "unknown",
            "content": storage.content,
            "shared": int(storage.shared),
            **sizes,
        }
