"""What other programs are told of a connection: the same pins as ours."""

import shutil
import subprocess
from pathlib import Path

import pytest

from nixherd.base.ssh_keys import generate_ed25519, known_hosts_line
from nixherd.ssh.destination import Destination
from tests.sshd import Sshd

TO = Destination("192.0.2.7", "root", Path("/state/known"))
needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh")


@pytest.mark.lab
@needs_ssh
def test_openssh_understands_every_option() -> None:
    said = subprocess.run(["ssh", "-G", *TO.options, TO.target], capture_output=True, text=True, check=True).stdout
    understood = dict(line.split(" ", 1) for line in said.splitlines() if " " in line)
    assert understood["stricthostkeychecking"] == "true"
    assert (understood["userknownhostsfile"], understood["globalknownhostsfile"]) == ("/state/known", "/dev/null")
    assert (understood["batchmode"], understood["updatehostkeys"]) == ("yes", "false")
    assert (understood["user"], understood["hostname"], understood["port"]) == ("root", "192.0.2.7", "22")
    assert (understood["controlmaster"], understood.get("controlpath", "none")) == ("false", "none")
    assert understood.get("knownhostscommand", "none") == "none"


def test_one_identity_or_all_that_are_offered() -> None:
    offered = (Path("/h/.ssh/id_ed25519"), Path("/h/.ssh/id_rsa"))
    both = Destination("a", "u", Path("k"), offered=offered).options
    assert [option for option in both if option.startswith("Identit")] == [
        "IdentityFile=/h/.ssh/id_ed25519",
        "IdentityFile=/h/.ssh/id_rsa",
        "IdentitiesOnly=no",
    ]
    one = Destination("a", "u", Path("k"), identity=Path("/x/key"), offered=offered).options
    assert [option for option in one if option.startswith("Identit")] == ["IdentityFile=/x/key", "IdentitiesOnly=yes"]


def test_the_command_is_one_word_and_no_option() -> None:
    assert TO.argv("rm -rf /x && y")[-3:] == ["--", "root@192.0.2.7", "rm -rf /x && y"]
    assert "Port=2222" in Destination("a", "u", Path("k"), port=2222).options


def test_addresses_of_both_kinds() -> None:
    six = Destination("2001:db8::7", "root", Path("k"))
    assert (TO.url, six.url) == ("ssh://root@192.0.2.7", "ssh://root@[2001:db8::7]")
    assert six.target == "root@2001:db8::7"


@needs_ssh
def test_another_key_is_refused_by_openssh_too(sshd: Sshd, tmp_path: Path) -> None:
    key, other = generate_ed25519("host"), generate_ed25519("other")
    sshd.start(key)
    known = tmp_path / "known_hosts"
    to = Destination("127.0.0.1", "root", known, port=sshd.port, identity=sshd.key)
    for pinned, status in ((other, 255), (key, 0)):
        known.write_text(known_hosts_line("127.0.0.1", pinned.public, port=sshd.port) + "\n")
        done = subprocess.run(to.argv("echo there"), capture_output=True, text=True, timeout=20)
        assert (done.returncode, done.stdout) == (status, "there\n" if status == 0 else ""), done.stderr
    assert sshd.logins == 1
