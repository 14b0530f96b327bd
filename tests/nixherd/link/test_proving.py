"""Which host of the fleet this machine is."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.base.errors import Refused
from nixherd.base.ssh_keys import generate_ed25519
from nixherd.link import proving
from nixherd.link.proving import require_is_this
from tests.nixherd.proxmox.fleets import HOST

THIS = replace(HOST, hostname=os.uname().nodename)
OURS, THEIRS = (generate_ed25519(name).public for name in ("ours", "theirs"))


@pytest.fixture(autouse=True)
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(proving, "HOST_KEY_FILE", tmp_path / "key.pub")
    return tmp_path / "key.pub"


def test_it_is_the_one_with_its_name_and_its_key(key_file: Path) -> None:
    require_is_this(THIS, OURS, "nixherd.nix")  # it has no key, as a machine without sshd
    key_file.write_text(f"{OURS} root@here\n")
    require_is_this(THIS, OURS, "nixherd.nix")
    require_is_this(THIS, None, "nixherd.nix")
    require_is_this(replace(THIS, hostname=f"{THIS.hostname.partition('.')[0]}.lan"), OURS, "nixherd.nix")


def test_another_name_is_another_machine() -> None:
    with pytest.raises(Refused, match=r"this machine is called .*, and dev in nixherd\.nix elsewhere; name the host"):
        require_is_this(replace(THIS, hostname="elsewhere"), None, "nixherd.nix")


def test_the_name_alone_is_not_enough(key_file: Path) -> None:
    key_file.write_text(THEIRS)
    with pytest.raises(Refused, match=r"is not the publicKey of dev in nixherd\.nix"):
        require_is_this(THIS, OURS, "nixherd.nix")
