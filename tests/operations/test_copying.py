"""Closures sent to a machine whose Nix daemon trusts root alone, by a plain user: sudo with and without a password, or
signed. The machine is an sshd over a root of its own, with Nix' daemon, build users and sudo."""

import secrets
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.becoming_root import Root
from nixherd.operations import nix as operations
from nixherd.pyinfra_glue.hosts import connector_of
from nixherd.ssh.destination import told
from tests.integration.test_secrets import files_with, pattern, watched
from tests.nix_cli import environment, nix
from tests.nixherd.proxmox.conftest import Emulator
from tests.runs import Outcome, Said, connected, perform, vm
from tests.shared import Shared
from tests.sshd import Sshd

pytestmark = pytest.mark.xdist_group("emulator")

# What a NixOS has that Debian's root has not: build users, and a daemon that trusts root alone.
MACHINE = """
echo 127.0.0.1 dev >>/etc/hosts
groupadd -g 30000 nixbld
useradd -u 30001 -g nixbld -G nixbld -M -N nixbld1
useradd -m -s /bin/bash plain
echo 'plain:{hashed}' | chpasswd -e
printf '%s\\n' '{sudoers}' >/etc/sudoers.d/plain
sed -i 's/^build-users-group.*/build-users-group = nixbld/' /etc/nix/nix.conf
printf '%s\\n' '{conf}' >>/etc/nix/nix.conf
mkdir -p /nix/var/nix/daemon-socket
env -u NIX_CONF_DIR nix-daemon >/dev/null 2>&1 &
until [ -S /nix/var/nix/daemon-socket/socket ]; do sleep 0.01; done
"""
Machine = Callable[..., Callable[..., Outcome]]
SIGNATURES = "nix --extra-experimental-features nix-command path-info --sigs"
ASKS, FREE, NOT_AT_ALL = "plain ALL=(ALL) ALL", "plain ALL=(ALL) NOPASSWD: ALL", ""


def built(text: str) -> str:
    """A path of the store here that is named by how it was built, so that its content needs a signature."""
    script = f'"echo {text} $$ >$out"'
    expression = (
        'derivation { name = "sent"; system = "x86_64-linux"; builder = "/bin/sh"; '
        f'args = ["-c" {script}]; n = "{secrets.token_hex(8)}"; }}'
    )
    return nix("build", "--no-link", "--print-out-paths", "--impure", "--expr", expression).strip()


@pytest.fixture
def machine(emulator: Emulator, sshd: Sshd, shared: Shared, said: Said) -> Machine:
    """Starts `dev`; returns what performs an operation on it as the plain user."""

    def start(sudoers: str, password: str = "", conf: str = "") -> Callable[..., Outcome]:
        hosts = {**shared.fleet.hosts, "dev": replace(shared.fleet.hosts["dev"], user="plain")}
        shared.fleet = replace(shared.fleet, hosts=hosts)
        pair = shared.keys.ensure("dev")
        vm(emulator, "127.0.0.1", key=pair.public, system="ID=nixos")
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"], input=password or "none", capture_output=True, text=True, check=True
        ).stdout.strip()
        setup = MACHINE.format(hashed=hashed, sudoers=sudoers, conf=conf)
        sshd.start(pair, system="ID=nixos", setup=setup)

        def one(
            operation: Any, *, data: dict[str, Any] | None = None, told: str | None = None, **arguments: Any
        ) -> Outcome:
            host = connected(shared, ssh_port=sshd.port, ssh_key=str(sshd.key), boot_deadline=10, **(data or {}))
            connector_of(host).sudo_password = told
            return perform(host, said, operation, **arguments)

        return one

    return start


def there(sshd: Sshd, command: str) -> str:
    """What a command of root's prints on the machine, past our code."""
    root = Path(f"/proc/{sshd.processes[-1].pid}")
    children = (root / f"task/{root.name}/children").read_text().split()
    enter = ["nsenter", "-t", children[0], "-m", "-p", "chroot", "/mnt/root", "sh", "-c", command]
    done = subprocess.run(enter, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_sudo_without_a_password_takes_what_nobody_signed(machine: Machine, sshd: Sshd) -> None:
    path = built("free")
    outcome = machine(FREE)(operations.copied, paths=[path])
    assert (outcome.changed, outcome.failed) == (True, False), outcome.said
    assert there(sshd, f"stat -c %U {path}; nix-store --verify-path {path} && echo valid").split() == ["root", "valid"]


def test_a_password_goes_to_sudo_and_nowhere_else(machine: Machine, sshd: Sshd, shared: Shared, tmp_path: Path) -> None:
    word = secrets.token_hex(12)
    run = machine(ASKS, word)
    shared.run.sudo_password(lambda: word)
    paths = [built("with a password"), built("and another one")]
    with watched(pattern(word.encode())) as seen:
        outcome = run(operations.copied, paths=paths, data={"sudo_password": "stdin"})
        again = run(operations.copied, paths=paths, data={"sudo_password": "stdin"})
    assert (outcome.failed, again.failed) == (False, False), outcome.said + again.said
    assert seen == set()
    assert "No such file" not in there(sshd, f"cat {' '.join(paths)}")
    assert there(sshd, "cd /home/plain; find . -name '.*' -prune -o -type f -print").strip() == ""
    assert there(sshd, f"grep -rl {word} /home /tmp /var /run /etc 2>/dev/null").strip() == ""
    assert files_with(pattern(word.encode()), tmp_path) == set()


def test_a_password_that_sudo_does_not_ask_for_stays_here(machine: Machine) -> None:
    """It would be the first thing that Nix reads there: a machine may ask no more since it was given."""
    outcome = machine(FREE)(operations.copied, paths=[built("free")], told="unasked")
    assert (outcome.changed, outcome.failed) == (True, False), outcome.said


@pytest.mark.parametrize(
    ("sudoers", "password", "why"),
    [
        (ASKS, None, "sudo asks for a password there; give it on stdin with --data sudo_password=stdin"),
        (ASKS, "wrong", "sudo does not let it be root"),
        (NOT_AT_ALL, "right", "sudo does not let it be root"),
    ],
)
def test_who_may_not_be_root_there_is_told_what_to_do(
    machine: Machine, shared: Shared, sudoers: str, password: str | None, why: str
) -> None:
    run = machine(sudoers, "right")
    if password:
        shared.run.sudo_password(lambda: password)
    outcome = run(operations.copied, paths=[built("x")], data={"sudo_password": "stdin"} if password else {})
    assert outcome.failed
    assert f"its store takes nothing unsigned from plain, and {why}" in outcome.said[-1]
    assert "say sign_with=KEY_FILE" in outcome.said[-1]


def test_what_a_trusted_key_signed_needs_no_root(machine: Machine, sshd: Sshd, tmp_path: Path) -> None:
    key, public = signing_key(tmp_path, "fleet-1")
    path = built("signed")
    run = machine(NOT_AT_ALL, conf=f"trusted-public-keys = {public}")
    outcome = run(operations.copied, paths=[path], data={"sign_with": str(key)})
    assert (outcome.changed, outcome.failed) == (True, False), outcome.said
    assert f"{public.split(':')[0]}:" in there(
        sshd, f"nix --extra-experimental-features nix-command path-info --sigs {path}"
    )


def test_a_key_that_is_not_trusted_there_yet_comes_by_sudo(machine: Machine, sshd: Sshd, tmp_path: Path) -> None:
    key, _public = signing_key(tmp_path, "fleet-1")
    path = built("signed for later")
    outcome = machine(FREE)(operations.copied, paths=[path], data={"sign_with": str(key)})
    assert (outcome.changed, outcome.failed) == (True, False), outcome.said
    assert " fleet-1:" in there(sshd, f"{SIGNATURES} {path}").replace("\t", " ")


def test_a_store_that_is_not_ours_takes_what_its_user_may_bring(machine: Machine, shared: Shared) -> None:
    run = machine(FREE)
    home = replace(shared.fleet.hosts["dev"], configuration_file=None, home_file="/fleet/hosts/dev/home.nix")
    shared.fleet = replace(shared.fleet, hosts={**shared.fleet.hosts, "dev": home})
    outcome = run(operations.copied, paths=[built("a home")])
    assert outcome.failed
    assert "dev: its store takes what a key of its trusted-public-keys has signed, and none has" in outcome.said[-1]


def test_a_key_that_others_may_read_signs_nothing(machine: Machine, tmp_path: Path) -> None:
    key, _public = signing_key(tmp_path, "fleet-1")
    key.chmod(0o640)
    outcome = machine(FREE)(operations.copied, paths=[built("x")], data={"sign_with": str(key)})
    assert outcome.failed
    assert f"{key}: others may read this secret key; chmod 600 it" in outcome.said[-1]


def signing_key(directory: Path, name: str) -> tuple[Path, str]:
    key = directory / name
    key.touch(0o600)
    key.write_text(nix("key", "generate-secret", "--key-name", name))
    public = subprocess.run(
        ["nix", "--extra-experimental-features", "nix-command", "key", "convert-secret-to-public"],
        env=environment(),
        input=key.read_bytes(),
        capture_output=True,
        check=True,
    )
    return key, public.stdout.decode().strip()


def test_the_password_is_there_for_the_programs_time_alone() -> None:
    with told(Root(password="word")) as environment:
        pipe = Path(environment["NIXHERD_SUDO_PIPE"])
        assert (pipe.is_fifo(), pipe.stat().st_mode & 0o777, pipe.parent.stat().st_mode & 0o777) == (True, 0o600, 0o700)
        assert "word" not in repr(Root(password="word"))
    assert not pipe.parent.exists()
    with told(Root()) as environment:
        assert environment == {}
