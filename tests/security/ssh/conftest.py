"""Machines that are an sshd each, and the configurations that others may have put there."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.host import Host

from nixherd.base.ssh_keys import KeyPair, generate_ed25519
from nixherd.fleet import models
from nixherd.locate import reach
from nixherd.pyinfra_glue.fleet import FleetConnector
from tests.nixherd.conftest import base_root, operator_key, sshd  # noqa: F401  (fixtures)
from tests.nixherd.proxmox.conftest import Emulator, emulator, started  # noqa: F401  (fixtures)
from tests.runs import connected, executing, shared_at
from tests.shared import Shared
from tests.sshd import Sshd

GATE = generate_ed25519("a hop that is a host of the fleet")


def _not_nixos(shared: Shared) -> models.Host:
    """The host that this very machine stands for, which runs another system: what answers is what is meant."""
    return replace(shared.fleet.hosts["metal"], configuration_file=None)


@pytest.fixture
def shared(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:  # noqa: F811
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "home" / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(reach, "address_of", lambda config, interfaces: interfaces[0].addresses[0])
    shared = shared_at(emulator, tmp_path)
    metal = replace(_not_nixos(shared), ssh_alias=None, hostname="metal")
    gate = replace(metal, id="Gate", hostname="gate", public_key=GATE.public, addresses=None)
    shared.fleet = replace(shared.fleet, hosts={**shared.fleet.hosts, "metal": metal, "Gate": gate})
    yield shared
    shared.run.close()


@pytest.fixture
def run(shared: Shared, sshd: Sshd) -> Callable[..., Host]:  # noqa: F811
    def start(host_id: str = "metal", **data: Any) -> Host:
        return connected(shared, host_id, **{"ssh_port": sshd.port, "ssh_key": str(sshd.key), **data})

    return start


def connector_of(host: Host) -> FleetConnector:
    assert isinstance(host.connector, FleetConnector)
    return host.connector


def configure(text: str) -> None:
    file = Path.home() / ".ssh" / "config"
    file.write_text(text)
    file.chmod(0o600)


def new_key(name: str = "host") -> KeyPair:
    return generate_ed25519(name)


# Hops

HOP = "127.0.0.2"


def through(sshd: Sshd, *more: str) -> None:  # noqa: F811
    """A configuration that leads to 127.0.0.1 through the hop."""
    lines = [f"HostName {HOP}", f"Port {sshd.port}", "User root", f"IdentityFile {sshd.key}", *more]
    configure("Host 127.0.0.1\n  ProxyJump bastion\nHost bastion\n" + "".join(f"  {line}\n" for line in lines))


def assert_both_go_through(host: Host) -> None:
    """The machine sees the hop: we come from our own address, it from the one that the kernel gives it."""
    assert host.connected
    to = connector_of(host).destination()
    assert [str(jump).split()[0] for jump in to.route.jumps]
    ok, output = executing(host).run_shell_command("echo there")
    assert (ok, output.stdout) == (True, "there")
    done = subprocess.run(to.argv("echo there"), capture_output=True, text=True, timeout=20)
    assert done.stdout == "there\n", done.stderr
    nix = subprocess.run(["sh", "-c", f"ssh {to.nix_sshopts} {to.target} echo there"], capture_output=True, text=True)
    assert nix.stdout == "there\n", nix.stderr


# Logging in


@pytest.fixture
def agent(tmp_path: Path, sshd: Sshd) -> Iterator[Path]:  # noqa: F811
    """A real agent at a path of its own, which holds our key among others."""
    path = tmp_path / "agent.sock"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    while not path.exists():
        time.sleep(0.01)
    env = {**os.environ, "SSH_AUTH_SOCK": str(path)}
    for number in range(6):  # as many as a server takes, and more than that with ours
        other = tmp_path / f"other{number}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
        subprocess.run(["ssh-add", "-q", other], env=env, check=True)
    subprocess.run(["ssh-add", "-q", sshd.key], env=env, check=True)
    yield path
    process.terminate()
    process.wait()
