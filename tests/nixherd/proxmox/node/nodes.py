"""A node as tests have it: all that is wanted is set and in effect; each test changes what it is about."""

from typing import Any

from nixherd.proxmox.node.states import (
    CARD_RULE,
    GRUB,
    VFIO,
    VFIO_MODULES,
    BootState,
    DkmsState,
    Kernel,
    ModuleState,
    NodeState,
    PciDevice,
    PciState,
)
from nixherd.proxmox.node.status import Seen

KERNEL = "6.14.8-2-pve"
GPU = PciDevice(
    address="0000:7a:00.0", id="1002:13c0", kind="0300", driver="vfio-pci", group=14, reset_method="device_specific"
)
AUDIO = PciDevice(address="0000:7a:00.1", id="1002:1640", kind="0403", driver="vfio-pci", group=15, reset_method=None)
USB = PciDevice(address="0000:7a:00.3", id="1022:15b6", kind="0c03", driver="xhci_hcd", group=16, reset_method="pm")
BRIDGE = PciDevice(address="0000:00:08.1", id="1022:14dd", kind="0604", driver="pcieport", group=14, reset_method="pm")


def kernel(version: str = KERNEL, **changes: Any) -> Kernel:
    made = Kernel(version=version, package=f"proxmox-kernel-{version}-signed", headers=True, initrd=1_764_000_500)
    made.update(changes)  # type: ignore[typeddict-item]
    return made


def boot(**changes: Any) -> BootState:
    made = BootState(
        command_line=f"BOOT_IMAGE=/boot/vmlinuz-{KERNEL} root=/dev/mapper/pve-root ro quiet iommu=pt",
        tool=None,
        texts={GRUB: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"\n'},
        effective=" quiet iommu=pt",
        grub_default="0",
        entries=["linux /boot/vmlinuz root=/dev/mapper/pve-root ro quiet iommu=pt"],
        entries_time=1_764_000_600,
        pinned=None,
        kernels=[kernel()],
        notes=[],
    )
    made.update(changes)  # type: ignore[typeddict-item]
    return made


def seen(
    *,
    node: Any = None,
    booting: Any = None,
    modules: Any = None,
    devices: Any = None,
    groups: int = 32,
    dkms: Any = None,
) -> Seen:
    """A node that booted after all was set, with these changes."""
    plain = NodeState(
        id="debian", like="", pve="9.0.3", hostname="prom", uid=0, vendor="AuthenticAMD", kernel=KERNEL,
        secure_boot=False, booted=1_764_001_000,
    )  # fmt: skip
    plain.update(node or {})  # type: ignore[typeddict-item]
    times = dict.fromkeys((VFIO, VFIO_MODULES, CARD_RULE), 1_764_000_000)
    loaded = ["vfio", "vfio_iommu_type1", "vfio_pci", "vendor_reset"]
    have = ModuleState(loaded=loaded, options=[], texts={}, times=times)
    have.update(modules or {})  # type: ignore[typeddict-item]
    built = DkmsState(
        version="3.2.0", status=f"vendor-reset/0.1.1, {KERNEL}, x86_64: installed", conf="", source="a", registered="a",
        files={}, signers={}, builds={KERNEL: "0A"}, loaded="0A",
    )  # fmt: skip
    built.update(dkms or {})  # type: ignore[typeddict-item]
    own = devices if devices is not None else [GPU, AUDIO]
    all_of_them = [*own, *(each for each in (USB, BRIDGE) if each["address"] not in {one["address"] for one in own})]
    pci = PciState(devices=all_of_them, groups=groups)
    return Seen(plain, boot(**(booting or {})), have, pci, built, own, ("iommu=pt",), "0.1.1")
