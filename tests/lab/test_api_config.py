"""Changing configurations and disks."""

import pytest

from lab.api.crypt import sha256_crypt
from lab.api.drives import to_text
from lab.api.errors import ApiError, ParameterError, PermissionDenied
from lab.api.permissions import User
from lab.api.volumes import parse_volid
from tests.lab.api_node import GIB, Node, state_with

TOKEN = User("root@pam", "full")
CONFIG = "/nodes/prom/qemu/110/config"


@pytest.fixture
def node() -> Node:
    node = Node()
    assert node.run("POST", "/nodes/prom/qemu", vmid=110, memory="64", scsi0="nvme:2", ide2="nvme:cloudinit") == "OK"
    return node


def test_a_digest_guards_against_changes_of_others(node: Node) -> None:
    digest = node.config(110)["digest"]
    node.call("PUT", CONFIG, {"memory": 65, "digest": digest})
    with pytest.raises(ApiError, match="checksum mismatch"):
        node.call("PUT", CONFIG, {"memory": 66, "digest": digest})
    assert node.config(110)["memory"] == "65"
    assert node.config(110)["digest"] != digest


@pytest.mark.parametrize(
    ("params", "name", "text"),
    [
        ({"cores": "0"}, "cores", "value must have a minimum value of 1"),
        ({"onboot": "yes"}, "onboot", "type check ('boolean') failed - got 'yes'"),
        ({"foo": "1"}, "foo", "property is not defined in schema and the schema does not allow additional properties"),
        ({"name": "a_b"}, "name", "invalid format - value does not look like a valid DNS name\n"),
        ({"tags": "a:b"}, "tags", "invalid format - invalid characters in tag\n"),
        ({"sshkeys": "ssh-ed25519 AAAA"}, "sshkeys", "invalid format - invalid urlencoded string: ssh-ed25519 AAAA\n"),
        (
            {"net0": "bridge=vmbr0"},
            "net0",
            "invalid format - format error\nnet0.model: property is missing and it is not optional\n",
        ),
        (
            {"ipconfig0": "ip=10.0.0.1"},
            "ipconfig0",
            "invalid format - format error\nipconfig0.ip: invalid format - "
            "value does not look like a valid ipv4 network configuration\n\n",
        ),
        ({"delete": "nokey"}, "delete", "unknown option 'nokey'"),
        ({"skiplock": "1"}, "skiplock", "Only root may use this option."),
        (
            {"vmid": "111", "cores": "1"},
            "vmid",
            "duplicate parameter (already defined in URI) with conflicting values!",
        ),
    ],
)
def test_wrong_parameters_are_named(node: Node, params: dict[str, str], name: str, text: str) -> None:
    with pytest.raises(ParameterError) as wrong:
        node.call("PUT", CONFIG, params, TOKEN)
    assert wrong.value.errors == {name: text}


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "no options specified"),
        ({"args": "-x"}, "only root can set 'args' config"),
        ({"delete": "lock"}, "only root can set 'lock' config"),
        ({"sshkeys": "nokey"}, "SSH public key validation error"),
        ({"scsi1": "nope:1"}, "storage 'nope' does not exist"),
        ({"scsi1": "nvme:vm-110-disk-7"}, "volume 'nvme:vm-110-disk-7' does not exist"),
    ],
)
def test_what_no_token_may_and_what_is_not_there(node: Node, params: dict[str, str], text: str) -> None:
    with pytest.raises(ApiError) as refused:
        node.call("PUT", CONFIG, params, TOKEN)
    assert (refused.value.status, refused.value.message) == (500, text)


def test_a_password_is_kept_as_a_hash_and_shown_as_stars(node: Node) -> None:
    node.call("PUT", CONFIG, {"cipassword": "s3cret"})
    assert node.config(110)["cipassword"] == "**********"
    assert node.emulator.state.vms[110].config["cipassword"].startswith("$5$")


def test_the_hash_is_the_one_of_the_specification() -> None:
    assert sha256_crypt("s3cret!", "abcdefgh") == "$5$abcdefgh$ncXlJnDKl6pH5zNDMB.VHum5aWdfMTysr6Vu32ZEZ.C"


def test_a_removed_disk_is_unused_first_and_then_gone(node: Node) -> None:
    volid = node.config(110)["scsi0"].partition(",")[0]
    node.call("PUT", CONFIG, {"delete": "scsi0"})
    assert node.config(110)["unused0"] == volid
    node.call("PUT", CONFIG, {"delete": "unused0"})
    assert volid not in [row["volid"] for row in node.get("/nodes/prom/storage/nvme/content")]


def test_a_removed_cloud_init_drive_is_gone_at_once(node: Node) -> None:
    node.call("PUT", CONFIG, {"delete": "ide2"})
    assert "nvme:vm-110-cloudinit" not in [row["volid"] for row in node.get("/nodes/prom/storage/nvme/content")]
    assert not [key for key in node.config(110) if key.startswith("unused")]


def test_a_resize_is_absolute_or_relative_and_never_shrinks(node: Node) -> None:
    path = "/nodes/prom/qemu/110/resize"
    assert node.run("PUT", path, disk="scsi0", size="+512M") == "OK"
    assert node.config(110)["scsi0"].endswith(",size=2560M")
    assert node.run("PUT", path, disk="scsi0", size="3G") == "OK"
    assert node.run("PUT", path, disk="scsi0", size="3G") == "OK"
    assert node.run("PUT", path, disk="scsi0", size="1G") == "shrinking disks is not supported"
    assert node.run("PUT", path, disk="ide2", size="1G") == "you can't resize a cdrom"
    assert node.run("PUT", path, disk="scsi0", size="4G", digest="0") == (
        "checksum mismatch (file change by other user?)"
    )
    assert node.config(110)["scsi0"].endswith(",size=3G")


def test_background_changes_say_what_they_did(node: Node) -> None:
    upid = node.call("POST", CONFIG, {"description": "a b", "cipassword": "x12345"})
    assert node.ended(upid) == "OK"
    assert node.log(upid) == ["update VM 110: -cipassword '<hidden>' -description 'a b'", "TASK OK"]
    assert node.call("POST", CONFIG, {"cores": 2, "background_delay": 5}) is None


def test_protection_guards_the_vm_and_its_disks(node: Node) -> None:
    node.call("PUT", CONFIG, {"protection": 1})
    with pytest.raises(ApiError, match="can't remove drive 'scsi0' - protection mode enabled"):
        node.call("PUT", CONFIG, {"delete": "scsi0"})
    with pytest.raises(ApiError, match="can't remove VM 110 - protection mode enabled"):
        node.call("DELETE", "/nodes/prom/qemu/110")


def test_a_deleted_vmid_is_free_again(node: Node) -> None:
    assert node.get("/cluster/nextid") == "100"
    assert node.run("DELETE", "/nodes/prom/qemu/110") == "OK"
    assert node.get("/cluster/nextid", vmid=110) == "110"
    assert node.emulator.volumes.of_vm(110) == []


def test_version_8_checks_the_agent_by_its_old_privilege() -> None:
    acl = [
        {"path": "/vms", "type": "user", "ugid": "fw@pve", "roleid": "Mon"},
        {"path": "/vms", "type": "user", "ugid": "fw@pve", "roleid": "PVEAuditor"},
    ]
    ping = "/nodes/prom/qemu/104/agent/ping"
    eight = Node(state_with(version=8, acl=acl, roles={"Mon": ["VM.Monitor"]}))
    assert eight.call("POST", ping, {}, User("fw@pve")) == {"result": {}}
    nine = Node(state_with(version=9, acl=acl[:1], roles={"Mon": ["VM.Monitor"]}))
    with pytest.raises(PermissionDenied, match=r"VM\.GuestAgent\.Audit"):
        nine.call("POST", ping, {}, User("fw@pve"))


@pytest.mark.parametrize(("size", "text"), [(3584 << 20, "3584M"), (2 * GIB, "2G"), (1 << 40, "1T"), (1536, "1536")])
def test_sizes_are_written_in_the_largest_unit_that_fits(size: int, text: str) -> None:
    assert to_text(size) == text


@pytest.mark.parametrize(
    ("volid", "base", "vmid"),
    [
        ("nvme:vm-110-disk-0", None, 110),
        ("zfs:base-9002-disk-0/vm-110-disk-0", "base-9002-disk-0", 110),
        ("local:100/base-100-disk-0.qcow2/123/vm-123-disk-0.qcow2", "100/base-100-disk-0.qcow2", 123),
        ("local:100/base-100-disk-0.qcow2", None, 100),
        ("local:import/guest.raw", None, None),
    ],
)
def test_volume_ids_are_taken_apart(volid: str, base: str | None, vmid: int | None) -> None:
    parsed = parse_volid(volid)
    assert (parsed.base, parsed.vmid) == (base, vmid)
