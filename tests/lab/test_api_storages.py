"""Storages that are away: not mounted, or switched off."""

from typing import Any

import pytest

from lab.api.errors import ApiError, ParameterError
from tests.lab.api_node import GIB, STATE, Node, state_with

VM = "/nodes/prom/qemu/104"
GONE = "unable to activate storage 'gone' - directory is expected to be a mount point but is not mounted: '/mnt/gone'"


@pytest.fixture
def node() -> Node:
    away: dict[str, Any] = {
        "gone": {"type": "dir", "path": "/mnt/gone", "content": "images,backup", "active": 0, "total": GIB},
        "far": {"type": "nfs", "path": "/mnt/pve/far", "content": "images", "active": 0, "disable": "1"},
    }
    return Node(state_with(storages={**STATE["storages"], **away}))


def test_what_is_away_is_listed_without_sizes(node: Node) -> None:
    rows = {row["storage"]: row for row in node.get("/nodes/prom/storage")}
    for name, enabled in (("gone", 1), ("far", 0)):
        row = rows[name]
        assert (row["active"], row["enabled"], row["total"], row["avail"]) == (0, enabled, 0, 0)
        assert "used_fraction" not in row
    assert (rows["far"]["shared"], rows["nvme"]["active"]) == (1, 1)
    assert {row["storage"] for row in node.get("/nodes/prom/storage", content="images")} == {"nvme", "zfs", "gone"}
    assert "far" not in {row["storage"] for row in node.get("/nodes/prom/storage", enabled=1)}
    resources = {row["storage"]: row for row in node.get("/cluster/resources", type="storage")}
    assert (resources["gone"]["status"], "disk" in resources["gone"], "far" in resources) == ("unknown", False, False)
    with pytest.raises(ParameterError) as none:
        node.get("/nodes/prom/storage/nope/status")
    assert none.value.errors == {"storage": "No such storage."}


def test_nothing_can_be_done_on_it(node: Node) -> None:
    with pytest.raises(ApiError) as content:
        node.get("/nodes/prom/storage/gone/content")
    assert content.value.message == GONE
    with pytest.raises(ApiError) as added:
        node.call("PUT", f"{VM}/config", {"scsi1": "gone:1"})
    assert added.value.message == GONE
    with pytest.raises(ApiError, match="storage 'far' is disabled"):
        node.call("PUT", f"{VM}/config", {"scsi1": "far:1"})
    assert node.run("POST", "/nodes/prom/vzdump", vmid="104", storage="gone") == (
        f"could not activate storage 'gone': {GONE}"
    )


def test_no_disk_goes_where_no_images_may_be(node: Node) -> None:
    node.emulator.state.storages["gone"].content = "backup"
    with pytest.raises(ParameterError) as refused:
        node.call("PUT", f"{VM}/config", {"scsi1": "gone:1"})
    assert refused.value.errors == {"storage": "storage 'gone' does not support vm images"}


def test_a_disk_on_a_storage_that_is_away_keeps_the_machine_from_starting_and_outlives_it(node: Node) -> None:
    assert node.run("POST", f"{VM}/status/stop") == "OK"
    node.emulator.state.storages["nvme"].active = False
    node.emulator.state.storages["nvme"].type = "nfs"
    assert node.run("POST", f"{VM}/status/start") == "storage 'nvme' is not online"
    upid = node.call("DELETE", VM)
    assert node.ended(upid) == "WARNINGS: 1"
    assert "check manually: storage 'nvme' is not online" in node.log(upid)[0]
    assert "nvme:vm-104-disk-0" in node.emulator.state.storages["nvme"].volumes
