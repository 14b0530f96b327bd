"""`make demo`: the main job as a person would do it, in the lab, with a proof through other channels.

Every command that is shown is run as shown; what it should have shown is checked, so that a demo which ends
well is a proof and one that does not ends with a status other than 0.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from lab.errors import LabError
from lab.places import Places

PROVISION = "pyinfra -y inventory.py deploys/enroll.py deploys/provision.py --limit dev"
POST_PROVISION = "pyinfra -y inventory.py deploys/post_provision.py --limit dev"
CHANGE = """cd $FLEET/hosts/dev &&
sed -i '/system.stateVersion/i \\  environment.etc.motd.text = "deployed";' configuration.nix &&
git commit --quiet --all --message 'dev: a message of the day' && git show --stat --format=%s"""
# The guard below everything that could forget to ask: a program that means to stop what must not be touched.
STOP_104 = """python -c '
import os; from pathlib import Path
from nixherd.fleet.load import load_fleet
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.proxmox.steps import Stop
client = Hypervisor(load_fleet(os.environ["FLEET"]), Path(os.environ["PROXMOX_TOKEN_FILE"])).client
Stop("prom", 104).begin(client)
' 2>&1 | tail -n 1"""
SYSTEM = "nixosConfigurations.dev.config.system.build.toplevel"


def demo(places: Places) -> None:
    """Raises LabError, with what was missing, when anything is not as it should be."""
    if not Path("inventory.py").exists():
        raise LabError("run the demo from the checkout: make demo")
    began = time.monotonic()
    directory = places.state / "demo"  # a lab that is up stays as it is
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["NIXHERD_LAB"] = str(directory)
    print("The lab: a Proxmox VE API and real machines behind it, in a network namespace with no way out.")
    lab("up")
    try:
        story(Places.here())
    finally:
        lab("down")
        shutil.rmtree(directory)
    print(f"\ndemo: from nothing to a verified machine, and back, in {time.monotonic() - began:.0f} s")


def story(places: Places) -> None:
    heading("The plan: what would be done for a machine that does not exist. Nothing is changed.")
    before = changing_requests(places)
    shows(PROVISION.replace("-y", "--dry"), "clone template 9002 to vm 110")
    require(changing_requests(places) == before, "the plan sent a changing request")
    shows("git -C $FLEET status --short --branch", "## main\n")

    heading("The run: its key into the fleet's trust, clone, configure, boot, find, install, reboot, prove.")
    shows(PROVISION, "decrypted /run/secrets/api_token")

    heading("The commit: the key is a recipient, the secret files are encrypted for it, hosts.nix pins it.")
    shows("git -C $FLEET show --stat", "secrets/dev.yaml")
    shows("nixherd secrets status --table", "dev.yaml             yaml       5  abl030,dev")

    heading("The proof, through other channels than the one that did it.")
    built = shows(f"nix build --no-link --print-out-paths $FLEET#{SYSTEM}").strip()
    address, key = (verified(places)[part] for part in ("address", "host_key"))
    pinned = places.state / "demo-known-hosts"
    pinned.write_text(f"{address} {key}\n")
    ssh = f"ssh -o UserKnownHostsFile={pinned} -o StrictHostKeyChecking=yes -o BatchMode=yes {user(places)}@{address}"
    shows(f"{ssh} readlink /run/current-system", built)
    shows(f"{ssh} hostname", "dev")
    shows(f"{ssh} findmnt -n /", "/dev/sda")
    shows(f"{ssh} sudo sgdisk -p /dev/sda", "EF00")
    shows(f"ssh-keyscan -t ed25519 {address}", key.split()[1])
    shows(f"{ssh} sudo ls -l /run/secrets/", "api_token")
    there = f"{ssh} sudo cat /run/secrets/api_token | sha256sum"
    here = "sops decrypt --extract '[\"api_token\"]' $FLEET/secrets/dev.yaml | sha256sum"
    require(shows(here, "  -").split() == shows(there, "  -").split(), "the machine decrypted something else")

    heading("The same again changes nothing.")
    before = changing_requests(places)
    shows(PROVISION, "No changes")
    require(changing_requests(places) == before, "the second run sent a changing request")

    heading("An ad-hoc command, and a fact.")
    shows("pyinfra -y inventory.py --limit dev exec -- uptime", "load average")
    shows("pyinfra inventory.py --limit dev fact facts.nixos.CurrentSystem", built)

    heading("Every day: look at it, and ask something of it. What was done is told from what was there already.")
    shows("nixherd vm list --table", "managed")
    shows("nixherd vm snapshot dev clean", '"changed": true')
    shows("nixherd vm snapshot dev clean", "vm 110 (dev): it has a snapshot clean", status=2)
    shows("nixherd vm start dev", '"changed": false')

    heading("In service: the overview, the protection, one commit; the private key leaves the controller.")
    shows(POST_PROVISION, "delete the private key of dev here; the machine has it")
    shows("git -C $FLEET show --stat", "docs/machines.md")
    shows("find $HOME/.local/state/nixherd -name 'ssh_host*'")
    shows("pyinfra -y inventory.py deploys/secrets_check.py --limit dev", "decrypted /run/secrets/wifi/password")
    shows("nixherd vm stop dev", "vm 110 (dev) is readonly in vms/definitions.nix", status=3)

    heading("Deploying: what would change; then activated, proven, kept. Readonly, the VM is deployed to all the same.")
    shows(CHANGE)
    shows("nixherd plan dev --table", "dev  planned")
    shows("nixherd deploy dev --table", "dev  deployed")
    shows(f"{ssh} cat /etc/motd", "deployed")
    shows("nixherd deploy dev --table", "dev  unchanged")

    heading("A system that is broken: the machine goes back by itself to the one that ran before.")
    lab("break", "dev", "unit-fails")
    shows("nixherd deploy dev --table", "rolled back", status=1)
    shows(f"{ssh} systemctl is-system-running", "running")

    heading("The guard: vm 104 is readonly in the definitions, whatever is typed.")
    before = changing_requests(places)
    shows("pyinfra -y inventory.py deploys/provision.py --limit doc1", "104", status=3)
    shows("nixherd vm stop doc1", "vm 104 (doc1) is readonly in vms/definitions.nix", status=3)
    shows(STOP_104, "vm 104 (doc1) is readonly in vms/definitions.nix; refusing POST /nodes/prom/qemu/104/status/stop")
    require(changing_requests(places) == before, "a changing request was sent")


def heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def shows(command: str, expected: str = "", status: int = 0) -> str:
    """Run a command in the lab, show it and what it prints, and return that. LabError when it is not as expected."""
    print(f"$ {command}", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "run", "--", "sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        print(f"  {line}", end="", flush=True)
        lines.append(line)
    output = "".join(lines)
    ended = process.wait()
    require(ended == status, f"status {ended} instead of {status}: {command}")
    require(expected in output, f"{expected!r} is not in what it printed: {command}")
    return output


def lab(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "lab", *words], check=False)
    require(done.returncode == 0, f"lab {' '.join(words)} ended with status {done.returncode}")


def changing_requests(places: Places) -> int:
    """How many requests other than GET the hypervisor has answered; its log is the lab's, not ours to write."""
    with places.api_log.open() as log:
        return sum(json.loads(line)["method"] != "GET" for line in log)


def verified(places: Places) -> dict[str, str]:
    """What the run wrote down as proven."""
    [report] = (places.home / ".local/state/nixherd").glob("*/dev/verified.json")
    document: dict[str, str] = json.loads(report.read_text())
    return document


def user(places: Places) -> str:
    """The admin user of dev, as hosts.nix names it."""
    hosts = (places.fleet / "hosts.nix").read_text()
    found = re.search(r'user = "([^"]+)"', hosts)
    require(found is not None, "no user in hosts.nix")
    assert found is not None
    return shlex.quote(found[1])


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise LabError(f"demo: {otherwise}")
