"""Nodes of the hypervisor."""

from nixherd.operations import proxmox_host as node
from nixherd.pyinfra_glue.deploy_file import workflow


@workflow("proxmox-host", for_nodes=True)
def proxmox_host() -> None:
    """Ready a Proxmox VE node to pass devices through: vendor-reset, IOMMU, vfio. Never boots it, touches no guest."""
    node.require(name="node: the one that is meant, its boot loader and devices")
    # needrestart, where it is installed, would restart services
    node.packages(name="packages: dkms and the kernels' headers", _env={"NEEDRESTART_SUSPEND": "1"})
    node.vendor_reset(name="vendor-reset: built and installed by DKMS")
    node.vfio(name="vfio: the devices are bound to vfio-pci")
    node.reset_method(name="reset: the card is reset by vendor-reset")
    node.initramfs(name="initramfs: told of it")
    node.command_line(name="kernel: told what the IOMMU needs")
    node.report(name="report: what is in effect, what waits for a boot, and whom that stops")
