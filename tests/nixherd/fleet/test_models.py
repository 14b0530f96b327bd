"""Settings of managed guests: read from a definition, and every wrong one with the whole of what its author is told."""

from typing import Any

import pytest

from nixherd.base.errors import Finding
from nixherd.base.names import parse_size
from nixherd.fleet.models import CloudInitSettings, ContainerSettings, Device, GuestType, Settings
from nixherd.fleet.nix_values import NixSet
from nixherd.fleet.parse import settings_of
from nixherd.fleet.schema import Place, read
from nixherd.fleet.validate import check_fields, kind_of

NEEDED = {"vmid": 110, "nixosConfig": "dev", "cores": 1, "memory": 512, "disk": "8G"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHr0XQJzPKAyGJHXvWcsDGeSw3aLPLCHdTQbnrBHtmY"
VM: dict[str, Any] = {
    "sockets": 2,
    "memory": 8192,
    "balloon": 4096,
    "cpu": "host",
    "machine": "q35",
    "bios": "ovmf",
    "boot": ["scsi0", "net0"],
    "agent": True,
    "description": "What it is for.\nAnd more.",
    "onboot": True,
    "protection": False,
    "pool": "ours",
    "startup": {"up": 30, "order": 2},
    "disks": {"scsi1": {"size": "100G", "storage": "tank", "discard": "on", "ssd": True}, "virtio0": {"size": "1T"}},
    "networks": {"net0": {"bridge": "vmbr0", "tag": 20, "firewall": False, "mac": "BC:24:11:00:00:01"}},
    "pci": {"hostpci0": {"mapping": "igpu", "pcie": True, "xVga": True}},
    "cloudInit": {"user": "ops", "keys": [KEY], "ipconfig1": "ip=10.0.0.5/24,gw=10.0.0.1", "searchDomain": "lan"},
}
CONTAINER: dict[str, Any] = {
    "type": "lxc",
    "archive": "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst",
    "swap": 0,
    "unprivileged": True,
    "features": {"nesting": True, "keyctl": False},
    "networks": {"net0": {"bridge": "vmbr0", "ip": "dhcp"}},
    "disks": {"mp0": {"size": "8G", "mp": "/srv"}},
}


def findings(**entry: Any) -> list[str]:
    found: list[Finding] = []
    guest = NixSet("vms/definitions.nix", "dev", "managed.dev", NEEDED | entry, found)
    check_fields(guest, Place.MANAGED, kind_of(entry))
    return [line.removeprefix("vms/definitions.nix: managed.dev") for line in found]


def settings(entry: dict[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """What it says, and what it says for people."""
    values, rest = read(Place.MANAGED, NEEDED | entry, kind_of(entry))
    return settings_of(values), rest


def test_a_vm_with_all_of_them() -> None:
    assert findings(**VM) == []
    entry = {**VM, "purpose": "kept"}
    found, rest = settings(entry)
    assert rest == {"purpose": "kept"}
    assert found == Settings(
        sockets=2,
        balloon=4096,
        cpu="host",
        machine="q35",
        bios="ovmf",
        boot=("scsi0", "net0"),
        agent=True,
        description="What it is for.\nAnd more.",
        onboot=True,
        protection=False,
        startup="order=2,up=30",
        pool="ours",
        disks=(
            Device("scsi1", {"discard": "on", "ssd": "1"}, parse_size("100G"), "tank"),
            Device("virtio0", {}, parse_size("1T")),
        ),
        networks=(Device("net0", {"bridge": "vmbr0", "tag": "20", "firewall": "0", "macaddr": "BC:24:11:00:00:01"}),),
        pci=(Device("hostpci0", {"mapping": "igpu", "pcie": "1", "x-vga": "1"}),),
        cloud_init=CloudInitSettings(
            user="ops", keys=(KEY,), addresses={"ipconfig1": "ip=10.0.0.5/24,gw=10.0.0.1"}, search_domain="lan"
        ),
    )


def test_a_container_with_all_of_them() -> None:
    assert findings(**CONTAINER) == []
    found, _ = settings(CONTAINER)
    assert found.container == ContainerSettings(
        archive=CONTAINER["archive"], swap=0, unprivileged=True, features="keyctl=0,nesting=1"
    )
    assert found.disks == (Device("mp0", {"mp": "/srv"}, parse_size("8G")),)


def test_nothing_is_declared_by_default() -> None:
    assert settings({})[0] == Settings()
    assert settings({"pci": ["igpu", "nic"]})[0].pci == (
        Device("hostpci0", {"mapping": "igpu"}),
        Device("hostpci1", {"mapping": "nic"}),
    )


@pytest.mark.parametrize(
    ("entry", "finding"),
    [
        ({"sockets": 0}, ".sockets: 0 is less than 1; write how many sockets it has"),
        (
            {"balloon": True},
            ".balloon: is a boolean, not an integer; write the least memory in MiB, or 0 for no ballooning",
        ),
        ({"cpu": "a b"}, '.cpu: \'a b\' is not a CPU type; write one such as "host" or "x86-64-v2-AES"'),
        ({"bios": "uefi"}, '.bios: \'uefi\' is not a firmware; write "seabios" or "ovmf"'),
        ({"onboot": 1}, ".onboot: is an integer, not a boolean; write true or false"),
        ({"description": 1}, ".description: is an integer, not a string; write a string"),
        (
            {"boot": "scsi0"},
            '.boot: is not a list of devices; write the devices in their order, such as [ "scsi0" "net0" ]',
        ),
        (
            {"startup": {"first": 1}},
            ".startup: is not a startup order; write { order = 1; up = 30; down = 60; }, or some of these",
        ),
        (
            {"startup": {"order": -1}},
            ".startup: is not a startup order; write { order = 1; up = 30; down = 60; }, or some of these",
        ),
        (
            {"disks": {"disk1": {"size": "1G"}}},
            ".disks.disk1: disk1 is not a name for one of its disks; use one such as scsi1",
        ),
        ({"disks": {"scsi1": {}}}, ".disks.scsi1.size: missing; write whole GiB, such as 100G"),
        (
            {"disks": {"scsi1": {"size": "1500M"}}},
            ".disks.scsi1.size: '1500M' is not a size for a new disk; write whole GiB, such as 100G",
        ),
        (
            {"disks": {"scsi1": {"size": "1G", "sdd": True}}},
            ".disks.scsi1.sdd: is nothing that it has; did you mean ssd?",
        ),
        (
            {"networks": {"net0": {"bridge": "vmbr0,tag=1"}}},
            ".networks.net0.bridge: 'vmbr0,tag=1' is not a value for it; "
            "write text without commas, a number or a boolean",
        ),
        (
            {"networks": {"net0": {"mac": "01:00:5e:00:00:01"}}},
            ".networks.net0.mac: '01:00:5e:00:00:01' is not a MAC address; write one such as \"BC:24:11:00:00:01\"",
        ),
        (
            {"networks": {"net32": {}}},
            ".networks.net32: net32 is not a name for one of its networks; use one such as net0",
        ),
        ({"networks": []}, ".networks: is a list; it must be an attribute set"),
        ({"pci": [1]}, '.pci: is not a list of names; write the names of PCI mappings, such as [ "igpu" ]'),
        (
            {"pci": {"hostpci0": {"pcie": True}}},
            ".pci.hostpci0.mapping: missing; name a PCI mapping of the cluster: a token cannot pass raw devices "
            "through",
        ),
        ({"cloudInit": {"usr": "x"}}, ".cloudInit.usr: is nothing that it has; did you mean user?"),
        (
            {"cloudInit": {"ipconfig0": "10.0.0.5"}},
            '.cloudInit.ipconfig0: \'10.0.0.5\' is not an address; write "ip=dhcp" or "ip=10.0.0.5/24,gw=10.0.0.1"',
        ),
        (
            {"cloudInit": {"keys": ["x"]}},
            ".cloudInit.keys[0]: no SSH public key: it has no key type; write the line of a .pub file",
        ),
        ({"swap": 1}, ".swap: is for a container; remove it, or correct `type`"),
        ({"type": "lxc", "bios": "ovmf"}, ".bios: is for a VM; remove it, or correct `type`"),
        (
            {"type": "lxc", "archive": "debian.tar.zst"},
            ".archive: 'debian.tar.zst' is not an archive; write a volume such as "
            '"local:vztmpl/debian-12-standard.tar.zst"',
        ),
        (
            {"type": "lxc", "features": {"nestin": True}},
            ".features.nestin: is nothing that it has; did you mean nesting?",
        ),
    ],
)
def test_what_is_wrong_is_one_line(entry: dict[str, Any], finding: str) -> None:
    found = findings(**entry)
    assert len(found) == 1
    if "keys" not in str(entry):
        assert found == [finding]
    assert found[0].partition(":")[0] == finding.partition(":")[0]


def test_people_may_write_what_they_like_elsewhere() -> None:
    free = {"specs": "big", "hardware": [1], "notes": {"disks": 3}, "monitoring": None, "purpose": 1.5}
    assert findings(**free) == []
    assert GuestType.QEMU not in free
