"""Where a machine is and which key it must show, by what the hypervisor and the operator say."""

from dataclasses import replace

import pytest

from nixherd.base.errors import ApiError, Refused
from nixherd.locate.reach import (
    Absent,
    Epoch,
    Place,
    epoch_of,
)
from nixherd.proxmox.answers import ExecResult
from tests.nixherd.locate.reach.conftest import AGENTS_KEY, INSTALLER, FakeClient, places
from tests.nixherd.proxmox.fleets import HOST, KEY
from tests.shared import Shared

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


def test_a_clone_shows_the_key_that_the_agent_reads_once_cloud_init_is_done(shared: Shared) -> None:
    client = FakeClient()
    assert places(shared, client) == [Place("192.0.2.110", Epoch.CLONE, AGENTS_KEY, HOST.user)]
    assert client.executed == [["cloud-init", "status", "--wait"]]


def test_while_planning_a_clone_is_asked_nothing(shared: Shared) -> None:
    client = FakeClient()
    assert places(shared, client, patience=0) == []
    assert client.executed == []


def test_an_installer_is_roots(shared: Shared) -> None:
    assert places(shared, FakeClient(system=INSTALLER)) == [Place("192.0.2.110", Epoch.INSTALLER, AGENTS_KEY, "root")]


def test_an_installed_machine_shows_the_key_that_we_know_and_never_the_agents(shared: Shared) -> None:
    with pytest.raises(
        Absent, match=r"an installed system answers, but hosts.nix pins no publicKey of it .* put its publicKey"
    ):
        places(shared, FakeClient(system="ID=nixos\n"))
    held = shared.keys.to_install("dev").public
    assert places(shared, FakeClient(system="ID=nixos\n")) == [Place("192.0.2.110", Epoch.FINAL, held, HOST.user)]
    shared.fleet = replace(shared.fleet, hosts={"dev": replace(HOST, public_key=KEY)})
    [place] = places(shared, FakeClient(system="ID=nixos\n"))
    assert place.host_key == KEY


@pytest.mark.parametrize(
    ("client", "what"),
    [
        (FakeClient(exists=False), "vm 110 (dev) does not exist on prom"),
        (FakeClient(power="stopped"), "vm 110 (dev) is stopped"),
    ],
)
def test_what_is_absent_is_not_waited_for(shared: Shared, client: FakeClient, what: str) -> None:
    with pytest.raises(Absent) as caught:
        places(shared, client)
    assert caught.value.what == what


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (FakeClient(agent=False), "QEMU guest agent is not running"),
        (FakeClient(addresses=()), "the guest has no address yet"),
        (FakeClient(addresses=("fe80::1", "127.0.0.1")), "the guest has no address yet"),
    ],
)
def test_what_is_on_its_way_is_said(shared: Shared, client: FakeClient, said: str) -> None:
    lines: list[str] = []
    assert places(shared, client, said=lines) == []
    assert lines == [said]


def test_an_epoch_that_is_not_wanted_is_no_place(shared: Shared) -> None:
    lines: list[str] = []
    assert places(shared, FakeClient(), epochs=(Epoch.INSTALLER,), said=lines) == []
    assert lines == ["the clone still answers"]


def test_a_cloud_init_that_failed_is_an_error(shared: Shared) -> None:
    with pytest.raises(ApiError, match=r"vm 110 \(dev\): cloud-init failed \(1\): status: error"):
        places(shared, FakeClient(cloud_init=ExecResult(1, "status: error\n", "")))
    assert places(shared, FakeClient(cloud_init=ExecResult(2, "status: done", "")))  # with recoverable errors


@pytest.mark.parametrize("system", ["ID=debian\n", INSTALLER])
def test_nobody_elses_agent_is_believed(shared: Shared, system: str) -> None:
    client = FakeClient(system=system, config_={"description": "built by hand"})
    with pytest.raises(Refused, match="vm 110 on prom exists but is not this fleet's: its notes lack the line"):
        places(shared, client)
    assert client.executed == []
    # an installed one proves itself by the key that we pinned
    shared.keys.to_install("dev")
    client.system = "ID=nixos\n"
    assert places(shared, client)
