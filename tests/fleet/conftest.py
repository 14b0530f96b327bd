"""The reference fleet as the lab has it, locked to the stand-ins: evaluated and built offline."""

from pathlib import Path

import pytest

from tests.fleet_copy import make


@pytest.fixture(scope="session")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's copy, whose lock names the stand-ins. Tests only read it."""
    return make(tmp_path_factory.mktemp("fleet") / "fleet", machines=3)
