"""Operations on guests of the hypervisor, on the controller, through the guarded API: each acts for its host's guest.

`pyinfra inventory.py --limit dev operations.proxmox.shutdown` calls one by hand. Each looks at the guest and does
nothing where nothing is left to do; a guest that the definitions do not let be changed is refused before anything is
sent.
"""

from operations.proxmox.backups import backup, restore
from operations.proxmox.desired import apply, create, destroy, drift, template
from operations.proxmox.disks import add_disk, move_disk, resize
from operations.proxmox.hardware import (
    cloud_init,
    cloud_init_drive,
    configure,
    network,
    pci,
    regenerate_cloud_init,
)
from operations.proxmox.moving import migrate
from operations.proxmox.power import reboot, resume, shutdown, start, stop, suspend
from operations.proxmox.provisioning import address, clone, validate, wait_for_ssh
from operations.proxmox.snapshots import delete_snapshot, rollback, snapshot

__all__ = [
    "add_disk",
    "address",
    "apply",
    "backup",
    "clone",
    "cloud_init",
    "cloud_init_drive",
    "configure",
    "create",
    "delete_snapshot",
    "destroy",
    "drift",
    "migrate",
    "move_disk",
    "network",
    "pci",
    "reboot",
    "regenerate_cloud_init",
    "resize",
    "restore",
    "resume",
    "rollback",
    "shutdown",
    "snapshot",
    "start",
    "stop",
    "suspend",
    "template",
    "validate",
    "wait_for_ssh",
]
