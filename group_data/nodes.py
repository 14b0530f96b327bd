"""What nodes of the hypervisor are asked for by deploys/proxmox_host.py; docs/proxmox-host.md. No secrets."""

# devices = ["1002:13c0", "1002:1640"]  # as printed by `lspci -nn`
# vendor_reset = "/usr/local/src/vendor-reset"  # on the node: the directory with its dkms.conf
# blacklist = ["amdgpu"]
# kernel_words = ["iommu=pt"]
# hostpci = {"igp": {"hostpci0": "mapping=igpu,pcie=1"}}
