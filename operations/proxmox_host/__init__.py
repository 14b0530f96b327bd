"""A node of the hypervisor that passes devices through: its packages, files and modules, and nothing else of it.

No guest is touched, no service restarted and no node rebooted: what waits for a boot is said, and whom that stops.
"""

from nixherd.operations.proxmox_host.changing import command_line, initramfs, packages, reset_method, vendor_reset, vfio
from nixherd.operations.proxmox_host.checking import report, require

__all__ = ["command_line", "initramfs", "packages", "report", "require", "reset_method", "vendor_reset", "vfio"]
