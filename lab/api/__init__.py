"""An emulator of the Proxmox VE API, versions 8 and 9.

It computes its answers from a state by the rules that recordings of real servers show; nothing is canned.
"""
