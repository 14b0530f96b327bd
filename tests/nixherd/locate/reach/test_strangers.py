"""What cannot be a guest's own address, and what a run has no business with."""

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import ApiError, FleetError, NoAgent, Refused
from nixherd.base.ssh_keys import generate_ed25519
from nixherd.fleet.models import GuestType
from nixherd.locate import proof
from nixherd.locate.proof import Shown, disproof
from nixherd.locate.reach import (
    Absent,
    Epoch,
    Hints,
    Look,
    NotInstalled,
    Place,
    look,
    stranger,
    told_place,
)
from nixherd.proxmox.guest.identity import mark
from tests.nixherd.locate.reach.conftest import AGENTS_KEY, INSTALLER, MAC, FakeClient, places
from tests.nixherd.proxmox.fleets import DEV, FLEET, HOST, KEY
from tests.shared import Shared

# What cannot be a guest's own

OTHER = generate_ed25519("other")
TWO = {"dev": HOST, "other": replace(HOST, id="other", hostname="other")}


def refusal(shared: Shared, client: FakeClient, **how: Any) -> str:
    with pytest.raises(Refused) as caught:
        places(shared, client, **how)
    return str(caught.value)


@pytest.mark.parametrize("patience", [10, 0])
@pytest.mark.parametrize("system", ["ID=debian\n", INSTALLER])
def test_a_key_that_hosts_nix_pins_for_another_is_refused(shared: Shared, system: str, patience: float) -> None:
    """However its base64 is written."""
    shared.fleet = replace(shared.fleet, hosts={**TWO, "other": replace(TWO["other"], public_key=OTHER.public)})
    said = refusal(shared, FakeClient(system=system, key=OTHER.public), patience=patience)
    assert said.startswith("vm 110 (dev): its agent tells the host key of other as its own (SHA256:")


def test_a_key_that_was_generated_here_for_another_is_refused(shared: Shared) -> None:
    shared.fleet = replace(shared.fleet, hosts=TWO)
    key = shared.keys.ensure("other").public
    assert "the host key of other" in refusal(shared, FakeClient(system=INSTALLER, key=key))
    shared.keys.private_key_file("other").write_text("no key at all")
    assert places(shared, FakeClient(system=INSTALLER, key=key))  # nobody can be installed with that


def test_a_key_that_another_vm_told_in_this_run_is_refused(shared: Shared) -> None:
    assert places(shared, FakeClient(system=INSTALLER))
    assert places(shared, FakeClient(system=INSTALLER)), "its own again"
    other = replace(DEV, name="other", vmid=112, host_id="other")
    shared.fleet = replace(shared.fleet, hosts=TWO, vms={"dev": DEV, "other": other})
    ours = {"name": "other", "description": mark(FLEET, other)}
    shared.asks(FakeClient(system=INSTALLER, config_=ours))
    with pytest.raises(Refused, match=r"^vm 112 \(other\): its agent tells the host key of vm 110 \(dev\) as its own"):
        look(shared.hypervisor, shared.keys, TWO["other"], Hints(), Look.anywhere(patience=1))


def test_an_address_that_two_guests_report_is_a_place_of_whichever_proves_itself(shared: Shared) -> None:
    """Both are tried there, each as itself; no third guest's agent is asked whose it is."""
    other = replace(DEV, name="other", vmid=112, host_id="other")
    card = "bc:24:11:00:01:12"
    shared.fleet = replace(shared.fleet, hosts=TWO, vms={"dev": DEV, "other": other})
    [ours] = places(shared, FakeClient())
    others = {"name": "other", "description": mark(FLEET, other)}
    shared.asks(FakeClient(card=card, key=generate_ed25519("other").public, config_=others))
    [theirs] = look(shared.hypervisor, shared.keys, TWO["other"], Hints(), Look.anywhere(patience=1))
    assert ours.address == theirs.address == "192.0.2.110"
    assert ours.identity is not None
    assert theirs.identity is not None
    assert (ours.identity.vmid, theirs.identity.vmid) == (110, 112)
    who_answers = Shown("boot", frozenset({MAC}), None, "ID=debian")
    assert disproof(ours.identity, who_answers) is None
    assert disproof(theirs.identity, who_answers) == f"no card of it has net0's MAC {card} (there are: {MAC})"


@pytest.mark.parametrize("key", ["", "no key", "ssh-ed25519 AAAA", f"{KEY}\n{KEY}"])
def test_what_is_no_key_is_an_error_in_one_line(shared: Shared, key: str) -> None:
    with pytest.raises(FleetError, match=r"^vm 110 \(dev\): what its agent tells as its host key is none: it|nothing"):
        places(shared, FakeClient(system=INSTALLER, key=key))


def test_another_key_of_another_machine_is_no_ed25519_key(shared: Shared) -> None:
    """Of those only the ed25519 key is known."""
    key = (
        "ecdsa-sha2-nistp256 "
        + base64.b64encode(
            b"".join(len(part).to_bytes(4, "big") + part for part in (b"ecdsa-sha2-nistp256", b"nistp256", bytes(65)))
        ).decode()
    )
    assert "its agent tells an ed25519 host key of type ecdsa-sha2-nistp256" in refusal(
        shared, FakeClient(system=INSTALLER, key=key)
    )


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("192.0.2.1", "the node prom"),
        ("192.0.2.2", "the node gone"),
        ("198.51.100.1", "the node prom"),
        ("2001:db8::1", "the node prom"),
        ("::ffff:192.0.2.1", "the node prom"),
        ("203.0.113.8", "the hypervisor's API"),
        ("203.0.113.9", "the machine that this runs on"),
    ],
)
def test_the_addresses_of_the_hypervisor_and_our_own_are_no_guests(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, address: str, whose: str
) -> None:
    assert shared.fleet.endpoint is not None
    shared.fleet = replace(shared.fleet, endpoint=replace(shared.fleet.endpoint, host="203.0.113.8"))
    monkeypatch.setattr(proof, "has_address", lambda address: address == "203.0.113.9")
    said = refusal(shared, FakeClient(addresses=(address,), system=INSTALLER))
    assert re.match(rf"vm 110 \(dev\): its agent tells \S+ as its address, which {whose} has; nothing was sent", said)
    monkeypatch.setattr(proof, "has_mac", lambda mac: mac == MAC)
    if whose == "the machine that this runs on":  # and it is this VM
        assert places(shared, FakeClient(addresses=(address,), system=INSTALLER))


def test_a_token_that_shows_no_nodes_addresses_is_no_obstacle(shared: Shared) -> None:
    def forbidden(*given: str) -> Any:
        raise ApiError("Permission check failed", 403)

    client = FakeClient(system=INSTALLER)
    client.node_addresses = client.interface_addresses = forbidden  # type: ignore[assignment,method-assign]
    assert places(shared, client)


def test_this_machines_own_addresses_are_known() -> None:
    assert proof.has_address("127.0.0.1")
    assert not proof.has_address("192.0.2.1")
    assert not proof.has_address("255.255.255.255")
    assert not proof.has_mac("02:00:00:00:00:99")


# What a run has no business with


@pytest.mark.parametrize(("system", "epoch"), [("ID=debian\n", "clone"), (INSTALLER, "installer")])
def test_what_is_not_installed_is_refused_where_nothing_is_installed(shared: Shared, system: str, epoch: str) -> None:
    client = FakeClient(system=system)
    shared.asks(client)
    only = (Epoch.FINAL,)
    with pytest.raises(NotInstalled, match=rf"vm 110 \(dev\) runs no installed system: its agent says .* the {epoch};"):
        look(shared.hypervisor, shared.keys, HOST, Hints(), Look(only, only, patience=5))
    assert client.executed == []


def test_a_host_whose_key_is_pinned_answers_as_installed_unless_its_private_half_is_here(shared: Shared) -> None:
    pair = generate_ed25519("dev")
    shared.fleet = replace(shared.fleet, hosts={"dev": replace(HOST, public_key=pair.public)})
    host, client = shared.host("dev"), FakeClient(system=INSTALLER)
    shared.asks(client)
    found: Callable[[], list[Place]] = lambda: look(
        shared.hypervisor, shared.keys, host, Hints(), Look.anywhere(patience=1)
    )
    with pytest.raises(Refused, match=r"answers as installed only, for hosts.nix pins the key of dev; its agent says"):
        found()
    shared.run.state_of("dev").note("ssh_host_ed25519_key", pair.private_openssh)  # enrolled before it is made
    assert [place.epoch for place in found()] == [Epoch.INSTALLER]


def test_a_machine_without_nixos_is_installed_as_it_is(shared: Shared) -> None:
    home = replace(HOST, configuration_file=None, public_key=KEY)
    shared.fleet = replace(shared.fleet, hosts={"dev": home})
    shared.asks(FakeClient())
    only = (Epoch.FINAL,)
    [place] = look(shared.hypervisor, shared.keys, home, Hints(), Look(only, only))
    assert (place.epoch, place.host_key) == (Epoch.FINAL, KEY)


def test_where_a_guest_is_whose_key_only_its_agent_tells(shared: Shared) -> None:
    def told(**client: Any) -> Place | None:
        shared.asks(FakeClient(**{"system": "ID=nixos\n", **client}))
        return told_place(shared.hypervisor, shared.keys, HOST)

    place = told()
    assert place is not None
    assert (place, place.told) == (Place("192.0.2.110", Epoch.FINAL, AGENTS_KEY, HOST.user), True)
    assert place.identity is not None
    assert (place.identity.mac, place.identity.has_agent) == (MAC, True)
    for nothing in ({"exists": False}, {"power": "stopped"}, {"system": INSTALLER}, {"config_": {"lock": "clone"}}):
        assert told(**nothing) is None
    for silent, why in (
        ({"agent": False}, "does not say which host key it has"),
        ({"addresses": ()}, "no address yet"),
    ):
        with pytest.raises(FleetError, match=why):
            told(**silent)
    with pytest.raises(Refused, match="its notes lack the line"):
        told(config_={"description": "built by hand"})


def test_who_is_a_stranger(shared: Shared) -> None:
    def found(*, installs: bool = True, **config: Any) -> str | None:
        shared.asks(FakeClient(exists=config.pop("exists", True), config_=config))
        return stranger(shared.hypervisor, shared.keys, HOST, installs=installs)

    assert found() is None
    assert "its notes lack the line" in (found(description="built by hand") or "")
    # where it can only be an installed system, the key that is pinned for it decides
    assert found(description="built by hand", installs=False) is None
    assert "its name is theirs, not dev" in (found(name="theirs", installs=False) or "")
    assert found(exists=False) is None
    assert found(lock="clone", name="", description="") is None  # a clone in the making
    assert "its name is theirs, not dev" in (found(name="theirs") or "")
    shared.fleet = replace(shared.fleet, vms={})
    assert found(name="theirs") is None


def test_without_an_agent_nothing_can_be_proven_without_a_pinned_key(shared: Shared) -> None:
    client = FakeClient(agent=False)

    def silent() -> None:
        raise NoAgent("GET /nodes/prom/qemu/110/agent/x: No QEMU guest agent configured (500)", 500)

    client._answer = silent  # type: ignore[method-assign]
    with pytest.raises(Absent, match=r"vm 110 \(dev\) has no guest agent, .*; put the host key of dev into hosts.nix"):
        places(shared, client)
    shared.keys.to_install("dev")
    with pytest.raises(Absent, match="have one run there"):
        places(shared, client)


def test_a_container_has_its_card_where_the_hypervisor_can_be_asked(shared: Shared) -> None:
    container = replace(DEV, type=GuestType.LXC)
    host = replace(HOST, public_key=KEY)
    shared.fleet = replace(shared.fleet, hosts={"dev": host}, vms={"dev": container})
    found: Callable[[], list[Place]] = lambda: look(
        shared.hypervisor, shared.keys, host, Hints(), Look.anywhere(patience=1)
    )
    shared.asks(FakeClient(config_={"net0": f"name=eth0,bridge=vmbr0,hwaddr={MAC.upper()}"}))
    assert [(place.identity.mac, place.identity.has_agent) for place in found() if place.identity] == [(MAC, False)]
    shared.asks_nobody()  # there is no token
    assert [place.identity for place in found()] == [None]
