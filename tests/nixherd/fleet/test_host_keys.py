"""The private half that is kept here, and the key that hosts.nix pins."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nixherd.base.errors import FleetError
from nixherd.base.run import Run
from nixherd.base.ssh_keys import KeyPair, generate_ed25519, parse_public_key
from nixherd.fleet.host_keys import HostKeys
from nixherd.locate.reach import Epoch, Hints, Look, Place, look
from tests.nixherd.proxmox.fleets import FLEET, HOST


@pytest.fixture(autouse=True)
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def with_key(public_key: str | None = None) -> HostKeys:
    hosts = {"dev": replace(HOST, id="dev", public_key=public_key), "web": replace(HOST, id="web")}
    return HostKeys(replace(FLEET, hosts=hosts), Run(FLEET.id))


@pytest.fixture
def keys() -> HostKeys:
    return with_key()


def put(keys: HostKeys, private: str, mode: int = 0o600) -> Path:
    """As an operator does it: the private half alone."""
    path = keys.private_key_file("dev")
    path.parent.mkdir(parents=True)
    path.write_text(private)
    path.chmod(mode)
    return path


def test_a_private_half_alone_is_a_host_key(keys: HostKeys) -> None:
    pair = generate_ed25519("somebody's")
    put(keys, pair.private_openssh)
    held = keys.held("dev")
    assert held == KeyPair(pair.private_openssh, f"{parse_public_key(pair.public).bare} root@{HOST.hostname}")
    assert with_key(pair.public).problem("dev") is None
    assert with_key(generate_ed25519("another").public).problem("dev") is not None


def test_an_operators_key_is_never_overwritten(keys: HostKeys) -> None:
    pair = generate_ed25519("")
    path = put(keys, pair.private_openssh)
    assert keys.to_install("dev").private_openssh == pair.private_openssh
    assert path.read_text() == pair.private_openssh


def test_a_public_half_of_another_key_is_not_believed(keys: HostKeys) -> None:
    """As two runs at once could leave it."""
    made = keys.ensure("dev")
    keys.private_key_file("dev").with_suffix(".pub").write_text(generate_ed25519("").public)
    assert keys.held("dev") == made


@pytest.mark.parametrize(
    ("private", "mode", "reason"),
    [
        ("", 0o600, "it is not a private key in OpenSSH's form, or damaged; "),
        (generate_ed25519("").private_openssh[:200], 0o600, "it is not a private key in OpenSSH's form, or damaged; "),
        (generate_ed25519("").public, 0o600, "it is not a private key in OpenSSH's form, or damaged; "),
        (generate_ed25519("").private_openssh, 0o644, "others may read this private key (mode 0644); chmod 600 it"),
    ],
    ids=["empty", "cut off", "public", "open"],
)
def test_a_key_that_cannot_be_used_is_one_clear_line(keys: HostKeys, private: str, mode: int, reason: str) -> None:
    path = put(keys, private, mode)
    with pytest.raises(FleetError) as caught:
        keys.to_install("dev")
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)
    assert keys.problem("dev") == str(caught.value)
    assert path.read_text() == private
    # what hosts.nix says is enough to reach the machine
    assert with_key("ssh-ed25519 AAAA").pinned("dev") == "ssh-ed25519 AAAA"


def test_a_key_whose_private_half_is_gone_stays_pinned_in_the_run(keys: HostKeys) -> None:
    """`post_provision.py deploy.py` in one line: hosts.nix was read before it pinned the key."""
    public = keys.ensure("dev").public
    keys.forget("dev")
    assert keys.held("dev") is None
    assert (keys.pinned("dev"), keys.owner(public, but="web")) == (public, "dev")
    with pytest.raises(FleetError, match="its private half is not in"):
        keys.to_install("dev")
    assert with_key().pinned("dev") is None


def test_a_metal_host_answers_with_the_key_that_was_pinned_since(keys: HostKeys) -> None:
    with pytest.raises(FleetError, match=r"hosts.nix pins no host key of it"):
        places(keys)
    public = keys.ensure("dev").public
    keys.forget("dev")
    assert {(place.epoch, place.host_key) for place in places(keys)} == {(Epoch.FINAL, public)}


def places(keys: HostKeys) -> list[Place]:
    hypervisor: Any = SimpleNamespace(fleet=replace(keys.fleet, vms={}))
    return look(hypervisor, keys, keys.fleet.hosts["dev"], Hints(), Look())
