"""What the homelab modules do on a machine: the user's identity opens the secrets of the home; the LAN comes first."""

from pathlib import Path

import pytest

from nixherd.ssh import age
from tests.integration.deployed import Fleet, outcomes
from tests.integration.identities import Identity, encrypt
from tests.integration.lab_driver import edit, until
from tests.integration.verified import report

MAIN = ".ssh/id_ed25519"
TOKEN = ".config/sops-nix/secrets/token"


@pytest.mark.slow
def test_the_host_key_opens_the_identity_and_that_the_secrets_of_the_home(fleet: Fleet, tmp_path: Path) -> None:
    root, person = fleet.lab.places.fleet, Identity.make(tmp_path)
    machine = age.recipient(report(fleet.lab, "dev")["host_key"])
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


def test_a_machine_in_the_lan_goes_there_directly_and_elsewhere_by_the_mesh(fleet: Fleet) -> None:
    """homelab.tailscale's rule beside a table as tailscaled makes it: 52, asked at 5270."""
    [card] = fleet.on("dev", "ip -o -4 addr show scope global | awk '{print $2}' | sort -u").output.split()
    mesh = "sudo ip route add 192.168.1.0/24 dev lo table 52 && sudo ip rule add priority 5270 lookup 52"
    fleet.on("dev", mesh)
    try:
        ask = "ip -4 route get 192.168.1.9"
        assert " dev lo " in fleet.on("dev", ask).output
        fleet.on("dev", f"sudo ip addr add 192.168.1.7/24 dev {card}")
        assert f" dev {card} " in fleet.on("dev", ask).output
        fleet.on("dev", "sudo systemctl restart homelab-lan-first")
        assert fleet.on("dev", "ip -4 rule | grep -c 192.168.1.0/24").output.strip() == "1"
        fleet.on("dev", "sudo systemctl stop homelab-lan-first")
        assert " dev lo " in fleet.on("dev", ask).output
    finally:
        undo = f"ip addr del 192.168.1.7/24 dev {card}; ip rule del priority 5270; systemctl start homelab-lan-first"
        fleet.on("dev", f"sudo sh -c '{undo}'", check=False)
