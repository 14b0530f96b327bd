"""A device of a Proxmox VE node that a guest is given: what the node itself needs for that. Pure, but for scripts.

`states` is what is read of a node, as `facts.proxmox_host` fills it; `passthrough` is what an operator asks for, and
the files that it makes. `kernel` is what boots, with which words and modules; `status` is what of all that is in
effect, and `mapping` what guests are given of the node's devices.
"""
