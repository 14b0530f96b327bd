"""Snapshots on the emulator: what can be snapshotted, and the memory in one."""

from typing import Any

import pytest

from lab.api.errors import ApiError
from lab.api.routes import Page
from tests.lab.api_node import GIB, Node, state_with

VM = "/nodes/prom/qemu/110"
CT = "/nodes/prom/lxc/210"


def node(disk: str = "files:110/vm-110-disk-0.qcow2", **config: str) -> Node:
    """A running VM 110 and a container 210, on files."""
    volumes = {
        **{f"files:110/vm-110-disk-{n}.{form}": volume(form) for n, form in ((0, "qcow2"), (1, "raw"))},
        "files:210/vm-210-disk-0.raw": volume("raw"),
    }
    expected: dict[str, Any] = {
        **{"name": "dev", "memory": "256", "agent": "1", "boot": "order=scsi0", "scsi0": f"{disk},size=1G"},
        **{"net0": "virtio=BC:24:11:00:01:10,bridge=vmbr0", "vmgenid": "old", **config},
    }
    files = {"type": "dir", "path": "/srv/files", "content": "images,rootdir", "total": 100 * GIB, "volumes": volumes}
    ct = {"type": "lxc", "config": {"hostname": "dns", "rootfs": "files:210/vm-210-disk-0.raw,size=1G"}}
    vm = {"status": "running", "agent": "running", "config": expected}
    return Node(state_with(storages={"files": files}, vms={"110": vm, "210": ct}))


def volume(form: str) -> dict[str, Any]:
    return {"content": "images", "format": form, "size": GIB, "used": 4096}


def able(found: Node, path: str = VM, **params: str) -> bool:
    return bool(found.get(f"{path}/feature", feature="snapshot", **params)["hasFeature"])


def test_one_raw_disk_on_files_is_enough_for_no_snapshot_at_all() -> None:
    assert able(node())
    found = node(scsi1="files:110/vm-110-disk-1.raw,size=1G")
    assert not able(found)
    assert found.run("POST", f"{VM}/snapshot", snapname="clean") == "snapshot feature is not available"
    assert not able(found, CT)
    assert found.run("POST", f"{CT}/snapshot", snapname="clean") == "snapshot feature is not available"
    with pytest.raises(ApiError, match="snapshot 'nope' does not exist"):
        able(found, snapname="nope")


def test_a_snapshot_with_memory_is_a_volume_more_and_brings_the_machine_back_running() -> None:
    found = node()
    upid = found.call("POST", f"{VM}/snapshot", {"snapname": "ram", "vmstate": 1})
    assert found.ended(upid) == "OK"
    assert "saving VM state and RAM using storage 'files'" in found.log(upid)
    state = "files:110/vm-110-state-ram.raw"
    assert found.get(f"{VM}/snapshot/ram/config")["vmstate"] == state
    assert state in volids(found)
    assert found.run("POST", f"{VM}/status/stop") == "OK"
    assert found.run("POST", f"{VM}/snapshot/ram/rollback") == "OK"
    assert found.get(f"{VM}/status/current")["status"] == "running"
    assert found.call("POST", f"{VM}/agent/ping", {}) == {"result": {}}  # it ran in that memory
    config = found.config(110)
    assert not config.keys() & {"vmstate", "runningmachine", "runningcpu", "running-nets-host-mtu"}
    assert config["vmgenid"] != "old"
    assert found.run("DELETE", f"{VM}/snapshot/ram") == "OK"
    assert state not in volids(found)


def test_a_rollback_starts_the_machine_where_that_is_asked_for() -> None:
    found = node()
    assert found.run("POST", f"{VM}/snapshot", snapname="clean") == "OK"
    shown = found.get(f"{VM}/config", snapshot="clean")
    assert (shown["snaptime"] > 0, shown.get("parent")) == (True, None)
    assert found.run("POST", f"{VM}/snapshot/clean/rollback") == "OK"
    assert found.get(f"{VM}/status/current")["status"] == "stopped"
    assert found.run("POST", f"{VM}/snapshot/clean/rollback", start=1) == "OK"
    assert found.get(f"{VM}/status/current")["status"] == "running"


def test_a_linked_clone_of_a_raw_base_is_qcow2_and_can_be_snapshotted() -> None:
    found = node("files:110/vm-110-disk-1.raw")
    assert found.run("POST", f"{VM}/status/stop") == "OK"
    assert found.run("POST", f"{VM}/template") == "OK"
    assert not able(found)
    assert found.run("POST", f"{VM}/clone", newid=111, full=0) == "OK"
    assert found.config(111)["scsi0"].startswith("files:110/base-110-disk-1.raw/111/vm-111-disk-0.qcow2,")
    assert able(found, "/nodes/prom/qemu/111")


def volids(found: Node) -> list[str]:
    rows = found.get("/nodes/prom/storage/files/content")
    return [row["volid"] for row in (rows.data if isinstance(rows, Page) else rows)]
