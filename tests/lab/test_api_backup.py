"""Backups and what comes back from them; containers. Nothing of this has a recording."""

import re
from typing import Any

import pytest

from lab.api.errors import ApiError, ParameterError, PermissionDenied
from lab.api.permissions import User
from tests.lab.api_node import GIB, Node, state_with

TEMPLATE = "local:vztmpl/debian.tar.zst"
CT = "/nodes/prom/lxc/210"


def node(**changes: Any) -> Node:
    state = state_with(**changes)
    state["storages"]["local"] = {
        **{"type": "dir", "path": "/var/lib/vz", "content": "backup,vztmpl", "total": 100 * GIB, "avail": 100 * GIB},
        **{"prune-backups": "keep-last=2", "volumes": {TEMPLATE: {"content": "vztmpl", "format": "tzst", "size": 9}}},
    }
    return Node(state)


def backups(found: Node, vmid: int = 104) -> list[dict[str, Any]]:
    return list(found.get("/nodes/prom/storage/local/content", content="backup", vmid=vmid))


def back_up(found: Node, vmid: int = 104, **params: Any) -> str:
    """Make a backup and return the volume that is new."""
    before = {row["volid"] for row in backups(found, vmid)}
    status = found.run("POST", "/nodes/prom/vzdump", vmid=str(vmid), storage="local", remove=0, **params)
    assert status == "OK"
    [new] = {row["volid"] for row in backups(found, vmid)} - before
    return str(new)


def test_an_archive_is_a_volume_with_what_people_say_of_it() -> None:
    found = node()
    params: dict[str, Any] = {"notes-template": "{{guestname}} by hand", "protected": 1}
    volid = back_up(found, compress="zstd", **params)
    assert re.fullmatch(r"local:backup/vzdump-qemu-104-\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d\.vma\.zst", volid)
    [row] = backups(found)
    assert (row["vmid"], row["notes"], row["protected"], row["subtype"]) == (104, "doc1 by hand", 1, "qemu")
    assert row["size"] > 0
    path = f"/nodes/prom/storage/local/content/{volid}"
    assert found.get(path)["protected"] == 1
    refused = found.run("DELETE", path)
    assert refused == f"cannot remove protected volume '{volid.partition(':')[2]}' on 'local'"
    found.call("PUT", path, {"protected": 0})
    assert found.run("DELETE", path) == "OK"
    assert backups(found) == []
    assert "lock" not in found.config(104)


def job(found: Node, user: User | None = None, **params: Any) -> tuple[str, list[str]]:
    """Run a backup job; how its task ended, and what its log says."""
    upid = found.call("POST", "/nodes/prom/vzdump", {"storage": "local", **params}, *([user] if user else []))
    status = found.ended(upid)
    return status, found.emulator.tasks.by_upid[upid].lines()


def test_the_default_prunes_and_remove_0_fails_when_there_are_as_many_as_are_kept() -> None:
    found = node()
    kept = [back_up(found) for _ in range(2)]
    status, log = job(found, vmid="104", remove=0)
    assert status == "job errors"
    assert "There is a max backup limit of 2 enforced by the target storage" in log[1]
    status, log = job(found, vmid="104", compress="zstd")
    assert (status, f"INFO: removing backup '{kept[0]}'" in log) == ("OK", True)
    assert "INFO: pruned 1 backup(s) not covered by keep-retention policy" in log
    assert next(row["volid"] for row in backups(found)) == kept[1]


def test_which_backups_go_is_shown_before_they_do() -> None:
    found = node()
    first, second = back_up(found, compress="zstd"), back_up(found)
    path = "/nodes/prom/storage/local/prunebackups"
    rows = found.get(path, vmid=104, **{"prune-backups": "keep-last=1"})
    assert {row["volid"]: row["mark"] for row in rows} == {first: "remove", second: "keep"}
    params: dict[str, Any] = {"vmid": 104, "prune-backups": "keep-daily=1"}
    assert found.run("DELETE", path, **params) == "OK"
    assert [row["volid"] for row in backups(found)] == [second]


def test_a_job_says_what_is_in_the_archive_and_what_is_not() -> None:
    found = node()
    found.call("PUT", "/nodes/prom/qemu/104/config", {"scsi1": "nvme:1,backup=0", "scsi2": "nvme:2"})
    found.call("PUT", "/nodes/prom/qemu/104/config", {"delete": "scsi2"})
    unused = found.config(104)["unused0"]
    status, log = job(found, vmid="104", remove=0)
    assert status == "OK"
    assert "INFO: include disk 'scsi0' 'nvme:vm-104-disk-0' 32G" in log
    assert "INFO: exclude disk 'scsi1' 'nvme:vm-104-disk-1' (backup=no)" in log
    assert f"INFO: skip unused drive '{unused}' (not included into backup)" in log
    [row] = backups(found)
    text = found.get("/nodes/prom/vzdump/extractconfig", volume=row["volid"])
    assert "scsi1: nvme:vm-104-disk-1,backup=0,size=1G\n" in text
    assert "unused0" not in text
    assert [line for line in text.splitlines() if line.startswith("#")] == ["#qmdump#map:scsi0:drive-scsi0:nvme:raw:"]


def test_a_failure_of_one_guest_is_in_the_log_alone() -> None:
    found = node()
    found.emulator.state.vms[9002].config["lock"] = "migrate"
    status, log = job(found, vmid="9002,104,105", remove=0)
    assert status == "job errors"
    assert "ERROR: Backup of VM 105 failed - unable to find VM '105'" in log
    assert "ERROR: Backup of VM 9002 failed - VM is locked (migrate)" in log
    assert len(backups(found)) == 1
    assert job(found, all=1, exclude="9002", remove=0)[0] == "OK"
    assert len(backups(found)) == 2


def test_one_job_at_a_time() -> None:
    found = node()
    with found.emulator.locks.backup_job("prom", 0, lambda line: None):
        status, log = job(found, vmid="104", lockwait=0)
    assert status == "unexpected status"
    assert "ERROR: can't acquire lock '/var/run/vzdump.lock' (wait = 0)" in log


def test_what_cannot_be_backed_up() -> None:
    found = node()
    reason = "could not get storage information for 'zfs': can't use storage 'zfs' for backups - wrong content type"
    assert job(found, vmid="104", storage="zfs") == (reason, [f"TASK ERROR: {reason}"])
    missing = job(found, vmid="104", storage="nope")[0]
    assert missing.startswith("could not activate storage 'nope': storage 'nope' does not exist")
    assert job(found, vmid="105")[0] == "job errors"
    with pytest.raises(ParameterError):
        found.call("POST", "/nodes/prom/vzdump", {"vmid": "104", "notes-template": "{{nope}}"})
    with pytest.raises(PermissionDenied):
        found.call("POST", "/nodes/prom/vzdump", {"vmid": "104", "storage": "local"}, User("fw@pve", "t", privsep=True))
    for who in ("fw@pve", "fw@pve!t"):
        row = {"path": "/storage/local", "type": "token" if "!" in who else "user", "ugid": who}
        found.emulator.state.acl.append({**row, "roleid": "PVEDatastoreUser"})
    status = job(found, User("fw@pve", "t", privsep=True), vmid="104")[0]
    assert status == "403 Permission check failed (/vms/104, VM.Backup)"
    with pytest.raises(ParameterError):
        found.call(
            *("POST", "/nodes/prom/vzdump", {"vmid": "104", "storage": "local", "script": "/x"}),
            User("root@pam", "full"),
        )
    found.emulator.faults.switch("storage-full", True, {"storage": "local"})
    status, log = job(found, vmid="104")
    assert (status, any("No space left" in line for line in log)) == ("job errors", True)
    assert backups(found) == []
    assert "lock" not in found.config(104)


def test_a_guest_out_of_its_backup() -> None:
    found = node()
    before = found.config(104)
    volid = back_up(found)
    restore: dict[str, Any] = {"vmid": 104, "archive": volid}
    with pytest.raises(ApiError, match="VM 104 already exists on node 'prom'"):
        found.call("POST", "/nodes/prom/qemu", restore)
    assert found.run("POST", "/nodes/prom/qemu", **restore, force=1) == "unable to restore VM 104 - vm is running"
    assert found.config(104) == before
    found.run("POST", "/nodes/prom/qemu/104/status/stop")
    found.call("PUT", "/nodes/prom/qemu/104/config", {"cores": 1})
    assert found.run("POST", "/nodes/prom/qemu", **restore, force=1) == "OK"
    after = found.config(104)
    assert after["cores"] == before["cores"]
    assert after["net0"] == before["net0"]
    assert [row["volid"] for row in found.get("/nodes/prom/storage/nvme/content", vmid=104)] == [
        after["scsi0"].split(",")[0]
    ]
    assert found.run("DELETE", "/nodes/prom/qemu/104") == "OK"
    assert found.run("POST", "/nodes/prom/qemu", **restore, unique=1, storage="nvme") == "OK"
    assert found.config(104)["net0"] != before["net0"]
    assert "cores: 2" in found.get("/nodes/prom/vzdump/extractconfig", volume=volid)


def with_three_disks() -> Node:
    """A node whose VM 104, switched off, has a disk in backups, one that is not, and an unused one."""
    found = node()
    found.run("POST", "/nodes/prom/qemu/104/status/stop")
    found.call("PUT", "/nodes/prom/qemu/104/config", {"scsi1": "nvme:1,backup=0", "scsi2": "nvme:2"})
    found.call("PUT", "/nodes/prom/qemu/104/config", {"delete": "scsi2", "description": "ours"})
    return found


def volumes(found: Node, vmid: int = 104) -> set[str]:
    return {row["volid"] for row in found.get("/nodes/prom/storage/nvme/content", vmid=vmid)}


def test_a_restore_over_a_guest_keeps_what_the_archive_lacks() -> None:
    found = with_three_disks()
    volid = back_up(found)
    found.call("PUT", "/nodes/prom/qemu/104/config", {"name": "other"})
    before = volumes(found)
    upid = found.call("POST", "/nodes/prom/qemu", {"vmid": 104, "archive": volid, "force": 1})
    assert found.ended(upid) == "OK"
    config = found.config(104)
    assert config["name"] == "doc1"
    assert config["description"] == "ours\nscsi1: nvme:vm-104-disk-1,backup=0,size=1G"
    assert {config["unused0"], config["unused1"]} == {"nvme:vm-104-disk-1", "nvme:vm-104-disk-2"}
    assert "scsi1" not in config
    assert volumes(found) == before
    assert "VM 104 add unreferenced volume 'nvme:vm-104-disk-1' as 'unused0' to config" in found.log(upid)


def test_a_restore_that_fails_leaves_an_empty_guest() -> None:
    found = node()
    volid = back_up(found)
    request: dict[str, Any] = {"vmid": 108, "archive": volid}
    upid = found.call("POST", "/nodes/prom/qemu", {**request, "storage": "local"})
    assert found.ended(upid) == "Content type 'images' is not available on storage 'local'"
    assert found.log(upid)[-2].startswith("error before or during data restore, some or all disks were not")
    assert found.config(108) == {"digest": "da39a3ee5e6b4b0d3255bfef95601890afd80709"}
    with pytest.raises(ApiError, match="unable to restore VM 108 - VM 108 already exists"):
        found.call("POST", "/nodes/prom/qemu", request)
    assert found.run("POST", "/nodes/prom/qemu", **request, force=1) == "OK"


def test_a_restore_over_a_guest_that_fails_in_the_data_has_removed_its_disks() -> None:
    found = with_three_disks()
    volid = back_up(found)
    archive = found.emulator.volumes.get(volid).archive
    assert archive is not None
    archive["truncated"] = True
    assert "truncated" in found.run("POST", "/nodes/prom/qemu", vmid=104, archive=volid, force=1)
    assert {key: value for key, value in found.config(104).items() if key != "digest"} == {"memory": "128"}
    assert volumes(found) == {"nvme:vm-104-disk-1", "nvme:vm-104-disk-2"}
    del archive["truncated"]
    assert found.run("POST", "/nodes/prom/qemu", vmid=104, archive=volid, force=1) == "OK"
    assert len(volumes(found)) == 3


def test_a_damaged_archive_is_refused_by_the_task_before_anything_changes() -> None:
    found = with_three_disks()
    before, volid = found.config(104), back_up(found)
    found.emulator.volumes.get(volid).archive = {}
    assert "failed: exit code 1" in found.run("POST", "/nodes/prom/qemu", vmid=104, archive=volid, force=1)
    assert found.config(104) == before
    with pytest.raises(ApiError, match="Failed to extract config"):
        found.get("/nodes/prom/vzdump/extractconfig", volume=volid)


def test_a_guest_that_is_protected_or_locked_is_not_overwritten() -> None:
    found = with_three_disks()
    volid = back_up(found)
    found.call("PUT", "/nodes/prom/qemu/104/config", {"protection": 1})
    status = found.run("POST", "/nodes/prom/qemu", vmid=104, archive=volid, force=1)
    assert status == "unable to restore VM 104 - - protection mode enabled"
    assert "lock" not in found.config(104)
    found.emulator.state.vms[104].config["lock"] = "migrate"
    with pytest.raises(ApiError, match=r"unable to restore VM 104 - VM is locked \(migrate\)"):
        found.call("POST", "/nodes/prom/qemu", {"vmid": 104, "archive": volid, "force": 1})


def test_a_restore_with_start_ends_well_whether_the_guest_starts_or_not() -> None:
    found = with_three_disks()
    found.call("PUT", "/nodes/prom/qemu/104/config", {"net0": "virtio,bridge=vmbr77"})
    volid = back_up(found)
    assert found.run("POST", "/nodes/prom/qemu", vmid=104, archive=volid, force=1, start=1) == "OK"
    assert found.get("/nodes/prom/qemu/104/status/current")["status"] == "stopped"
    [second] = [row for row in found.get("/nodes/prom/tasks", typefilter="qmstart") if row["id"] == "104"]
    assert second["status"] == "bridge 'vmbr77' does not exist"


# Containers


def container(**params: Any) -> Node:
    found = node()
    made: dict[str, Any] = {
        "vmid": 210,
        "ostemplate": TEMPLATE,
        "hostname": "dns",
        "rootfs": "nvme:8",
        "net0": "name=eth0,ip=dhcp",
    }
    assert found.run("POST", "/nodes/prom/lxc", **made, **params) == "OK"
    return found


def test_a_container_is_made_changed_and_removed() -> None:
    found = container(memory=1024)
    config = found.get(f"{CT}/config")
    assert (config["hostname"], config["memory"], config["rootfs"]) == ("dns", 1024, "nvme:vm-210-disk-0,size=8G")
    assert re.fullmatch(r"name=eth0,hwaddr=BC:24:11:[0-9A-F:]{8},ip=dhcp,type=veth", config["net0"])
    with pytest.raises(ApiError, match="checksum mismatch"):
        found.call("PUT", f"{CT}/config", {"cores": 2, "digest": "0" * 40})
    found.call("PUT", f"{CT}/config", {"cores": 2, "digest": config["digest"]})
    assert found.run("PUT", f"{CT}/resize", disk="rootfs", size="9G") == "OK"
    assert found.run("PUT", f"{CT}/resize", disk="rootfs", size="1G") == "unable to shrink disk size"
    assert found.run("POST", f"{CT}/status/start") == "OK"
    assert found.get(f"{CT}/status/current")["status"] == "running"
    assert [row["name"] for row in found.get(f"{CT}/interfaces")] == ["lo", "eth0"]
    with pytest.raises(ApiError, match="CT 210 is running - destroy failed"):
        found.call("DELETE", CT)
    assert found.run("POST", f"{CT}/status/shutdown") == "OK"
    assert found.run("DELETE", CT) == "OK"
    assert found.get("/nodes/prom/lxc") == []
    assert found.get("/nodes/prom/storage/nvme/content", vmid=210) == []


def test_a_container_has_snapshots_and_backups() -> None:
    found = container()
    assert found.run("POST", f"{CT}/snapshot", snapname="clean") == "OK"
    assert found.run("POST", f"{CT}/snapshot", snapname="clean") == "snapshot name 'clean' already used"
    found.call("PUT", f"{CT}/config", {"memory": 2048})
    assert found.run("POST", f"{CT}/snapshot/clean/rollback") == "OK"
    assert found.get(f"{CT}/config")["memory"] == 512
    assert found.run("DELETE", f"{CT}/snapshot/clean") == "OK"
    volid = back_up(found, 210)
    assert "vzdump-lxc-210-" in volid
    found.run("DELETE", CT)
    assert found.run("POST", "/nodes/prom/lxc", vmid=210, ostemplate=volid, restore=1, storage="nvme") == "OK"
    assert found.get(f"{CT}/config")["hostname"] == "dns"


def test_what_no_container_comes_out_of() -> None:
    found = node()
    with pytest.raises(ApiError, match=r"volume 'local:vztmpl/x\.tar\.zst' does not exist"):
        found.call("POST", "/nodes/prom/lxc", {"vmid": 210, "ostemplate": "local:vztmpl/x.tar.zst"})
    with pytest.raises(ApiError, match="CT 104 already exists"):
        found.call("POST", "/nodes/prom/lxc", {"vmid": 104, "ostemplate": TEMPLATE})
    with pytest.raises(ApiError, match=r"nodes/prom/lxc/104.conf"):
        found.get("/nodes/prom/lxc/104/config")


def test_a_mount_point_that_no_backup_holds_comes_back_empty() -> None:
    found = container(mp0="nvme:1,mp=/data", mp1="nvme:1,mp=/kept,backup=1")
    status, log = job(found, vmid="210", remove=0)
    assert status == "OK"
    assert "INFO: excluding volume mount point mp0 ('/data') from backup (disabled)" in log
    assert "INFO: including mount point mp1 ('/kept') in backup" in log
    [row] = backups(found, 210)
    assert "mp0: " in found.get("/nodes/prom/vzdump/extractconfig", volume=row["volid"])
    before = volumes(found, 210)
    request = {"vmid": 210, "ostemplate": row["volid"], "restore": 1, "force": 1}
    with pytest.raises(ParameterError):  # its default storage has no containers
        found.call("POST", "/nodes/prom/lxc", request)
    assert found.run("POST", "/nodes/prom/lxc", **request, storage="nvme") == "OK"
    assert not volumes(found, 210) & before
    assert found.get(f"{CT}/config")["mp0"].endswith("mp=/data,size=1G")
