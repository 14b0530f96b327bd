"""The VM `dev` on the emulator, and what tests do to it."""

from typing import Any

from nixherd.fleet.models import Fleet, Vm
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest.identity import mark
from nixherd.proxmox.guest.snapshots import Action
from tests.nixherd.proxmox.conftest import GIB, Emulator
from tests.nixherd.proxmox.fleets import DEV, FLEET

MAC = "BC:24:11:00:01:10"


def begin(
    emulator: Emulator,
    *,
    status: str = "running",
    task_seconds: dict[str, float] | None = None,
    pci_mappings: dict[str, Any] | None = None,
    acl: list[dict[str, Any]] | None = None,
    roles: dict[str, list[str]] | None = None,
    pools: dict[str, Any] | None = None,
    vms: dict[str, Any] | None = None,
    storages: dict[str, Any] | None = None,
    **config: Any,
) -> None:
    """Put `dev` there, with these options of its configuration (None: without), and storages for it and more."""
    about = {
        "name": "dev",
        "description": mark(FLEET, DEV),
        "cores": 4,
        "memory": "8192",
        "agent": "1",
        "boot": "order=scsi0",
        "scsi0": "nvmeprom:vm-110-disk-0,size=64G",
        "ide2": "nvmeprom:vm-110-cloudinit,media=cdrom,size=4M",
        "net0": f"virtio={MAC},bridge=vmbr0",
        "ciuser": "abl030",
    }
    one = {"type": "qemu", "node": "prom", "status": status, "agent": "running", "guest": {"interfaces": []}}
    volume = {"content": "images", "format": "raw", "size": 64 * GIB, "used": GIB}
    local = {
        "type": "dir",
        "path": "/var/lib/vz",
        "content": "backup,iso,vztmpl",
        "total": 500 * GIB,
        "avail": 500 * GIB,
    }
    tank = {"type": "zfspool", "sparse": 1, "content": "images,rootdir", "total": 500 * GIB, "avail": 500 * GIB}
    volumes = {
        "nvmeprom:vm-110-disk-0": volume,
        "nvmeprom:vm-110-cloudinit": {**volume, "size": 4 << 20},
    }
    patch = {
        "vms": {"110": {**one, "config": {**about, **config}}, **(vms or {})},
        "storages": {"nvmeprom": {"volumes": volumes}, "local": local, "tank": tank, **(storages or {})},
        "pools": pools or {"nixherd": {"members": [110]}},
    }
    more = {"task_seconds": task_seconds, "pci_mappings": pci_mappings, "acl": acl, "roles": roles}
    emulator.control("reset", patch={**patch, **{key: value for key, value in more.items() if value}})


def config_of(emulator: Emulator, vmid: int = 110) -> VmConfig:
    """Through another client than the one that changed it."""
    config = emulator.client().config("prom", vmid)
    assert config is not None
    return config


def do(emulator: Emulator, action: Action, vm: Vm = DEV, fleet: Fleet = FLEET) -> list[str]:
    client = emulator.client(Policy.from_fleet(fleet))
    return [str(step) for step in action.run(client, fleet, vm, timeout=20)]


def twice(emulator: Emulator, action: Action, vm: Vm = DEV, fleet: Fleet = FLEET) -> list[str]:
    """What is planned is what is done, and the second time is nothing at all."""
    client = emulator.client(Policy.from_fleet(fleet))
    before = emulator.changes()
    planned = [str(step) for step in action.plan(client, fleet, vm)]
    assert emulator.changes() == before
    assert planned
    done = do(emulator, action, vm, fleet)
    assert done == planned
    changes = emulator.changes()
    assert action.plan(emulator.client(Policy.from_fleet(fleet)), fleet, vm) == ()
    assert do(emulator, action, vm, fleet) == []
    assert emulator.changes() == changes
    return done


def running(emulator: Emulator) -> bool:
    status = emulator.client().status("prom", 110)
    assert status is not None
    return status.running
