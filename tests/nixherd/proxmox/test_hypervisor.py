"""The way into the hypervisor's API, which is proven once for all."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import ApiError, FleetError, Unusable, is_passing
from nixherd.fleet.models import Endpoint
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.proxmox.preflight import survey
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


# What is asked, and the request that no answer comes to.
QUESTIONS: dict[str, tuple[Callable[[Hypervisor], Any], str]] = {
    "version": (lambda hypervisor: hypervisor.version.release, "/version"),
    "client": (lambda hypervisor: hypervisor.client.token_id, "/nodes"),
    "permissions": (lambda hypervisor: hypervisor.permissions.allows("/vms/110", "VM.Allocate"), "/access/permissions"),
    "template": (lambda hypervisor: hypervisor.template[0], "/nodes/prom/qemu/9002/config"),
    "storages": (lambda hypervisor: survey(hypervisor, DEV).template_storages.keys(), "/nodes/prom/storage/.*"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_that_failed_is_asked_again_and_one_that_was_answered_is_not(
    hypervisor: Hypervisor, emulator: Emulator, question: str
) -> None:
    """A run may take an hour, and the node was away for a moment of it."""
    hypervisor.fleet = replace(hypervisor.fleet, endpoint=emulator.endpoint)
    ask, path = QUESTIONS[question]
    emulator.control("fault", name="timed-out", on=True, method="GET", path=f"{path}$", count=1)
    with contextlib.suppress(FleetError):
        assert ask(hypervisor) is None, "why not is told beside the template"
    asked = [list[str](), list[str]()]
    for each in asked:
        before = len(emulator.requests())
        assert ask(hypervisor)
        each += [row["path"] for row in emulator.requests()[before:] if re.fullmatch(path, row["path"])]
    again, once_more = asked
    assert len(once_more) < len(again)
    assert once_more == [] or question == "storages", "a survey looks at the storages of its guest as well"


def test_a_node_that_did_not_tell_its_addresses_is_asked_again(hypervisor: Hypervisor, emulator: Emulator) -> None:
    """What is missing of them is not taken for nobody's, and costs nobody who has waited for it a second question."""
    hypervisor.fleet = replace(hypervisor.fleet, endpoint=emulator.endpoint)
    emulator.control("fault", name="timed-out", on=True, method="GET", path="/nodes/prom/network$", count=1)
    for seen in (1, 2, 2):
        assert hypervisor.addresses["127.0.0.1"] == "the hypervisor's API"
        assert sum(row["path"] == "/nodes/prom/network" for row in emulator.requests()) == seen


def test_what_the_token_may_not_do_is_not_asked_again() -> None:
    refused, lost = ApiError("no", 403), ApiError("no answer", None)
    wrapped = Unusable("no")
    wrapped.__cause__ = ApiError("no", 596)
    passing = [is_passing(error) for error in (refused, lost, wrapped, FleetError("no"), Unusable("no"), None)]
    assert passing == [False, True, True, False, False, False]
