"""Whatever is typed, nothing that the definitions protect is changed, and no machine that is not ours."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.lab_driver import Ended, Lab, edit, starts, until

pytestmark = pytest.mark.slow

PROXMOX = ("clone", "configure", "resize", "cloud_init", "start", "address")
DESTRUCTIVE = ("installer.boot", "disko.format_disks", "nixos.install", "nixos.reboot_installed")
TYPED = [
    *(f"deploys/provision.py --limit {limit}" for limit in ("doc1", "igp", "dev", "nixos")),
    *(f"deploys/install.py --limit {limit}" for limit in ("doc1", "dev")),
    *(f"--limit doc1 operations.proxmox.{name}" for name in PROXMOX),
    *(f"--limit dev operations.proxmox.{name}" for name in ("clone", "start")),
    *(f"--limit dev operations.{name}" for name in DESTRUCTIVE),
    "--limit igp operations.disko.format_disks",
]

# A group, of which some are refused and some out of reach; a host that the flake does not know.
OTHERWISE = {"--limit nixos": 1, "--limit igp operations.disko.format_disks": 4}

# Each is evaluated with `client`, made as any script would make it, and `raw`, the session inside it.
BY_HAND = [
    "Start('prom', 104).begin(client)",
    "Stop('prom', 104).begin(client)",
    "Shutdown('prom', 109, 60, force=True).begin(client)",
    "Reboot('prom', 109, 60).begin(client)",
    "client.set_config('prom', 104, {'cores': 1})",
    "Resize('prom', 104, 'scsi0', 1, 300 << 30).begin(client)",
    "Regenerate('prom', 104).begin(client)",
    "Clone('prom', 104, template=9002, template_node='prom', name='doc1', description='').begin(client)",
    "Clone('prom', 110, template=104, template_node='prom', name='dev', description='').begin(client)",
    "client.agent_exec('prom', 104, ['poweroff'])",
    "Start('prom', 110).begin(client)",
    "client.set_config('prom', 9002, {'cores': 1})",
    "raw('POST', '/nodes/prom/qemu/104/status/stop')",
    "raw('DELETE', '/nodes/prom/qemu/104')",
    "raw('POST', '/nodes/prom/qemu/%31%30%34/status/stop')",
    "raw('PUT', '/nodes/prom/qemu/111/config', data={'scsi1': 'nvmeprom:vm-104-disk-0'})",
    "raw('POST', '/nodes/prom/stopall')",
    "raw('POST', '/nodes/prom/vzdump', data={'all': 1})",
    "raw('POST', '/cluster/ha/resources', data={'sid': 'vm:104'})",
]
SCRIPT = """
import json, os, sys
from pathlib import Path
from nixherd.base.errors import Refused
from nixherd.fleet.load import load_fleet
from nixherd.proxmox.client import connect
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.steps import Clone, Reboot, Regenerate, Resize, Shutdown, Start, Stop
from nixherd.proxmox.token import Token

fleet = load_fleet(os.environ["FLEET"])
client = connect(fleet.endpoint, Policy.from_fleet(fleet), Token.read(Path(os.environ["PROXMOX_TOKEN_FILE"])))
session = client._Client__api._store["session"]
raw = lambda method, path, **more: session.request(method, "https://10.77.0.1:8006/api2/json" + path, **more)
said = {}
for attempt in json.loads(sys.argv[1]):
    try:
        said[attempt] = f"done: {eval(attempt)}"
    except Refused as refusal:
        said[attempt] = str(refusal)
assert client.status("prom", 104).running
print(json.dumps(said))
"""


@pytest.fixture
def guarded(lab: Lab) -> Lab:
    """The definitions let nothing be changed: 104 and 109 as ever, dev and dev3 readonly as well."""
    definitions = lab.state / "fleet/vms/definitions.nix"
    text = definitions.read_text()
    definitions.write_text(re.sub(r"vmid = (11\d);", r"vmid = \1; readonly = true;", text))
    return lab


def refusal(ended: Ended, status: int = 3) -> None:
    assert ended.status == status, ended.output
    assert "Traceback" not in ended.output, ended.output
    assert "Success" not in ended.output, ended.output


def test_nothing_that_can_be_typed_changes_a_guarded_machine(guarded: Lab) -> None:
    for words in TYPED:
        ended = guarded.pyinfra("-y", "inventory.py", *words.split(), check=False)
        refusal(ended, OTHERWISE.get(words.removeprefix("deploys/provision.py "), 3))
        assert ended.seconds < 60, f"{words} took {ended.seconds:.0f} s"
        hosts = {"doc1": "proxmox-vm", "igp": "igpu", "dev": "dev"}
        for limit, host in hosts.items():
            if f"--limit {limit} " in f"{words} ":
                lines = [line for line in ended.says(host) if re.search(r"refusing to|nixosConfigurations", line)]
                assert len(lines) == 1, f"{words}:\n{ended.output}"
    assert guarded.changes() == []


def test_a_script_with_the_client_cannot_either(guarded: Lab) -> None:
    edit(guarded.state / "fleet/vms/definitions.nix", "vmid = 111; readonly = true;", "vmid = 111;")
    done = guarded.run("python3", "-c", SCRIPT, json.dumps(BY_HAND))
    document = json.loads(done.output.splitlines()[-1])
    assert {attempt: text for attempt, text in document.items() if text.startswith("done") or "\n" in text} == {}
    assert set(document) == set(BY_HAND)
    assert guarded.changes() == []


@pytest.mark.parametrize(
    ("name", "notes", "line"),
    [
        ("dev", "", "its notes lack the line `nixherd fleet=homelab vmid=110`"),
        ("dev", "nixherd fleet=other vmid=110", "its notes lack the line"),
        ("dev", "nixherd fleet=homelab vmid=111", "its notes lack the line"),
        ("devel", "nixherd fleet=homelab vmid=110", "its name is devel, not dev"),
    ],
    ids=["no mark", "another fleet's", "another VMID's", "another name"],
)
def test_a_machine_under_our_vmid_that_is_not_ours_is_refused(lab: Lab, name: str, notes: str, line: str) -> None:
    lab.api_task("/nodes/prom/qemu", vmid=110, name=name, description=notes, memory=512)
    before, theirs = lab.changes(), lab.api("/nodes/prom/qemu/110/config")
    for words in ("deploys/provision.py", "operations.proxmox.start", "operations.proxmox.configure"):
        ended = lab.pyinfra("-y", "inventory.py", "--limit", "dev", words, check=False)
        refusal(ended)
        assert f"vm 110 on prom exists but is not this fleet's: {line}" in ended.output
    assert lab.changes() == before
    assert lab.api("/nodes/prom/qemu/110/config") == theirs


def test_a_disk_is_not_wiped_once_the_definitions_forbid_it(lab: Lab) -> None:
    lab.provision_until(starts("disko"))
    disk = lab.disk_id()
    edit(lab.state / "fleet/vms/definitions.nix", "vmid = 110;", "vmid = 110; readonly = true;")
    ended = lab.provision(check=False)
    refusal(ended)
    assert "vm 110 (dev) is readonly in vms/definitions.nix; refusing to wipe the disks of dev" in ended.output
    assert lab.disk_id() == disk


def test_a_disk_in_an_installer_that_is_not_ours_is_not_wiped(lab: Lab) -> None:
    lab.provision_until(starts("installer"))
    root = boot_installer_by_hand(lab)
    disk, before = lab.disk_id(), len(lab.changes())
    ended = lab.provision(check=False)
    refusal(ended)
    assert "dev is in an installer that this fleet did not boot, so its disk is not ours to wipe" in ended.output

    root("mkdir -p /run/nixherd; echo 'nixherd fleet=homelab host=dev2 vmid=111' >/run/nixherd/mark")
    for words in ("deploys/install.py", "operations.disko.format_disks", "operations.nixos.install"):
        ended = lab.pyinfra("-y", "inventory.py", "--limit", "dev", words, check=False)
        refusal(ended)
        assert re.search(r"dev is (not )?in an installer that this fleet", ended.output), ended.output
    assert lab.disk_id() == disk
    assert not [change for change in lab.changes()[before:] if not change.endswith("/agent/exec")]


def boot_installer_by_hand(lab: Lab) -> Callable[[str], str]:
    """Somebody boots the clone into an installer, as nixherd would have done; returns how to run a script there."""
    agent = "/nodes/prom/qemu/110/agent"
    key = lab.api(f"{agent}/file-read?file=/etc/ssh/ssh_host_ed25519_key.pub")["content"]
    cards = lab.api(f"{agent}/network-get-interfaces")["result"]
    found = [item["ip-address"] for card in cards for item in card.get("ip-addresses", []) if card["name"] != "lo"]
    [address] = [text for text in found if text.startswith("10.77.0.")]
    known_hosts = Path(lab.state / "known-by-hand")
    known_hosts.write_text(f"{address} {key}")
    ssh = f"ssh -o BatchMode=yes -o UserKnownHostsFile={known_hosts} -o StrictHostKeyChecking=yes"
    flake = f"{lab.state}/fleet#packages.x86_64-linux.kexec-installer"
    script = "sudo tar -C /root -xzf - && sudo /root/kexec/run"
    built = "nix --extra-experimental-features 'nix-command flakes' build --no-link --print-out-paths"
    lab.run("sh", "-c", f"cat $({built} {flake})/*.tar.gz | {ssh} abl030@{address} '{script}'")
    until(
        lambda: lab.run("sh", "-c", f"{ssh} -o ConnectTimeout=2 root@{address} true", check=False).status == 0,
        20,
        "the installer",
    )
    return lambda script: lab.run(*ssh.split(), f"root@{address}", script).output
