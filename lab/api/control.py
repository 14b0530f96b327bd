"""`/_lab/…`: what tests and people do to the node outside its API, without credentials.

`POST /_lab/outside` takes an event of a start state (`do` and its parameters), `POST /_lab/fault` {name, on, …}
switches a fault, `GET /_lab/faults` lists the API faults that are on, `POST /_lab/reset` restores the start state;
{patch} is an RFC 7396 merge patch applied to it (another storage, another template) until the next reset.
"""

from collections.abc import Mapping
from typing import Any

from lab.api.daemon import Daemon
from lab.api.emulator import Emulator
from lab.api.states import StatesBackend
from lab.errors import LabError


def outside(emulator: Emulator, daemon: Daemon, event: Mapping[str, Any]) -> bool:
    """Apply an event; return False if this server does not support it."""
    done = str(event.get("do"))
    if done in ("freeze-pvedaemon", "kill-pvedaemon", "start-pvedaemon"):
        {"freeze-pvedaemon": daemon.freeze, "kill-pvedaemon": daemon.kill, "start-pvedaemon": daemon.start}[done]()
        return True
    if done in ("stop-pvestatd", "start-pvestatd"):
        emulator.state.unknown = done == "stop-pvestatd"
        return True
    if done == "remove-volume":
        volid = str(event["volid"])
        del emulator.state.storages[volid.partition(":")[0]].volumes[volid]
        return True
    vmid = int(event.get("vmid", 0))
    vm = emulator.state.vms.get(vmid)
    if vm is None:
        return False
    if done == "set-lock":
        vm.config["lock"] = event["lock"]
    elif done == "clear-lock":
        vm.config.pop("lock", None)
    elif done == "remove-config":
        del emulator.state.vms[vmid]
    elif isinstance(emulator.backend, StatesBackend) and done in ("stop-agent", "start-agent"):
        emulator.backend.set_agent(vmid, done == "start-agent")
    elif isinstance(emulator.backend, StatesBackend) and done == "guest-booted":
        emulator.backend.boot_guest(vmid, event.get("guest", {}))
    else:
        return False
    return True


def handle(emulator: Emulator, daemon: Daemon, method: str, path: str, params: Mapping[str, Any]) -> tuple[int, Any]:
    """Return status and JSON of one control request."""
    verb = (method, path)
    if verb == ("POST", "/_lab/outside"):
        return (200 if outside(emulator, daemon, params) else 501), {}
    if verb == ("GET", "/_lab/faults"):
        return 200, emulator.faults.active()
    if verb == ("POST", "/_lab/reset"):
        daemon.start()
        document = emulator.reset(params.get("patch"))
        if isinstance(emulator.backend, StatesBackend):
            emulator.backend.load(document)
        return 200, {}
    if verb == ("POST", "/_lab/fault"):
        rest = {key: value for key, value in params.items() if key not in ("name", "on")}
        name, on = str(params.get("name")), bool(params.get("on", True))
        try:
            known = emulator.faults.switch(name, on, rest) or emulator.backend.fault(name, on, rest)
        except LabError as error:
            return 409, {"error": str(error)}
        if name == "stale-resources":
            emulator.statistics.freeze(on)
        return (200, {}) if known else (404, {"error": f"unknown fault {name!r}"})
    return 404, {"error": f"unknown control request: {method} {path}"}
