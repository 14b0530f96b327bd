"""A run at the emulator, and an sshd that plays the machine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.host import Host

from nixherd.base.ssh_keys import KeyPair, generate_ed25519
from nixherd.locate import reach
from nixherd.pyinfra_glue.fleet import FleetConnector
from tests.nixherd.proxmox.conftest import Emulator
from tests.runs import Said, connected, executing, said_by, shared_at, vm
from tests.shared import Shared
from tests.sshd import MAC, Sshd


@pytest.fixture
def shared(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shared:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # loopback is not an address that others can reach
    monkeypatch.setattr(reach, "address_of", lambda config, interfaces: interfaces[0].addresses[0])
    return shared_at(emulator, tmp_path)


@pytest.fixture
def run(shared: Shared, sshd: Sshd) -> Callable[..., Host]:
    """A run over one host, connected as pyinfra does it."""

    def start(host_id: str = "dev", **data: Any) -> Host:
        return connected(shared, host_id, **{"ssh_port": sshd.port, "ssh_key": str(sshd.key), **data})

    return start


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    return said_by(caplog)


def connector_of(host: Host) -> FleetConnector:
    assert isinstance(host.connector, FleetConnector)
    return host.connector


def installing(host: Host) -> Host:
    """A run that installs the machine, as its operations say when their turn comes."""
    connector_of(host).installs = True
    return executing(host)


def new_key(name: str = "host") -> KeyPair:
    return generate_ed25519(name)


SYSTEMS = {"clone": "ID=debian", "installer": "ID=nixos\nVARIANT_ID=installer", "final": "ID=nixos"}
Machine = Callable[..., None]


@pytest.fixture
def machine(emulator: Emulator, sshd: Sshd, shared: Shared) -> Machine:
    """The VM `dev` in an epoch, and an sshd with its key, which need not be in it."""

    def start(epoch: str, *, shows: str | None = None, mac: str = MAC, **config: Any) -> None:
        pair = shared.keys.ensure("dev") if epoch == "final" else new_key()
        vm(emulator, "127.0.0.1", key=pair.public, system=SYSTEMS[epoch], **config)
        sshd.start(pair, system=SYSTEMS[shows or epoch], mac=mac)

    return start


def known_at(shared: Shared, *addresses: str) -> KeyPair:
    """`dev` is installed, its key is pinned, and hosts.nix says where it is."""
    pair = new_key()
    dev = replace(shared.host("dev"), public_key=pair.public, addresses=addresses)
    shared.fleet = replace(shared.fleet, hosts={**shared.fleet.hosts, "dev": dev})
    return pair


def until_dead(host: Host) -> Host:
    """Wait until the kernel has told us that the connection is gone."""
    client = connector_of(host).client
    assert client is not None
    transport = client.get_transport()
    assert transport is not None
    transport.join(5)
    return host
