"""Where a machine is and which key it must show, by what the hypervisor and the operator say."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from nixherd import reach
from nixherd.errors import ApiError, DeadlineExceeded, Refused
from nixherd.proxmox.errors import AgentUnavailable
from nixherd.proxmox.identity import mark
from nixherd.proxmox.listings import Resource
from nixherd.proxmox.models import ExecResult, Interface, VmConfig, VmStatus
from nixherd.reach import Absent, Epoch, Hints, Place, addresses, epoch_of, look, stranger, until
from nixherd.session import Session, Unusable
from nixherd.ssh_keys import generate_ed25519
from tests.nixherd.proxmox.fleets import DEV, FLEET, HOST, KEY

pytestmark = pytest.mark.unit

MAC = "bc:24:11:00:01:10"
AGENTS_KEY = generate_ed25519("clone").public
INSTALLER = "ID=nixos\nVARIANT_ID=installer\n"


@dataclass
class FakeClient:
    """A hypervisor with the VM `dev`, or without it. Methods are those of Client that are used."""

    exists: bool = True
    power: str = "running"
    system: str = "ID=debian\n"
    addresses: tuple[str, ...] = ("192.0.2.110",)
    agent: bool = True
    cloud_init: ExecResult = field(default_factory=lambda: ExecResult(0, "status: done", ""))
    config_: dict[str, Any] = field(default_factory=dict)
    executed: list[list[str]] = field(default_factory=list)

    def status(self, node: str, vmid: int, type: object) -> VmStatus | None:
        return VmStatus.of(vmid, {"name": "dev", "status": self.power}) if self.exists else None

    def config(self, node: str, vmid: int, type: object = None) -> VmConfig | None:
        ours = {"name": "dev", "description": mark(FLEET, DEV), "net0": f"virtio={MAC.upper()},bridge=vmbr0"}
        return VmConfig({**ours, **self.config_}) if self.exists else None

    def resources(self) -> tuple[Resource, ...]:
        return ()

    def is_free(self, vmid: int) -> bool:
        return not self.exists

    def agent_interfaces(self, node: str, vmid: int) -> tuple[Interface, ...]:
        self._answer()
        found = [{"ip-address": address} for address in self.addresses]
        docker = {
            "name": "docker0",
            "hardware-address": "02:42:00:00:00:01",
            "ip-addresses": [{"ip-address": "172.17.0.1"}],
        }
        return (Interface.of(docker), Interface.of({"name": "e", "hardware-address": MAC, "ip-addresses": found}))

    def agent_read(self, node: str, vmid: int, path: str) -> str:
        self._answer()
        return {"/etc/os-release": self.system, reach.HOST_KEY_FILE: f"{AGENTS_KEY}\n"}[path]

    def agent_exec(self, node: str, vmid: int, argv: list[str], timeout: float) -> ExecResult:
        self._answer()
        self.executed.append(argv)
        return self.cloud_init

    def _answer(self) -> None:
        if not self.agent:
            raise AgentUnavailable("QEMU guest agent is not running", 500)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Session(replace(FLEET, vms={"dev": DEV}), tmp_path / "token")


def places(
    session: Session,
    client: FakeClient,
    *,
    patience: float = 10,
    epochs: Collection[Epoch] = tuple(Epoch),
    said: list[str] | None = None,
) -> list[Place]:
    session._memo["client"] = client
    progress = (said if said is not None else []).append
    return look(session, HOST, Hints(), epochs=epochs, patience=patience, progress=progress)


# What runs there


@pytest.mark.parametrize(
    ("os_release", "epoch"),
    [
        ("ID=debian\nVERSION_ID=13\n", Epoch.CLONE),
        ("", Epoch.CLONE),
        ("ID=nixos\n", Epoch.FINAL),
        ("NAME=NixOS\nID='nixos'\nVARIANT_ID=\"\"\n", Epoch.FINAL),
        ('ID=ours\nID_LIKE="nixos"\n', Epoch.FINAL),
        ('ID=nixos\nVARIANT_ID="installer"\n', Epoch.INSTALLER),
        ("no equals sign\nID=nixos", Epoch.FINAL),
    ],
)
def test_os_release_says_which_epoch_it_is(os_release: str, epoch: Epoch) -> None:
    assert epoch_of(os_release) is epoch


# A VM


def test_a_clone_shows_the_key_that_the_agent_reads_once_cloud_init_is_done(session: Session) -> None:
    client = FakeClient()
    assert places(session, client) == [Place("192.0.2.110", Epoch.CLONE, AGENTS_KEY, HOST.user)]
    assert client.executed == [["cloud-init", "status", "--wait"]]


def test_while_planning_a_clone_is_asked_nothing(session: Session) -> None:
    client = FakeClient()
    assert places(session, client, patience=0) == []
    assert client.executed == []


def test_an_installer_is_roots(session: Session) -> None:
    assert places(session, FakeClient(system=INSTALLER)) == [Place("192.0.2.110", Epoch.INSTALLER, AGENTS_KEY, "root")]


def test_an_installed_machine_shows_the_key_that_we_know_and_never_the_agents(session: Session) -> None:
    with pytest.raises(
        Absent, match=r"an installed system answers, but hosts.nix has a placeholder .* put its publicKey"
    ):
        places(session, FakeClient(system="ID=nixos\n"))
    held = session.key_to_install("dev").public
    assert places(session, FakeClient(system="ID=nixos\n")) == [Place("192.0.2.110", Epoch.FINAL, held, HOST.user)]
    session.fleet = replace(session.fleet, hosts={"dev": replace(HOST, public_key=KEY)})
    [place] = places(session, FakeClient(system="ID=nixos\n"))
    assert place.host_key == KEY


@pytest.mark.parametrize(
    ("client", "what"),
    [
        (FakeClient(exists=False), "vm 110 (dev) does not exist on prom"),
        (FakeClient(power="stopped"), "vm 110 (dev) is stopped"),
    ],
)
def test_what_is_absent_is_not_waited_for(session: Session, client: FakeClient, what: str) -> None:
    with pytest.raises(Absent) as caught:
        places(session, client)
    assert caught.value.what == what


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (FakeClient(agent=False), "QEMU guest agent is not running"),
        (FakeClient(addresses=()), "the guest has no address yet"),
        (FakeClient(addresses=("fe80::1", "127.0.0.1")), "the guest has no address yet"),
    ],
)
def test_what_is_on_its_way_is_said(session: Session, client: FakeClient, said: str) -> None:
    lines: list[str] = []
    assert places(session, client, said=lines) == []
    assert lines == [said]


def test_an_epoch_that_is_not_wanted_is_no_place(session: Session) -> None:
    lines: list[str] = []
    assert places(session, FakeClient(), epochs=(Epoch.INSTALLER,), said=lines) == []
    assert lines == ["the clone still answers"]


def test_a_cloud_init_that_failed_is_an_error(session: Session) -> None:
    with pytest.raises(ApiError, match=r"vm 110 \(dev\): cloud-init failed \(1\): status: error"):
        places(session, FakeClient(cloud_init=ExecResult(1, "status: error\n", "")))
    assert places(session, FakeClient(cloud_init=ExecResult(2, "status: done", "")))  # with recoverable errors


@pytest.mark.parametrize("system", ["ID=debian\n", INSTALLER])
def test_nobody_elses_agent_is_believed(session: Session, system: str) -> None:
    client = FakeClient(system=system, config_={"description": "built by hand"})
    with pytest.raises(Refused, match="vm 110 on prom exists but is not this fleet's: its notes lack the line"):
        places(session, client)
    assert client.executed == []
    # an installed one proves itself by the key that we pinned
    session.key_to_install("dev")
    client.system = "ID=nixos\n"
    assert places(session, client)


def test_who_is_a_stranger(session: Session) -> None:
    def found(**config: Any) -> str | None:
        session._memo["client"] = FakeClient(exists=config.pop("exists", True), config_=config)
        return stranger(session, HOST)

    assert found() is None
    assert found(exists=False) is None
    assert found(lock="clone", name="", description="") is None  # a clone in the making
    assert "its name is theirs, not dev" in (found(name="theirs") or "")
    session.fleet = replace(session.fleet, vms={})
    assert found(name="theirs") is None


# A machine that no hypervisor knows of


def metal(session: Session, hints: Hints, **host: Any) -> list[Place]:
    session.fleet = replace(session.fleet, vms={}, hosts={"dev": replace(HOST, **host)})
    everything = tuple(Epoch)
    return look(session, session.host("dev"), hints, epochs=everything, patience=1, progress=lambda said: None)


def test_its_addresses_are_tried_in_order(session: Session) -> None:
    tried = metal(session, Hints(), public_key=KEY, addresses=("b.example", "192.0.2.1"))
    assert [place.address for place in tried] == ["b.example", "192.0.2.1"]
    assert {(place.epoch, place.host_key, place.user) for place in tried} == {(Epoch.FINAL, KEY, HOST.user)}
    assert addresses(replace(HOST, hostname="h", ssh_alias="a")) == ["h", "a"]
    assert addresses(replace(HOST, hostname="h", ssh_alias="h")) == ["h"]


def test_what_its_operator_says_of_it(session: Session) -> None:
    hints = Hints("192.0.2.9", AGENTS_KEY, "admin")
    assert metal(session, hints) == [
        Place("192.0.2.9", Epoch.CLONE, AGENTS_KEY, "admin"),
        Place("192.0.2.9", Epoch.CLONE, AGENTS_KEY, "root"),
    ]
    assert [place.epoch for place in metal(session, hints, public_key=KEY)] == [Epoch.FINAL, Epoch.CLONE, Epoch.CLONE]


def test_without_a_key_there_is_nobody_to_ask(session: Session) -> None:
    with pytest.raises(Absent, match=r"no host key is known to pin; say which one it shows now with --data host_key="):
        metal(session, Hints("192.0.2.9"))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"ssh_hostname": "root@192.0.2.9"}, "--data ssh_hostname=root@192.0.2.9 is no host name or address; the user"),
        ({"ssh_hostname": "-oProxyCommand=x"}, "is no host name or address"),
        ({"install_user": "-l root"}, "--data install_user=-l root is no user's name"),
        ({"host_key": "ssh-ed25519 AAAA"}, "--data host_key: its base64 is cut off or damaged; give it as"),
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


# Waiting


def test_waiting_ends_at_the_deadline_and_says_for_what() -> None:
    began, tries = time.monotonic(), iter([False, False, True])
    until(5, "dev", lambda: next(tries))
    with pytest.raises(DeadlineExceeded, match=r"^dev: waiting: not within 0 s$"):
        until(0.1, "dev: waiting", lambda: False)
    assert time.monotonic() - began < 2
