"""`make demo`: the main workflow in the lab as an operator runs it, with a proof through other channels.

Every command runs as shown and its output is checked: the exit status is 0 only if everything was proven.
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
# The guard below all callers: a program that tries to stop a protected VM.
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
    """Run the demo. Raises LabError naming what differs from the expectation."""
    if not Path("inventory.py").exists():
        raise LabError("run the demo from the checkout: make demo")
    began = time.monotonic()
    directory = places.state / "demo"  # a running lab stays up
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["NIXHERD_LAB"] = str(directory)
    print("The lab: a Proxmox VE API and real machines, in an isolated network namespace.")
    lab("up")
    try:
        story(Places.here())
    finally:
        lab("down")
        shutil.rmtree(directory)
    print(f"\ndemo: from nothing to a verified machine, and back, in {time.monotonic() - began:.0f} s")


def story(places: Places) -> None:
    heading("The plan for a machine that does not exist yet. It changes nothing.")
    before = changing_requests(places)
    shows(PROVISION.replace("-y", "--dry"), "clone template 9002 to vm 110")
    require(changing_requests(places) == before, "the plan sent a changing request")
    shows("git -C $FLEET status --short --branch", "## main\n")

    heading("The run: enrol the key, clone, configure, boot, locate, install, reboot, verify.")
    shows(PROVISION, "decrypted /run/secrets/api_token")

    heading("The commit: the key is a recipient, secret files are encrypted for it, hosts.nix pins it.")
    shows("git -C $FLEET show --stat", "secrets/dev.yaml")
    shows("nixherd secrets status --table", "dev.yaml             yaml       5  abl030,dev")

    heading("The proof, through independent channels.")
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
    on_machine = f"{ssh} sudo cat /run/secrets/api_token | sha256sum"
    here = "sops decrypt --extract '[\"api_token\"]' $FLEET/secrets/dev.yaml | sha256sum"
    require(shows(here, "  -").split() == shows(on_machine, "  -").split(), "the machine decrypted a different secret")

    heading("A second run changes nothing.")
    before = changing_requests(places)
    shows(PROVISION, "No changes")
    require(changing_requests(places) == before, "the second run sent a changing request")

    heading("An ad-hoc command, and a fact.")
    shows("pyinfra -y inventory.py --limit dev exec -- uptime", "load average")
    shows("pyinfra inventory.py --limit dev fact facts.nixos.CurrentSystem", built)

    heading("Daily use: status and changes. A repeated request reports that it changed nothing.")
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

    heading("Deployment: planned, activated, verified, kept. It works although the VM is readonly for the hypervisor.")
    shows(CHANGE)
    shows("nixherd plan dev --table", "dev  planned")
    shows("nixherd deploy dev --table", "dev  deployed")
    shows(f"{ssh} cat /etc/motd", "deployed")
    shows("nixherd deploy dev --table", "dev  unchanged")

    heading("A broken system: the machine rolls back by itself.")
    lab("break", "dev", "unit-fails")
    shows("nixherd deploy dev --table", "rolled back", status=1)
    shows(f"{ssh} systemctl is-system-running", "running")

    heading("The guard: vm 104 is readonly in the definitions, so every change is refused.")
    before = changing_requests(places)
    shows("pyinfra -y inventory.py deploys/provision.py --limit doc1", "104", status=3)
    shows("nixherd vm stop doc1", "vm 104 (doc1) is readonly in vms/definitions.nix", status=3)
    shows(STOP_104, "vm 104 (doc1) is readonly in vms/definitions.nix; refusing POST /nodes/prom/qemu/104/status/stop")
    require(changing_requests(places) == before, "a changing request was sent")


def heading(text: str) -> None:
    print(f"\n== {text}", flush=True)


def shows(command: str, expected: str = "", status: int = 0) -> str:
    """Run a command in the lab, print and return its output. Raises LabError if the result differs."""
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
    """Return how many requests other than GET the hypervisor answered, from the lab's own log."""
    with places.api_log.open() as log:
        return sum(json.loads(line)["method"] != "GET" for line in log)


def verified(places: Places) -> dict[str, str]:
    """Return what the run recorded as verified."""
    [report] = (places.home / ".local/state/nixherd").glob("*/dev/verified.json")
    document: dict[str, str] = json.loads(report.read_text())
    return document


def user(places: Places) -> str:
    """Return dev's admin user from hosts.nix."""
    hosts = (places.fleet / "hosts.nix").read_text()
    match = re.search(r'user = "([^"]+)"', hosts)
    require(match is not None, "no user in hosts.nix")
    assert match is not None
    return shlex.quote(match[1])


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise LabError(f"demo: {otherwise}")
