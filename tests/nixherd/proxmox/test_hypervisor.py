"""The way into the hypervisor's API, which is proven once for all."""

from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.fleet.models import Endpoint
from nixherd.proxmox.errors import Unusable
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.proxmox.token import Token
from tests.nixherd.proxmox.conftest import TOKEN, Emulator
from tests.nixherd.proxmox.fleets import DEV, FLEET

pytestmark = pytest.mark.xdist_group("emulator")


@pytest.fixture
def hypervisor(tmp_path: Path, emulator: Emulator) -> Hypervisor:
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)
    return Hypervisor(replace(FLEET, vms={"dev": DEV}), token)


def test_the_way_in_is_proven_at_once(hypervisor: Hypervisor, emulator: Emulator) -> None:
    hypervisor.fleet = replace(hypervisor.fleet, endpoint=emulator.endpoint)
    assert hypervisor.client is hypervisor.client
    assert [row["path"] for row in emulator.requests()] == ["/version", "/nodes"]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"fingerprint": "0" * 64}, "^token nixherd@pve!lab knows 127"),
        (
            {"node": "porm"},
            r"^vms/definitions.nix: proxmox.node: node porm does not exist; name one of prom",
        ),
        (
            {"port": 1},
            r"^token nixherd@pve!lab belongs to 127\.0\.0\.1:\d+, and vms/definitions.nix names 127\.0\.0\.1:1:",
        ),
    ],
)
def test_no_way_in_is_found_once_for_all(
    hypervisor: Hypervisor, emulator: Emulator, change: dict[str, object], finding: str
) -> None:
    hypervisor.fleet = replace(hypervisor.fleet, endpoint=replace(emulator.endpoint, **change))  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(Unusable, match=finding):
            _ = hypervisor.client
    assert len(emulator.requests()) <= 2


def test_no_endpoint_and_no_token(hypervisor: Hypervisor) -> None:
    hypervisor.fleet = replace(hypervisor.fleet, endpoint=None)
    with pytest.raises(Unusable, match="no endpoint is declared; add host and node"):
        _ = hypervisor.client
    missing = Hypervisor(replace(FLEET, endpoint=Endpoint("127.0.0.1", "prom", port=1)), Path("/nowhere"))
    with pytest.raises(Unusable, match=r"^token file /nowhere: missing"):
        _ = missing.client


def test_it_shows_nothing_of_the_token(hypervisor: Hypervisor, emulator: Emulator) -> None:
    hypervisor.fleet = replace(hypervisor.fleet, endpoint=emulator.endpoint)
    client, token = hypervisor.client, Token.read(hypervisor.token_file)
    assert token.secret == TOKEN.secret
    assert TOKEN.secret not in repr((hypervisor, vars(hypervisor), client, vars(client), token))


def test_what_is_the_same_for_every_guest_is_asked_once(hypervisor: Hypervisor, emulator: Emulator) -> None:
    hypervisor.fleet = replace(hypervisor.fleet, endpoint=emulator.endpoint)
    for _ in range(2):
        assert (hypervisor.nodes, hypervisor.version.release) == (("prom",), hypervisor.client.version().release)
        assert hypervisor.template[0]
        assert hypervisor.template[0].name == "debian-13"
        assert hypervisor.known_addresses["127.0.0.1"] == "the hypervisor's API"
    asked = [row["path"] for row in emulator.requests()]
    assert asked.count("/nodes") <= 2, "the list, and the rows for their addresses"
    assert (hypervisor.accepted_changes, hypervisor.under_way) == (0, [])
