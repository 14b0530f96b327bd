"""What a node says of itself. None is *unknown* everywhere: it could not be read."""

from pathlib import Path
from typing import TypedDict

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
    """Return a shell script that lies beside this file."""
    return (Path(__file__).parent / name).read_text()


class NodeState(TypedDict):
    id: str
    """ID of /etc/os-release"""
    like: str
    pve: str | None
    """version of pve-manager; None where it is not installed"""
    hostname: str
    uid: int
    vendor: str | None
    """of the CPU: `AuthenticAMD`, `GenuineIntel`"""
    kernel: str
    secure_boot: bool | None
    """None where the firmware does not say (no UEFI)"""
    booted: int | None
    """seconds since 1970"""


class Kernel(TypedDict):
    """A kernel in /boot."""

    version: str
    package: str | None
    """the Debian package that its image is of"""
    headers: bool
    """whether modules can be built for it"""
    initrd: int | None
    """when its initramfs was made, seconds since 1970; None where it has none"""


class BootState(TypedDict):
    command_line: str
    """what the running kernel was given"""
    tool: str | None
    """what `proxmox-boot-tool status` says; None where it is not what boots this node"""
    texts: dict[str, str]
    """of /etc/default/grub and /etc/kernel/cmdline, those that there are"""
    effective: str | None
    """the words that /etc/default/grub and grub.d make together"""
    grub_default: str | None
    entries: list[str] | None
    """the command lines that the boot loader has; None where they could not be read"""
    entries_time: int | None
    pinned: str | None
    """the kernel that proxmox-boot-tool pinned, the next boot's before all"""
    kernels: list[Kernel]
    notes: list[str]
    """what an earlier run began and did not see ending"""


class DkmsState(TypedDict):
    version: str | None
    """dkms's own; None where it is not installed"""
    status: str
    conf: str | None
    """dkms.conf of the source; None where there is none"""
    source: str | None
    """a digest of the source's files"""
    registered: str | None
    """the same of what DKMS was given before, in /usr/src"""
    files: dict[str, str]
    """by kernel, the module's file where modprobe finds it"""
    signers: dict[str, str]
    """by kernel, who signed it; an unsigned one has no entry"""
    builds: dict[str, str]
    """by kernel, the srcversion of the module that is installed, where it tells one"""
    loaded: str | None
    """the srcversion of the one that is loaded; None where none is, or it tells none"""


class PciDevice(TypedDict):
    address: str
    id: str
    """`1002:13c0`"""
    kind: str
    """class and subclass, `0300`"""
    driver: str | None
    group: int | None
    """the IOMMU group; None without an IOMMU"""
    reset_method: str | None


class PciState(TypedDict):
    devices: list[PciDevice]
    groups: int
    """how many IOMMU groups there are; 0 where the IOMMU is off"""


class ModuleState(TypedDict):
    loaded: list[str]
    """loaded or built in, with `_`"""
    options: list[str]
    """`FILE:NUMBER:LINE` of options of vfio-pci that are in other files than ours"""
    texts: dict[str, str]
    """our own files that there are"""
    times: dict[str, int]
    """when they were written, seconds since 1970"""
