"""What boots a node, and what: from what `proxmox-boot-tool status` and /boot say."""

import pytest

from nixherd.base.errors import FleetError
from nixherd.proxmox.node.kernel import headers_of, loader_of, next_kernel
from nixherd.proxmox.node.states import CMDLINE, GRUB
from tests.nixherd.proxmox.node.nodes import boot, kernel

# As the tool's own source prints it, and as people show it.
HEAD = "Re-executing '/usr/sbin/proxmox-boot-tool' in new private mount namespace..\nSystem currently booted with {}\n"
UEFI = HEAD.format("uefi") + (
    "A1B2-C3D4 is configured with: uefi (versions: 6.14.8-2-pve, 6.8.12-4-pve)\n"
    "A1B2-C3D5 is configured with: uefi (versions: 6.14.8-2-pve, 6.8.12-4-pve)\n"
)
BOTH = (
    HEAD.format("uefi") + "A1B2-C3D4 is configured with: uefi (versions: 6.8.12-4-pve), grub (versions: 6.8.12-4-pve)"
)
BIOS = HEAD.format("legacy bios") + "A1B2-C3D4 is configured with: grub (versions: 6.8.12-4-pve, 6.8.4-grub)"
AWAY = HEAD.format("uefi") + (
    "WARN: /dev/disk/by-uuid/A1B2-C3D5 does not exist - clean '/etc/kernel/proxmox-boot-uuids'! - skipping\n"
)


@pytest.mark.parametrize(
    ("tool", "name", "files", "update"),
    [
        (UEFI, "systemd-boot by proxmox-boot-tool", (CMDLINE,), "proxmox-boot-tool refresh"),
        (BOTH, "GRUB and systemd-boot by proxmox-boot-tool", (CMDLINE, GRUB), "proxmox-boot-tool refresh"),
        (BIOS, "GRUB by proxmox-boot-tool", (GRUB,), "proxmox-boot-tool refresh"),
        (f"{AWAY}{UEFI}", "systemd-boot by proxmox-boot-tool", (CMDLINE,), "proxmox-boot-tool refresh"),
        (None, "GRUB", (GRUB,), "update-grub"),
    ],
)
def test_loaders(tool: str | None, name: str, files: tuple[str, ...], update: str) -> None:
    found = loader_of(boot(tool=tool))
    assert (found.name, found.files, found.update) == (name, files, update)


def test_what_is_not_known() -> None:
    for state, why in (
        (boot(tool=AWAY), "what boots this node is not known"),
        (boot(tool="sh: proxmox-boot-tool: not found"), "not found: what boots this node is not known"),
        (boot(texts={}), "what boots this node is not known"),
    ):
        with pytest.raises(FleetError, match=why):
            loader_of(state)


def test_which_kernel_comes_next() -> None:
    three = [kernel("6.8.4-2-pve"), kernel("6.8.12-4-pve"), kernel("6.5.13-6-pve")]
    assert next_kernel(boot(kernels=three)) == "6.8.12-4-pve"
    assert next_kernel(boot(kernels=three, pinned="6.5.13-6-pve")) == "6.5.13-6-pve"
    assert next_kernel(boot(kernels=three, pinned="6.2.0-1-pve")) is None
    assert next_kernel(boot(kernels=three, grub_default="saved")) is None
    assert next_kernel(boot(kernels=three, grub_default="saved", tool=UEFI)) == "6.8.12-4-pve"
    assert next_kernel(boot(kernels=[])) is None


def test_headers() -> None:
    for package, headers in (
        ("proxmox-kernel-6.14.8-2-pve-signed", "proxmox-headers-6.14.8-2-pve"),
        ("proxmox-kernel-6.8.12-4-pve", "proxmox-headers-6.8.12-4-pve"),
        ("pve-kernel-5.15.102-1-pve", "pve-headers-5.15.102-1-pve"),
        ("proxmox-default-kernel", "proxmox-default-headers"),
        ("linux-image-6.12.43+deb13-amd64", "linux-headers-6.12.43+deb13-amd64"),
        ("linux-image-amd64", "linux-headers-amd64"),
        ("proxmox-kernel-helper", None),
        (None, None),
    ):
        assert headers_of(package) == headers
