"""A device of a Proxmox VE node that a guest is given: what the node itself needs for that. Pure, but for scripts.

`states` is what is read of a node, as `facts.proxmox_host` fills it, and `passthrough` what an operator asks for and
which files that makes. `kernel` is what boots and with which words and modules, `status` what of it is in effect.
"""
