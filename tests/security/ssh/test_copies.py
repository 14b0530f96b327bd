"""A copy that does not get on ends, and who logs in is judged by the pinned key."""

import logging
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.host import Host

from nixherd.base.ssh_keys import known_hosts_line
from nixherd.base.waiting import Stalled, Watch
from nixherd.deploy import copy as copying
from nixherd.pyinfra_glue.engine import PyinfraMachine
from tests.nixherd.proxmox.conftest import Emulator
from tests.runs import connected, executing, vm
from tests.security.ssh.conftest import HOP, assert_both_go_through, configure, connector_of, new_key, through
from tests.shared import Shared
from tests.sshd import Sshd

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("emulator")]


# Copies

WATCH: dict[str, Any] = Watch.__init__.__kwdefaults__ or {}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(Watch.__init__, "__kwdefaults__", {**WATCH, "patience": 1.5})
    return 1.5


@pytest.fixture
def machine(run: Callable[..., Host], sshd: Sshd) -> Host:
    key = new_key()
    sshd.start(key)
    return executing(run("metal", host_key=key.public, ssh_hostname="127.0.0.1"))


def test_a_copy_that_does_not_get_on_ends_with_a_sentence(machine: Host, impatient: float) -> None:
    began = time.monotonic()
    with pytest.raises(
        Stalled,
        match=r"^metal: copying to it: no progress for 1.5 s, so it was ended; run it again; it",
    ):
        copying.copy_towards(PyinfraMachine(machine), lambda to: (to.argv("echo copying path x >&2; sleep 60"), {}), 60)
    assert time.monotonic() - began < 60


SLOW = {
    "a lock": "echo 'waiting for the big Nix store lock...' >&2; sleep 3",
    "another lock": "echo 'waiting for lock on \"/nix/store/x.lock\"' >&2; sleep 3",
    "words": "for i in 1 2 3 4 5 6; do sleep 0.5; echo $i >&2; done",
    "bytes": "for i in 1 2 3 4 5 6; do sleep 0.5; head -c 40000 /dev/urandom; done",
}
BUSY = "cp /bin/sh /tmp/nix-busy; timeout 3 /tmp/nix-busy -c 'while :; do :; done' || true"


def test_a_copy_that_gets_on_however_slowly_is_left_alone(machine: Host, impatient: float) -> None:
    """Side by side, each with a patience of its own; and one where nothing but the machine gets on."""

    def copy(script: str) -> int:
        return copying.copy_towards(PyinfraMachine(machine), lambda to: (to.argv(script), {}), 60).status

    with ThreadPoolExecutor(len(SLOW)) as pool:
        assert list(pool.map(copy, SLOW.values())) == [0] * len(SLOW)
    assert copy(BUSY) == 0


def test_what_is_sent_slowly_is_progress(machine: Host, impatient: float, tmp_path: Path) -> None:
    """As the installer is sent: by ssh itself, from a file."""
    send = 'for i in 1 2 3 4 5; do sleep 0.6; head -c 40000 /dev/urandom; done | "$@"'
    sent = copying.copy_towards(
        PyinfraMachine(machine), lambda to: (["sh", "-c", send, "sh", *to.argv("wc -c")], {}), 60
    )
    assert sent.stdout.strip() == "200000"


def test_nix_itself_at_a_machine_whose_store_hangs(
    run: Callable[..., Host],
    sshd: Sshd,
    impatient: float,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nix names the lock that the machine's store waits for; one that says nothing is ended."""
    if not shutil.which("nix"):
        pytest.skip("there is no nix")
    key = new_key()
    hang = (
        "printf '#!/bin/sh\\n%s\\nsleep 30\\n' \"$WORDS\" >/usr/local/bin/nix-store; chmod +x /usr/local/bin/nix-store"
    )
    sshd.start(key, setup=f"WORDS=:; {hang}")
    host = executing(run("metal", host_key=key.public, ssh_hostname="127.0.0.1"))
    caplog.set_level(logging.INFO, logger="pyinfra")
    (tmp_path / "file").write_text(str(time.time()))
    add = ["nix", "--extra-experimental-features", "nix-command", "store", "add", str(tmp_path / "file")]
    path = subprocess.run(add, capture_output=True, text=True, check=True).stdout.strip()
    with pytest.raises(Stalled, match=r"no progress for 1\.5 s"):
        copying.copy_closure(PyinfraMachine(host), [path], is_nixos=True)
    assert "copying again, without the machine's own caches: metal: copying to it: no progress" in caplog.text


def test_a_vms_connection_is_the_same(
    run: Callable[..., Host],
    sshd: Sshd,
    shared: Shared,
    emulator: Emulator,
) -> None:
    """Its address is the hypervisor's word, whatever HostName and Port stand beside its name; ProxyJump is followed."""
    pair, hop = shared.keys.ensure("dev"), new_key("hop")
    vm(emulator, "127.0.0.1", key=pair.public, system="ID=nixos")
    sshd.start(pair, system="ID=nixos")
    sshd.start(hop, address=HOP)
    known = Path.home() / ".ssh" / "known_hosts"
    known.write_text(known_hosts_line(HOP, hop.public, port=sshd.port) + "\n")
    through(sshd)
    config = Path.home() / ".ssh" / "config"
    configure(config.read_text().replace("Host 127.0.0.1\n", f"Host dev\n  HostName 192.0.2.9\n  Port {sshd.port}\n"))
    host = connected(shared, "dev", ssh_key=str(sshd.key))
    assert host.connected
    to = connector_of(host).destination()
    assert (to.address, to.port, [jump.name for jump in to.route.jumps]) == ("127.0.0.1", sshd.port, ["bastion"])
    assert_both_go_through(host)


def test_the_agent_and_the_key_that_the_file_names_are_used_by_both(
    shared: Shared,
    sshd: Sshd,
    agent: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The agent's socket is not a business of the process' environment; only the named key is offered."""
    key = new_key()
    sshd.start(key)
    public = tmp_path / "mine.pub"
    shutil.copy(f"{sshd.key}.pub", public)

    def attempt(text: str) -> Host:
        configure(f"Host 127.0.0.1\n  IdentityAgent {agent}\n{text}")
        shared.changed_ssh_config()
        return connected(shared, "metal", ssh_port=sshd.port, host_key=key.public, ssh_hostname="127.0.0.1")

    assert not attempt("").connected
    assert "it hung up before all of our keys were offered; name the right one" in caplog.text
    for text in (f"  IdentityFile {tmp_path}/mine\n  IdentitiesOnly yes\n", f"  IdentityFile {public}\n"):
        host = attempt(text)
        assert host.connected, text
        assert "SSH_AUTH_SOCK" not in os.environ
        done = subprocess.run(connector_of(host).destination().argv("echo there"), capture_output=True, text=True)
        assert done.stdout == "there\n", done.stderr
    assert not attempt(f"  IdentityFile {tmp_path}/other1\n  IdentitiesOnly yes\n").connected


def test_a_certificate_that_the_file_names_is_used_by_both(
    shared: Shared,
    sshd: Sshd,
    tmp_path: Path,
) -> None:
    key, mine, ca = new_key(), tmp_path / "mine", tmp_path / "ca"
    for each in (mine, ca):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", each], check=True)
    subprocess.run(["ssh-keygen", "-q", "-s", ca, "-I", "us", "-n", "root", f"{mine}.pub"], check=True)
    elsewhere = tmp_path / "certificate of ours.pub"
    (tmp_path / "mine-cert.pub").rename(elsewhere)
    authority = f"cert-authority {Path(f'{ca}.pub').read_text().strip()}"
    sshd.start(key, setup=f"echo {shlex.quote(authority)} >/run/test/authorized_keys")
    configure(f'Host 127.0.0.1\n  IdentityFile {mine}\n  CertificateFile "{elsewhere}"\n')
    host = connected(shared, "metal", ssh_port=sshd.port, host_key=key.public, ssh_hostname="127.0.0.1")
    assert host.connected
    done = subprocess.run(connector_of(host).destination().argv("echo there"), capture_output=True, text=True)
    assert done.stdout == "there\n", done.stderr
