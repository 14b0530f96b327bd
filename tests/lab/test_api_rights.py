"""What the documented token may do on a real server, and no more (`rights-recipe` of the recordings, case by case)."""

from typing import Any

import pytest

from lab.api.errors import ApiError, ParameterError, PermissionDenied
from lab.api.permissions import User
from lab.start import PRIVILEGES
from tests.lab.api_node import GIB, Node, state_with

TOKEN = User("fw@pve", "t", privsep=True)
MINE, FOREIGN = "/nodes/prom/qemu/110", "/nodes/prom/qemu/104"
BACKUP = "local:backup/vzdump-qemu-{}-2026_11_29-11_56_49.vma.zst"
RECIPE = (
    *(("/pool/fleet", "Fleet"), ("/vms/9002", "PVETemplateUser"), ("/storage/nvme", "PVEDatastoreUser")),
    *(("/storage/local", "PVEDatastoreUser"), ("/sdn/zones/localnetwork/vmbr0", "PVESDNUser")),
)


def granted(*more: tuple[str, str]) -> Node:
    """A node on which 110 is the token's, in its pool, and 104 somebody else's; each has a backup."""
    who = (("user", "fw@pve"), ("token", "fw@pve!t"))
    rows = [
        {"path": path, "type": kind, "ugid": ugid, "roleid": role, "propagate": 1}
        for path, role in (*RECIPE, *more)
        for kind, ugid in who
    ]
    state: dict[str, Any] = state_with(acl=rows, roles={"Fleet": PRIVILEGES}, pools={"fleet": {"members": [110]}})
    disk = {"content": "images", "format": "raw", "size": GIB, "used": 0}
    state["vms"]["104"]["config"]["tags"] = "prod"
    state["vms"]["110"] = {"config": {"name": "mine", "memory": "512", "tags": "web", "scsi0": "nvme:vm-110-disk-0"}}
    state["storages"]["nvme"]["volumes"]["nvme:vm-110-disk-0"] = disk
    archives = {
        BACKUP.format(vmid): {
            "content": "backup",
            "format": "vma.zst",
            "size": 1 << 20,
            "archive": {
                "type": "qemu",
                "disks": {},
                "config": {"name": f"vm{vmid}", "ide2": "local:1/vm-1-cloudinit.qcow2,media=cdrom"},
            },
        }
        for vmid in (104, 110, 111)
    }
    extra = {
        "local:iso/x.iso": {"content": "iso", "format": "iso", "size": 1},
        "local:snippets/x.sh": {"content": "snippets", "format": "raw", "size": 1},
    }
    state["storages"]["local"] = {
        **{"type": "dir", "path": "/var/lib/vz", "content": "images,backup,iso,snippets", "total": 99 * GIB},
        "volumes": archives | extra,
    }
    return Node(state)


@pytest.fixture
def node() -> Node:
    return granted()


@pytest.mark.parametrize(
    ("method", "path", "params", "lacks"),
    [
        ("DELETE", f"/nodes/prom/storage/local/content/{BACKUP.format(104)}", {}, "/vms/104, VM.Backup"),
        ("GET", f"/nodes/prom/storage/local/content/{BACKUP.format(104)}", {}, "/vms/104, VM.Backup"),
        ("PUT", f"/nodes/prom/storage/local/content/{BACKUP.format(104)}", {"notes": "x"}, "/vms/104, VM.Backup"),
        ("GET", "/nodes/prom/vzdump/extractconfig", {"volume": BACKUP.format(104)}, "/vms/104, VM.Backup"),
        (
            *("POST", "/nodes/prom/qemu", {"vmid": 115, "archive": BACKUP.format(104), "pool": "fleet"}),
            "/vms/104, VM.Backup",
        ),
        ("POST", "/nodes/prom/qemu", {"vmid": 110, "archive": BACKUP.format(104), "force": 1}, "/vms/104, VM.Backup"),
        ("GET", "/nodes/prom/storage/nvme/content/vm-104-disk-0", {}, "/vms/104, VM.Config.Disk"),
        ("DELETE", "/nodes/prom/storage/nvme/content/vm-104-disk-0", {}, "/storage/nvme, Datastore.Allocate"),
        ("DELETE", "/nodes/prom/storage/nvme/content/vm-110-disk-0", {}, "/storage/nvme, Datastore.Allocate"),
        ("PUT", f"{MINE}/config", {"scsi3": "nvme:vm-104-disk-0"}, "/vms/104, VM.Config.Disk"),
        ("POST", f"{MINE}/config", {"scsi3": "nvme:vm-104-disk-0"}, "/vms/104, VM.Config.Disk"),
        ("PUT", f"{MINE}/config", {"scsi3": "nvme:0,import-from=nvme:vm-104-disk-0"}, "/vms/104, VM.Clone"),
        (
            *("POST", "/nodes/prom/qemu", {"vmid": 115, "pool": "fleet", "scsi0": "nvme:vm-104-disk-0"}),
            "/vms/104, VM.Config.Disk",
        ),
        ("PUT", f"{MINE}/config", {"ide0": "local:iso/x.iso,media=cdrom"}, "/vms/110, VM.Config.CDROM"),
        ("PUT", f"{MINE}/config", {"ide0": "none,media=cdrom"}, "/vms/110, VM.Config.CDROM"),
        ("PUT", f"{MINE}/config", {"net0": "virtio,bridge=vmbr1"}, "/sdn/zones/localnetwork/vmbr1, SDN.Use"),
        ("POST", f"{MINE}/move_disk", {"disk": "scsi0", "target-vmid": 104}, "/vms/104, VM.Config.Disk"),
        (
            *("POST", "/nodes/prom/vzdump", {"vmid": 110, "storage": "local", "prune-backups": "keep-last=1"}),
            "/storage/local, Datastore.Allocate",
        ),
        ("POST", "/nodes/prom/vzdump", {"vmid": 110, "storage": "local", "bwlimit": 1}, "/, Sys.Modify"),
        ("PUT", "/pools/fleet", {"vms": "104"}, "/pool/fleet, Pool.Allocate"),
        ("GET", "/pools/fleet", {}, "/pool/fleet, Pool.Audit"),
        ("GET", "/access/permissions", {"userid": "fw@pve"}, "/access, Sys.Audit"),
        ("GET", "/access/users/fw@pve", {}, None),
        ("GET", "/access/users/fw@pve/token", {}, None),
        ("GET", "/access/users/fw@pve/token/t", {}, None),
        ("PUT", "/access/users/fw@pve/token/t", {"privsep": 0}, None),
        ("POST", "/nodes/prom/qemu", {"vmid": 115, "name": "x"}, None),
        ("POST", "/nodes/prom/qemu", {"vmid": 115, "archive": BACKUP.format(111)}, None),
    ],
)
def test_what_is_somebody_elses_is_refused(
    node: Node, method: str, path: str, params: dict[str, Any], lacks: str | None
) -> None:
    before = node.emulator.state.storages["local"].volumes.keys() | node.emulator.state.storages["nvme"].volumes.keys()
    with pytest.raises(PermissionDenied) as denied:
        node.call(method, path, params, TOKEN)
    assert denied.value.message == "Permission check failed" + (f" ({lacks})" if lacks else "")
    after = node.emulator.state.storages["local"].volumes.keys() | node.emulator.state.storages["nvme"].volumes.keys()
    assert after == before
    assert node.emulator.state.users["fw@pve"]["tokens"]["t"]["privsep"] == 1


def test_lists_show_what_may_be_seen(node: Node) -> None:
    def ids(path: str, key: str, **params: Any) -> list[Any]:
        return [row[key] for row in node.call("GET", path, params, TOKEN)]

    assert ids("/nodes/prom/qemu", "vmid") == [110, 9002] or ids("/nodes/prom/qemu", "vmid") == [9002, 110]
    assert set(ids("/nodes/prom/storage/local/content", "volid")) == {BACKUP.format(110), "local:iso/x.iso"}
    assert ids("/nodes/prom/storage/local/content", "volid", content="backup", vmid=104) == []
    assert ids("/nodes/prom/storage/nvme/content", "volid") == ["nvme:vm-110-disk-0"]
    assert set(ids("/storage", "storage")) == set(ids("/nodes/prom/storage", "storage")) == {"nvme", "local"}
    guests = node.call("GET", "/cluster/resources", {"type": "vm"}, TOKEN)
    assert {row["vmid"] for row in guests} == {110, 9002}
    assert not any("pool" in row for row in guests)
    assert ids("/pools", "poolid") == []
    (pool,) = node.call("GET", "/pools", {"poolid": "fleet"}, TOKEN)
    assert [row["vmid"] for row in pool["members"]] == [110]
    assert node.call("GET", "/cluster/options", {}, TOKEN) == {"allowed-tags": ["base", "web"]}
    assert node.call("GET", "/access/users", {}, TOKEN) == []
    assert node.call("GET", "/access/acl", {}, TOKEN) == []
    # a taken VMID is told from a free one without any right
    with pytest.raises(ParameterError, match="Parameter verification failed") as taken:
        node.call("GET", "/cluster/nextid", {"vmid": 104}, TOKEN)
    assert taken.value.errors == {"vmid": "VM 104 already exists"}
    assert node.call("GET", "/cluster/nextid", {"vmid": 115}, TOKEN) == "115"


def test_an_auditor_of_the_pool_sees_its_name() -> None:
    node = granted(("/pool/fleet", "PVEPoolUser"))
    rows = {row["vmid"]: row.get("pool") for row in node.call("GET", "/cluster/resources", {"type": "vm"}, TOKEN)}
    assert rows == {110: "fleet", 9002: None}
    assert [row["poolid"] for row in node.call("GET", "/pools", {}, TOKEN)] == ["fleet"]


def test_rights_are_told_as_they_hold(node: Node) -> None:
    """What comes by way of a pool holds for the guest itself and nothing below it: 0."""
    held = node.call("GET", "/access/permissions", {}, TOKEN)
    assert held["/pool/fleet"] == dict.fromkeys(sorted(PRIVILEGES), 1)
    assert held["/vms/110"] == dict.fromkeys(sorted(PRIVILEGES), 0)
    assert held["/vms/9002"] == {"VM.Audit": 1, "VM.Clone": 1}
    assert "/vms/104" not in held
    assert node.call("GET", "/access/permissions", {"path": "/vms/104"}, TOKEN) == {"/vms/104": {}}
    assert node.call("GET", "/access/roles/Fleet", {}, TOKEN) == dict.fromkeys(sorted(PRIVILEGES), 1)


def test_its_own_tasks_are_shown_by_the_node_and_not_by_the_cluster(node: Node) -> None:
    upid = node.call("POST", f"{MINE}/status/start", {}, TOKEN)
    assert node.ended(upid) == "OK"
    assert [row["upid"] for row in node.call("GET", "/nodes/prom/tasks", {}, TOKEN)] == [upid]
    assert node.call("GET", "/cluster/tasks", {}, TOKEN) == []
    assert [row["upid"] for row in node.get("/cluster/tasks")] == [upid]


def test_a_backup_of_a_foreign_guest_is_a_task_that_fails(node: Node) -> None:
    upid = node.call("POST", "/nodes/prom/vzdump", {"vmid": 104, "storage": "local", "remove": 0}, TOKEN)
    assert node.ended(upid) == "403 Permission check failed (/vms/104, VM.Backup)"
    assert node.log(upid) == [
        "INFO: starting new backup job: vzdump 104 --storage local --remove 0 --node prom",
        "TASK ERROR: 403 Permission check failed (/vms/104, VM.Backup)",
    ]


def test_what_is_its_own_it_may(node: Node) -> None:
    node.call("PUT", f"{MINE}/config", {"scsi1": "nvme:1"}, TOKEN)
    backup = node.call("POST", "/nodes/prom/vzdump", {"vmid": 110, "storage": "local", "remove": 0}, TOKEN)
    assert node.ended(backup) == "OK"
    made = node.call("POST", "/nodes/prom/qemu", {"vmid": 116, "name": "x", "pool": "fleet", "memory": 128}, TOKEN)
    assert node.ended(made) == "OK"
    assert node.ended(node.call("POST", "/nodes/prom/qemu/116/template", {}, TOKEN)) == "OK"
    # the storage's right to allocate is not asked whose name the volume bears
    assert node.call(
        "POST", "/nodes/prom/storage/nvme/content", {"vmid": 104, "filename": "vm-104-disk-7", "size": "1G"}, TOKEN
    )


def test_what_was_destroyed_is_restored_into_its_pool_and_its_backups_are_hidden(node: Node) -> None:
    listed = {"content": "backup", "vmid": 110}
    content = "/nodes/prom/storage/local/content"
    assert [row["vmid"] for row in node.call("GET", content, listed, TOKEN)] == [110]
    assert node.ended(node.call("DELETE", MINE, {}, TOKEN)) == "OK"
    assert node.call("GET", content, listed, TOKEN) == []
    restored = node.call(
        "POST", "/nodes/prom/qemu", {"vmid": 110, "archive": BACKUP.format(110), "pool": "fleet"}, TOKEN
    )
    assert node.ended(restored) == "OK"
    assert [row["vmid"] for row in node.call("GET", content, listed, TOKEN)] == [110]
    drive = "local:110/vm-110-cloudinit.qcow2,media=cdrom"
    assert node.call("GET", f"{MINE}/config", {}, TOKEN)["ide2"] == drive


def test_devices_and_scripts_are_refused_in_the_servers_words(node: Node) -> None:
    with pytest.raises(ApiError, match=r"^only root can set 'hostpci0' config for non-mapped devices$"):
        node.call("PUT", f"{MINE}/config", {"hostpci0": "0000:00:02.0"}, TOKEN)
    with pytest.raises(ApiError, match=r"^only root can set 'hookscript' config$"):
        node.call("PUT", f"{MINE}/config", {"hookscript": "local:snippets/x.sh"}, TOKEN)
    with pytest.raises(ParameterError) as missing:
        node.call("PUT", f"{MINE}/config", {"hookscript": "local:snippets/y.sh"}, TOKEN)
    assert missing.value.errors == {"hookscript": "script 'local:snippets/y.sh' does not exist\n"}
    with pytest.raises(ApiError, match=r"^missing privileges to access local:snippets/x.sh$"):
        node.call("GET", "/nodes/prom/storage/local/content/local:snippets/x.sh", {}, TOKEN)


def test_a_cloud_init_drive_needs_both_kinds_of_rights_on_a_guest_that_is_there() -> None:
    node = granted()
    with pytest.raises(PermissionDenied, match=r"\(/vms/110, VM.Config.CDROM\)"):
        node.call("PUT", f"{MINE}/config", {"ide2": "nvme:cloudinit,media=cdrom"}, TOKEN)
    assert "nvme:vm-110-cloudinit" not in node.emulator.state.storages["nvme"].volumes
    made = {"vmid": 116, "pool": "fleet", "ide2": "nvme:cloudinit,media=cdrom"}
    assert node.ended(node.call("POST", "/nodes/prom/qemu", made, TOKEN)) == "OK"
