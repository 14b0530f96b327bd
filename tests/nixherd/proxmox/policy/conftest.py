"""Fleets that the guard judges by."""

from nixherd.base.files import BOOT_ID
from nixherd.proxmox.guard.policy import Policy
from tests.nixherd.proxmox.fleets import FLEET

POLICY = Policy.from_fleet(FLEET)
N = "/nodes/prom/qemu"

ALLOWED = [
    ("POST", f"{N}/9002/clone", {"newid": 110, "name": "dev", "full": True, "storage": "nvmeprom", "target": "prom"}),
    ("PUT", f"{N}/110/config", {"cores": 4, "memory": "8192", "digest": "0" * 40, "ipconfig0": "ip=dhcp"}),
    ("PUT", f"{N}/110/config", {"sshkeys": "ssh-ed25519%20AAAA%20vm-104-disk-0", "tags": "vm-104;a"}),
    ("PUT", f"{N}/110/resize", {"disk": "scsi0", "size": "64G"}),
    ("PUT", f"{N}/110/cloudinit", {}),
    ("POST", f"{N}/110/status/start", {}),
    ("POST", f"{N}/110/status/shutdown", {"timeout": 60, "forceStop": False}),
    ("POST", f"{N}/110/agent/exec", {"command": ["/bin/echo", "104", "vm-104-disk-0"]}),
    ("GET", f"{N}/104/config", {"current": 1}),
    ("GET", f"{N}/104/agent/network-get-interfaces", {}),
    ("GET", f"{N}/110/agent/exec-status", {"pid": 4}),
    ("GET", f"{N}/110/agent/file-read", {"file": "/etc/os-release"}),
    *(("GET", f"{N}/{vmid}/agent/file-read", {"file": BOOT_ID}) for vmid in (110, 111)),
    ("GET", f"{N}/111/agent/file-read", {"file": "/etc/ssh/ssh_host_ed25519_key.pub"}),
    ("PUT", f"{N}/110/config", {"ciupgrade": False}),
    ("GET", "/nodes/prom/tasks/UPID:prom:0002A2CB:00052A4E:6B03F0ED:qmclone:9002:nixherd@pve!lab:/status", {}),
    ("GET", "/cluster/nextid", {"vmid": 104}),
    ("POST", "/nodes/other/qemu/110/status/start", {}),  # a VM is found wherever it runs
    ("POST", f"{N}/110/clone", {"newid": 110}),
    (
        "POST",
        f"{N}",
        {"vmid": 110, "scsi0": "nvmeprom:64,ssd=1", "ide2": "nvmeprom:cloudinit", "net0": "virtio,bridge=vmbr0"},
    ),
    ("POST", f"{N}", {"vmid": 110, "archive": "local:backup/vzdump-qemu-110-2026_01_02-03_04_05.vma.zst", "force": 1}),
    ("POST", f"{N}", {"vmid": 110, "archive": "pbs:backup/vm/110/2026-01-02T03:04:05Z"}),
    ("DELETE", f"{N}/110", {"purge": 1}),
    ("DELETE", f"{N}/110", {"destroy-unreferenced-disks": 0}),
    ("PUT", f"{N}/110/config", {"scsi1": "nvmeprom:base-9002-disk-0/vm-110-disk-0,size=4G"}),
    ("PUT", f"{N}/110/config", {"scsi1": "local:9002/base-9002-disk-0.qcow2/110/vm-110-disk-0.qcow2"}),
    ("PUT", f"{N}/110/config", {"ide2": "none,media=cdrom"}),
    ("PUT", f"{N}/110/config", {"ide2": "local:iso/nixos-26.05.iso,media=cdrom"}),
    ("PUT", f"{N}/110/config", {"delete": "protection,net1,unused0"}),
    ("PUT", f"{N}/110/config", {"hostpci0": "mapping=igpu,pcie=1,x-vga=1"}),
    ("PUT", f"{N}/110/config", {"ipconfig0": "ip=10.0.0.5/24,gw=10.0.0.1,ip6=fd00::5/64", "boot": "order=scsi0;net0"}),
    ("POST", f"{N}/110/move_disk", {"disk": "scsi0", "storage": "tank", "delete": 1}),
    ("POST", f"{N}/110/migrate", {"target": "prom2", "online": 1, "targetstorage": "tank"}),
    ("POST", f"{N}/110/snapshot", {"snapname": "clean", "description": "before vm-104-disk-0", "vmstate": 0}),
    ("DELETE", f"{N}/110/snapshot/clean", {}),
    ("GET", f"{N}/110/snapshot/clean/config", {}),
    ("GET", f"{N}/104/snapshot", {}),
    ("POST", "/nodes/prom/vzdump", {"vmid": "110", "storage": "local", "remove": 0, "mode": "snapshot"}),
    ("GET", "/nodes/prom/storage/local/content", {"content": "backup", "vmid": 104}),
]
