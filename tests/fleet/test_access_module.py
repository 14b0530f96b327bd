"""The machine's own copy of the program that guards deployments."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent.parent


def test_a_machine_that_takes_pushed_closures_has_the_same_program() -> None:
    ours = ROOT / "fleetwright/deploying/machine.sh"
    assert (ROOT / "fleet/modules/nixos/fleetwright.sh").read_text() == ours.read_text()
