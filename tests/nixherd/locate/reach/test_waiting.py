"""A machine that no hypervisor knows of: where it is tried, and by which hints."""

from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import Refused, Unusable
from nixherd.locate.reach import (
    Absent,
    Epoch,
    Hints,
    Look,
    Place,
    addresses,
    look,
)
from tests.nixherd.locate.reach.conftest import AGENTS_KEY
from tests.nixherd.proxmox.fleets import HOST, KEY
from tests.shared import Shared

# A machine that no hypervisor knows of


def metal(shared: Shared, hints: Hints, **host: Any) -> list[Place]:
    shared.fleet = replace(shared.fleet, vms={}, hosts={"dev": replace(HOST, **host)})
    return look(shared.hypervisor, shared.keys, shared.host("dev"), hints, Look.anywhere(patience=1))


def test_its_addresses_are_tried_in_order(shared: Shared) -> None:
    tried = metal(shared, Hints(), public_key=KEY, addresses=("b.example", "192.0.2.1"))
    assert [place.address for place in tried] == ["b.example", "192.0.2.1"]
    assert {(place.epoch, place.host_key, place.user) for place in tried} == {(Epoch.FINAL, KEY, HOST.user)}
    assert addresses(replace(HOST, hostname="h", ssh_alias="a")) == ["h", "a"]
    assert addresses(replace(HOST, hostname="h", ssh_alias="h")) == ["h"]


def test_what_its_operator_says_of_it(shared: Shared) -> None:
    hints = Hints("192.0.2.9", AGENTS_KEY, "admin")
    assert metal(shared, hints) == [
        Place("192.0.2.9", Epoch.CLONE, AGENTS_KEY, "admin"),
        Place("192.0.2.9", Epoch.CLONE, AGENTS_KEY, "root"),
    ]
    with pytest.raises(
        Refused, match=r"^dev has a publicKey in hosts.nix, so it is installed already and answers with"
    ):
        metal(shared, hints, public_key=KEY)
    assert [place.epoch for place in metal(shared, replace(hints, host_key=KEY), public_key=KEY)] == [Epoch.FINAL]
    shared.keys.ensure("dev")
    assert [place.epoch for place in metal(shared, hints)] == [Epoch.FINAL, Epoch.CLONE, Epoch.CLONE]


def test_without_a_key_there_is_nobody_to_ask(shared: Shared) -> None:
    with pytest.raises(
        Absent, match=r"is not connected to; `nixherd trust .*; to install it, say which one it shows now"
    ):
        metal(shared, Hints("192.0.2.9"))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (
            {"ssh_hostname": "root@192.0.2.9"},
            "--data ssh_hostname=root@192.0.2.9 is not a host name or address; the user",
        ),
        ({"ssh_hostname": "-oProxyCommand=x"}, "is not a host name or address"),
        ({"install_user": "-l root"}, "--data install_user=-l root is not a user's name"),
        ({"host_key": "ssh-ed25519 AAAA"}, "--data host_key: its base64 is cut off or damaged; give what"),
    ],
)
def test_what_is_no_hint_is_refused(data: dict[str, str], complaint: str) -> None:
    with pytest.raises(Unusable) as caught:
        Hints.of(data)
    assert complaint in str(caught.value)


def test_hints() -> None:
    assert Hints.of({}) == Hints()
    assert Hints.of({"ssh_hostname": "2001:db8::7", "host_key": KEY, "install_user": "abl030"}) == Hints(
        "2001:db8::7", KEY, "abl030"
    )
