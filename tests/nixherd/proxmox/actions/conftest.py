"""What the tests of the guests' verbs act on."""

from nixherd.fleet.models import GuestType
from nixherd.proxmox.config import VmConfig
from tests.nixherd.proxmox.conftest import Emulator


def ct(emulator: Emulator) -> VmConfig:
    config = emulator.client().config("prom", 210, GuestType.LXC)
    assert config is not None
    return config
