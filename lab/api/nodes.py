"""Nodes and their tasks."""

import gzip
import ipaddress
from typing import Any

from lab.api.errors import ParameterError, PermissionDenied
from lab.api.formats import split_list
from lab.api.routes import Call, Page, RawBody, paths, route
from lab.api.tasks import UPID, Task

_TASK = "/nodes/{node}/tasks/{upid}"
PATIENCE = 5.0  # time for a worker to end


@route("GET", "/version")
def version(call: Call) -> Any:
    return dict(call.emulator.state.release)


@route("GET", "/nodes/{node}/version")
def node_version(call: Call) -> Any:
    return dict(call.emulator.state.release)


@route("GET", "/nodes")
def listing(call: Call) -> Any:
    emulator = call.emulator
    rows = []
    for node in emulator.state.nodes:
        row = emulator.statistics.node_row(
            node, whole=emulator.permissions.allowed(call.user, f"/nodes/{node}", ["Sys.Audit"])
        )
        row.pop("cgroup-mode", None)
        rows.append({**row, "ssl_fingerprint": emulator.fingerprint})
    return rows


@route("GET", "/nodes/{node}/status")
def status(call: Call) -> Any:
    state = call.emulator.state
    node = state.name_of(call.node)
    record, total = state.nodes[node], state.nodes[node].get("memory", 0)
    kernel = str(record.get("kernel", "Linux 6.14.8-2-pve #1 SMP PREEMPT_DYNAMIC"))
    system, release, *rest = [*kernel.split(" ", 2), "", ""]
    root = dict(record.get("rootfs", {"total": 0, "used": 0, "avail": 0}))
    here = [vm for vm in list(state.vms.values()) if vm.running and vm.node == node]
    used = sum(int(str(vm.config.get("memory", 512))) << 20 for vm in here)
    used = min(used, total)
    return {
        "boot-info": {"mode": record.get("boot_mode", "efi")},
        "cpu": 0,
        "cpuinfo": record.get("cpuinfo", {"cpus": record.get("cpus", 1)}),
        "current-kernel": {"machine": "x86_64", "sysname": system, "release": release, "version": rest[0]},
        "idle": 0,
        "ksm": {"shared": 0},
        "kversion": kernel,
        "loadavg": ["0.10", "0.10", "0.10"],
        "memory": {
            "total": total,
            "used": used,
            "free": total - used,
            **({"available": total - used} if state.version >= 9 else {}),
        },
        "pveversion": "/".join(["pve-manager", state.release["version"], *filter(None, [state.release.get("repoid")])]),
        "rootfs": {**root, "free": root["total"] - root["used"]},
        "swap": {"total": 0, "used": 0, "free": 0},
        "uptime": call.emulator.statistics.node_uptime(node),
        "wait": 0,
    }


@route("GET", "/nodes/{node}/time")
def node_time(call: Call) -> Any:
    now = call.emulator.state.clock.seconds()
    return {"time": now, "localtime": now, "timezone": "UTC"}


@route("GET", "/nodes/{node}/network")
def network(call: Call) -> Any:
    """List the node's bridges; it has no other interfaces."""
    state = call.emulator.state
    bridges = state.nodes[state.name_of(call.node)].get("bridges", {})
    if call.params.get("type", "any_bridge") not in ("any_bridge", "any_local_bridge", "bridge", "include_sdn"):
        return []
    return [_bridge_row(name, str(record.get("cidr", ""))) for name, record in bridges.items()]


def _bridge_row(name: str, cidr: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        **{
            "iface": name,
            "type": "bridge",
            "active": 1,
            "autostart": 1,
            "priority": 3,
            "families": ["inet"],
            "method6": "manual",
        },
        **{"bridge_fd": "0", "bridge_ports": "", "bridge_stp": "off", "method": "static" if cidr else "manual"},
    }
    if cidr:
        interface = ipaddress.ip_interface(cidr)
        row.update(cidr=cidr, address=str(interface.ip), netmask=str(interface.network.prefixlen))
    return row


@route("GET", "/nodes/{node}/capabilities/qemu/machines")
def machines(call: Call) -> Any:
    """List the machine types of the node's QEMU version."""
    release = ".".join(call.emulator.state.qemu.split(".")[:2])
    return [{"id": f"pc-{kind}-{release}", "type": kind, "version": release} for kind in ("i440fx", "q35")]


def _may_see(call: Call, task: Task) -> bool:
    owner = task.parts["user"]
    owned = owner == call.user.name or (call.user.token is None and owner.partition("!")[0] == call.user.userid)
    return owned or call.emulator.permissions.allowed(call.user, f"/nodes/{task.parts['node']}", ["Sys.Audit"])


def task_rows(call: Call, *, running: bool, node: str | None = None) -> list[dict[str, Any]]:
    """List the tasks that the user may see, newest first; of one node, or of all."""
    rows = []
    for task in reversed(list(call.emulator.tasks.by_upid.values())):
        if (task.exitstatus is None) != running or task.lost or not _may_see(call, task):
            continue
        if node not in (None, task.parts["node"]):
            continue
        row = task.row()
        if running:
            row.pop("tokenid", None)  # the task's own user may read it
            rows.append({**row, "user": task.parts["user"], "status": "RUNNING", "saved": "0"})
        else:
            rows.append({**row, "endtime": task.endtime, "status": task.exitstatus})
    return rows


def _wanted(row: dict[str, Any], params: dict[str, Any]) -> bool:
    status = str(row["status"])
    kind = {"OK": "ok", "RUNNING": "unknown"}.get(status, "warning" if status.startswith("WARNINGS: ") else "error")
    return (
        row["type"] == params.get("typefilter", row["type"])
        and row["id"] == str(params.get("vmid", row["id"]))
        and params.get("userfilter", "") in row["user"]
        and not (params.get("errors") and kind in ("ok", "unknown"))
        and kind in (split_list(params.get("statusfilter", "")) or [kind])
        and row["starttime"] >= params.get("since", 0)
        and row["starttime"] <= params.get("until", row["starttime"])
    )


@route("GET", "/nodes/{node}/tasks")
def tasks(call: Call) -> Any:
    source = call.params.get("source", "archive")
    node = call.emulator.state.name_of(call.node)
    rows = task_rows(call, running=True, node=node) if source in ("active", "all") else []
    rows += task_rows(call, running=False, node=node) if source in ("archive", "all") else []
    rows = [row for row in rows if _wanted(row, call.params)]
    start, limit = call.params.get("start", 0), call.params.get("limit", 50)
    return Page(rows[start : start + limit], len(rows))


def _task(call: Call) -> Task | None:
    """Return the task, or None. Raises ParameterError and PermissionDenied like the real server."""
    upid = call.params["upid"]
    match = UPID.fullmatch(upid)
    if not match:
        raise ParameterError({"upid": "unable to parse worker upid"})
    task = call.emulator.tasks.by_upid.get(upid)
    if task and task.lost:
        task = None
    if match["node"] != call.emulator.state.name_of(call.node):
        raise ParameterError({"upid": "no such task"})
    if not _may_see(call, task or Task(upid)):
        raise PermissionDenied(f"/nodes/{call.node}, Sys.Audit")
    return task


@route("GET", "/nodes/{node}")
def node_index(call: Call) -> Any:
    """List the paths below a node that the lab serves."""
    below = {path.split("/")[3] for path in paths() if path.startswith("/nodes/{node}/")}
    return [{"name": name} for name in sorted(below)]


@route("GET", _TASK)
def task_index(call: Call) -> Any:
    """List the paths below a task, which need not exist."""
    return [{"name": "log"}, {"name": "status"}]


@route("GET", f"{_TASK}/status")
def task_status(call: Call) -> Any:
    task = _task(call)
    if task is None:
        raise ParameterError({"upid": "no such task"})
    ended = task.exitstatus
    return {**task.row(), **({"status": "running"} if ended is None else {"status": "stopped", "exitstatus": ended})}


@route("GET", f"{_TASK}/log")
def task_log(call: Call) -> Any:
    """Return the log: fifty lines by default; 0 means all."""
    task = _task(call)
    lines = ["unable to open file - No such file or directory"] if task is None else task.lines()
    if call.params.get("download"):
        content = gzip.compress("".join(line + "\n" for line in lines).encode())
        name = f'attachment; filename="task-{call.params["upid"]}.log"'
        return RawBody(content, {"Content-Type": "text/plain", "Content-Encoding": "gzip", "Content-Disposition": name})
    lines = lines or ["no content"]
    start, limit = call.params.get("start", 0), call.params.get("limit", 50) or len(lines)
    return Page([{"n": n + 1, "t": lines[n]} for n in range(start, min(start + limit, len(lines)))], len(lines))


@route("DELETE", _TASK)
def stop_task(call: Call) -> Any:
    """Stop a task and wait for its end; its effects stay. A task that has already ended is not an error."""
    task = _task(call)
    if task is None:
        raise ParameterError({"upid": "no such task"})
    call.emulator.tasks.interrupt(task, PATIENCE)
