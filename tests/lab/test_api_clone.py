"""Cloning as provisioning uses it."""

import threading
import time
from typing import Any

import pytest

from lab.api.errors import ApiError, PermissionDenied
from lab.api.permissions import User
from lab.api.states import StatesBackend
from lab.backend import BackendError
from tests.lab.api_node import GIB, STATE, Node, state_with

CLONE = "/nodes/prom/qemu/9002/clone"


class Slow(StatesBackend):
    """Copies when it is told to, or fails."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__(STATE)
        self.go, self.fails = threading.Event(), fails
        self.made: list[tuple[str, str, int]] = []
        self.deleted: list[str] = []

    def clone_volume(self, source: str, target: str, size: int) -> None:
        self.go.wait(10)
        if self.fails:
            raise BackendError("cp: no space\nleft on device")
        self.made.append((source, target, size))

    def delete_volume(self, volid: str) -> None:
        self.deleted.append(volid)


def test_the_target_is_locked_and_nameless_while_it_is_made() -> None:
    backend = Slow()
    node = Node(backend=backend)
    upid = node.call("POST", CLONE, {"newid": 110, "name": "dev", "description": "ours"})
    while 110 not in node.emulator.state.vms:
        time.sleep(0.01)
    found = node.config(110)
    assert (found["lock"], found["description"]) == ("clone", " qmclone temporary file")
    assert node.get("/nodes/prom/qemu/110/status/current")["name"] == "VM 110"
    backend.go.set()
    assert node.ended(upid) == "OK"
    assert "lock" not in node.config(110)


def test_a_clone_takes_over_all_but_its_identity() -> None:
    node = Node()
    assert node.run("POST", CLONE, newid=110, name="dev", full=1) == "OK"
    old, new = node.config(9002), node.config(110)
    for same in ("tags", "description", "protection", "onboot", "memory", "agent", "boot"):
        assert new[same] == old[same]
    for other in ("smbios1", "vmgenid", "net0", "digest"):
        assert new[other] != old[other]
    assert "template" not in new
    assert new["net0"].startswith("virtio=BC:24:11:")
    assert new["net0"].endswith(",bridge=vmbr0")
    assert new["ide2"] == "nvme:vm-110-cloudinit,media=cdrom,size=4M"
    assert new["scsi0"] == "nvme:vm-110-disk-0,size=4G"


@pytest.mark.parametrize(
    ("kind", "path", "base", "linked"),
    [
        ("lvmthin", None, "s:base-1000-disk-0", "s:vm-110-disk-0"),
        ("zfspool", None, "s:base-1000-disk-0", "s:base-1000-disk-0/vm-110-disk-0"),
        ("dir", "/x", "s:1000/base-1000-disk-0.qcow2", "s:1000/base-1000-disk-0.qcow2/110/vm-110-disk-0.qcow2"),
    ],
)
def test_linked_clones_are_named_as_their_storage_does(kind: str, path: str | None, base: str, linked: str) -> None:
    form = "qcow2" if path else "raw"
    storage = {"type": kind, "total": GIB * 10, "volumes": {base: {"format": form, "size": GIB}}}
    vm = {"config": {"template": 1, "scsi0": f"{base},size=1G"}}
    node = Node(state_with(storages={"s": {**storage, **({"path": path} if path else {})}}, vms={"1000": vm}))
    upid = node.call("POST", "/nodes/prom/qemu/1000/clone", {"newid": 110})
    assert node.ended(upid) == "OK"
    assert node.config(110)["scsi0"] == f"{linked},size=1G"
    assert f"create linked clone of drive scsi0 ({base})" in node.log(upid)


def test_of_many_clones_to_one_vmid_one_wins() -> None:
    node = Node()
    results: list[str] = []

    def attempt() -> None:
        try:
            results.append(node.run("POST", CLONE, newid=110))
        except ApiError as error:
            results.append(error.message)

    threads = [threading.Thread(target=attempt) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["OK", *["unable to create VM 110: config file already exists"] * 4]


def test_clones_of_one_template_run_side_by_side() -> None:
    backend = Slow()
    node = Node(backend=backend)
    upids = [node.call("POST", CLONE, {"newid": 110 + n}) for n in range(4)]
    time.sleep(1.2)  # longer than a clone waits for a lock
    backend.go.set()
    assert {node.ended(upid) for upid in upids} == {"OK"}
    assert len(backend.made) == 4


def test_a_clone_that_fails_leaves_nothing() -> None:
    backend = Slow(fails=True)
    backend.go.set()
    node = Node(backend=backend)
    upid = node.call("POST", CLONE, {"newid": 110})
    assert node.ended(upid) == "clone failed: cp: no space left on device"
    assert node.log(upid)[-2:] == ["TASK ERROR: clone failed: cp: no space", "left on device"]
    assert 110 not in node.emulator.state.vms
    assert node.emulator.volumes.of_vm(110) == []


def test_a_storage_that_is_full_says_so() -> None:
    node = Node()
    used = node.get("/nodes/prom/storage/zfs/status")["used"]
    assert node.run("POST", CLONE, newid=110, full=1, storage="zfs") == "OK"
    assert node.get("/nodes/prom/storage/zfs/status")["used"] > used + 4 * GIB
    status = node.run("POST", CLONE, newid=111, full=1, storage="zfs")
    assert status == "clone failed: zfs error: cannot create 'zfs/vm-111-disk-0': out of space"
    node.call("PUT", "/nodes/prom/qemu/110/config", {"protection": 0})
    assert "out of space" in node.run("PUT", "/nodes/prom/qemu/110/resize", disk="scsi0", size="64G")
    assert node.run("DELETE", "/nodes/prom/qemu/110") == "OK"
    assert node.get("/nodes/prom/storage/zfs/status")["used"] == used


def test_ending_a_clone_leaves_its_lock() -> None:
    backend = Slow()
    node = Node(state_with(task_seconds={"qmclone": 30}), backend)
    backend.go.set()
    upid = node.call("POST", CLONE, {"newid": 110})
    while 110 not in node.emulator.state.vms:
        time.sleep(0.01)
    node.call("DELETE", f"/nodes/prom/tasks/{upid}")
    assert node.ended(upid) == "received interrupt"
    assert node.config(110)["lock"] == "clone"
    with pytest.raises(ApiError, match=r"VM is locked \(clone\)"):
        node.call("PUT", "/nodes/prom/qemu/110/config", {"memory": 64})


def grants(*rows: tuple[str, str]) -> list[dict[str, Any]]:
    """ACL rows for the user and its token alike."""
    who = (("user", "fw@pve"), ("token", "fw@pve!t"))
    return [{"path": path, "type": kind, "ugid": ugid, "roleid": role} for path, role in rows for kind, ugid in who]


TOKEN = User("fw@pve", "t", privsep=True)
NEEDED = (("/vms/9002", "PVETemplateUser"), ("/pool/p", "PVEVMAdmin"), ("/storage/nvme", "PVEDatastoreUser"))
SDN = ("/sdn/zones/localnetwork/vmbr0", "PVESDNUser")


def test_a_token_clones_into_its_pool_and_nowhere_else() -> None:
    node = Node(state_with(acl=grants(*NEEDED, SDN), pools={"p": {"members": []}}))
    with pytest.raises(PermissionDenied) as outside:
        node.call("POST", CLONE, {"newid": 110}, TOKEN)
    assert outside.value.message == "Permission check failed"
    with pytest.raises(PermissionDenied, match="pool 'q' does not exist"):
        node.call("POST", CLONE, {"newid": 110, "pool": "q"}, User("root@pam", "full"))
    upid = node.call("POST", CLONE, {"newid": 110, "pool": "p"}, TOKEN)
    assert node.ended(upid) == "OK"
    assert node.call("GET", "/nodes/prom/qemu/110/config", {}, TOKEN)["name"] == "Copy-of-VM-debian"
    with pytest.raises(PermissionDenied, match=r"\(/vms/104, VM.PowerMgmt\)"):
        node.call("POST", "/nodes/prom/qemu/104/status/stop", {}, TOKEN)


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ("PVETemplateUser", "(/vms/9002, VM.Clone)"),
        ("PVEDatastoreUser", "(/storage/nvme, Datastore.AllocateSpace)"),
        ("PVESDNUser", "(/sdn/zones/localnetwork/vmbr0, SDN.Use)"),
    ],
)
def test_what_a_token_lacks_is_named(missing: str, text: str) -> None:
    rows = [row for row in (*NEEDED, SDN) if row[1] != missing]
    node = Node(state_with(acl=grants(*rows), pools={"p": {"members": []}}))
    with pytest.raises(PermissionDenied) as denied:
        node.call("POST", CLONE, {"newid": 110, "pool": "p"}, TOKEN)
    assert denied.value.message == f"Permission check failed {text}"
