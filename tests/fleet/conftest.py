"""The reference fleet as the lab has it, locked to the stand-ins: evaluated and built offline."""

from pathlib import Path

import pytest

from lab.fleet import prepare_fleet
from tests.nix_cli import environment

OPERATOR = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAXfRSazaOCoVJ06QoaiWo7BAR9e62ImBcIzwGPbM0hK operator@lab"
FINGERPRINT = ":".join(["A1"] * 32)


@pytest.fixture(scope="session")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's copy, whose lock names the stand-ins. Tests only read it."""
    target = tmp_path_factory.mktemp("fleet") / "fleet"
    prepare_fleet(
        target,
        nix="nix",
        machines=3,
        endpoint_host="10.77.0.1",
        fingerprint=FINGERPRINT,
        operator_key=OPERATOR,
        recipient="age1x6g6ll4yw7wqcwe4z8gf35vg0x03f30s22mcxnu30n8dy7e2gghszp0ls5",
        env=environment(),
    )
    return target
