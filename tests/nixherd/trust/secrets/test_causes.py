"""What a machine says of its keys, and what sops-install-secrets complained of: real tools, a journal's lines."""

import os
import subprocess
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.nix.declared import Identity
from nixherd.trust.secrets.causes import Causes, parse, script
from nixherd.trust.secrets.keys import age
from tests.nixherd.trust.secrets.keys import key

PROGRAM = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-sops-install-secrets-0.0.1/bin/sops-install-secrets"
JOURNAL = f"""#!/bin/sh
case $* in
  *_SYSTEMD_UNIT=sops-install-secrets.service*_TRANSPORT=kernel | *sops-nix.service*_UID=0) ;;
  *) exit 1 ;;
esac
cat <<'LINES'
systemd[1]: Starting sops-install-secrets.service...
stage-2-init: {PROGRAM}: Imported /x
stage-2-init: Cannot read ssh key '/etc/ssh/none': open /etc/ssh/none: no such file or directory
{PROGRAM}: failed to decrypt \
'/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-dev.yaml': Error getting data key
LINES
"""


def causes(place: Path, identity: Identity, *, unit: bool = False) -> Causes:
    tools = {"journalctl": JOURNAL, "systemctl": f"#!/bin/sh\n{'true' if unit else 'false'}\n"}
    (place / "bin").mkdir(exist_ok=True)
    for name, text in tools.items():
        (place / "bin" / name).write_text(text)
        (place / "bin" / name).chmod(0o755)
    env = {"PATH": f"{place}/bin:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", script(identity)], env=env, capture_output=True, text=True, timeout=20)
    return parse(done.stdout.splitlines(), identity)


def private(place: Path, name: str) -> str:
    path = place / name
    path.write_text(key(name).private_openssh)
    path.chmod(0o600)
    return str(path)


def test_the_keys_by_their_public_halves(tmp_path: Path) -> None:
    paths = (private(tmp_path, "dev"), str(tmp_path / "none"))
    found = causes(tmp_path, Identity(None, age_ssh_keys=paths), unit=True)
    first, second = found.keys
    assert (first.recipients, first.line) == ((key("dev").age,), " ".join(key("dev").public.split()[:2]))
    assert (second.recipients, second.is_absent) == ((), True)
    assert (found.recipients, found.has_unit, found.has_gnupg) == (frozenset([key("dev").age]), True, False)


def test_an_age_key_file_by_its_comments(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    recipient = key("admin").recipient
    file.write_text(f"# created: 2026\n# public key: {recipient}\nAGE-SECRET-KEY-1NOTONE\n")
    found = causes(tmp_path, Identity("root", age_key_file=str(file), gnupg_home="/root/.gnupg"))
    assert found.recipients == frozenset([age(recipient)])
    assert (found.has_unit, found.has_gnupg) == (False, True)


def test_a_key_that_cannot_be_read_makes_all_unknown(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    broken.chmod(0o600)
    found = causes(tmp_path, Identity(None, age_ssh_keys=(private(tmp_path, "dev"), str(broken))))
    assert found.recipients is None
    rsa = tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", rsa], check=False)
    assert causes(tmp_path, Identity(None, age_ssh_keys=(str(rsa),))).recipients is None


@pytest.mark.parametrize("user", [None, "root"])
def test_the_last_complaints_without_the_stores_hashes(tmp_path: Path, user: str | None) -> None:
    assert causes(tmp_path, Identity(user)).complaints == (
        "Cannot read ssh key '/etc/ssh/none': open /etc/ssh/none: no such file or directory",
        "sops-install-secrets: failed to decrypt 'dev.yaml': Error getting data key",
    )


def test_a_cut_off_answer_is_not_one() -> None:
    with pytest.raises(FleetError, match="its answer was cut off"):
        parse(["nixherd-causes", "unit=yes"], Identity(None))
