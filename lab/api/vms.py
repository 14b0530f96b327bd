"""Lists and status of virtual machines."""

from typing import Any

from lab.api import drives, options
from lab.api.resources import memory_bytes, processors
from lab.api.routes import Call, route
from lab.api.state import State, Vm

_COUNTERS = (
    *("failed_flush_operations", "failed_rd_operations", "failed_unmap_operations", "failed_wr_operations"),
    *("flush_operations", "flush_total_time_ns", "invalid_flush_operations", "invalid_rd_operations"),
    *(
        "invalid_unmap_operations",
        "invalid_wr_operations",
        "rd_bytes",
        "rd_merged",
        "rd_operations",
        "rd_total_time_ns",
    ),
    *("unmap_bytes", "unmap_merged", "unmap_operations", "unmap_total_time_ns", "wr_bytes", "wr_highest_offset"),
    *("wr_merged", "wr_operations", "wr_total_time_ns"),
)
_ZONE_COUNTERS = (
    *("failed_zone_append_operations", "invalid_zone_append_operations", "zone_append_bytes", "zone_append_merged"),
    *("zone_append_operations", "zone_append_total_time_ns"),
)
_PRESSURES = tuple(f"pressure{what}{how}" for what in ("cpu", "io", "memory") for how in ("full", "some"))


def status_row(state: State, vm: Vm, lock: str | None) -> dict[str, Any]:
    """Return the fields that list and status share."""
    row: dict[str, Any] = {
        "vmid": vm.vmid,
        "name": vm.name,
        "status": "running" if vm.running else "stopped",
        "cpus": processors(vm),
        "maxmem": memory_bytes(vm),
        "maxdisk": drives.boot_disk_size(vm.config),
        "uptime": int(state.clock.now() - vm.started) if vm.running else 0,
        **dict.fromkeys(("cpu", "mem", "disk", "netin", "netout"), 0),
    }
    if state.version >= 9:
        row["memhost"] = 0
    if vm.running:
        row["pid"] = vm.pid
        if state.version >= 9:
            row.update(dict.fromkeys(_PRESSURES, 0))
    if any(f"serial{n}" in vm.config for n in range(4)):
        row["serial"] = 1
    if vm.is_template:
        row["template"] = 1
    if vm.config.get("tags"):
        row["tags"] = vm.config["tags"]
    return {**row, **({"lock": lock} if lock else {})}


def qemu_row(state: State, vm: Vm) -> dict[str, Any]:
    """Return the fields that come from QEMU itself."""
    row: dict[str, Any] = {"qmpstatus": "stopped" if not vm.running else "paused" if vm.paused else "running"}
    if not vm.running:
        return row
    counters = (*_COUNTERS, *(_ZONE_COUNTERS if state.version >= 9 else ()))
    statistics = {**dict.fromkeys(counters, 0), "account_failed": True, "account_invalid": True, "timed_stats": []}
    blocks = {name: statistics for name, _ in drives.of(vm.config)}
    cards = {f"tap{vm.vmid}i{name[3:]}": {"netin": 0, "netout": 0} for name in vm.config if options.is_network(name)}
    release = ".".join(state.qemu.split(".")[:2])
    family = "q35" if "q35" in str(vm.config.get("machine", "")) else "i440fx"
    return {
        **row,
        "diskread": 0,
        "diskwrite": 0,
        "running-qemu": state.qemu,
        "running-machine": f"pc-{family}-{release}",
        "proxmox-support": {"pbs-library-version": "1.5.1"},
        **({"blockstat": blocks} if blocks else {}),
        **({"nics": cards} if cards else {}),
    }


def visible(call: Call, kind: str) -> list[Vm]:
    state = call.emulator.state
    node = state.name_of(call.node)
    vms = [vm for vm in list(state.vms.values()) if vm.type == kind and vm.node == node]
    return [vm for vm in vms if call.emulator.permissions.allowed(call.user, f"/vms/{vm.vmid}", ["VM.Audit"])]


@route("GET", "/nodes/{node}/qemu")
def listing(call: Call) -> Any:
    state = call.emulator.state
    return [
        {**status_row(state, vm, call.emulator.lock_of(vm)), **(qemu_row(state, vm) if call.params.get("full") else {})}
        for vm in visible(call, "qemu")
    ]


@route("GET", "/nodes/{node}/qemu/{vmid}/status/current")
def current(call: Call) -> Any:
    state = call.emulator.state
    vm = state.vm(call.vmid)
    agent = str(vm.config.get("agent", "0")).removeprefix("enabled=").startswith("1")
    return {
        **status_row(state, vm, call.emulator.lock_of(vm)),
        **qemu_row(state, vm),
        "ha": {"managed": 0},
        **({"agent": 1} if agent else {}),
    }
