"""Several nodes: who shows what, and guests on their way between them. Nothing of this has a recording."""

from typing import Any

import pytest

from lab.api.errors import ApiError, ParameterError
from tests.lab.api_node import GIB, Node, state_with

QEMU = "/nodes/prom/qemu/104"


def cluster(**config: Any) -> Node:
    """prom and prom2; 104 runs on prom with a disk that only prom sees, and one on shared storage."""
    bridges = {"bridges": {"vmbr0": {}}, "cpus": 4, "memory": 16 * GIB}
    state = state_with(nodes={"prom": bridges, "prom2": bridges})
    disk = {"content": "images", "format": "raw", "size": GIB, "used": GIB}
    ceph = {"type": "rbd", "shared": 1, "content": "images", "total": 100 * GIB, "avail": 100 * GIB}
    state["storages"]["ceph"] = {**ceph, "volumes": {"ceph:vm-104-disk-0": disk}}
    state["storages"]["zfs"] |= {"sparse": 1, "total": 100 * GIB}
    state["vms"]["104"]["config"] |= {"scsi1": "ceph:vm-104-disk-0,size=1G", **config}
    return Node(state)


def ended(node: Node, upid: str, where: str = "prom") -> str:
    while True:
        status = node.get(f"/nodes/{where}/tasks/{upid}/status")
        if status["status"] == "stopped":
            return str(status["exitstatus"])


def test_each_node_shows_its_own_and_the_cluster_all() -> None:
    node = cluster()
    assert [row["vmid"] for row in node.get("/nodes/prom/qemu")] == [104, 9002]
    assert node.get("/nodes/prom2/qemu") == []
    assert {(row["vmid"], row["node"]) for row in node.get("/cluster/resources", type="vm")} == {
        (104, "prom"),
        (9002, "prom"),
    }
    assert {row["node"] for row in node.get("/nodes")} == {"prom", "prom2"}
    assert {row["name"] for row in node.get("/cluster/status")} == {"lab", "prom", "prom2"}
    with pytest.raises(ApiError, match=r"Configuration file 'nodes/prom2/qemu-server/104.conf' does not exist"):
        node.get("/nodes/prom2/qemu/104/config")
    with pytest.raises(ApiError, match="hostname lookup 'prom3' failed"):
        node.get("/nodes/prom3/qemu")


def test_volumes_of_local_storage_are_where_their_guests_are() -> None:
    node = cluster()
    on = {name: [row["volid"] for row in node.get(f"/nodes/{name}/storage/nvme/content")] for name in ("prom", "prom2")}
    assert "nvme:vm-104-disk-0" in on["prom"]
    assert on["prom2"] == []
    assert [row["volid"] for row in node.get("/nodes/prom2/storage/ceph/content")] == ["ceph:vm-104-disk-0"]


def test_a_running_guest_moves_only_online_and_with_its_local_disks() -> None:
    node = cluster()
    with pytest.raises(ApiError, match="can't migrate running VM without --online"):
        node.call("POST", f"{QEMU}/migrate", {"target": "prom2"})
    with pytest.raises(ParameterError):
        node.call("POST", f"{QEMU}/migrate", {"target": "prom"})
    with pytest.raises(ApiError, match="no such cluster node 'prom3'"):
        node.call("POST", f"{QEMU}/migrate", {"target": "prom3", "online": 1})
    assert "with-local-disks" in node.run("POST", f"{QEMU}/migrate", target="prom2", online=1)
    assert "lock" not in node.config(104)
    seen = node.get(f"{QEMU}/migrate")
    assert [row["volid"] for row in seen["local_disks"]] == ["nvme:vm-104-disk-0"]
    assert seen["allowed_nodes"] == ["prom2"]
    upid = node.call("POST", f"{QEMU}/migrate", {"target": "prom2", "online": 1, "with-local-disks": 1})
    assert node.ended(upid) == "OK"
    assert node.get("/nodes/prom2/qemu/104/status/current")["status"] == "running"
    assert [row["vmid"] for row in node.get("/nodes/prom/qemu")] == [9002]
    assert "nvme:vm-104-disk-0" in [row["volid"] for row in node.get("/nodes/prom2/storage/nvme/content")]
    assert node.log(upid)[-2:] == ["migration finished successfully (duration 00:00:01)", "TASK OK"]


def test_local_disks_may_go_to_another_storage() -> None:
    node = cluster()
    target: dict[str, Any] = {"target": "prom2", "online": 1, "with-local-disks": 1, "targetstorage": "nvme:zfs"}
    assert node.run("POST", f"{QEMU}/migrate", **target) == "OK"
    assert node.get("/nodes/prom2/qemu/104/config")["scsi0"].startswith("zfs:vm-104-disk-")


def test_devices_of_the_node_stay_with_it() -> None:
    assert "uses local devices: hostpci0" in cluster(hostpci0="0000:01:00.0").run(
        "POST", f"{QEMU}/migrate", target="prom2", online=1
    )


def test_clones_go_to_another_node_only_by_shared_storage() -> None:
    node = cluster()
    clone = {"newid": 110, "target": "prom2"}
    with pytest.raises(ApiError, match=r"Can't clone VM to node 'prom2' \(VM uses local storage\)"):
        node.call("POST", "/nodes/prom/qemu/9002/clone", clone)


def test_tasks_are_their_nodes() -> None:
    node = cluster()
    target: dict[str, Any] = {"target": "prom2", "online": 1, "with-local-disks": 1}
    node.run("POST", f"{QEMU}/migrate", **target)
    upid = node.call("POST", "/nodes/prom2/qemu/104/status/stop")
    assert upid.startswith("UPID:prom2:")
    assert ended(node, upid, "prom2") == "OK"
    assert [row["type"] for row in node.get("/nodes/prom2/tasks")] == ["qmstop"]
    assert [row["type"] for row in node.get("/nodes/prom/tasks")] == ["qmigrate"]
    assert len(node.get("/cluster/tasks")) == 2


def test_a_node_that_is_down_does_not_answer_and_its_guests_are_unknown() -> None:
    node = cluster()
    node.emulator.faults.switch("node-down", True, {"node": "prom"})
    with pytest.raises(ApiError, match="No route to host") as refused:
        node.get(f"{QEMU}/config")
    assert refused.value.status == 595
    rows = {row["vmid"]: row for row in node.get("/cluster/resources", type="vm")}
    assert rows[104]["status"] == "unknown"
    assert {row["node"]: row["status"] for row in node.get("/nodes")} == {"prom": "offline", "prom2": "online"}
    node.get("/nodes/prom2/qemu")


def test_moving_a_disk() -> None:
    node = cluster()
    move = f"{QEMU}/move_disk"
    with pytest.raises(ApiError, match="you can't move to the same storage with same format"):
        node.call("POST", move, {"disk": "scsi0", "storage": "nvme"})
    with pytest.raises(ApiError, match="disk 'scsi9' does not exist"):
        node.call("POST", move, {"disk": "scsi9", "storage": "zfs"})
    assert node.run("POST", move, disk="scsi0", storage="zfs") == "OK"
    config = node.config(104)
    assert config["scsi0"].startswith("zfs:vm-104-disk-0")
    assert config["unused0"] == "nvme:vm-104-disk-0"
    assert node.run("POST", move, disk="scsi0", storage="ceph", delete=1) == "OK"
    assert "zfs:vm-104-disk-0" not in [row["volid"] for row in node.get("/nodes/prom/storage/zfs/content")]


def test_suspended_to_disk_and_back() -> None:
    node = cluster()
    assert node.run("POST", f"{QEMU}/status/suspend", todisk=1) == "OK"
    assert node.config(104)["lock"] == "suspended"
    assert node.get(f"{QEMU}/status/current")["status"] == "stopped"
    assert node.run("POST", f"{QEMU}/status/start") == "OK"
    assert not {"lock", "vmstate"} & node.config(104).keys()


def test_mapped_devices() -> None:
    state = state_with(pci_mappings={"igpu": {"map": ["id=1002:1638,node=prom,path=0000:06:00.0"]}})
    node = Node(state)
    assert node.get("/cluster/mapping/pci/igpu")["map"] == ["id=1002:1638,node=prom,path=0000:06:00.0"]
    node.call("PUT", f"{QEMU}/config", {"hostpci0": "mapping=igpu,pcie=1"})
    assert node.config(104)["hostpci0"] == "mapping=igpu,pcie=1"
    with pytest.raises(ApiError, match="PCI device mapping 'nic' not found"):
        node.call("PUT", f"{QEMU}/config", {"hostpci1": "mapping=nic"})
