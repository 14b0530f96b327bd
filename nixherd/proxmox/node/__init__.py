"""A device of a Proxmox VE node that a guest is given: what the node itself needs for that. Pure, but for scripts.

What is read of a node is in `states`, as `facts.proxmox_host` fills it; what an operator asks for in `wanted`. The rest
decides: which words the kernel is told (`command_line`), which kernel boots next (`boot`), what DKMS has (`dkms`),
what files say (`texts`), what is in effect and what a boot would bring (`due`), and what guests are given (`mapping`).
"""

from pathlib import Path

VENDOR_RESET = "vendor-reset"
NOTES = "/var/lib/nixherd/proxmox-host"
"""on the node: a file for each thing that was begun and not seen ending (`boot-loader`, `initramfs`)"""
BACKUPS = "/var/backups/nixherd"
LOG = "/var/log/nixherd-proxmox-host.log"
CARD_RULE = "/etc/udev/rules.d/99-nixherd-reset-method.rules"
VFIO = "/etc/modprobe.d/nixherd-vfio.conf"
VFIO_MODULES = "/etc/modules-load.d/nixherd-vfio.conf"
RESET_MODULE = "/etc/modules-load.d/nixherd-vendor-reset.conf"
GRUB = "/etc/default/grub"
CMDLINE = "/etc/kernel/cmdline"


def script(name: str) -> str:
    """A shell script that lies beside this file."""
    return (Path(__file__).parent / name).read_text()
