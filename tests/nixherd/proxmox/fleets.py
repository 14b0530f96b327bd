"""Fleets and configurations that the tests of this directory share."""

from dataclasses import replace
from typing import Any

from nixherd.base.names import parse_size
from nixherd.fleet.models import Endpoint, Fleet, Host, Origin, Settings, Template, Vm
from nixherd.proxmox.config import VmConfig

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtqN0uZ7H5ZkQf5m8cYfZ7mW8zV2lN1XkY0Rk1a2b3c ops+1@desk"

HOST = Host(
    id="dev",
    hostname="dev",
    ssh_alias="dev",
    user="abl030",
    home_directory="/home/abl030",
    public_key=None,
    authorized_keys=(KEY,),
    configuration_file="/fleet/hosts/dev/configuration.nix",
    home_file=None,
)
POOLED = Settings(pool="nixherd")
DEV = Vm(
    "dev", 110, Origin.MANAGED, readonly=False, host_id="dev", cores=4, memory=8192, disk=64 << 30, settings=POOLED
)
KEPT = Vm("kept", 111, Origin.MANAGED, readonly=True, host_id="dev", cores=2, memory=2048, disk=parse_size("8G"))
DOC1 = Vm("doc1", 104, Origin.IMPORTED, readonly=True)
IGP = Vm("igp", 109, Origin.IMPORTED, readonly=False)

FLEET = Fleet(
    path="/fleet",
    id="homelab",
    hosts={"dev": HOST},
    vms={vm.name: vm for vm in (DEV, KEPT, DOC1, IGP)},
    endpoint=Endpoint("192.0.2.12", "prom", "nvmeprom"),
    template=Template(9002, "nixos-template"),
)
EMPTY = replace(FLEET, vms={})

TEMPLATE: dict[str, Any] = {
    "name": "debian-13",
    "template": 1,
    "memory": "2048",
    "cores": 2,
    "agent": "1",
    "bios": "ovmf",
    "boot": "order=scsi0;net0",
    "scsi0": "nvmeprom:base-9002-disk-0,size=4G",
    "ide2": "nvmeprom:vm-9002-cloudinit,media=cdrom,size=4M",
    "net0": "virtio=BC:24:11:00:90:02,bridge=vmbr0",
    "protection": 1,
    "onboot": 1,
    "description": "built by hand\n",
    "tags": "debian",
    "digest": "0" * 40,
}


def template(**values: Any) -> VmConfig:
    """The template's configuration; a value of None takes the option away."""
    merged = {**TEMPLATE, **values}
    return VmConfig({key: value for key, value in merged.items() if value is not None})
