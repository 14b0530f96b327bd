"""Fixtures of the library's tests that need more than values: an API of states, machines that are an sshd each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.places import cache_directory
from lab.setup import prepare
from nixherd.base.ssh_keys import generate_ed25519
from tests.nixherd.proxmox.conftest import emulator, started  # noqa: F401  (fixtures)
from tests.sshd import Sshd, free_port, usable


@pytest.fixture(scope="session")
def operator_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key file, its public half beside it."""
    pair = generate_ed25519("operator")
    file = tmp_path_factory.mktemp("operator") / "id_ed25519"
    file.write_text(pair.private_openssh)
    file.chmod(0o600)
    file.with_name("id_ed25519.pub").write_text(pair.public + "\n")
    return file


@pytest.fixture(scope="session")
def base_root() -> Path:
    if reason := usable():
        pytest.skip(reason)
    return prepare(cache_directory(), print).base


@pytest.fixture
def sshd(base_root: Path, operator_key: Path, tmp_path: Path) -> Iterator[Sshd]:
    """A machine that has yet to be started."""
    (tmp_path / "sshd").mkdir()
    machine = Sshd(base_root, tmp_path / "sshd", free_port(), operator_key)
    yield machine
    machine.kill()
