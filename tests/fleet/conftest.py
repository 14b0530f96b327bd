"""The reference fleet as the lab has it, locked to the stand-ins: evaluated and built offline."""

from pathlib import Path

import pytest

from tests.fleet.rolling import FLAKE, HOSTS, Forge
from tests.fleet_copy import make


@pytest.fixture(scope="session")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's copy, whose lock names the stand-ins. Tests only read it."""
    return make(tmp_path_factory.mktemp("fleet") / "fleet", machines=3)


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    forge = Forge(tmp_path)
    for name in ("upstream", "credentials", "runtime", "state"):
        (tmp_path / name).mkdir()
    forge.upstream("1")
    forge.sh(
        "git init -q --bare -b main origin.git;"
        "for clone in person repo; do git clone -q origin.git $clone 2>/dev/null; done;"
        "cp repo/.git/config credentials/clone; (umask 077; nix key generate-secret --key-name t-1 >credentials/key)"
    )
    (tmp_path / "person/flake.nix").write_text(FLAKE.replace("UPSTREAM", str(tmp_path / "upstream")))
    (tmp_path / "person/hosts.nix").write_text(HOSTS)
    forge.git("checkout", "--quiet", "-B", "main")
    forge.git("add", "--all")
    forge.git("commit", "--quiet", "--message", "first")
    forge.git("push", "--quiet", "origin", "main")
    return forge
