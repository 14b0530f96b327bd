"""A node of the hypervisor is logged in to by a key that the operator pinned; nobody else gets a login."""

from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.config import Config
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State

from nixherd.base.ssh_keys import KeyPair, generate_ed25519, known_hosts_line
from tests.nixherd.conftest import base_root, operator_key, sshd  # noqa: F401  (fixtures)
from tests.nixherd.proxmox.fleets import FLEET
from tests.shared import Shared
from tests.sshd import Sshd

# What others have in their files, which is to have no part in it.
CARELESS = "Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  ForwardAgent yes\n  User mallory\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(CARELESS)
    return tmp_path


def connected(machine: Sshd, home: Path, **data: Any) -> Host:
    given = {
        "context": Shared(FLEET, home / "token").context,
        "host_id": "node prom",
        "node": "prom",
        "address": "127.0.0.1",
    }
    given |= {"ssh_port": machine.port, "ssh_key": str(machine.key), **data}
    state = State(Inventory(([("@node/prom", given)], {})), Config())
    state.should_raise_failed_hosts = lambda state: False
    host = state.inventory.get_host("prom")
    host.connect()
    return host


def test_no_node_is_logged_in_to_on_trust(
    sshd: Sshd,  # noqa: F811
    home: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key, other = generate_ed25519("root@prom"), generate_ed25519("another")

    def pinned(pair: KeyPair, mark: str = "") -> None:
        line = f"{mark}{known_hosts_line('127.0.0.1', pair.public, port=sshd.port)}\n"
        (home / ".ssh" / "known_hosts").write_text(line)

    sshd.start(key)
    assert not connected(sshd, home).connected
    assert "no host key is known for prom or 127.0.0.1, and none is taken on trust" in caplog.text
    assert not sshd.contacted
    for pair, mark, why in (
        (other, "", "shows another host key than the pinned one"),
        (key, "@cert-authority ", "none is taken on trust"),
        (key, "@revoked ", "is marked as revoked there"),
    ):
        pinned(pair, mark)
        caplog.clear()
        assert not connected(sshd, home).connected
        assert why in caplog.text
    for data, why in (
        ({"host_key": other.public}, "shows another host key"),
        ({"host_key": "nonsense"}, "host_key: "),
        ({"ssh_port": 70000}, "ssh_port=70000: that is not a port"),
        ({"ssh_hostname": "-oProxyCommand=x", "host_key": key.public}, "is not a host name or address"),
    ):
        caplog.clear()
        assert not connected(sshd, home, **data).connected
        assert why in caplog.text
        assert "mistake in nixherd" not in caplog.text
    assert not sshd.contacted
    pinned(other)
    host = connected(sshd, home, host_key=key.public)  # what is said for this run counts
    assert host.connected
    assert not host.connector.client._agent  # type: ignore[attr-defined]
    host.disconnect()
    pinned(key)
    host = connected(sshd, home)
    assert host.connected
    assert host.run_shell_command("id -un")[1].stdout == "root"  # not mallory
    host.disconnect()
    assert sshd.logins == 2
