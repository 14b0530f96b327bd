"""Snapshots of containers."""

import copy
from typing import Any

from lab.api import drives, features, options, unused
from lab.api.containers import BASE, container, is_volume, power_task, set_power, snapshot_of
from lab.api.errors import ApiError
from lab.api.routes import Call, route
from lab.api.state import Config, Snapshot, Vm


@route("GET", f"{BASE}/snapshot")
def snapshots(call: Call) -> Any:
    vm = container(call)
    rows = [
        {"name": name, "description": each.description, "snaptime": each.snaptime}
        | ({"parent": each.parent} if each.parent else {})
        for name, each in vm.snapshots.items()
    ]
    parent = {"parent": vm.config["parent"]} if "parent" in vm.config else {}
    return [
        *rows,
        {
            "name": "current",
            "description": "You are here!",
            "digest": vm.digest(),
            "running": int(vm.running),
            **parent,
        },
    ]


def _can_snapshot(call: Call, config: Config) -> bool:
    """Return whether the root and every mount point can be snapshotted. A bind-mounted directory cannot."""
    volids = (drives.parse(str(value))["file"] for key, value in config.items() if is_volume(key))
    return features.all_can_snapshot(call.emulator.volumes, volids)


@route("GET", f"{BASE}/feature")
def feature(call: Call) -> Any:
    vm, name = container(call), call.params.get("snapname")
    config = snapshot_of(vm, name).config if name else vm.config
    volids = [drives.parse(str(value))["file"] for key, value in config.items() if is_volume(key)]
    able = {
        "copy": True,
        "snapshot": _can_snapshot(call, config),
        "clone": all(volid.partition(":")[2].rpartition("/")[2].startswith("base") for volid in volids),
    }[call.params["feature"]]
    return {"hasFeature": int(able)}


@route("GET", f"{BASE}/snapshot/{{snapname}}/config")
def snapshot_config(call: Call) -> Any:
    snapshot = snapshot_of(container(call), call.params["snapname"])
    return {**snapshot.config, "snaptime": snapshot.snaptime, "description": snapshot.description}


@route("POST", f"{BASE}/snapshot")
def take(call: Call) -> Any:
    name = call.params["snapname"]
    if name in ("current", "pending"):
        raise ApiError(f"unable to use snapshot name '{name}' (reserved name)")

    def work(vm: Vm) -> None:
        if name in vm.snapshots:
            raise ApiError(f"snapshot name '{name}' already used")
        if not _can_snapshot(call, vm.config):
            raise ApiError("snapshot feature is not available")
        config = {
            key: value
            for key, value in vm.config.items()
            if key not in ("lock", "description") and not options.is_unused(key)
        }
        parent = config.pop("parent", None)
        moment = call.emulator.state.clock.seconds()
        vm.snapshots[name] = Snapshot(config, moment, call.params.get("description", ""), parent)
        vm.config["parent"] = name

    container(call)
    return power_task(call, "vzsnapshot", work)


@route("DELETE", f"{BASE}/snapshot/{{snapname}}")
def forget(call: Call) -> Any:
    name = call.params["snapname"]

    def work(vm: Vm) -> None:
        gone = snapshot_of(vm, name)
        for other in vm.snapshots.values():
            other.parent = gone.parent if other.parent == name else other.parent
        if vm.config.get("parent") == name:
            vm.config.pop("parent")
            vm.config.update({"parent": gone.parent} if gone.parent else {})
        del vm.snapshots[name]
        for volid in unused.used(gone.config):
            unused.add(vm.config, volid)

    return power_task(call, "vzdelsnapshot", work)


@route("POST", f"{BASE}/snapshot/{{snapname}}/rollback")
def roll_back(call: Call) -> Any:
    name = call.params["snapname"]

    def work(vm: Vm) -> None:
        snapshot = snapshot_of(vm, name)
        if vm.running:
            set_power(call, False)
        description = {"description": vm.config["description"]} if "description" in vm.config else {}
        vm.config = {**unused.kept(vm, copy.deepcopy(snapshot.config)), **description, "parent": name}
        vm.pending, vm.pending_delete = {}, set()

    return power_task(call, "vzrollback", work)
