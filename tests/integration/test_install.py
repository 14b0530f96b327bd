"""NixOS on a machine that no hypervisor knows of: what its operator says of it is all that is known."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nixherd.ssh.login_shell import JOBS
from tests.integration.lab_driver import CHECKOUT, Ended, Lab, edit, until
from tests.integration.strangers import make_debian

pytestmark = pytest.mark.slow

HOST, VMID = "dev2", 111
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmYpLuvHGp/0z8vlqMpElZ7JGPnGpx1e0S3m7pL7s7J"
KEYS, REMOTE = "/tmp/keys", "/tmp/keys/secret.key"
PLACEHOLDER = 'publicKey = "placeholder: set when the machine has been installed";'


@dataclass(frozen=True)
class Metal:
    """A machine with Debian on it; the fleet knows its name and address, and which key it shows is in `host_key`."""

    lab: Lab
    address: str
    host_key: str

    def install(self, *data: str, check: bool = True, dry: bool = False) -> Ended:
        words = [word for item in data for word in ("--data", item)]
        how = "--dry" if dry else "-y"
        return self.lab.pyinfra(how, *words, "inventory.py", "deploys/install.py", "--limit", HOST, check=check)

    @property
    def known(self) -> tuple[str, ...]:
        """What its operator says of it."""
        return (f"ssh_hostname={self.address}", f"host_key={self.host_key}", "install_user=abl030")

    def runs(self) -> str:
        """The ID of its /etc/os-release, by the agent: past SSH."""
        release = str(self.lab.api(f"/nodes/prom/qemu/{VMID}/agent/file-read?file=/etc/os-release")["content"])
        return dict(line.split("=", 1) for line in release.splitlines() if "=" in line)["ID"].strip('"')

    def root(self, command: str) -> str:
        """What root's shell prints there, by the agent: past SSH."""
        place = f"/nodes/prom/qemu/{VMID}/agent"
        pid = self.lab.api(f"{place}/exec", "POST", command=["/bin/sh", "-c", command])["pid"]
        done = until(lambda: ended_of(self.lab.api(f"{place}/exec-status?pid={pid}")), 30, command)
        return str(done.get("out-data", ""))

    def ssh(self, command: str) -> str:
        """On the installed machine, as nothing but its generated key is accepted."""
        known_hosts = self.lab.state / f"known-{HOST}"
        known_hosts.write_text(f"{self.address} {(self.lab.kept / HOST / 'ssh_host_ed25519_key.pub').read_text()}")
        options = ["-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
        return self.lab.run("ssh", *options, f"abl030@{self.address}", command).output.strip()


def ended_of(status: dict[str, Any]) -> dict[str, Any] | None:
    return status if status["exited"] else None


@pytest.fixture
def metal(lab: Lab) -> Iterator[Metal]:
    """Made through the API by somebody else than us; for the fleet it is not a VM."""
    address, host_key = make_debian(lab, VMID, "metal")
    unmanage(lab, address)
    yield Metal(lab, address, host_key)
    subprocess.run(["git", "-C", str(lab.state / "fleet"), "checkout", "--quiet", "."], check=True)


def unmanage(lab: Lab, address: str) -> None:
    """No VM of the fleet's any more, but a machine at an address."""
    definitions = lab.state / "fleet/vms/definitions.nix"
    text = definitions.read_text()
    start = text.index(f"    {HOST} = {{")
    definitions.write_text(text[:start] + text[text.index("    };\n", start) + len("    };\n") :])
    edit(lab.state / "fleet/hosts.nix", f'hostname = "{HOST}";', f'hostname = "{HOST}"; addresses = [ "{address}" ];')


def test_installs_carries_files_and_proves_it_and_again(metal: Metal, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(256)))
    more = f'extra_files={{"/etc/deep down/secret": "{secret}"}}'
    before = metal.lab.changes()
    planned = metal.install(*metal.known, more, dry=True)
    assert metal.runs() == "debian"
    done = metal.install(*metal.known, more)
    assert metal.lab.changes() == before  # no hypervisor was asked
    assert done.rows("Success") == ["installer", "disko", "files", "install", "reboot"]
    steps = ("boot ", "wipe ", "put ", "install ", "reboot ")
    expected = [line for line in planned.says(HOST) if line.startswith(steps)]
    assert [line for line in done.says(HOST) if line in expected] == expected
    assert len(expected) == 5

    assert metal.runs() == "nixos"
    assert metal.ssh("hostname; findmnt -no SOURCE /").split() == [HOST, "/dev/sda2"]
    assert metal.ssh("sudo -n stat -c '%a %U' '/etc/deep down/secret'") == "600 root"
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    assert metal.ssh("sudo -n sha256sum '/etc/deep down/secret'").split()[0] == digest

    again = metal.install(*metal.known, more)
    assert again.rows("Success") == []
    generated = (metal.lab.kept / HOST / "ssh_host_ed25519_key.pub").read_text().strip()
    edit_entry(metal.lab, PLACEHOLDER, f'publicKey = "{generated}";')
    pinned = metal.install(check=False)
    assert pinned.rows("No changes") == ["installer", "disko", "install", "reboot"]
    # every machine knows the pinned keys of all, so that its next system is another one
    assert "it is installed, so it needs a deploy, not an installation" in pinned.output


def test_a_tree_and_a_key_then_no_reboot_and_then_the_rest(metal: Metal, tmp_path: Path) -> None:
    """By `nixherd install`, with an installer that is given as a file; the key is in memory while disko runs."""
    lab, key = metal.lab, tmp_path / "disk.key"
    key.write_text("correct horse battery staple")
    key.chmod(0o600)
    hook = f"stat -c '%a %U %n' {KEYS} {REMOTE}; sha256sum {REMOTE}"
    edit(lab.state / f"fleet/hosts/{HOST}/disko.nix", 'type = "disk";', f'type = "disk"; preCreateHook = "{hook}";')
    tree = tmp_path / "tree"
    (tree / "var/lib/ours").mkdir(parents=True)
    (tree / "var/lib/ours/secret").write_bytes(bytes(range(256)))
    (tree / "var/lib/ours/secret").chmod(0o440)
    (tree / "var/lib/ours").chmod(0o710)
    (tree / "var/lib/link").symlink_to("ours/secret")
    tree.chmod(0o700)
    image = tmp_path / "kexec.tar.gz"
    subprocess.run(["tar", "-C", CHECKOUT / "lab/inputs/nixos-images", "-czf", image, "kexec"], check=True)

    known = ("--address", metal.address, "--host-key", metal.host_key, "--user", "abl030")
    along = ("--extra-files", str(tree), "--chown", "/var/lib/ours", "1234:100", "--kexec", str(image))
    keys = ("--disk-encryption-key", REMOTE, str(key))
    early = installed(lab, *known, "--phases", "disko,install", "--dry-run", status=3)
    assert "is not in an installer that this fleet booted for it" in early["why"]
    row = installed(lab, *known, *along, *keys, "--no-reboot")
    assert (row["outcome"], row["reached"]) == ("done", "installed, not rebooted")
    assert [step.split()[0] for step in row["steps"]] == ["boot", "wipe", "put", "install"]
    assert metal.runs() == "nixos"
    log = metal.root(f"cat {JOBS}/disko.log")
    assert f"700 root {KEYS}\n400 root {REMOTE}\n" in log
    assert f"{hashlib.sha256(key.read_bytes()).hexdigest()}  {REMOTE}" in log
    assert metal.root(f"ls -A {KEYS}") == ""
    assert metal.root(f"grep -rlF '{key.read_text()}' /run {KEYS} /root /var /etc {JOBS} /mnt/etc /mnt/var; true") == ""
    assert metal.root(f"journalctl --no-pager | grep -cF '{key.read_text()}'; true").strip() == "0"
    for kept in (lab.kept, lab.state / "home"):
        found = subprocess.run(["grep", "-rlF", key.read_text(), kept], capture_output=True, text=True).stdout
        assert found == ""

    again = installed(lab, *known, *along, *keys, "--no-reboot")
    assert (again["outcome"], again["steps"], again["reached"]) == ("unchanged", [], "installed, not rebooted")
    rest = installed(lab, *known, "--phases", "reboot")
    assert (rest["outcome"], rest["verified"]["address"]) == ("done", metal.address)
    assert metal.ssh("sudo -n stat -c '%a %u %g' / /var/lib/ours /var/lib/ours/secret").splitlines() == [
        *("755 0 0", "710 1234 100", "440 1234 100")
    ]
    assert metal.ssh("sudo -n sha256sum </var/lib/link").split()[0] == hashlib.sha256(bytes(range(256))).hexdigest()


def installed(lab: Lab, *words: str, status: int = 0) -> dict[str, Any]:
    """What `nixherd install` says of the host."""
    command = ("nixherd", "install", HOST, "--json", "--yes", *words)
    ended = lab.run("sh", "-c", 'exec "$0" "$@" 2>/dev/null', *command, check=False)
    assert ended.status == status, ended.output
    [row] = json.loads(ended.output)["hosts"]
    return dict(row)


def edit_entry(lab: Lab, old: str, new: str) -> None:
    """Edit this host's entry of hosts.nix."""
    hosts = lab.state / "fleet/hosts.nix"
    before, opening, entry = hosts.read_text().partition(f"  {HOST} = {{")
    assert old in entry
    hosts.write_text(before + opening + entry.replace(old, new, 1))


def test_never_without_the_right_host_key_nor_where_a_system_is_pinned(metal: Metal) -> None:
    address = f"ssh_hostname={metal.address}"
    nobody = metal.install(address, check=False)
    assert nobody.says(HOST) == [
        f"{HOST}: hosts.nix pins no host key of it (publicKey), so it is not connected to; `nixherd trust {HOST}` "
        "pins the one that it proves to have; to install it, say which one it shows now with --data "
        "host_key='ssh-ed25519 …'"
    ]
    another = metal.install(address, f"host_key={OTHER_KEY}", "install_user=abl030", check=False)
    [line] = another.says(HOST)
    assert line.startswith(f"{HOST} (clone) at {metal.address} shows another host key than the pinned one (ssh-ed25519")
    stranger = metal.install(address, f"host_key={metal.host_key}", "install_user=nobody", check=False)
    [line] = stranger.says(HOST)
    assert line.startswith(f"nobody@{metal.address} accepts none of our keys; add one to its authorized_keys, or name")
    edit_entry(metal.lab, PLACEHOLDER, f'publicKey = "{OTHER_KEY}";')
    pinned = metal.install(*metal.known, check=False)
    refusal = (
        f"{HOST} has a publicKey in hosts.nix, so it is installed already and answers with that key alone; leave "
        "--data host_key out, or put a placeholder there if it is to be installed anew"
    )
    assert refusal in pinned.says(HOST)
    assert [nobody.status, another.status, stranger.status, pinned.status] == [4, 4, 4, 3]
    assert metal.runs() == "debian"
    assert not (metal.lab.kept / HOST).exists()
