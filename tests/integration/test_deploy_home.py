"""A home on a machine that something else takes care of: the same stages, as its user, without root."""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.deployed import DEADLINES, outcomes, run_deploy
from tests.integration.identities import Identity, encrypt
from tests.integration.lab_driver import Ended, Lab, edit, until
from tests.integration.strangers import make_debian

pytestmark = pytest.mark.slow

VMID = 113  # which the token may make
# A daemon, as Nix' installers set one up; whoever may deploy is trusted.
DAEMON = """
sudo sh -c '
echo trusted-users = abl030 >>/etc/nix/nix.conf
mkdir -p /nix/var/nix/daemon-socket /nix/var/nix/profiles/per-user/abl030
chown abl030 /nix/var/nix/profiles/per-user/abl030
systemd-run --quiet --unit=nix-daemon /usr/bin/nix-daemon'
"""


@dataclass(frozen=True)
class Home:
    """The home of abl030 on caddy."""

    lab: Lab
    address: str
    host_key: str

    def on(self, command: str, check: bool = True, stdin: Path = Path(os.devnull)) -> Ended:
        known: Path = self.lab.state / "known-caddy"
        known.write_text(f"{self.address} {self.host_key}\n")
        options = ["-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
        ssh = shlex.join(["ssh", *options, f"abl030@{self.address}", command])
        return self.lab.run("sh", "-c", f"{ssh} <{stdin}", check=check)

    @property
    def generation(self) -> str:
        return self.on("readlink -f .local/state/nix/profiles/home-manager").output.strip()

    @property
    def generations(self) -> list[str]:
        return self.on("ls .local/state/nix/profiles").output.split()

    def change(self, text: str) -> None:
        """Make this the next home's configuration, beside what it has already."""
        directory = self.lab.places.fleet / "hosts/caddy"
        (directory / "more.nix").write_text(text)
        if "more.nix" not in (directory / "home.nix").read_text():
            edit(directory / "home.nix", "imports = [", "imports = [./more.nix ")
        self.lab.run("sh", "-c", 'cd "$FLEET" && git add -A && git commit -q --no-verify -m change')


@pytest.fixture
def home(lab: Lab) -> Home:
    address, host_key = make_debian(lab, VMID, "caddy")
    hosts = lab.places.fleet / "hosts.nix"
    text = hosts.read_text()
    start = text.index("  caddy = {")
    old = text[text.index('publicKey = "', start) : text.index('";', text.index('publicKey = "', start)) + 2]
    edit(hosts, old, f'publicKey = "{host_key}"; addresses = [ "{address}" ];')
    made = Home(lab, address, host_key)
    made.change('{ home.file.marker.text = "first"; }')
    made.on(DAEMON)
    return made


def test_a_home_is_deployed_kept_and_taken_back(home: Home) -> None:
    ended, document = run_deploy(home.lab, "caddy")
    assert (ended.status, outcomes(document)) == (0, {"caddy": "deployed"}), document
    first = home.generation
    assert first == document["hosts"][0]["new"]
    assert home.on("cat marker").output == "first"
    ended, document = run_deploy(home.lab, "caddy")
    assert (ended.status, outcomes(document)) == (0, {"caddy": "unchanged"})
    home.lab.run("sh", "-c", "git -C $FLEET commit -q --no-verify --allow-empty -m document")
    ended, document = run_deploy(home.lab, "caddy")
    [row] = document["hosts"]
    assert (ended.status, row["outcome"], home.generation) == (0, "revision only", first)
    noted = home.on("cat .local/state/nixherd/revisions").output.split()
    assert noted[:2] == [first, row["revision"]]

    home.change('{ home.file.marker.text = "second"; }')
    ended, document = run_deploy(home.lab, "caddy")
    assert outcomes(document) == {"caddy": "deployed"}
    second = home.generation
    assert (second != first, home.on("cat marker").output) == (True, "second")
    before = home.generations

    for broken, output in (
        ('home.activation.zz = "echo it breaks; exit 3";', "the activation ended with status 3"),
        ('home.activation.zz = "sleep 1000";', "the activation did not end within 8 s"),
    ):
        home.change(f'{{ home.file.marker.text = "third"; {broken} }}')
        ended, document = run_deploy(home.lab, "caddy", *DEADLINES, check=False)
        assert (ended.status, outcomes(document)) == (1, {"caddy": "rolled back"}), document
        assert output in document["hosts"][0]["why"]
        assert (home.generation, home.on("cat marker").output, home.generations) == (second, "second", before)
    assert not home.on("pgrep -f 'sleep 1000'", check=False).output.strip()


def test_a_killed_run_is_taken_back_by_the_home_itself(home: Home) -> None:
    run_deploy(home.lab, "caddy")
    first = home.generation
    home.change('{ home.file.marker.text = "second"; }')
    with home.lab.under_way("nixherd", "deploy", "caddy", *DEADLINES) as run:
        run.until(lambda line: line.startswith("caddy: prove"))
    until(lambda: home.generation == first, 40, "the home goes back")
    ended, document = run_deploy(home.lab, "caddy")
    assert (ended.status, outcomes(document)) == (0, {"caddy": "deployed"})
    assert home.on("cat marker").output == "second"


def test_what_is_in_the_way_of_a_home_is_named_and_kept(home: Home) -> None:
    ended = home.lab.run("nixherd", "deploy", "caddy", "--goal", "boot", "--table", check=False)
    assert ended.status == 2
    assert "caddy: goal=boot: a home can be switched to, and no more" in ended.output

    home.change('{ home.file.marker.text = "first"; home.file."dir/a b".text = "first"; }')
    home.on("mkdir dir; echo mine >marker; echo mine >'dir/a b'")
    ended, document = run_deploy(home.lab, "caddy", check=False)
    [row] = document["hosts"]
    assert (ended.status, row["outcome"]) == (4, "failed")
    assert set(row["why"].removeprefix("caddy: ").partition(" are in the way; ")[0].split(", ")) == {
        f"/home/abl030/{name}" for name in ("dir/a b", "marker")
    }
    assert "; deploy with -b EXT (backup_extension), which moves each to FILE.EXT, or move" in row["why"]
    assert row["why"].endswith("; nothing was changed")
    assert home.on("cat marker; ls -A .local/state/nix/profiles 2>&1", check=False).output.split()[0] == "mine"

    broken = 'home.activation.zz = "echo it breaks; exit 3";'
    home.change(f'{{ home.file.marker.text = "first"; home.file."dir/a b".text = "first"; {broken} }}')
    ended, document = run_deploy(home.lab, "caddy", "-b", "bak", *DEADLINES, check=False)
    assert outcomes(document) == {"caddy": "rolled back"}
    assert home.on("cat marker 'dir/a b'; ls marker* dir/*").output.split() == ["mine", "mine", "dir/a", "b", "marker"]

    home.change('{ home.file.marker.text = "first"; home.file."dir/a b".text = "first"; }')
    ended, document = run_deploy(home.lab, "caddy", "-b", "bak")
    [row] = document["hosts"]
    assert (row["outcome"], {*row["backed_up"]}) == (
        "deployed",
        {"/home/abl030/dir/a b.bak", "/home/abl030/marker.bak"},
    )
    assert home.on("cat marker marker.bak 'dir/a b' 'dir/a b.bak'").output == "firstmine\nfirstmine\n"

    home.on("rm marker && echo again >marker")
    home.change('{ home.file.marker.text = "second"; }')
    ended, document = run_deploy(home.lab, "caddy", "--data", "backup_extension=bak", check=False)
    assert "/home/abl030/marker.bak is there already: move that away, or" in document["hosts"][0]["why"]


def test_the_secrets_of_a_home_open_with_the_persons_key(home: Home, tmp_path: Path) -> None:
    """No host key is in it: the person has put a key there, and what is for that one opens."""
    person, other = Identity.make(tmp_path), home.lab.state / "key"
    encrypt(home.lab, "home-caddy.yaml", "yaml", "token: hush\n", person.recipient)
    home.change("{ sops.secrets.token.sopsFile = ../../secrets/home-caddy.yaml; }")
    other.write_text(person.private)
    home.on("mkdir -p -m 700 .ssh && umask 077 && cat >.ssh/id_ed25519", stdin=other)
    other.unlink()
    ended, document = run_deploy(home.lab, "caddy")
    assert (ended.status, outcomes(document)) == (0, {"caddy": "deployed"}), document
    assert home.on("cat .config/sops-nix/secrets/token").output.strip() == "hush"
    generation = home.on("readlink .config/sops-nix/secrets; stat -Lc %a .config/sops-nix/secrets/token").output.split()
    assert (generation[0].endswith("/secrets.d/1"), generation[1]) == (True, "400")
    prove = ("-y", "inventory.py", "deploys/secrets_check.py", "--limit", "caddy")
    proven = home.lab.pyinfra(*prove).says("caddy")
    assert [line for line in proven if re.match(r"decrypted /\S+/sops-nix/secrets/token \(400 abl030\), salted", line)]

    home.on("rm .ssh/id_ed25519 && ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519")
    home.change('{ sops.secrets.token.sopsFile = ../../secrets/home-caddy.yaml; home.file.more.text = "x"; }')
    ended, document = run_deploy(home.lab, "caddy", check=False)
    assert (ended.status, outcomes(document)) == (1, {"caddy": "rolled back"}), document
    home.on("rm -r /run/user/*/secrets.d")
    refused = home.lab.pyinfra(*prove, check=False)
    assert (refused.status, "caddy: not decrypted: " in refused.output) == (1, True), refused.output
