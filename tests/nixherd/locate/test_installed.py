"""Where a machine may be that is installed: which source is asked when, and what none of them is believed."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import ApiError, FleetError, NoAgent
from nixherd.fleet.models import CloudInitSettings, Device, GuestType, Host, Vm
from nixherd.locate import keyscan, neighbours
from nixherd.locate.installed import Search
from nixherd.locate.neighbours import Neighbour, Sure
from nixherd.locate.reach import Absent, Hints, Look, Place
from nixherd.proxmox.answers import Interface
from nixherd.proxmox.config import VmConfig
from tests.nixherd.locate.reach.conftest import MAC, FakeClient
from tests.nixherd.proxmox.fleets import DEV, FLEET, HOST, KEY
from tests.shared import Shared

NO_HINTS = Hints()
ROUTER = replace(HOST, id="router", hostname="router", ssh_alias="gw", addresses=("10.0.0.1",), public_key=KEY)
PINNED = replace(HOST, public_key=KEY)
CARD = (Device("net0", {"model": "virtio", "macaddr": MAC.upper()}),)


@dataclass
class Agentless(FakeClient):
    """A hypervisor whose VM has no agent, and which counts how often it is asked."""

    asked: list[str] = field(default_factory=list)

    def config(self, node: str, vmid: int, type: object = None) -> VmConfig | None:
        self.asked.append("config")
        return super().config(node, vmid, type)

    def _answer(self) -> None:
        if not self.agent:
            raise NoAgent("No QEMU guest agent configured", 500)
        super()._answer()

    def container_interfaces(self, node: str, vmid: int) -> tuple[Interface, ...]:
        return self.agent_interfaces(node, vmid)


@dataclass
class Scene:
    """A fleet with `dev` and a router, and one look for `dev` at a time."""

    shared: Shared
    told: dict[str, tuple[str, ...]] = field(default_factory=dict)
    questions: list[str] = field(default_factory=list)
    search: Search | None = None

    def has(self, host: Host = PINNED, vm: Vm = DEV, **endpoint: Any) -> "Scene":
        assert FLEET.endpoint is not None
        hosts = {"dev": host, "router": ROUTER}
        self.shared.fleet = replace(FLEET, hosts=hosts, vms={"dev": vm}, endpoint=replace(FLEET.endpoint, **endpoint))
        return self

    def hypervisor(self, client: Any) -> "Scene":
        self.shared.asks(client)
        return self

    def ask(self, host: Host) -> tuple[Neighbour, ...]:
        self.questions.append(host.id)
        if host.id not in self.told:
            raise FleetError("no SSH at 10.0.0.1: Connection refused")
        return tuple(Neighbour(MAC, address, Sure.SEEN, "br0") for address in self.told[host.id])

    def look(self, hints: Hints = NO_HINTS, before: str | None = None) -> list[Place]:
        self.search = self.search_for(self.shared.host("dev"), hints, before)
        return list(self.search.places())

    def search_for(self, host: Host, hints: Hints = NO_HINTS, before: str | None = None) -> Search:
        shared = self.shared
        sources = {"hypervisor": shared.hypervisor, "sightings": shared.context.sightings, "run": shared.run}
        search = Search.of(shared.keys, host, hints, Look(), **sources, tell=print, ask=self.ask, before=before)
        assert search
        return search

    @property
    def reasons(self) -> str:
        assert self.search is not None
        return "; ".join(self.search.reasons)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(neighbours, "_ours", tuple)
    return Scene(Shared(FLEET, tmp_path / "no-token")).has()


def places(found: list[Place]) -> list[str]:
    assert all(each.host_key == KEY and each.epoch == "final" for each in found)
    return [each.address for each in found]


def test_names_come_first_and_ask_nobody(scene: Scene) -> None:
    client = Agentless(system="ID=nixos\n")
    fixed = replace(DEV.settings, cloud_init=CloudInitSettings(addresses={"ipconfig0": "ip=10.0.0.9/24,gw=10.0.0.1"}))
    scene.has(replace(PINNED, addresses=("dev.example", "192.0.2.7")), replace(DEV, settings=fixed)).hypervisor(client)
    search = scene.search_for(scene.shared.host("dev"), before="192.0.2.50")
    found = search.places()
    tried = [next(found).address for _ in range(4)]
    assert tried == ["192.0.2.50", "dev.example", "192.0.2.7", "10.0.0.9"]
    assert (client.asked, scene.questions) == ([], [])
    search.is_found = True  # it showed its key at one of them and did not let us in
    assert list(found) == []
    assert client.asked == []
    assert places(scene.look(Hints(address="203.0.113.5")))[:1] == ["203.0.113.5"]


def test_the_agents_word_counts_when_the_names_fail(scene: Scene) -> None:
    scene.hypervisor(Agentless(system="ID=nixos\n", addresses=("10.0.0.5",)))
    *named, told = scene.look()
    assert (places(named), told.address) == (["dev"], "10.0.0.5")
    assert [each.identity for each in named] == [None]
    assert told.identity is not None
    assert told.identity.has_agent
    assert scene.questions == []


@pytest.mark.parametrize("client", [Agentless(exists=False), Agentless(power="stopped")])
def test_what_is_absent_is_not_looked_for_elsewhere(scene: Scene, client: Agentless) -> None:
    scene.has(neighbours=("router",)).hypervisor(client)
    with pytest.raises(Absent):
        scene.look()
    assert scene.questions == []


def test_a_guest_without_an_agent(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed address, our own table, another machine's: in this order, each address once."""
    client = Agentless(agent=False, config_={"ipconfig0": "ip=10.0.0.9/24,ip6=2001:db8::9/64"})
    scene.has(neighbours=("gw",)).hypervisor(client)
    ours = Neighbour(MAC, "10.0.0.5", Sure.STALE), Neighbour(MAC, "fe80::5", Sure.SEEN, "eth0")
    monkeypatch.setattr(neighbours, "_ours", lambda: ours)
    scene.told = {"router": ("10.0.0.6", "10.0.0.5", "fe80::6", "127.0.0.1", "0.0.0.0", "255.255.255.255")}
    found = scene.look()
    assert places(found) == ["dev", "10.0.0.9", "2001:db8::9", "fe80::5%eth0", "10.0.0.5", "10.0.0.6"]
    assert scene.questions == ["router"]
    assert [(each.identity.mac, each.identity.has_agent) for each in found[1:] if each.identity] == [(MAC, False)] * 5
    assert scene.reasons == "vm 110 (dev) has no guest agent"


def test_addresses_that_are_somebodys_are_left_out(scene: Scene) -> None:
    """Whatever a table says: the hypervisor's, another host's."""
    scene.has(neighbours=("router",)).hypervisor(Agentless(agent=False))
    scene.told = {"router": ("192.0.2.12", "192.0.2.1", "198.51.100.1", "10.0.0.1", "10.0.0.5")}
    assert places(scene.look()) == ["dev", "10.0.0.5"]
    assert "router says 192.0.2.12, which the hypervisor's API has: left out" in scene.reasons
    assert "router says 198.51.100.1, which the node prom has: left out" in scene.reasons
    assert "router says 10.0.0.1, which router has: left out" in scene.reasons


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        *(("192.0.2.12", "the hypervisor's API"), ("192.0.2.1", "the node prom"), ("192.0.2.2", "the node gone")),
        *(("198.51.100.1", "the node prom"), ("10.0.0.1", "router"), ("10.0.0.254", "its gateway"), ("10.0.0.9", "")),
    ],
)
def test_what_is_declared_or_told_by_the_agent_may_be_somebodys_too(scene: Scene, address: str, whose: str) -> None:
    fixed = replace(
        DEV.settings, cloud_init=CloudInitSettings(addresses={"ipconfig0": f"ip={address}/24,gw=10.0.0.254"})
    )
    kept = [] if whose else [address]
    client = Agentless(system="ID=nixos\n", addresses=("10.0.0.5",))
    scene.has(vm=replace(DEV, settings=fixed)).hypervisor(client)
    assert places(scene.look()) == ["dev", *kept, "10.0.0.5"]
    left_out = f"managed.dev says {address}, which {whose} has: left out"
    assert scene.reasons == (left_out if whose else "")
    # those end the search; what hosts.nix says of another may be outdated
    if whose not in ("the hypervisor's API", "the node prom", "the node gone"):
        scene.has().hypervisor(Agentless(system="ID=nixos\n", addresses=(address,)))
        assert places(scene.look()) == ["dev", address]
    client = Agentless(exists=True)
    scene.has(vm=replace(DEV, settings=fixed)).hypervisor(client)
    search = scene.search_for(scene.shared.host("dev"))
    found = search.places()
    assert [next(found).address for _ in range(1 + len(kept))] == ["dev", *kept]
    assert client.asked == []


def test_a_gateway_is_nobodys_address_whoever_says_it(scene: Scene) -> None:
    """Not by the guest's configuration either, nor by a table; without a hypervisor by the files alone."""
    scene.has(neighbours=("router",)).hypervisor(
        Agentless(agent=False, config_={"ipconfig0": "ip=10.0.0.7/24,gw=10.0.0.7"})
    )
    scene.told = {"router": ("10.0.0.7", "10.0.0.5")}
    assert places(scene.look()) == ["dev", "10.0.0.5"]
    assert "its configuration says 10.0.0.7, which its gateway has: left out" in scene.reasons
    fixed = CloudInitSettings(addresses={"ipconfig0": "ip6=2001:db8:5:0::1/64,gw6=2001:db8:5::1"})
    scene.has(vm=replace(DEV, settings=replace(DEV.settings, cloud_init=fixed)))
    scene.shared.asks_nobody()
    assert places(scene.look()) == ["dev"]
    assert "managed.dev says 2001:db8:5::1, which its gateway has: left out" in scene.reasons


def test_without_a_hypervisor_a_declared_card_is_enough(scene: Scene) -> None:
    scene.has(vm=replace(DEV, settings=replace(DEV.settings, networks=CARD)), neighbours=("router",))
    scene.told = {"router": ("10.0.0.5",)}
    assert places(scene.look()) == ["dev", "10.0.0.5"]
    assert scene.reasons.startswith("the hypervisor cannot be asked: token file ")
    scene.has(neighbours=("router",))
    assert places(scene.look()) == ["dev"]
    assert "the MAC of vm 110 (dev) is not known, so nobody can be asked" in scene.reasons


def test_what_cannot_be_asked_is_said_once_for_many(scene: Scene) -> None:
    scene.look()
    other = replace(PINNED, id="other", hostname="other")
    vms = {"dev": DEV, "other": replace(DEV, name="other", vmid=112, host_id="other")}
    scene.shared.fleet = replace(scene.shared.fleet, hosts={"dev": PINNED, "other": other}, vms=vms)
    search = scene.search_for(other)
    list(search.places())
    assert search.reasons == ["the hypervisor cannot be asked, either, for the same reason as dev"]
    assert isinstance(search.problem, FleetError)


def test_a_machine_that_does_not_tell_is_a_reason(scene: Scene) -> None:
    scene.has(neighbours=("router",)).hypervisor(Agentless(agent=False))
    assert places(scene.look()) == ["dev"]
    assert "router does not tell its neighbours: no SSH at 10.0.0.1: Connection refused" in scene.reasons
    scene.told = {"router": ()}
    assert places(scene.look()) == ["dev"]
    assert f"router has not seen {MAC} lately" in scene.reasons


def test_what_the_token_may_not_ask_is_no_end(scene: Scene) -> None:
    def forbidden(*given: object) -> Any:
        raise ApiError("Permission check failed (/vms/110, VM.GuestAgent.Audit)", 403)

    client = Agentless(system="ID=nixos\n")
    client.agent_interfaces = forbidden  # type: ignore[assignment,method-assign]
    scene.has(neighbours=("router",)).hypervisor(client)
    scene.told = {"router": ("10.0.0.5",)}
    assert places(scene.look()) == ["dev", "10.0.0.5"]
    assert "Permission check failed" in scene.reasons


def test_a_container_and_a_documented_guest_have_the_hypervisors_word_too(scene: Scene) -> None:
    client = Agentless(addresses=("10.0.0.5",), system="whatever")
    for vm in (replace(DEV, type=GuestType.LXC), replace(DEV, origin="imported")):  # type: ignore[arg-type]
        scene.has(vm=vm).hypervisor(client)
        assert places(scene.look()) == ["dev", "10.0.0.5"]


def test_a_network_is_searched_only_where_that_is_said(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[list[str]] = []

    def listening(wanted: list[str]) -> list[str]:
        searched.append(wanted)
        return ["10.9.9.2"]

    monkeypatch.setattr(keyscan, "listening", listening)
    monkeypatch.setattr(keyscan, "showing", lambda key, found: found if key == KEY else [])
    scene.hypervisor(Agentless(agent=False))
    assert places(scene.look()) == ["dev"]
    assert searched == []
    monkeypatch.setattr(Agentless, "node_addresses", lambda self: {"10.9.9.3": "prom"})
    scene.shared.hypervisor._addresses.forget()
    scene.has(discover=("10.9.9.0/29",))
    assert places(scene.look()) == ["dev", "10.9.9.2"]
    assert places(scene.look()) == ["dev", "10.9.9.2"]
    assert searched == [["10.9.9.1", "10.9.9.2", "10.9.9.4", "10.9.9.5", "10.9.9.6"]], "without the node's, and once"
    scene.shared.context.sightings.listening["10.9.9.0/29"]._seconds = 0.0
    for _ in range(keyscan.MOST_SEARCHES + 2):
        scene.look()
    assert len(searched) == keyscan.MOST_SEARCHES
    assert "it was searched 3 times by this run already" in scene.reasons
    scene.has(vm=replace(DEV, discover=()), discover=("10.9.9.0/29",))
    assert places(scene.look()) == ["dev"]


def test_whom_it_is_for(scene: Scene) -> None:
    def is_for(host: Host, hints: Hints = NO_HINTS) -> bool:
        parts: dict[str, Any] = dict.fromkeys(("hypervisor", "sightings", "run", "tell"))
        return Search.of(scene.shared.keys, host, hints, Look(), **parts) is not None

    assert is_for(scene.shared.host("dev"))
    assert not is_for(scene.shared.host("dev"), Hints(host_key=KEY))
    scene.has(HOST)
    assert not is_for(scene.shared.host("dev")), "a machine without a pinned key has nothing to prove itself by"
    assert not is_for(ROUTER)
