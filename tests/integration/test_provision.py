"""The main job: a VM from nothing to a verified machine, judged through other channels than the one that did it."""

import json
from pathlib import Path

import pytest
from lab_driver import Lab

pytestmark = pytest.mark.slow

ROWS = (
    "validate:",
    "clone:",
    "configure:",
    "resize:",
    "cloud-init:",
    "start:",
    "address:",
    "installer:",
    "disko:",
    "install:",
    "reboot:",
    "verify:",
)


def report(lab: Lab, host: str = "dev") -> dict[str, str]:
    [path] = (lab.state / "home/.local/state/fleetwright").glob(f"*/{host}/verified.json")
    found: dict[str, str] = json.loads(path.read_text())
    return found


def ssh(lab: Lab, host: str, command: str) -> str:
    """A command on the machine over OpenSSH, with nothing accepted but the key that hosts.nix will be given."""
    about = report(lab, host)
    known_hosts = lab.state / f"known-{host}"
    state = lab.state / "home/.local/state/fleetwright"
    [key] = state.glob(f"*/{host}/ssh_host_ed25519_key.pub")
    known_hosts.write_text(f"{about['address']} {key.read_text()}")
    options = ["-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    user = json.loads(lab.run("nix", "eval", "--json", "--file", f"{lab.state}/fleet/hosts.nix", f"{host}.user").output)
    return lab.run("ssh", *options, f"{user}@{about['address']}", command).output.strip()


def built(lab: Lab, host: str = "dev") -> str:
    attribute = f"{lab.state}/fleet#nixosConfigurations.{host}.config.system.build.toplevel"
    return lab.run("nix", "build", "--no-link", "--print-out-paths", attribute).output.split()[-1]


def assert_verified(lab: Lab, host: str = "dev", vmid: int = 110) -> None:
    """All that a finished run must have left, and nothing else."""
    assert ssh(lab, host, "readlink /run/current-system") == built(lab, host)
    assert ssh(lab, host, "readlink -f /nix/var/nix/profiles/system") == built(lab, host)
    assert ssh(lab, host, "hostname") == host
    version = json.loads(ssh(lab, host, "nixos-version --json"))
    head = lab.run("git", "-C", f"{lab.state}/fleet", "rev-parse", "HEAD").output.strip()
    assert version["configurationRevision"] == head

    assert ssh(lab, host, "findmnt -no SOURCE,FSTYPE /").split() == ["/dev/sda2", "ext4"]
    table = ssh(lab, host, "sudo -n sgdisk -p /dev/sda").splitlines()
    partitions = [line.split() for line in table if line.split()[:1] in (["1"], ["2"])]
    assert [(row[0], row[5]) for row in partitions] == [("1", "EF00"), ("2", "8300")]

    scanned = lab.run("ssh-keyscan", "-t", "ed25519", report(lab, host)["address"]).output
    assert report(lab, host)["host_key"].split()[1] in scanned

    config, status, listed, tasks = api(
        lab,
        f"/nodes/prom/qemu/{vmid}/config",
        f"/nodes/prom/qemu/{vmid}/status/current",
        "/nodes/prom/qemu",
        "/nodes/prom/tasks?source=active",
    )
    assert (config["name"], config["cores"], config["memory"]) == (host, 4, "8192")
    assert f"fleetwright fleet=homelab vmid={vmid}" in config["description"]
    assert "size=64G" in config["scsi0"]
    assert "lock" not in config
    assert status["status"] == "running"
    assert sum(vm.get("name") == host for vm in listed) == 1
    assert not [task for task in tasks if task.get("status") == "RUNNING"]

    state = lab.state / "home/.local/state/fleetwright"
    [private] = state.glob(f"*/{host}/ssh_host_ed25519_key")
    assert private.stat().st_mode & 0o777 == 0o600
    assert private.parent.stat().st_mode & 0o777 == 0o700
    left = {path.name for path in private.parent.iterdir()}
    assert left == {"ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "verified.json"}


def api(lab: Lab, *paths: str) -> list[object]:
    """What the API answers to GETs, by a client of its own."""
    script = (
        "import json,ssl,sys,urllib.request as u\n"
        "token=open(sys.argv[1]).read().strip()\n"
        "c=ssl._create_unverified_context()\n"
        "ask=lambda p:u.Request('https://10.77.0.1:8006/api2/json'+p,headers={'Authorization':'PVEAPIToken='+token})\n"
        "print(json.dumps([json.load(u.urlopen(ask(p),context=c))['data'] for p in sys.argv[2:]]))"
    )
    found: list[object] = json.loads(lab.run("python3", "-c", script, str(lab.state / "token"), *paths).output)
    return found


def test_a_plan_names_every_step_and_sends_no_changing_request(lab: Lab) -> None:
    planned = lab.pyinfra("--dry", "inventory.py", "deploys/provision.py", "--limit", "dev")
    for line in ("clone template 9002 to vm 110 (dev)", "cores", "grow scsi0", "cloud-init", "start vm 110", "wipe"):
        assert line in planned.output
    assert lab.changes() == []
    assert not list((lab.state / "home").glob(".local/state/fleetwright/*/dev/ssh_host*"))


def test_from_nothing_to_a_verified_machine_and_again(lab: Lab) -> None:
    first = lab.provision()
    positions = [first.output.index(f"Starting operation: {row}") for row in ROWS]
    assert positions == sorted(positions)
    assert_verified(lab)

    before = len(lab.changes())
    again = lab.provision()
    assert len(lab.changes()) == before
    assert again.output.count("No changes") == len(ROWS)
    assert "Success" not in again.output

    exec_ = lab.pyinfra("-y", "inventory.py", "--limit", "dev", "exec", "--", "hostname")
    assert "[dev] dev" in exec_.output
    fact = lab.pyinfra("inventory.py", "--limit", "dev", "fact", "facts.nixos.CurrentSystem")
    assert built(lab) in fact.output


def test_a_readonly_vm_that_matches_is_unchanged_and_one_that_does_not_is_refused(lab: Lab) -> None:
    lab.provision()
    definitions = lab.state / "fleet/vms/definitions.nix"
    text = definitions.read_text()
    try:
        edit(definitions, "vmid = 110;", "vmid = 110; readonly = true;")
        before = len(lab.changes())
        assert "Success" not in lab.provision().output
        edit(definitions, "memory = 8192;", "memory = 4096;")
        refused = lab.provision(check=False)
        assert refused.status == 1
        assert "vm 110 (dev) is readonly in vms/definitions.nix; refusing to set memory" in refused.output
        assert len(lab.changes()) == before
    finally:
        definitions.write_text(text)


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that is there; its first place counts."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
