"""Hops are verified, and paths of any name are paths."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.host import Host

from nixherd.base.ssh_keys import known_hosts_line
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Access
from nixherd.locate.keyscan import key_on
from nixherd.ssh.destination import Destination, Route
from nixherd.trust import hops
from tests.nixherd.proxmox.conftest import Emulator
from tests.runs import connected, shared_at
from tests.security.ssh.conftest import (
    GATE,
    HOP,
    _not_nixos,
    assert_both_go_through,
    configure,
    connector_of,
    new_key,
    through,
)
from tests.shared import Shared
from tests.sshd import Sshd

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("emulator")]


@pytest.mark.parametrize("careless", ["no", "accept-new", "ask"])
def test_a_hop_that_nobody_knows_is_refused(
    run: Callable[..., Host],
    sshd: Sshd,
    careless: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever its entry says; nobody logs in to it, and nothing is asked of a terminal."""
    key, hop = new_key(), new_key("hop")
    sshd.start(key)
    sshd.start(hop, address=HOP)
    through(sshd, f"StrictHostKeyChecking {careless}", "UserKnownHostsFile /dev/null")
    host = run("metal", host_key=key.public, ssh_hostname="127.0.0.1")
    assert not host.connected
    assert f"no SSH at 127.0.0.1 through bastion ({HOP}): Host key verification failed" in caplog.text
    assert sshd.logins == 0


def test_a_hop_is_known_by_the_operators_file_or_by_the_fleet(
    run: Callable[..., Host],
    sshd: Sshd,
    shared: Shared,
    emulator: Emulator,
) -> None:
    key, hop = new_key(), new_key("hop")
    sshd.start(key)
    sshd.start(hop, address=HOP)
    through(sshd, "ForwardAgent yes", "StrictHostKeyChecking no")
    known = Path.home() / ".ssh" / "known_hosts"
    known.write_text(known_hosts_line(HOP, hop.public, port=sshd.port) + "\n")
    assert_both_go_through(run("metal", host_key=key.public, ssh_hostname="127.0.0.1"))
    # a host of the fleet is known by its key there, and by no other one
    configure((Path.home() / ".ssh" / "config").read_text().replace("bastion", "Gate"))
    shared.changed_ssh_config()
    assert not run("metal", host_key=key.public, ssh_hostname="127.0.0.1").connected
    known.write_text("")
    sshd.kill()
    sshd.start(key)
    sshd.start(GATE, address=HOP)
    assert_both_go_through(run("metal", host_key=key.public, ssh_hostname="127.0.0.1"))


def test_a_hop_that_the_fleet_names_is_known_by_its_pinned_key_alone(
    run: Callable[..., Host],
    sshd: Sshd,
    shared: Shared,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever known_hosts and ssh_config say of it, or of the way; and the machine behind it by its own key."""
    key, impostor = new_key(), new_key("impostor")

    def hosts(**gate: Any) -> None:
        usual = {
            "addresses": (HOP,),
            "port": sshd.port,
            "public_key": GATE.public,
            "access": Access.SHELL,
            "jump": None,
        }
        there = {**usual, **gate}
        changed = {
            "metal": replace(shared.fleet.hosts["metal"], jump=("Gate",)),
            "Gate": replace(shared.fleet.hosts["Gate"], **there),
        }
        shared.fleet = replace(shared.fleet, hosts={**shared.fleet.hosts, **changed})

    hosts()
    configure("Host 127.0.0.1\n  ProxyCommand false\nHost *\n  StrictHostKeyChecking no\n  User nobody\n")
    sshd.start(key)
    sshd.start(GATE, address=HOP)
    host = run("metal", host_key=key.public, ssh_hostname="127.0.0.1")
    assert_both_go_through(host)
    assert [jump.name for jump in connector_of(host).destination().route.jumps] == ["Gate"]
    assert not run("metal", host_key=new_key("another").public, ssh_hostname="127.0.0.1").connected
    with (Path.home() / ".ssh" / "config").open("a") as config:  # who reads a key is told nothing beside
        config.write(f"Host Gate\n  IdentityFile {sshd.key}\n")
    metal = replace(shared.fleet.hosts["metal"], port=sshd.port)
    with hops.connected(shared.fleet, HostKeys(shared.fleet, shared.run), metal, "127.0.0.1") as connection:
        assert connection
        assert key.public.startswith(key_on(connection))
    direct = run("metal", host_key=key.public, ssh_hostname="127.0.0.1", ssh_jump="none")
    assert direct.connected
    assert connector_of(direct).destination().route == Route()
    assert not run("metal", host_key=key.public, ssh_hostname="127.0.0.1", ssh_jump="-oX").connected
    assert "--data ssh_jump: '-oX' is not a [USER@]NAME[:PORT]; write a host's id" in caplog.text
    hosts(public_key=None)
    caplog.clear()
    before = sshd.logins
    assert not run("metal", host_key=key.public, ssh_hostname="127.0.0.1").connected
    assert "jump: Gate has no pinned key; `nixherd trust Gate` pins it" in caplog.text
    hosts(access=Access.TRIGGER)
    assert not run("metal", host_key=key.public, ssh_hostname="127.0.0.1").connected
    assert "jump: Gate takes forced commands alone (trigger)" in caplog.text
    hosts(jump=("metal",))
    assert not run("metal", host_key=key.public, ssh_hostname="127.0.0.1").connected
    assert "jump: Gate is reached through itself" in caplog.text
    hosts()
    sshd.kill()
    known = Path.home() / ".ssh" / "known_hosts"
    known.write_text(known_hosts_line(HOP, impostor.public, port=sshd.port) + "\n")
    sshd.start(key)
    sshd.start(impostor, address=HOP)
    assert not run("metal", host_key=key.public, ssh_hostname="127.0.0.1").connected
    assert f"no SSH at 127.0.0.1 through Gate ({HOP}): " in caplog.text
    assert sshd.logins == before, "nobody was logged in to"


def test_two_hops_and_a_command_before_them(
    run: Callable[..., Host],
    sshd: Sshd,
    tmp_path: Path,
) -> None:
    """Each is verified; the machine's own key is still the pinned one."""
    key, first, second = new_key(), new_key("first"), new_key("second")
    sshd.start(key)
    sshd.start(first, address="127.0.0.2")
    sshd.start(second, address="127.0.0.3")
    known = Path.home() / ".ssh" / "known_hosts"
    hops = [("127.0.0.2", first), ("127.0.0.3", second)]
    known.write_text("".join(known_hosts_line(at, pair.public, port=sshd.port) + "\n" for at, pair in hops))
    common = f"  User root\n  Port {sshd.port}\n  IdentityFile {sshd.key}\n"
    (tmp_path / "carry.py").write_text(CARRY)
    command = f"  ProxyCommand {shutil.which('python3')} {tmp_path}/carry.py %h %p {tmp_path}/began\n"
    configure(
        "Host 127.0.0.1\n  ProxyJump first,root@second\n"
        f"Host first\n  HostName 127.0.0.2\n{common}{command}"
        f"Host second\n  HostName 127.0.0.3\n{common}",
    )
    host = run("metal", host_key=key.public, ssh_hostname="127.0.0.1")
    assert_both_go_through(host)
    assert [jump.name for jump in connector_of(host).destination().route.jumps] == ["first", "second"]
    assert (tmp_path / "began").exists()
    assert not run("metal", host_key=new_key("another").public, ssh_hostname="127.0.0.1").connected


def test_a_command_of_the_operators_leads_to_the_machine(
    run: Callable[..., Host],
    sshd: Sshd,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    shared: Shared,
) -> None:
    """As OpenSSH runs it: by a shell, tokens replaced; ended with the connection. Its last words are the reason."""
    key = new_key()
    sshd.start(key)
    pipe = tmp_path / "carry.py"
    pipe.write_text(CARRY)
    began = f"{tmp_path}/$UNSET'began 100%%'"
    configure(f"Host 127.0.0.1\n  ProxyCommand {shutil.which('python3')} {pipe} %h %p {began} %n %r\n")
    host = run("metal", host_key=key.public, ssh_hostname="127.0.0.1")
    assert host.connected
    output = (tmp_path / "began 100%").read_text().split()
    assert output[1:] == ["127.0.0.1", "root"]
    assert Path(f"/proc/{output[0]}").exists()
    to = connector_of(host).destination()
    done = subprocess.run(to.argv("echo there"), capture_output=True, text=True, timeout=20)
    assert done.stdout == "there\n", done.stderr
    host.disconnect()
    assert not Path(f"/proc/{output[0]}").exists()
    configure("Host 127.0.0.1\n  ProxyCommand echo the door is shut >&2; exit 1\n")
    shared.changed_ssh_config()
    assert not run("metal", host_key=key.public, ssh_hostname="127.0.0.1").connected
    assert "no SSH at 127.0.0.1 through the ProxyCommand of your ssh_config: the door is shut" in caplog.text


FAILS = """\
from pathlib import Path
from nixherd.link.client import Keys, PinnedClient
from nixherd.ssh.destination import Destination, Identities, Route
from paramiko import Transport
to = Destination("192.0.2.1", "root", Path("/dev/null"), route=Route(command="echo no way >&2; exit 1"))
client = PinnedClient()
try:
    client.open(to, Keys("root", Identities()), Transport, 5)
except Exception as error:
    print(client.why(error))
client.close()
"""


@pytest.mark.process
def test_what_fails_on_the_way_is_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", FAILS], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("no way\n", "")


CARRY = """\
import os, socket, sys, threading
with open(sys.argv[3], "w") as began:
    print(os.getpid(), *sys.argv[4:], file=began)
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        there.sendall(data)
    os._exit(0)
threading.Thread(target=up).start()
while data := there.recv(65536):
    os.write(1, data)
os._exit(0)
"""


# Paths

ODD = "a b %h $x ${HOME} \"q'"


def test_paths_are_taken_as_they_are(
    emulator: Emulator,
    sshd: Sshd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """State in a directory with blanks, percent and dollar signs: both programs, and those that split at blanks."""
    odd = tmp_path / ODD
    monkeypatch.setenv("XDG_STATE_HOME", str(odd))
    home = tmp_path / "home with %d and $y"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    shutil.copy(sshd.key, home / ".ssh" / "id_ed25519")
    key = new_key()
    sshd.start(key)
    shared = shared_at(emulator, tmp_path)
    shared.fleet = replace(shared.fleet, hosts={**shared.fleet.hosts, "metal": _not_nixos(shared)})
    host = connected(shared, "metal", ssh_port=sshd.port, host_key=key.public, ssh_hostname="127.0.0.1")
    assert host.connected
    to = connector_of(host).destination()
    for command in (
        to.argv("echo there"),
        ["sh", "-c", f"ssh {to.nix_sshopts} {to.target} echo there"],
        ["sh", "-c", 'exec ssh $NIX_SSHOPTS "$0" echo there', to.target],  # as nixos-rebuild does it
    ):
        env = {**os.environ, "NIX_SSHOPTS": to.nix_sshopts}
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=env)
        assert done.stdout == "there\n", done.stderr
    used = shared.run.known_hosts_of("metal")
    host.disconnect()
    shared.run.close()
    assert not used.exists()
    assert not used.parent.parent.exists()


@pytest.mark.parametrize("name", ["a b", "%h%%", "$x$", "a'b", 'a"b', "back\\slash", "#c", "~", "=x", "%d"])
def test_a_known_hosts_file_of_any_name_is_read(sshd: Sshd, tmp_path: Path, name: str) -> None:
    key = new_key()
    sshd.start(key)
    known = tmp_path / name
    known.write_text(known_hosts_line("127.0.0.1", key.public, port=sshd.port) + "\n")
    to = Destination("127.0.0.1", "root", known, port=sshd.port, identity=sshd.key)
    done = subprocess.run(to.argv("echo there"), capture_output=True, text=True, timeout=20)
    assert done.stdout == "there\n", done.stderr
