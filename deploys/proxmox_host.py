"""Readies a Proxmox VE node to pass devices through: vendor-reset, IOMMU, vfio. Never boots it, touches no guest.

    pyinfra --dry nodes.py deploys/proxmox_host.py --limit prom      # what would be done; changes nothing
    pyinfra -y nodes.py deploys/proxmox_host.py --limit prom --data devices=1002:13c0,1002:1640 \\
        --data vendor_reset=/usr/local/src/vendor-reset

What is asked for may stand in group_data/nodes.py. At the end it says whether a boot is due and which guests that
stops, and what guests are given where it differs from what is wanted. docs/proxmox-host.md.
"""

from nixherd.pyinfra_glue.deploy_file import deploy_file
from operations import proxmox_host

deploy_file("proxmox-host", for_nodes=True)

proxmox_host.require(name="node: the one that is meant, its boot loader and devices")
# needrestart, where it is installed, would restart services
proxmox_host.packages(name="packages: dkms and the kernels' headers", _env={"NEEDRESTART_SUSPEND": "1"})
proxmox_host.vendor_reset(name="vendor-reset: built and installed by DKMS")
proxmox_host.vfio(name="vfio: the devices are bound to vfio-pci")
proxmox_host.reset_method(name="reset: the card is reset by vendor-reset")
proxmox_host.initramfs(name="initramfs: told of it")
proxmox_host.command_line(name="kernel: told what the IOMMU needs")
proxmox_host.report(name="report: what is in effect, what waits for a boot, and whom that stops")
