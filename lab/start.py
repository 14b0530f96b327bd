"""The lab's start state for the API emulator: the reference fleet's node before provisioning.

Node `prom`, the template 9002, and the protected VMs 104 and 109, which run without a machine behind them.
"""

import uuid
from collections.abc import Iterable
from typing import Any

from lab.machines.network import GATEWAY, PREFIX
from lab.setup import template

NODE = "prom"
STORAGE = "nvmeprom"
TEMPLATE = 9002
TEMPLATE_DISK = f"{STORAGE}:base-{TEMPLATE}-disk-1"
IMAGE = "local:import/debian-13-genericcloud-amd64.qcow2"  # the image that the template was made from
USER = "nixherd@pve"
TOKEN = "lab"
POOL = "nixherd"
SHOWN = (104, 109)  # guests that are documented and never changed
ROLE = "Nixherd"
GIB = 1 << 30

# The role in docs/proxmox.md, and nothing more.
PRIVILEGES = [
    *("VM.Allocate", "VM.Audit", "VM.Clone", "VM.PowerMgmt", "VM.Migrate", "VM.Backup", "VM.Snapshot"),
    *("VM.Snapshot.Rollback", "VM.GuestAgent.Unrestricted"),
    *(f"VM.Config.{what}" for what in ("CPU", "Cloudinit", "Disk", "HWType", "Memory", "Network", "Options")),
]
ARCHIVE = "local:vztmpl/debian-13-standard_13.1-1_amd64.tar.zst"


def recipe(managed: Iterable[int]) -> list[tuple[str, str]]:
    """Return the paths and roles that docs/proxmox.md grants for this node and fleet, and nothing else.

    `managed` are the VMIDs of guests without a pool; each of them is granted the role directly.
    """
    return [
        (f"/pool/{POOL}", ROLE),
        *((f"/vms/{vmid}", ROLE) for vmid in managed),
        (f"/vms/{TEMPLATE}", "PVETemplateUser"),
        *((f"/storage/{name}", "PVEDatastoreUser") for name in (STORAGE, "tank", "local")),
        ("/sdn/zones/localnetwork/vmbr0", "PVESDNUser"),
        *((f"/vms/{vmid}", "PVEAuditor") for vmid in SHOWN),
    ]


def start_state(secret: str, managed: Iterable[int]) -> dict[str, Any]:
    """Return the state; `secret` is the token's, `managed` the VMIDs that the fleet may create."""
    acl = [
        {"path": path, "type": kind, "ugid": principal, "roleid": role, "propagate": 1}
        for path, role in recipe(managed)
        for kind, principal in (("user", USER), ("token", f"{USER}!{TOKEN}"))
    ]
    return {
        "version": 9,
        "release": {"version": "9.2.11", "release": "9.2", "repoid": "14a22df35955d97d"},
        "qemu": "10.0.13",
        "nodes": {NODE: _node()},
        "storages": {
            STORAGE: {
                **{"type": "lvmthin", "content": "images,rootdir", "total": 1800 * GIB, "used": 412 * GIB},
                **{"avail": 1388 * GIB, "volumes": _volumes()},
            },
            "tank": {
                **{"type": "zfspool", "sparse": 1, "content": "images,rootdir", "total": 3600 * GIB, "used": 0},
                **{"avail": 3600 * GIB, "volumes": {}},
            },
            "local": {
                **{"type": "dir", "path": "/var/lib/vz", "content": "backup,snippets,vztmpl,iso,import"},
                **{"total": 94 * GIB, "used": 31 * GIB, "avail": 63 * GIB},
                "volumes": {
                    ARCHIVE: {"content": "vztmpl", "format": "tzst", "size": 124 << 20},
                    IMAGE: {"content": "import", "format": "qcow2", "size": template.SIZE, "used": 1 * GIB},
                },
            },
        },
        "users": {
            "root@pam": {"enable": 1, "expire": 0, "tokens": {}},
            USER: {"enable": 1, "expire": 0, "tokens": {TOKEN: {"secret": secret, "privsep": 1, "expire": 0}}},
        },
        "roles": {ROLE: PRIVILEGES},
        "acl": acl,
        "pci_mappings": {"igpu": {"map": [f"id=1002:1638,node={NODE},path=0000:06:00.0"], "description": "AMD iGPU"}},
        "pools": {POOL: {"comment": "what nixherd creates", "members": []}},
        "vms": {
            "104": _people(104, "doc1", cores=8, memory=32768, disk="250G", mac="BC:24:11:A1:04:01"),
            "109": _people(109, "igp", cores=6, memory=16384, disk="120G", mac="BC:24:11:A1:09:01"),
            str(TEMPLATE): _template(),
        },
    }


def _node() -> dict[str, Any]:
    return {
        "ip": GATEWAY,
        "cpus": 16,
        "memory": 128 * GIB,
        "uptime": 1209600,
        "cpuinfo": {
            **{"vendor": "AuthenticAMD", "family": "25", "model": "AMD Ryzen 9 5950X 16-Core Processor"},
            **{"sockets": 1, "cores": 8, "cpus": 16, "mhz": "3400.000", "hvm": "1", "user_hz": 100},
            "flags": "fpu vme sse sse2",
        },
        "kernel": "Linux 6.14.8-2-pve #1 SMP PREEMPT_DYNAMIC PMX 6.14.8-2",
        "rootfs": {"total": 94 * GIB, "used": 31 * GIB, "avail": 63 * GIB},
        "boot_mode": "efi",
        "cgroup_mode": 2,
        "dns": [GATEWAY],
        "bridges": {"vmbr0": {"cidr": f"{GATEWAY}/{PREFIX}"}},
    }


def _volumes() -> dict[str, Any]:
    def images(vmid: int, kind: str, *sizes: int) -> dict[str, Any]:
        return {
            f"{STORAGE}:{kind}-{vmid}-disk-{number}": {
                "content": "images",
                "format": "raw",
                "size": size,
                "used": size // 3,
            }
            for number, size in enumerate(sizes)
        }

    return (
        images(104, "vm", 250 * GIB) | images(109, "vm", 120 * GIB) | images(TEMPLATE, "base", 4 << 20, template.SIZE)
    )


def _identity(vmid: int) -> dict[str, str]:
    made = uuid.uuid5(uuid.NAMESPACE_DNS, f"vm{vmid}.lab.invalid")
    return {"smbios1": f"uuid={made}", "vmgenid": str(uuid.uuid5(made, "generation"))}


def _people(vmid: int, name: str, *, cores: int, memory: int, disk: str, mac: str) -> dict[str, Any]:
    """Return a running VM of the hypervisor's owners."""
    return {
        "type": "qemu",
        "node": NODE,
        "status": "running",
        "agent": "running",
        "guest": {"host-name": name, "interfaces": []},
        "config": {
            **{"name": name, "cores": cores, "memory": str(memory), "agent": "1", "boot": "order=scsi0", "onboot": 1},
            **{"scsihw": "virtio-scsi-single", "scsi0": f"{STORAGE}:vm-{vmid}-disk-0,size={disk}", "ostype": "l26"},
            "net0": f"virtio={mac},bridge=vmbr0",
            **_identity(vmid),
        },
    }


def _template() -> dict[str, Any]:
    size = f"{template.SIZE // GIB}G"
    return {
        "type": "qemu",
        "node": NODE,
        "status": "stopped",
        "config": {
            **{"name": "debian-13-cloud", "template": 1, "cores": 2, "memory": "2048", "agent": "1", "ostype": "l26"},
            **{
                "bios": "ovmf",
                "machine": "q35",
                "boot": "order=scsi0",
                "serial0": "socket",
                "scsihw": "virtio-scsi-single",
            },
            "efidisk0": f"{STORAGE}:base-{TEMPLATE}-disk-0,efitype=4m,size=4M",
            "scsi0": f"{TEMPLATE_DISK},size={size}",
            "ide2": f"{STORAGE}:vm-{TEMPLATE}-cloudinit,media=cdrom",
            "net0": "virtio=BC:24:11:90:02:01,bridge=vmbr0",
            **_identity(TEMPLATE),
        },
    }
