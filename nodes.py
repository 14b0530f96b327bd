"""The hypervisor's nodes as pyinfra hosts, for deploys/proxmox_host.py alone. FLEET names the flake's directory."""

from nixherd.pyinfra_glue.node import nodes_beside

globals().update(nodes_beside(__file__))
