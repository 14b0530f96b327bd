"""A node of the hypervisor that passes devices through: its packages, files and modules, and nothing else of it.

No guest is touched, no service restarted and no node rebooted: what waits for a boot is said, and whom that stops.
"""

from operations.proxmox_host.booting import command_line, initramfs
from operations.proxmox_host.building import packages, vendor_reset
from operations.proxmox_host.files import reset_method, vfio
from operations.proxmox_host.reporting import report
from operations.proxmox_host.requiring import require

__all__ = ["command_line", "initramfs", "packages", "report", "require", "reset_method", "vendor_reset", "vfio"]
