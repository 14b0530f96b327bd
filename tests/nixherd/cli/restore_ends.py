"""What `test_cli_killed` brings back before each kill, and what has to be there after it: run as a program of its own.

python -m tests.nixherd.cli.restore_ends reset|verify absent|there PORT FINGERPRINT
"""

import sys
import time
from pathlib import Path
from typing import Any

from nixherd.proxmox.client import Client, connect
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest.identity import mark
from tests.nixherd.proxmox.conftest import GIB, Emulator
from tests.nixherd.proxmox.fleets import DEV, FLEET

ARCHIVE = "local:backup/vzdump-qemu-110-2026_11_01-10_00_00.vma.zst"
CONFIG = {
    **{"name": "dev", "description": mark(FLEET, DEV), "cores": 4, "memory": "8192", "boot": "order=scsi0"},
    "scsi0": "nvmeprom:vm-110-disk-0,size=64G",
    "scsi1": "tank:vm-110-disk-0,backup=0,size=1G",
    "net0": "virtio=BC:24:11:00:01:10,bridge=vmbr0",
}
DISK = {"content": "images", "format": "raw", "size": GIB, "used": GIB}


def start_state(there: bool) -> dict[str, Any]:
    """A merge patch: the backup, and (`there`) a guest to restore over, which is not as the backup has it."""
    about = {"size": 64 * GIB, "used": GIB, "format": "raw", "storage": "nvmeprom"}
    archive = {"type": "qemu", "config": CONFIG, "disks": {"scsi0": about}}
    backup = {"content": "backup", "format": "vma.zst", "size": GIB, "ctime": 1793527200, "archive": archive}
    room = {"total": 500 * GIB, "avail": 500 * GIB}
    local = {"type": "dir", "path": "/var/lib/vz", "content": "backup", **room, "volumes": {ARCHIVE: backup}}
    tank: dict[str, Any] = {"type": "zfspool", "sparse": 1, "content": "images,rootdir", **room}
    disks = {}
    if there:
        tank["volumes"] = {"tank:vm-110-disk-0": DISK}
        disks = {"nvmeprom:vm-110-disk-0": {**DISK, "size": 64 * GIB}}
    guest = {"type": "qemu", "node": "prom", "status": "stopped", "config": {**CONFIG, "cores": 1}}
    return {
        **{"task_seconds": {"qmrestore": 0.4}, "pools": {"nixherd": {"members": [110] if there else []}}},
        "storages": {"local": local, "tank": tank, "nvmeprom": {"volumes": disks}},
        "vms": {"110": guest} if there else {},
    }


def verify(client: Client, there: bool) -> None:
    """The guest is the backup's, once; what the backup lacks is kept. AssertionError where not."""
    while client.tasks("prom", vmid=110):
        time.sleep(0.05)
    config = client.config("prom", 110)
    assert config is not None
    values = {key: str(config.values.get(key)) for key in ("name", "cores", "scsi0", "scsi1", "lock")}
    assert values["name"] == "dev", config
    assert values["cores"] == "4", config
    assert values["scsi0"] == "nvmeprom:vm-110-disk-0,size=64G", config
    assert values["scsi1"] == values["lock"] == "None", config
    unused = {key: value for key, value in config.values.items() if key.startswith("unused")}
    assert unused == ({"unused0": "tank:vm-110-disk-0"} if there else {}), config
    names = [row.volid for storage in ("nvmeprom", "tank") for row in client.volumes("prom", storage, vmid=110)]
    assert len(names) == (2 if there else 1), names


def main(words: list[str]) -> None:
    verb, case, port, fingerprint = words[0], words[1] == "there", int(words[2]), words[3]
    emulator = Emulator(port, Path("/dev/null"), fingerprint)
    if verb == "reset":
        emulator.control("reset", patch=start_state(case))
    else:
        verify(connect(emulator.endpoint, Policy.from_fleet(FLEET), emulator.token), case)


if __name__ == "__main__":
    main(sys.argv[1:])
