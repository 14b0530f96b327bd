"""Containers: states only, without machines.

There are no recordings of them; this follows the schema, PVE::LXC and PVE::API2::LXC.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from lab.api import drives, options, unused
from lab.api.create import join_pool, require_allocate
from lab.api.errors import ApiError, ParameterError
from lab.api.formats import split_list
from lab.api.routes import Call, route
from lab.api.state import Config, Snapshot, Vm
from lab.api.tasks import Task
from lab.api.vms import status_row, visible
from lab.api.volume_access import require_readable

_LIST = "/nodes/{node}/lxc"
BASE = f"{_LIST}/{{vmid}}"
_META = frozenset(
    ("node", "vmid", "ostemplate", "restore", "storage", "force", "unique", "start", "pool", "bwlimit", "password")
) | frozenset(("ssh-public-keys", "ignore-unpack-errors", "ha-managed", "digest", "delete", "revert"))
_VOLUME = re.compile(r"rootfs|mp\d+")
_NEW = re.compile(r"(?P<storage>[A-Za-z][\w.-]*):(?P<size>\d+(?:\.\d+)?)")


def is_volume(key: str) -> bool:
    """Return whether an option of that name is the root file system or a mount point."""
    return _VOLUME.fullmatch(key) is not None


def container(call: Call) -> Vm:
    vm = call.emulator.state.vms.get(call.vmid)
    if vm is None or vm.type != "lxc":
        node = call.emulator.state.name_of(call.node)
        raise ApiError(f"Configuration file 'nodes/{node}/lxc/{call.vmid}.conf' does not exist")
    return vm


def _require_unlocked(call: Call, vm: Vm) -> None:
    lock = call.emulator.lock_of(vm)
    if lock:
        raise ApiError(f"CT is locked ({lock})")


def snapshot_of(vm: Vm, name: str) -> Snapshot:
    if name not in vm.snapshots:
        raise ApiError(f"snapshot '{name}' does not exist")
    return vm.snapshots[name]


# Status and configuration


@route("GET", _LIST)
def listing(call: Call) -> Any:
    state = call.emulator.state
    return [{**status_row(state, vm, call.emulator.lock_of(vm)), "type": "lxc"} for vm in visible(call, "lxc")]


@route("GET", f"{BASE}/config")
def read(call: Call) -> Any:
    vm = container(call)
    name = call.params.get("snapshot")
    if name:
        return {**snapshot_of(vm, name).config, "digest": vm.digest()}
    lock = call.emulator.lock_of(vm)
    return {**vm.config, **({"lock": lock} if lock else {}), "digest": vm.digest()}


@route("GET", f"{BASE}/pending")
def pending(call: Call) -> Any:
    vm = container(call)
    rows = [{"key": "digest", "value": vm.digest()}]
    return rows + [{"key": key, "value": vm.config[key]} for key in sorted(vm.config)]


@route("GET", f"{BASE}/status/current")
def current(call: Call) -> Any:
    vm = container(call)
    row = status_row(call.emulator.state, vm, call.emulator.lock_of(vm))
    return {**row, "type": "lxc", "ha": {"managed": 0}}


@route("GET", f"{BASE}/interfaces")
def interfaces(call: Call) -> Any:
    """List each card with the address from the configuration, or with one derived from its MAC."""
    vm = container(call)
    if not vm.running:
        raise ApiError(f"CT {vm.vmid} not running")
    rows = [{"name": "lo", "hwaddr": "00:00:00:00:00:00", "inet": "127.0.0.1/8", "inet6": "::1/128"}]
    for name in sorted(filter(options.is_network, vm.config)):
        card = _pairs(str(vm.config[name]))
        ip = card.get("ip", "manual")
        address = {"inet": ip if "/" in ip else f"10.77.1.{vm.vmid % 250}/24"} if ip != "manual" else {}
        rows.append({"name": card["name"], "hwaddr": card["hwaddr"].lower(), **address})
    return rows


def _pairs(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)


# Creating and changing


@route("POST", _LIST)
def create(call: Call) -> Any:
    if call.params.get("restore"):
        from lab.api.restore_container import restore  # which imports this module

        return restore(call, call.params["ostemplate"])
    state, vmid = call.emulator.state, call.vmid
    require_allocate(call, vmid, call.params.get("pool"))
    values = {name: value for name, value in call.params.items() if name not in _META}
    if vmid in state.vms:
        raise ApiError(f"unable to create CT {vmid} - CT {vmid} already exists on node '{state.vms[vmid].node}'")
    _require_rights(call, values)
    archive = call.params["ostemplate"]
    require_readable(call, archive, vmid)
    volume = call.emulator.volumes.find(archive)
    if volume is None or volume.content != "vztmpl":
        raise ApiError(f"volume '{archive}' does not exist")
    values.setdefault("rootfs", f"{call.params.get('storage', 'local')}:4")

    def work(task: Task) -> None:
        with call.emulator.locks.config(vmid, 1):
            with call.emulator.mutex:
                if vmid in state.vms:
                    raise ApiError(f"unable to create CT {vmid}: config file already exists")
                state.vms[vmid] = Vm(vmid, "lxc", state.name_of(call.node), {"lock": "create"})
            try:
                state.vms[vmid].config = _unpacked(call, values, task)
            except ApiError:
                del state.vms[vmid]
                raise
            join_pool(call, vmid, call.params.get("pool"))
        if call.params.get("start"):
            set_power(call, True)

    return call.emulator.tasks.start("vzcreate", vmid, call.user, work)


def _unpacked(call: Call, values: Mapping[str, Any], task: Task) -> Config:
    config: Config = {"arch": "amd64", "ostype": "debian", "swap": 512, "memory": 512, **_prepared(call, values)}
    config.setdefault("hostname", f"CT{call.vmid}")
    made: list[str] = []
    try:
        for name in sorted(filter(_VOLUME.fullmatch, config)):
            config[name], volid = _volume(call, str(config[name]), task)
            made += [volid] if volid else []
        task.write(f"extracting archive '{call.emulator.volumes.path(call.params['ostemplate'])}'")
        task.pace(lambda part: f"Total bytes read: {int(part * 100)}%")
        task.linger()
    except ApiError:
        for volid in made:
            call.emulator.volumes.remove(volid)
        raise
    return config


def _prepared(call: Call, values: Mapping[str, Any]) -> Config:
    """Return the values as the configuration stores them: each card gets a MAC and its type."""
    prepared = dict(values)
    for name in filter(options.is_network, values):
        card = _pairs(str(values[name]))
        if "name" not in card:
            raise ParameterError(
                {name: f"invalid format - format error\n{name}.name: property is missing and it is not optional\n"}
            )
        card.setdefault("hwaddr", options.new_mac())
        card.setdefault("type", "veth")
        rest = [f"{key}={card[key]}" for key in sorted(card) if key != "name"]
        prepared[name] = ",".join([f"name={card['name']}", *rest])
    if "tags" in prepared:
        prepared["tags"] = options.normalised_tags(str(prepared["tags"]))
    return prepared


def _volume(call: Call, value: str, task: Task) -> tuple[str, str | None]:
    """Create the volume if one is requested; return its text and its name."""
    drive = drives.parse(value)
    new = _NEW.fullmatch(drive["file"])
    if new is None:
        return value, None
    volumes = call.emulator.volumes
    storage, size = volumes.storage(new["storage"]), int(float(new["size"]) * (1 << 30))
    volid = volumes.allocate(storage, call.vmid, size, "raw", log=task.write)
    storage.volumes[volid].content = "rootdir"
    return drives.write({**drive, "file": volid, "size": drives.to_text(size)}), volid


def _require_rights(call: Call, values: Mapping[str, Any]) -> None:
    """Require the container privileges of each option, and space on the storage of each new volume."""
    allowed, path = call.emulator.permissions.require, f"/vms/{call.vmid}"
    new = call.vmid not in call.emulator.state.vms
    for name, value in values.items():
        if _VOLUME.fullmatch(name):
            if not new:
                allowed(call.user, path, ["VM.Config.Disk"])
            file = drives.parse(str(value))["file"] if value else ""
            match = _NEW.match(file)
            if match:
                allowed(call.user, f"/storage/{match['storage']}", ["Datastore.AllocateSpace"])
            elif ":" in file:
                require_readable(call, file, call.vmid)
        elif new:
            continue
        elif options.is_network(name) or name in ("hostname", "nameserver", "searchdomain"):
            allowed(call.user, path, ["VM.Config.Network"])
        elif name in ("cores", "cpulimit", "cpuunits"):
            allowed(call.user, path, ["VM.Config.CPU"])
        elif name in ("memory", "swap"):
            allowed(call.user, path, ["VM.Config.Memory"])
        elif name == "startup":
            allowed(call.user, "/", ["Sys.Modify"])
        else:
            allowed(call.user, path, ["VM.Config.Options"])


@route("PUT", f"{BASE}/config")
def change(call: Call) -> Any:
    values = {name: value for name, value in call.params.items() if name not in _META}
    gone = split_list(str(call.params.get("delete", "")))
    if not values and not gone:
        raise ApiError("no options specified")
    _require_rights(call, {**values, **dict.fromkeys(gone, "")})
    with call.emulator.locks.config(call.vmid):
        vm = container(call)
        digest = call.params.get("digest")
        if digest and digest != vm.digest():
            raise ApiError("checksum mismatch (file change by other user?)")
        _require_unlocked(call, vm)
        prepared = _prepared(call, values)
        for name in filter(_VOLUME.fullmatch, list(prepared)):
            prepared[name], _ = _volume(call, str(prepared[name]), Task(""))
        for name in gone:
            _drop(call, vm, name)
        vm.config.update(prepared)


def _drop(call: Call, vm: Vm, name: str) -> None:
    """Remove an option: a mount point's volume is kept as unused, an unused volume is destroyed."""
    value = drives.parse(str(vm.config.pop(name, "")))["file"]
    if options.is_unused(name) and value:
        call.emulator.volumes.remove(value)
    elif _VOLUME.fullmatch(name) and ":" in value and not value.startswith("/"):
        unused.add(vm.config, value)


@route("PUT", f"{BASE}/resize")
def resize(call: Call) -> Any:
    name, requested = call.params["disk"], call.params["size"]

    def work(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = container(call)
            digest = call.params.get("digest")
            if digest and digest != vm.digest():
                raise ApiError("checksum mismatch (file change by other user?)")
            _require_unlocked(call, vm)
            if name not in vm.config:
                raise ApiError(f"volume '{name}' does not exist")
            drive = drives.parse(str(vm.config[name]))
            volume = call.emulator.volumes.get(drive["file"])
            size = drives.to_bytes(requested.removeprefix("+")) + (volume.size if requested.startswith("+") else 0)
            if size < volume.size:
                raise ApiError("unable to shrink disk size")
            if size > volume.size:
                call.emulator.volumes.resize(drive["file"], size)
                vm.config[name] = drives.write({**drive, "size": drives.to_text(size)})

    container(call)
    return call.emulator.tasks.start("resize", call.vmid, call.user, work)


# Power


def set_power(call: Call, on: bool) -> None:
    vm = container(call)
    vm.running, vm.paused = on, False
    vm.started = call.emulator.state.clock.now() if on else 0
    vm.pid = call.emulator.tasks.next_pid() if on else 0


def power_task(call: Call, kind: str, work: Callable[[Vm], None]) -> str:
    def locked(task: Task) -> None:
        with call.emulator.locks.config(call.vmid):
            vm = container(call)
            _require_unlocked(call, vm)
            work(vm)
            task.linger()

    return call.emulator.tasks.start(kind, call.vmid, call.user, locked)


def _require_running(call: Call) -> None:
    if not container(call).running:
        raise ApiError(f"CT {call.vmid} not running")


@route("POST", f"{BASE}/status/start")
def start(call: Call) -> Any:
    def work(vm: Vm) -> None:
        if vm.running:
            raise ApiError(f"CT {vm.vmid} already running")
        if vm.is_template:
            raise ApiError("you can't start a CT if it's a template")
        set_power(call, True)

    if container(call).running:
        raise ApiError(f"CT {call.vmid} already running")
    return power_task(call, "vzstart", work)


@route("POST", f"{BASE}/status/stop")
def stop(call: Call) -> Any:
    _require_running(call)
    return power_task(call, "vzstop", lambda vm: set_power(call, False))


@route("POST", f"{BASE}/status/shutdown")
def shutdown(call: Call) -> Any:
    _require_running(call)
    return power_task(call, "vzshutdown", lambda vm: set_power(call, False))


@route("POST", f"{BASE}/status/reboot")
def reboot(call: Call) -> Any:
    _require_running(call)
    return power_task(call, "vzreboot", lambda vm: set_power(call, True))


@route("POST", f"{BASE}/status/suspend")
def suspend(call: Call) -> Any:
    _require_running(call)
    return power_task(call, "vzsuspend", lambda vm: setattr(vm, "paused", True))


@route("POST", f"{BASE}/status/resume")
def resume(call: Call) -> Any:
    _require_running(call)
    return power_task(call, "vzresume", lambda vm: setattr(vm, "paused", False))


# Moving


@route("POST", f"{BASE}/migrate")
def migrate(call: Call) -> Any:
    state, target = call.emulator.state, call.params["target"]
    if target == state.name_of(call.node):
        raise ParameterError({"target": "target is local node."})
    if target not in state.nodes:
        raise ApiError(f"no such cluster node '{target}'")
    vm = container(call)
    if vm.running and not (call.params.get("online") or call.params.get("restart")):
        raise ApiError("can't migrate running container without --online or --restart")

    def work(vm: Vm) -> None:
        vm.node = target

    return power_task(call, "vzmigrate", work)
