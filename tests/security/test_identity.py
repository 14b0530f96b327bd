"""A machine's word about itself is not an identity: a guest that says it is another machine gets nothing done there.

The lab acts it out. `dev2` is a managed VM whose root wrote another machine's public host key into its own /etc/ssh,
took that machine's address with ARP off, repeats its boot_id, and says what suits it of the system that it runs. The
other machine is `dev`, whose key hosts.nix pins, or `nas`, which no definition names; all keys of the operator's fit.
"""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.integration.lab_driver import Ended, Lab, edit, starts, until
from tests.integration.strangers import HOST_KEY_FILE, make_debian

DEV, DEV2, NAS = 110, 111, 113
PLACEHOLDER = 'publicKey = "placeholder: set when the machine has been installed";'
COMMANDS = {
    "provision": "-y inventory.py deploys/provision.py --limit dev2",
    "install": "-y inventory.py deploys/install.py --limit dev2",
    "enroll": "-y inventory.py deploys/enroll.py --limit dev2",
    "exec": "-y inventory.py --limit dev2 exec -- touch /etc/was-here",
    "fact": "inventory.py --limit dev2 fact facts.nixos.CurrentSystem",
    "deploy": "-y inventory.py deploys/deploy.py --limit dev2",
    "reboot": "-y inventory.py deploys/reboot.py --limit dev2 --data force=true",
    "secrets": "-y inventory.py deploys/secrets_check.py --limit dev2",
}
RECORDER = """set -e
cat >/var/recorder <<'END'
#!/bin/sh
printf '%s' "$*" >"$(mktemp /var/tmp/recorded/XXXXXXXX)"
exec /bin/sh "$@"
END
chmod 755 /var/recorder; mkdir -m 1777 /var/tmp/recorded
sed -i -E 's#^(root|abl030):(.*):[^:]*$#\\1:\\2:/var/recorder#' /etc/passwd
mkdir -p -m 700 /root/.ssh; cp ~abl030/.ssh/authorized_keys /root/.ssh/authorized_keys
"""
LOOK = (
    "cat /proc/sys/kernel/random/boot_id; "
    "find /etc /root /home /boot /srv /opt -xdev -type f -exec sha256sum {} + | sort | sha256sum"
)


@dataclass(frozen=True)
class Scene:
    """The lab with the three of them; what is done to the other machines is seen by the agent, past SSH."""

    lab: Lab

    def on(self, vmid: int, script: str) -> str:
        agent = f"/nodes/prom/qemu/{vmid}/agent"
        pid = self.lab.api(f"{agent}/exec", "POST", command=["/bin/sh", "-c", script])["pid"]
        ended = until(lambda: _ended(self.lab.api(f"{agent}/exec-status?pid={pid}")), 10, script)
        assert ended["exitcode"] == 0, ended
        return str(ended.get("out-data", ""))

    def state(self, vmid: int) -> tuple[str, list[str]]:
        """Its files and its boot, and from what it has booted."""
        return self.on(vmid, LOOK), self.lab.boots(vmid)

    def recorded(self, vmid: int) -> list[str]:
        """Return the commands that were handed to the login shells there since the last call, each as one line.

        Each command has a file of its own: logins at once would mix their lines in one file.
        """
        return self.on(
            vmid, "cd /var/tmp/recorded; for f in *; do [ ! -e $f ] || { tr '\\n' ' ' <$f; echo; rm $f; }; done"
        ).splitlines()

    def impersonates(self, vmid: int, marker: str) -> None:
        self.lab("fault", "impostor", "dev2", str(vmid), f"marker={marker}")

    def run(self, *names: str) -> dict[str, Ended]:
        """Those commands, at once: what is refused holds no lock."""
        with ThreadPoolExecutor(4) as pool:
            ended = pool.map(lambda name: self.lab.pyinfra(*COMMANDS[name].split(), check=False), names)
            return dict(zip(names, ended, strict=True))


def _ended(answer: dict[str, object]) -> dict[str, object] | None:
    return answer if answer["exited"] else None


@pytest.fixture(scope="module")
def scene(running_lab: Lab) -> Iterator[Scene]:
    lab = running_lab
    lab("reset")
    lab.places.lab_log.write_text("")
    scene = Scene(lab)
    definitions, hosts = lab.places.fleet / "vms/definitions.nix", lab.places.fleet / "hosts.nix"
    text = definitions.read_text()
    definitions.write_text(re.sub(r"    dev4 = \{.*?\n    \};\n", "", text, flags=re.DOTALL))
    words = ("deploys/provision.py", "--limit", "dev", "--limit", "dev2")
    with lab.under_way("pyinfra", "-y", "inventory.py", *words) as run, ThreadPoolExecutor(1) as pool:
        nas = pool.submit(make_debian, lab, NAS, "nas")
        run.until(starts("installer"))
        run.kill()
        nas.result()
    for vmid in (DEV, NAS):
        scene.on(vmid, RECORDER)
    key = scene.on(DEV, f"cat {HOST_KEY_FILE}").strip()
    edit(hosts, PLACEHOLDER, f'publicKey = "{key}";')  # dev's entry is the first
    lab.run("git", "-C", str(lab.places.fleet), "commit", "--quiet", "--no-verify", "-am", "dev is pinned")
    yield scene
    lab("reset")


ASKING = ("exec", "fact", "deploy", "reboot")


def refused(ended: dict[str, Ended], why: str) -> None:
    """Each of them was, with one line that says so."""
    for name, run in ended.items():
        assert run.status == 3, f"{name}:\n{run.output}"
        lines = [line for line in run.says("dev2") if not line.startswith(("Ready", "Error: ", "find the address"))]
        assert len(lines) == 1, f"{name}:\n{run.output}"
        expected = "vm 111 (dev2) runs no installed system: its agent says that it is" if name in ASKING else why
        assert expected in lines[0], f"{name}:\n{run.output}"


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.xdist_group("identity")  # one scene for both
def test_the_key_of_another_host_is_refused_before_anybody_is_asked(scene: Scene) -> None:
    before = scene.state(DEV)
    scene.recorded(DEV)
    scene.impersonates(DEV, marker="installer")
    refused(scene.run(*COMMANDS), "its agent tells the host key of dev as its own")
    scene.impersonates(DEV, marker="clone")
    refused(scene.run("provision", "deploy"), "its agent tells the host key of dev as its own")
    assert scene.recorded(DEV) == []
    assert scene.state(DEV) == before


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.xdist_group("identity")  # one scene for both
def test_a_machine_that_no_definition_names_gives_no_more_than_the_proof(scene: Scene) -> None:
    before = scene.state(NAS)
    scene.recorded(NAS)
    scene.impersonates(NAS, marker="installer")
    refused(scene.run(*COMMANDS), "is not vm 111 (dev2), which is said to have that address: no card of it")
    scene.impersonates(NAS, marker="clone")
    refused(scene.run("provision"), "is not vm 111 (dev2), which is said to have that address: no card of it")
    commands = scene.recorded(NAS)
    assert commands
    assert [line for line in commands if "nixherd-proof: reads what tells" not in line] == []
    assert scene.state(NAS) == before
    scene.lab("fault", "impostor", "off", "dev2")
    itself = scene.lab.pyinfra("-y", "inventory.py", "--limit", "dev2", "operations.proxmox.address")
    assert "the fresh clone answers at" in itself.output
