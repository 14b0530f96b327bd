"""The API's answers as values; the texts are those of real servers."""

import pytest

from nixherd.proxmox.answers import Permissions, TaskStatus, Upid
from nixherd.proxmox.config import Drive, Net, VmConfig, encode_ssh_keys


def test_drives() -> None:
    config = VmConfig(
        {
            "scsi0": "local:9000/base-9000-disk-0.qcow2/200/vm-200-disk-0.qcow2,size=3584M",
            "ide2": "local:200/vm-200-cloudinit.qcow2,media=cdrom,size=4M",
            "sata1": "none,media=cdrom",
            "scsihw": "virtio-scsi-pci",
            "unused0": "local:200/vm-200-disk-1.raw",
        }
    )
    scsi0, ide2, sata1 = (config.drives[name] for name in ("scsi0", "ide2", "sata1"))
    assert scsi0 == Drive("scsi0", "local:9000/base-9000-disk-0.qcow2/200/vm-200-disk-0.qcow2", 3584 << 20, False)
    assert scsi0.storage == "local"
    assert (ide2.is_cloudinit, sata1.is_cloudinit) == (True, False)
    assert len(config.drives) == 3
    assert config.boot_disk == scsi0


@pytest.mark.parametrize(
    ("text", "net"),
    [
        ("virtio=BC:24:11:7F:56:51,bridge=vmbr0", Net("net0", "bc:24:11:7f:56:51", "vmbr0")),
        ("model=e1000,macaddr=BC:24:11:7F:56:51,bridge=vmbr0,tag=5", Net("net0", "bc:24:11:7f:56:51", "vmbr0")),
        ("virtio,bridge=vmbr0", Net("net0", None, "vmbr0")),
    ],
)
def test_nets(text: str, net: Net) -> None:
    assert VmConfig({"net0": text}).nets["net0"] == net


def test_defaults_are_the_servers() -> None:
    config = VmConfig({})
    assert (config.memory, config.cores, config.sockets, config.bios) == (512, 1, 1, "seabios")
    assert (config.agent_enabled, config.is_template, config.lock, config.boot_disk) == (False, False, None, None)


@pytest.mark.parametrize(
    ("text", "enabled"), [("1", True), ("0", False), ("enabled=1,type=isa", True), ("type=virtio,enabled=0", False)]
)
def test_agent(text: str, enabled: bool) -> None:
    assert VmConfig({"agent": text}).agent_enabled is enabled


def test_ssh_keys_are_encoded_as_the_server_wants_them() -> None:
    assert encode_ssh_keys(["ssh-ed25519 AA+a/b= x y"]) == "ssh-ed25519%20AA%2Ba%2Fb%3D%20x%20y%0A"
    keys = ("ssh-ed25519 AAAA a+b@c", "ssh-rsa BBBB ü")
    assert VmConfig({"sshkeys": encode_ssh_keys(keys)}).ssh_keys == keys


def test_upid() -> None:
    upid = Upid.parse("UPID:pve1:0002A871:0005A2ED:6B03F221:imgdel:123@local:root@pam!ci:")
    assert (upid.node, upid.type, upid.id, upid.user) == ("pve1", "imgdel", "123@local", "root@pam!ci")
    assert str(upid) == upid.text
    for text in ("", "UPID:pve1:1", "UPID:pve1:0002A871:0005A2ED:6B03F221:imgdel:123@local:root@pam!ci"):
        with pytest.raises(ValueError):
            Upid.parse(text)


@pytest.mark.parametrize(
    ("exitstatus", "succeeded"),
    [
        ("OK", True),
        ("WARNINGS: 2", True),
        (None, False),
        ("unexpected status", False),
        ("OK, not", False),
        ("WARNINGS: 2 of them", False),
        ("", False),
    ],
)
def test_success_is_what_the_server_calls_so(exitstatus: str | None, succeeded: bool) -> None:
    assert TaskStatus(False, exitstatus).succeeded is succeeded


def test_permissions_reach_down_where_they_propagate() -> None:
    granted = Permissions(
        {"/vms": {"VM.Audit": True, "VM.Clone": False}, "/vms/110": {"VM.PowerMgmt": True}, "/": {"Sys.Audit": True}}
    )
    assert granted.allows("/vms/9002", "VM.Audit")
    assert granted.allows("/vms", "VM.Clone")
    assert not granted.allows("/vms/9002", "VM.Clone")
    assert granted.allows("/vms/110", "VM.PowerMgmt")
    assert not granted.allows("/vms/110", "VM.Audit")  # the server has merged what is inherited
    assert granted.allows("/nodes/prom", "Sys.Audit")
    assert not Permissions({}).allows("/vms/110", "VM.Audit")
