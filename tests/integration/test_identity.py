"""The user's identity: decrypted by the machine's host key as it boots, and the home's secrets open with it."""

from pathlib import Path

from nixherd import ssh_to_age
from tests.integration.deployed import Fleet, outcomes
from tests.integration.identities import Identity, encrypt
from tests.integration.lab_driver import edit, until
from tests.integration.verified import report

MAIN = ".ssh/id_ed25519"
TOKEN = ".config/sops-nix/secrets/token"


def test_the_host_key_opens_the_identity_and_that_the_secrets_of_the_home(fleet: Fleet, tmp_path: Path) -> None:
    root, person = fleet.lab.places.fleet, Identity.make(tmp_path)
    machine = ssh_to_age.recipient(report(fleet.lab, "dev")["host_key"])
    encrypt(fleet.lab, "ssh_key_dev", "binary", person.private, machine)
    encrypt(fleet.lab, "home-dev.yaml", "yaml", "token: hush\n", person.recipient)
    dev = 'hostname = "dev";'
    edit(root / "hosts.nix", dev, f'{dev} sshKeyName = "ssh_key_dev";')
    edit(
        root / "hosts/dev/home.nix",
        "home.stateVersion",
        "sops.secrets.token.sopsFile = ../../secrets/home-dev.yaml;\n  home.stateVersion",
    )
    fleet.commit()
    _ended, document = fleet.deploy("dev")
    assert outcomes(document) == {"dev": "deployed"}, document

    def seen() -> list[str]:
        return fleet.on("dev", f"ssh-keygen -y -f {MAIN} && stat -Lc '%U %a' {MAIN} .ssh && cat {TOKEN}").output.split(
            "\n"
        )

    now = [person.public, "abl030 400", "abl030 700", "hush"]
    assert seen() == now
    # a machine that boots for the first time has none of it yet
    before = fleet.on("dev", "rm -r .ssh .config/sops-nix; cat /proc/sys/kernel/random/boot_id").output
    fleet.lab.run("nixherd", "reboot", "dev", "--force")
    assert fleet.on("dev", "cat /proc/sys/kernel/random/boot_id").output != before
    until(lambda: fleet.on("dev", f"test -e {TOKEN}", check=False).status == 0, 30, "the home is activated")
    assert seen() == now
    # what a person puts there stays
    fleet.on("dev", f"rm {MAIN} && echo mine >{MAIN} && sudo systemd-tmpfiles --create 2>/dev/null; cat {MAIN}")
    assert fleet.on("dev", f"cat {MAIN}").output.strip() == "mine"
