"""Readies a Proxmox VE node to pass devices through: vendor-reset, IOMMU, vfio. Never boots it, touches no guest.

    pyinfra --dry nodes.py deploys/proxmox_host.py --limit prom      # what would be done; changes nothing
    pyinfra -y nodes.py deploys/proxmox_host.py --limit prom --data devices=1002:13c0,1002:1640 \\
        --data vendor_reset=/usr/local/src/vendor-reset

What is asked for may stand in group_data/nodes.py. At the end it says whether a boot is due and which guests that
stops, and what guests are given where it differs from what is wanted. docs/proxmox-host.md.
"""

from nixherd.deploys import proxmox_host

proxmox_host()
