"""The proof on a machine of the lab, with sops-nix' links and generations: what is wrong, and that its advice mends it.

Each case is brought about, named by deploys/secrets_check.py, and mended by doing what that says, and nothing else.
"""

import re
from pathlib import Path

import pytest

from nixherd.base.errors import Exit
from tests.integration.deployed import Fleet, outcomes
from tests.integration.identities import encrypt
from tests.integration.lab_driver import edit, until

pytestmark = pytest.mark.slow

KEY = "/etc/ssh/ssh_host_ed25519_key"
TOKEN, CONF = "/var/lib/walk/token", "/run/secrets/rendered/walk"
MODULE = """{config, ...}: {
  sops.secrets.walk = {
    sopsFile = ../../secrets/walk.yaml;
    path = "/var/lib/walk/token";
    owner = "abl030";
    mode = "0440";
  };
  sops.secrets.early = {sopsFile = ../../secrets/walk.yaml; key = "walk"; neededForUsers = true;};
  sops.templates.walk.content = "t=${config.sops.placeholder.walk}";
}
"""


class Walk:
    """dev, its checks, and what their advice says, done."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.lab = fleet, fleet.lab
        self.root: Path = fleet.lab.places.fleet

    def check(self) -> tuple[int, list[str]]:
        ended = self.lab.pyinfra("-y", "inventory.py", "deploys/secrets_check.py", "--limit", "dev", check=False)
        return ended.status, ended.says("dev")

    def is_right(self) -> list[str]:
        """What is reported where all is as declared."""
        status, lines = self.check()
        assert status == Exit.DONE, lines
        return [line.removeprefix("decrypted ").split(",")[0] for line in lines if line.startswith("decrypted ")]

    def advice(self, *words: str) -> str:
        status, lines = self.check()
        assert status == Exit.FAILED, lines
        [line] = [line for line in lines if line.startswith("dev: ")]
        assert all(word in line for word in words), line
        return line

    def follow(self, line: str) -> None:
        """Do what a line says, step by step."""
        for quoted, move in re.findall(r"`([^`]+)`|move (\S+) away there", line):
            if move:
                self.fleet.on("dev", f"sudo mv {move} {move}.old")
            elif quoted.startswith("sudo "):
                self.fleet.on("dev", quoted)
            else:
                self.lab.run("sh", "-c", f"cd $FLEET && {quoted}")

    def configure(self, text: str) -> None:
        (self.root / "hosts/dev/walk.nix").write_text(text)
        self.fleet.commit()


@pytest.fixture
def walk(fleet: Fleet) -> Walk:
    """dev declares a secret with a path of its own, one for users, a template; their file is for the operator alone."""
    walk = Walk(fleet)
    recipient = re.search(r"&abl030 (age1\w+)", (walk.root / "secrets/.sops.yaml").read_text())
    assert recipient is not None
    rules = walk.root / "secrets/.sops.yaml"
    rules.write_text(f"{rules.read_text().rstrip()}\n\n  - path_regex: ^walk\\.yaml$\n    age: {recipient[1]}\n")
    encrypt(fleet.lab, "walk.yaml", "yaml", "walk: hush\n", recipient[1])
    edit(walk.root / "hosts/dev/configuration.nix", "./disko.nix", "./disko.nix\n    ./walk.nix")
    walk.configure(MODULE)
    return walk


def test_each_advice_is_done_until_all_is_right(walk: Walk) -> None:
    fleet = walk.fleet
    # not a recipient
    _ended, document = fleet.deploy("dev", check=False)
    assert outcomes(document) == {"dev": "rolled back"}, document
    line = walk.advice(TOKEN, CONF, "not encrypted for it: secrets/walk.yaml; `nixherd secrets add-host dev`")
    walk.follow(line)
    right = walk.is_right()
    assert {f"{TOKEN} (440 abl030)", f"{CONF} (400 root)", "/run/secrets-for-users/early (400 root)"} <= set(right)

    # the rule names it, the file does not
    recipient = re.search(r"- &abl030 (age1\w+)", (walk.root / "secrets/.sops.yaml").read_text())
    assert recipient is not None
    encrypt(fleet.lab, "walk.yaml", "yaml", "walk: other\n", recipient[1])
    fleet.commit()
    fleet.on("dev", f"sudo rm -r /run/secrets {TOKEN}")
    walk.follow(walk.advice("not encrypted for it: secrets/walk.yaml; `nixherd secrets apply`, then `nixherd deploy"))
    assert walk.is_right() == right

    # an older system
    more = 'sops.secrets.more = {sopsFile = ../../secrets/walk.yaml; key = "walk";};\n}\n'
    walk.configure(MODULE.rstrip().removesuffix("}") + more)
    walk.follow(walk.advice("/run/secrets/more: its system is older than the files", "; `nixherd deploy dev`"))
    assert set(walk.is_right()) == {*right, "/run/secrets/more (400 root)"}

    # what shadows a link, and what somebody changed
    fleet.on("dev", f"sudo rm {TOKEN} && echo mine | sudo tee {TOKEN}")
    walk.follow(walk.advice(f"not linked: {TOKEN}: {TOKEN} is a file there", "; `sudo /run/current-system/activate`"))
    walk.is_right()
    fleet.on("dev", f"sudo rm {TOKEN} && sudo mkdir -p {TOKEN}/full")
    walk.follow(walk.advice(f"{TOKEN} is a directory there", f"; move {TOKEN} away there, then `sudo /run/cur"))
    walk.is_right()
    fleet.on("dev", "sudo chmod 644 /run/secrets/more")
    walk.follow(walk.advice("not as declared: /run/secrets/more: its mode is 0644, declared 0400; `sudo"))
    walk.is_right()

    # its key is gone
    fleet.on("dev", f"sudo mv {KEY} {KEY}.old && sudo rm /run/secrets")
    line = walk.advice(f"{KEY}, which it decrypts with, does not exist there; put it there, then `sudo ")
    fleet.on("dev", f"sudo mv {KEY}.old {KEY}")
    walk.follow(line)
    walk.is_right()


def test_what_sops_install_secrets_complains_of_is_named(walk: Walk) -> None:
    fleet = walk.fleet
    walk.lab.run("sh", "-c", "cd $FLEET && nixherd secrets add-host dev")
    before = fleet.on("dev", "cat /proc/sys/kernel/random/boot_id").output
    walk.configure(MODULE.replace('"abl030"', '"ghost"; group = "root"'))
    fleet.deploy("dev", "--goal", "boot")
    walk.lab.run("nixherd", "reboot", "dev", "--force", check=False)
    until(
        lambda: fleet.on("dev", "cat /proc/sys/kernel/random/boot_id", check=False).output not in (before, ""), 60, ""
    )
    words = "it says: sops-install-secrets: manifest is not valid: failed to lookup user 'ghost'"
    line = walk.advice(words, "; declare the user ghost, or give the secret to another one, then `nixherd deploy dev`")
    walk.configure(MODULE)
    walk.follow(line)
    walk.is_right()


def test_a_declared_file_that_does_not_exist_is_made(walk: Walk) -> None:
    walk.lab.run("sh", "-c", "cd $FLEET && nixherd secrets add-host dev && git rm -q secrets/walk.yaml")
    walk.fleet.commit()
    status, lines = walk.check()
    assert status == Exit.REMOTE, lines
    step = "secrets/walk.yaml (sops.secrets.walk) does not exist; `nixherd secrets edit secrets/walk.yaml`, then"
    assert any(step in line for line in lines), lines
    editor = walk.lab.state / "editor"
    editor.write_text('#!/bin/sh\necho "walk: made" >"$1"\n')
    editor.chmod(0o755)
    walk.lab.run("sh", "-c", f"cd $FLEET && EDITOR={editor} nixherd secrets edit secrets/walk.yaml && git add -A")
    walk.fleet.commit()
    walk.lab.run("sh", "-c", "cd $FLEET && nixherd deploy dev")
    walk.is_right()


def test_a_machine_with_another_key(walk: Walk) -> None:
    """Somebody made a new key; sshd shows the old one until it is restarted."""
    fleet, hosts = walk.fleet, walk.root / "hosts.nix"
    walk.lab.run("sh", "-c", "cd $FLEET && nixherd secrets add-host dev && nixherd deploy dev")
    walk.is_right()
    known = walk.lab.kept / "dev/verified.json"
    before = known.read_text()
    fleet.on(
        "dev", f"for f in {KEY} {KEY}.pub; do sudo mv $f $f.old; done; sudo ssh-keygen -q -t ed25519 -N '' -f {KEY}"
    )
    fleet.on("dev", "sudo rm /run/secrets")
    try:
        line = walk.advice(f"encrypted for the key that hosts.nix pins, and {KEY} there is another one: ")
        step = re.search(r'restart sshd there, set dev\.publicKey = "([^"]+)" in hosts\.nix', line)
        assert step is not None, line
        fleet.on("dev", "sudo systemctl restart sshd || sudo systemctl restart ssh")
        start = hosts.read_text().index("\n  dev = {")
        old = re.search(r'publicKey = "([^"]+)"', hosts.read_text()[start:])
        assert old is not None
        edit(hosts, old[1], step[1])
        known.write_text(before.replace(" ".join(old[1].split()[:2]), step[1]))
        fleet.commit()
        walk.follow(line)
        walk.is_right()
    finally:
        back = f"for f in {KEY} {KEY}.pub; do sudo mv $f.old $f; done"
        fleet.on("dev", f"{back}; sudo systemctl restart sshd || sudo systemctl restart ssh", check=False)
        known.write_text(before)
