"""The lab's copy of the reference fleet, for tests that start no lab."""

from pathlib import Path

from lab.fleet import prepare_fleet
from tests.nix_cli import environment

OPERATOR = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAXfRSazaOCoVJ06QoaiWo7BAR9e62ImBcIzwGPbM0hK operator@lab"
FINGERPRINT = ":".join(["A1"] * 32)


def make(target: Path, machines: int = 1) -> Path:
    """Written to `target`, which is returned; its lock names the stand-ins."""
    prepare_fleet(
        target,
        nix="nix",
        machines=machines,
        endpoint_host="10.77.0.1",
        fingerprint=FINGERPRINT,
        operator_key=OPERATOR,
        recipient="age1x6g6ll4yw7wqcwe4z8gf35vg0x03f30s22mcxnu30n8dy7e2gghszp0ls5",
        env=environment(),
    )
    return target
