"""A guest with options that wait for its next start."""

from typing import Any

import pytest

from tests.nixherd.proxmox.conftest import Emulator, granted
from tests.nixherd.proxmox.dev import begin


@pytest.fixture
def dev(emulator: Emulator) -> Emulator:
    """The VM `dev` runs, and the token may use bridges that the node lacks."""
    bridges = [(f"/sdn/zones/localnetwork/{bridge}", "PVESDNUser") for bridge in ("vmbr8", "vmbr9", "vmbr77")]
    begin(emulator, acl=granted(*bridges))
    return emulator


def waiting(emulator: Emulator) -> dict[str, str | None]:
    return {row.key: row.after for row in emulator.client().pending("prom", 110)}


def volumes(emulator: Emulator) -> list[str]:
    return [row.volid for row in emulator.client().volumes("prom", "nvmeprom", vmid=110)]


def people(emulator: Emulator, **values: Any) -> None:
    """What somebody else sets meanwhile."""
    emulator.client().set_config("prom", 110, values)
