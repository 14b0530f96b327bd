"""The lab: a hypervisor's API and the machines behind it, on one computer."""
