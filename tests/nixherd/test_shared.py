"""What the hosts of a run share: values that are computed once, and the way into the hypervisor."""

import copy
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.errors import FleetError, Unforeseen
from nixherd.fleet.models import Endpoint
from nixherd.session import Session, Unusable
from tests.nixherd.proxmox.conftest import TOKEN, Emulator
from tests.nixherd.proxmox.fleets import DEV, FLEET

pytestmark = pytest.mark.xdist_group("emulator")


@pytest.fixture
def session(tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)
    return Session(replace(FLEET, vms={"dev": DEV}), token)


# Once per run


def test_what_is_computed_once_is_waited_for(session: Session) -> None:
    computed = []

    def slowly() -> int:
        time.sleep(0.05)
        computed.append(1)
        return len(computed)

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(session.once("x", slowly))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, computed) == ([1] * 5, [1])
    assert session.once(("x", 2), lambda: "another") == "another"


def test_what_failed_once_fails_for_everybody(session: Session) -> None:
    tries = []

    def fail() -> None:
        tries.append(1)
        raise FleetError("no")

    for _ in range(3):
        with pytest.raises(FleetError, match=r"^no$"):
            session.once("x", fail)
    assert tries == [1]


def test_a_mistake_of_ours_is_made_once(session: Session) -> None:
    for compute in (lambda: 1 // 0, lambda: 1):
        with pytest.raises(Unforeseen, match=r"^/fleet: x: ZeroDivisionError: .*; this is a mistake in nixherd"):
            session.once("x", compute)


def test_what_is_forgotten_is_computed_anew(session: Session) -> None:
    values = iter(range(9))
    assert session.once(("evaluate", "dev"), lambda: next(values)) == 0
    assert session.once("version", lambda: next(values)) == 1
    session.forget("evaluate", "build")
    assert session.once(("evaluate", "dev"), lambda: next(values)) == 2
    assert session.once("version", lambda: next(values)) == 1


def test_there_is_only_one(session: Session) -> None:
    assert copy.copy(session) is session
    assert TOKEN.secret not in repr(session)
    assert session.to_json() == {"fleet": "/fleet", "token_file": str(session.token_file)}


# The hypervisor


def test_the_way_in_is_proven_at_once(session: Session, emulator: Emulator) -> None:
    session.fleet = replace(session.fleet, endpoint=emulator.endpoint)
    assert session.client is session.client
    assert [row["path"] for row in emulator.requests()] == ["/version", "/nodes"]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"fingerprint": "0" * 64}, "^token nixherd@pve!lab knows 127"),
        (
            {"node": "porm"},
            r"^vms/definitions.nix: proxmox.node: there is no node porm; correct it \(there are: prom\)",
        ),
        (
            {"port": 1},
            r"^token nixherd@pve!lab belongs to 127\.0\.0\.1:\d+, and vms/definitions.nix names 127\.0\.0\.1:1:",
        ),
    ],
)
def test_no_way_in_is_found_once_for_all(
    session: Session, emulator: Emulator, change: dict[str, object], finding: str
) -> None:
    session.fleet = replace(session.fleet, endpoint=replace(emulator.endpoint, **change))  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(Unusable, match=finding):
            _ = session.client
    assert len(emulator.requests()) <= 2


def test_no_endpoint_and_no_token(session: Session) -> None:
    session.fleet = replace(session.fleet, endpoint=None)
    with pytest.raises(Unusable, match="no endpoint is declared; add host and node"):
        _ = session.client
    missing = Session(replace(FLEET, endpoint=Endpoint("127.0.0.1", "prom", port=1)), Path("/nowhere"))
    with pytest.raises(Unusable, match=r"^token file /nowhere: missing"):
        _ = missing.client
