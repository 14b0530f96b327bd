"""The hypervisor of these tests is the lab's emulator."""

from tests.nixherd.proxmox.conftest import emulator, started  # noqa: F401  (fixtures)
