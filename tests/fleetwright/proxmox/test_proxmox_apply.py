"""A machine made on the emulator, through the real client, whatever gets in the way."""

import pytest

from fleetwright.proxmox.apply import ensure, observe, plan_of
from fleetwright.proxmox.plan import Row
from tests.fleetwright.proxmox.conftest import Emulator
from tests.fleetwright.proxmox.fleets import DEV, FLEET, HOST

pytestmark = pytest.mark.unit


def make(emulator: Emulator, *rows: Row) -> list[str]:
    client = emulator.client()
    return [str(step) for row in rows for step in ensure(client, FLEET, DEV, HOST, row, timeout=20)]


def test_makes_what_it_planned_and_then_nothing(emulator: Emulator) -> None:
    client = emulator.client()
    planned = [str(step) for step in plan_of(client, FLEET, DEV, HOST)]
    assert emulator.changes() == []
    assert make(emulator, *Row) == planned
    assert plan_of(client, FLEET, DEV, HOST) == ()
    before = emulator.changes()
    assert make(emulator, *Row) == []
    assert emulator.changes() == before
    actual = observe(client, FLEET, DEV)
    assert actual is not None
    assert actual.running
    assert (actual.config.memory, actual.config.cores) == (8192, 4)
