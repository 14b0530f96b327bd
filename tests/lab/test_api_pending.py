"""What waits for a VM's next start, what a running one takes over at once, and what becomes of its disks."""

import copy
from typing import Any

import pytest

from lab.api.errors import ApiError, ParameterError
from lab.api.permissions import User
from tests.lab.api_node import GIB, STATE, Node

VM = "/nodes/prom/qemu/104"
CONFIG = f"{VM}/config"


def node_with(**config: Any) -> Node:
    """The running VM 104 with these options."""
    state = copy.deepcopy(STATE)
    state["vms"]["104"]["config"] |= config
    state["storages"]["files"] = {
        **{"type": "dir", "path": "/srv/files", "content": "images", "total": 100 * GIB, "used": 0}
    }
    state["storages"]["iso"] = {"type": "dir", "path": "/srv/iso", "content": "iso", "total": GIB, "used": 0}
    return Node(state)


def waiting(node: Node, vmid: int = 104) -> dict[str, Any]:
    rows = node.get(f"/nodes/prom/qemu/{vmid}/pending")
    return {row["key"]: row.get("pending", -1 * row.get("delete", 0)) for row in rows if {"pending", "delete"} & {*row}}


def volumes(node: Node, storage: str = "nvme") -> set[str]:
    return {row["volid"] for row in node.get(f"/nodes/prom/storage/{storage}/content", vmid=104)}


def test_a_hotplug_that_fails_says_why_and_waits() -> None:
    node = node_with()
    with pytest.raises(ParameterError) as refused:
        node.call("PUT", CONFIG, {"net1": "virtio=BC:24:11:90:00:01,bridge=vmbr7", "tags": "new"})
    assert "qmp command 'netdev_add' failed" in refused.value.errors["net1"]
    with pytest.raises(ParameterError) as refused:
        node.call("PUT", CONFIG, {"net0": "virtio=BC:24:11:00:01:04,bridge=vmbr8"})
    assert refused.value.errors == {"net0": "hotplug problem - interface vmbr8 does not exist\n"}
    assert set(waiting(node)) == {"net0", "net1"}
    assert node.config(104)["tags"] == "new"
    upid = node.call("POST", CONFIG, {"net2": "virtio=BC:24:11:90:00:02,bridge=vmbr7"})
    assert node.ended(upid).startswith("400 Parameter verification failed. net2: hotplug problem - ")
    assert len(node.log(upid)) == 2


@pytest.mark.parametrize("how", ["delete", "revert"])
def test_a_disk_that_waits_is_unused_when_it_is_taken_back(how: str) -> None:
    node = node_with(hotplug="0")
    node.call("PUT", CONFIG, {"scsi1": "nvme:2"})
    volid = str(waiting(node)["scsi1"]).partition(",")[0]
    node.call("PUT", CONFIG, {how: "scsi1"})
    assert waiting(node) == {}
    assert node.config(104)["unused0"] == volid
    node.call("PUT", CONFIG, {"scsi1": volid})  # named again, it is not unused any more, though it only waits
    assert "unused0" not in node.config(104)
    assert waiting(node) == {"scsi1": f"{volid},size=2G"}
    node.call("PUT", CONFIG, {"scsi1": "nvme:1"})
    assert node.config(104)["unused0"] == volid


def test_taking_back_and_setting_exclude_each_other() -> None:
    node = node_with()
    with pytest.raises(ParameterError) as refused:
        node.call("PUT", CONFIG, {"revert": "memory", "memory": 300})
    assert refused.value.errors == {"delete": "you can't use '-memory' and -revert memory' at the same time"}
    node.call("PUT", CONFIG, {"memory": 300, "delete": "cores"})
    assert waiting(node) == {"memory": "300", "cores": -1}
    node.call("PUT", CONFIG, {"revert": "memory,cores,net3"})
    assert waiting(node) == {}


@pytest.mark.parametrize(
    ("before", "after", "waits"),
    [(1024, 512, False), (1024, None, False), (None, 512, False), (None, 0, True), (0, 512, True)],
)
def test_the_balloon_is_blown_up_at_once_but_not_plugged_in(before: int | None, after: int | None, waits: bool) -> None:
    node = node_with(**({} if before is None else {"balloon": before}))
    node.call("PUT", CONFIG, {"delete": "balloon"} if after is None else {"balloon": after})
    assert ("balloon" in waiting(node)) is waits


def test_hotplug_knows_its_features() -> None:
    node = node_with()
    with pytest.raises(ParameterError) as refused:
        node.call("PUT", CONFIG, {"hotplug": "disks"})
    assert "invalid hotplug feature 'disks'" in refused.value.errors["hotplug"]


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        *(("digest", 400, "unknown option 'digest'"), ("nokey", 400, "unknown option 'nokey'")),
        *(("parent", 500, "only root can set 'parent' config"), ("vmgenid", 500, "only root can set 'vmgenid' config")),
    ],
)
def test_what_cannot_be_deleted(name: str, status: int, text: str) -> None:
    with pytest.raises(ApiError) as refused:
        node_with().call("PUT", CONFIG, {"delete": name}, User("root@pam", "full"))
    message = refused.value.errors["delete"] if isinstance(refused.value, ParameterError) else refused.value.message
    assert (refused.value.status, message) == (status, text)


def test_the_boot_disk_leaves_the_boot_order_when_it_goes() -> None:
    node = node_with()
    assert node.run("POST", f"{VM}/status/stop") == "OK"
    node.call("PUT", f"{VM}/unlink", {"idlist": "scsi0"})
    assert node.config(104)["boot"] == " "
    node.call("PUT", CONFIG, {"scsi0": "nvme:vm-104-disk-0,size=1G"})
    assert node.config(104)["scsi0"] == "nvme:vm-104-disk-0,size=32G"  # the volume's own
    node.call("PUT", f"{VM}/unlink", {"idlist": "scsi0", "force": 1})
    assert volumes(node) == set()


def test_a_moved_disk_and_what_is_left_of_it() -> None:
    node = node_with()
    move = f"{VM}/move_disk"
    with pytest.raises(ApiError, match="detected modified configuration - file changed by other user"):
        node.call("POST", move, {"disk": "scsi0", "storage": "zfs", "digest": "0" * 40})
    with pytest.raises(ParameterError) as refused:
        node.call("POST", move, {"disk": "scsi0", "storage": "iso"})
    assert refused.value.errors == {"storage": "storage 'iso' does not support vm images"}
    upid = node.call("POST", move, {"disk": "scsi0", "storage": "files"})
    assert node.ended(upid) == "OK"
    assert node.log(upid)[0] == (
        "copying volume 'nvme:vm-104-disk-0' from current storage 'nvme' to target storage 'files'"
    )
    assert "mirror-scsi0: mirror-job finished" in node.log(upid)
    assert node.config(104)["unused0"] == "nvme:vm-104-disk-0"
    assert node.run("POST", move, disk="unused0", storage="files", delete=1) == "OK"
    assert node.config(104)["unused0"] == "files:104/vm-104-disk-1.raw"
    with pytest.raises(ApiError, match="same storage with same format"):
        node.call("POST", move, {"disk": "unused0", "storage": "files"})


def test_a_disk_is_given_to_another_vm() -> None:
    node = node_with()
    assert node.run("POST", "/nodes/prom/qemu", vmid=110, memory="64", scsi0="nvme:2") == "OK"
    move = "/nodes/prom/qemu/110/move_disk"
    with pytest.raises(ApiError, match="Cannot move disk to another VM while the source VM is running"):
        node.call("POST", f"{VM}/move_disk", {"disk": "scsi0", "target-vmid": 110, "target-disk": "scsi1"})
    with pytest.raises(ApiError, match="could not find target VM 999"):
        node.call("POST", move, {"disk": "scsi0", "target-vmid": 999})
    with pytest.raises(ApiError, match="Target disk key 'scsi0' is already in use for VM '104'"):
        node.call("POST", move, {"disk": "scsi0", "target-vmid": 104})
    with pytest.raises(ApiError, match="VM 104: detected modified configuration"):
        node.call("POST", move, {"disk": "scsi0", "target-vmid": 104, "target-disk": "scsi1", "target-digest": "0"})
    upid = node.call("POST", move, {"disk": "scsi0", "target-vmid": 104, "target-disk": "scsi1"})
    assert ":qmmove:110-scsi0>104-scsi1:" in upid
    assert node.ended(upid) == "OK"
    assert node.config(104)["scsi1"] == "nvme:vm-104-disk-1,size=2G"
    assert node.config(110)["boot"] == " "
    assert "scsi0" not in node.config(110)


def test_a_fault_makes_any_hotplug_fail() -> None:
    node = node_with(scsi1="nvme:vm-104-disk-0,size=32G")
    node.emulator.faults.switch("hotplug-fails", True, {"option": "scsi1"})
    with pytest.raises(ParameterError) as refused:
        node.call("PUT", CONFIG, {"delete": "scsi1"})
    assert set(refused.value.errors) == {"scsi1"}
    assert waiting(node) == {"scsi1": -1}
