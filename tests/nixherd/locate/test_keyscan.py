"""The search of a network: what is tried, how fast, and no more than was said. Nothing here leaves loopback."""

import socket
import time
from collections.abc import Iterator

import pytest

from nixherd.base.ssh_keys import generate_ed25519
from nixherd.locate import keyscan
from tests.sshd import Sshd

pytestmark = pytest.mark.xdist_group("emulator")


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with socket.create_server(("127.0.0.77", 0)) as server:
        monkeypatch.setattr(keyscan, "PORT", server.getsockname()[1])
        yield


def test_every_address_of_a_network_but_those_that_are_somebodys() -> None:
    assert keyscan.addresses_in(["10.0.0.0/30", "10.0.0.0/29"], {"10.0.0.2"}) == [
        *("10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"),
    ]


def test_who_listens_is_found_and_nobody_is_asked_too_fast(listener: None) -> None:
    wanted = [f"127.0.0.{number}" for number in range(60, 90)]
    began = time.monotonic()
    assert keyscan.listening(wanted) == ["127.0.0.77"]
    assert time.monotonic() - began >= (len(wanted) - 1) / keyscan._PER_SECOND


def test_the_one_that_shows_the_key(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = generate_ed25519("dev")
    sshd.start(pair, address="127.0.0.2")
    monkeypatch.setattr(keyscan, "PORT", sshd.port)
    assert keyscan.showing(pair.public, ["127.0.0.2", "127.0.0.3"]) == ["127.0.0.2"]
    assert keyscan.showing(generate_ed25519("other").public, ["127.0.0.2"]) == []
    assert keyscan.showing(pair.public, []) == []
    assert not sshd.contacted, "a key is read without a login"
