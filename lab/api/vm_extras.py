"""Further calls of a VM: features, monitor, keys, console, firewall."""

import hashlib
import json
import secrets
from typing import Any

from lab.api import drives
from lab.api.errors import ApiError
from lab.api.routes import Call, route
from lab.api.snapshots import can_snapshot, snapshot_of
from lab.api.volumes import parse_volid

_VM = "/nodes/{node}/qemu/{vmid}"


@route("GET", f"{_VM}/feature")
def feature(call: Call) -> Any:
    vm = call.emulator.state.vm(call.vmid)
    name = call.params.get("snapname")
    config = snapshot_of(vm, name).config if name else vm.config
    disks = [drive["file"] for _, drive in drives.of(config) if not drives.is_cdrom(drive)]
    able = {
        "copy": True,
        "snapshot": can_snapshot(call, config),
        "clone": all(parse_volid(volid).is_base for volid in disks),
    }[call.params["feature"]]
    return {"hasFeature": int(able), "nodes": list(call.emulator.state.nodes)}


@route("POST", f"{_VM}/monitor")
def monitor(call: Call) -> Any:
    vm = call.emulator.state.vm(call.vmid)
    if not vm.running:
        return f"ERROR: VM {vm.vmid} not running\n"
    if call.params["command"] == "info status":
        return f"VM status: {'paused' if vm.paused else 'running'}\r\n"
    return f"unknown command: '{call.params['command']}'\r\n"


@route("PUT", f"{_VM}/sendkey")
def send_key(call: Call) -> Any:
    if not call.emulator.state.vm(call.vmid).running:
        raise ApiError(f"VM {call.vmid} not running")


@route("POST", f"{_VM}/vncproxy")
def vnc_proxy(call: Call) -> Any:
    """Return a ticket for a console that does not exist."""
    call.emulator.state.vm(call.vmid)
    upid = call.emulator.tasks.start("vncproxy", call.vmid, call.user, lambda task: None)
    password = secrets.token_urlsafe(6)
    ticket = f"{password}:PVEVNC:{call.emulator.state.clock.seconds():08X}::{secrets.token_urlsafe(256)}"
    return {
        "user": call.user.name,
        "upid": upid,
        "port": "5900",
        "password": password,
        "ticket": ticket,
        "cert": call.emulator.certificate,
    }


@route("GET", f"{_VM}/rrddata")
def statistics(call: Call) -> Any:
    """Return one row per minute of an hour; the values are not measured."""
    last = call.emulator.state.clock.seconds() // 60 * 60
    return [{"time": last - 60 * n} for n in reversed(range(60))]


def _digest(rules: list[dict[str, Any]]) -> str:
    return hashlib.sha1(json.dumps(rules).encode() if rules else b"").hexdigest()


@route("GET", f"{_VM}/firewall/options")
def firewall_options(call: Call) -> Any:
    return {"digest": _digest(call.emulator.state.vm(call.vmid).firewall_rules)}


@route("GET", f"{_VM}/firewall/rules")
def firewall_rules(call: Call) -> Any:
    rules = call.emulator.state.vm(call.vmid).firewall_rules
    return [{"pos": position, **rule, "digest": _digest(rules)} for position, rule in enumerate(rules)]


@route("POST", f"{_VM}/firewall/rules")
def add_firewall_rule(call: Call) -> Any:
    """Insert the new rule at the top."""
    rule = {name: value for name, value in call.params.items() if name not in ("node", "vmid", "digest", "pos")}
    call.emulator.state.vm(call.vmid).firewall_rules.insert(0, rule)
