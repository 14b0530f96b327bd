"""What a finished provisioning must have left, and nothing else, judged past the code that did it.

`python -m tests.integration.verified [HOST VMID]` judges the lab that NIXHERD_LAB names, or `make lab up` made.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.integration.lab_driver import CHECKOUT, Lab, until

_LOOK = """
echo "running=$(readlink -f /run/current-system)"
echo "booted=$(readlink -f /run/booted-system)"
echo "profile=$(readlink -f /nix/var/nix/profiles/system)"
echo "hostname=$(hostname)"
echo "noted=$(cat /var/lib/nixherd/revisions)"
echo "mode=$(stat -c '%U %a' /var/lib/nixherd/revisions)"
echo "root=$(findmnt -no SOURCE,FSTYPE /)"
echo "mounted=$(findmnt -no SOURCE /mnt)"
entry=$(sudo -n sed -n 's/^default *//p' /boot/loader/loader.conf)
echo "loads=$(sudo -n sed -n 's/^options *//p' "/boot/loader/entries/$entry")"
echo "installs=$(stat -c '%.W %.Y' /etc/NIXOS)"
echo "units=$(systemctl list-units --all --plain --no-legend 'nixherd*' | tr '\\n' ' ')"
echo "left=$(ls -d /run/nixherd /root/kexec /mnt/* /etc/ssh/*.new 2>/dev/null | tr '\\n' ' ')"
sudo -n sgdisk -p /dev/sda | sed -n 's/^ *\\([12]\\) .* \\([0-9A-F]\\{4\\}\\) .*$/part\\1=\\2/p'
"""


def report(lab: Lab, host: str = "dev") -> dict[str, str]:
    """What the run itself wrote down as proven."""
    found: dict[str, str] = json.loads((lab.kept / host / "verified.json").read_text())
    return found


def evaluated(lab: Lab, host: str) -> dict[str, Any]:
    """What the definitions and the flake say, by an evaluation of our own."""
    fleet = lab.state / "fleet"
    expression = f"""
      let
        flake = builtins.getFlake "git+file://{fleet}";
        system = flake.nixosConfigurations.{host}.config;
      in {{
        vm = (import {fleet}/vms/definitions.nix).managed.{host};
        fleet = (import {fleet}/vms/definitions.nix).fleet;
        user = (import {fleet}/hosts.nix).{host}.user;
        toplevel = system.system.build.toplevel.outPath;
        hostname = system.networking.hostName;
        revision = flake.rev or flake.dirtyRev;
      }}"""
    options = ["--extra-experimental-features", "nix-command flakes", "--impure", "--json"]
    found: dict[str, Any] = json.loads(lab.run("nix", "eval", *options, "--expr", expression).output.splitlines()[-1])
    return found


def ssh(lab: Lab, host: str, user: str, command: str) -> str:
    """A command on the machine over OpenSSH, which accepts no key but the one generated for it before it existed."""
    address, known_hosts = report(lab, host)["address"], lab.state / f"known-{host}"
    known_hosts.write_text(f"{address} {(lab.kept / host / 'ssh_host_ed25519_key.pub').read_text()}")
    options = ["-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    return lab.run("ssh", *options, f"{user}@{address}", command).output.strip()


def assert_verified(lab: Lab, host: str = "dev", vmid: int = 110) -> None:
    """All that a finished run must have left, and nothing else."""
    expected = evaluated(lab, host)
    output = ssh(lab, host, expected["user"], _LOOK)
    found = dict(line.split("=", 1) for line in output.splitlines())
    assert {found["running"], found["booted"], found["profile"]} == {expected["toplevel"]}, output
    assert found["hostname"] == expected["hostname"] == host
    assert found["noted"].split()[:2] == [expected["toplevel"], expected["revision"]], output
    assert found["mode"] == "root 644"
    assert found["root"].split() == ["/dev/sda2", "ext4"]
    assert f"init={expected['toplevel']}/init" in found["loads"], output
    assert (found["part1"], found["part2"]) == ("EF00", "8300"), output
    assert (found["mounted"], found["units"], found["left"]) == ("", "", ""), output
    born, touched = map(float, found["installs"].split())
    assert abs(touched - born) < 0.1, f"nixos-install ran twice, {touched - born:.1f} s apart"

    key = report(lab, host)["host_key"].split()[1]
    assert key in lab.run("ssh-keyscan", "-t", "ed25519", report(lab, host)["address"]).output
    assert key in (lab.kept / host / "ssh_host_ed25519_key.pub").read_text()

    _assert_vm(lab, host, vmid, expected)
    _assert_nothing_left(lab, host)


def _assert_vm(lab: Lab, host: str, vmid: int, expected: dict[str, Any]) -> None:
    config = lab.api(f"/nodes/prom/qemu/{vmid}/config")
    declared = expected["vm"]
    assert declared["vmid"] == vmid
    assert (config["name"], config["cores"], config["memory"]) == (host, declared["cores"], str(declared["memory"]))
    assert f"nixherd fleet={expected['fleet']} vmid={vmid}" in config["description"].splitlines()
    assert f"size={declared['disk']}" in config["scsi0"].split(",")
    assert "lock" not in config
    assert lab.api(f"/nodes/prom/qemu/{vmid}/status/current")["status"] == "running"
    assert [vm["vmid"] for vm in lab.api("/nodes/prom/qemu") if vm.get("name") == host] == [vmid]
    volumes = [volume["volid"] for volume in lab.api("/nodes/prom/storage/nvmeprom/content")]
    owned = {volume for volume in volumes if f"-{vmid}-" in volume}
    assert owned == {config[slot].split(",")[0] for slot in ("efidisk0", "ide2", "scsi0")}, owned


def _assert_nothing_left(lab: Lab, host: str) -> None:
    active = lab.api("/nodes/prom/tasks?source=active")
    assert not [task for task in active if task.get("status") == "RUNNING"], active
    kept = lab.kept / host
    assert (kept / "ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert kept.stat().st_mode & 0o777 == 0o700
    left = sorted(path.name for path in kept.iterdir())
    assert left == ["installed", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "verified.json"], left
    until(lambda: not lab.processes(), 10, "programs that a run left behind end")


if __name__ == "__main__":
    name, number = sys.argv[1:] or ("dev", "110")
    assert_verified(Lab(Path(os.environ.get("NIXHERD_LAB") or CHECKOUT / ".lab")), name, int(number))
