"""Rollouts in the lab: waves, health checks, reboots."""

import json

import pytest

from tests.integration.deployed import DEADLINES, Fleet, order, outcomes
from tests.integration.lab_driver import edit

pytestmark = pytest.mark.slow


def test_a_wave_waits_for_the_proof_of_the_one_before(fleet: Fleet) -> None:
    for host in ("dev", "dev3"):
        fleet.change(host, "in a wave")
    with order(fleet, dev="canary = true;", dev3="wave = 2;"):
        fleet.lab("break", "dev2", "unit-fails")
        ended, document = fleet.deploy("dev", "dev2", "dev3", *DEADLINES, check=False)
        assert (ended.status, outcomes(document)) == (1, {"dev": "deployed", "dev2": "rolled back", "dev3": "held"})
        assert document["hosts"][2]["why"] == "dev2 failed in a wave before wave 2"
        ended, document = fleet.deploy("dev", "dev2", "dev3", "--max-fail", "40%", *DEADLINES, check=False)
        assert outcomes(document) == {"dev": "unchanged", "dev2": "rolled back", "dev3": "deployed"}
        fleet.lab("break", "dev2")
        fleet.change("dev2", "mended")
        ended, document = fleet.deploy("--rerun-failed")
        assert (ended.status, outcomes(document)) == (0, {"dev2": "deployed"})
        output = fleet.lab.run("nixherd", "deploy", "--rerun-failed").output
        assert "left no host to run again" in output
    refused = fleet.lab.pyinfra("-y", "--serial", "inventory.py", "deploys/deploy.py", "--limit", "dev", check=False)
    assert (refused.status, "--serial: a deployment goes in waves" in refused.output) == (2, True)


def test_a_system_is_kept_once_it_is_healthy(fleet: Fleet) -> None:
    web = "serviceConfig.ExecStart = \"/usr/bin/sh -c 'sleep 2; exec /usr/bin/busybox httpd -f -p 8000 -h /etc'\";"
    checks = """
      port.tcp = 22;
      sshd.unit = "sshd.service";
      root.command = "test $(id -u) = 0";
      web = { http = "http://localhost:8000/hostname"; timeout = 5; };
    """
    fault = fleet.lab.places.fleet / "hosts/dev/faults/unit-fails.nix"
    fleet.lab("break", "dev", "unit-fails")
    fault.write_text(f'{{ environment.etc.x.text = "1"; nixherd.healthChecks = {{ {checks} }}; }}')
    fleet.commit()
    ended, document = fleet.deploy("dev", check=False)
    assert (ended.status, outcomes(document)) == (1, {"dev": "rolled back"})
    assert "web (http http://localhost:8000/hostname) does not pass: no connection" in document["hosts"][0]["why"]
    fault.write_text(
        f'{{ nixherd.healthChecks = {{ {checks} }}; systemd.services.web = {{ wantedBy = ["multi-user.target"]; '
        f"{web} }}; }}"
    )
    fleet.commit()
    ended, document = fleet.deploy("dev")
    assert outcomes(document) == {"dev": "deployed"}
    fault.write_text('{ nixherd.healthChecks.own = { command = "echo not well; exit 2"; timeout = 1; }; }')
    fleet.commit()
    ended, document = fleet.deploy("dev", check=False)
    assert "own (command echo not well; exit 2) does not pass: it says not well" in document["hosts"][0]["why"]


def test_who_needs_a_reboot_gets_one_and_a_readonly_vm_is_only_listed(fleet: Fleet) -> None:
    for host in ("dev", "dev2", "dev3"):
        fleet.lab("break", host, "unit-fails")
        (fleet.lab.places.fleet / "hosts" / host / "faults/unit-fails.nix").write_text(
            "{pkgs, ...}: { boot.kernelPackages = pkgs.linuxPackages_latest; }"
            if host != "dev3"
            else '{ environment.etc.x.text = "1"; }'
        )
    definitions = fleet.lab.places.fleet / "vms/definitions.nix"
    before = definitions.read_text()
    edit(definitions, "vmid = 111;", "vmid = 111; readonly = true;")
    fleet.commit()
    ended, document = fleet.deploy("dev", "dev2", "dev3")
    rows = {row["host"]: row["reboot_for"] for row in document["hosts"]}
    assert rows == {"dev": ["initrd", "kernel", "kernel-modules"], "dev2": rows["dev"], "dev3": []}
    boots = {host: fleet.on(host, "cat /proc/sys/kernel/random/boot_id").output for host in ("dev", "dev2", "dev3")}
    ended = fleet.lab.run("sh", "-c", "nixherd reboot dev dev2 dev3 --json 2>/dev/null")
    document = json.loads(ended.output)
    assert outcomes(document) == {"dev": "rebooted", "dev2": "left to its owner", "dev3": "unchanged"}
    assert "`ssh dev2 sudo systemctl reboot`" in document["hosts"][1]["why"]
    after = {host: fleet.on(host, "cat /proc/sys/kernel/random/boot_id").output for host in boots}
    assert {host for host in boots if boots[host] != after[host]} == {"dev"}
    assert fleet.machine("dev").current == document["hosts"][0]["current"]
    definitions.write_text(before)
    for host in ("dev2", "dev3"):
        fleet.lab("break", host)


@pytest.mark.parametrize(("goal", "kernel"), [("switch", "linuxPackages_zen"), ("boot", "linuxPackages")])
def test_a_deployment_goes_on_through_the_boot_that_it_needs(fleet: Fleet, goal: str, kernel: str) -> None:
    fleet.broken_by("dev3", f"{{pkgs, ...}}: {{ boot.kernelPackages = pkgs.{kernel}; }}")
    boot = fleet.on("dev3", "cat /proc/sys/kernel/random/boot_id").output
    _ended, document = fleet.deploy("dev3", "--goal", goal, "--reboot")
    assert outcomes(document) == {"dev3": "deployed"}
    now = fleet.machine("dev3")
    booted = fleet.on("dev3", "readlink -f /run/booted-system; cat /proc/sys/kernel/random/boot_id").output.splitlines()
    assert booted[0] == now.current == now.profile == document["hosts"][0]["new"]
    assert booted[1] != boot.strip()


def test_a_readonly_vm_is_deployed_to_and_its_boot_is_left_to_its_owner(fleet: Fleet) -> None:
    definitions = fleet.lab.places.fleet / "vms/definitions.nix"
    before = definitions.read_text()
    edit(definitions, "vmid = 112;", "vmid = 112; readonly = true;")
    fleet.broken_by("dev3", "{pkgs, ...}: { boot.kernelPackages = pkgs.linuxPackages_latest; }")
    boot = fleet.on("dev3", "cat /proc/sys/kernel/random/boot_id").output
    ended, document = fleet.deploy("dev3", "--reboot")
    assert (ended.status, outcomes(document)) == (0, {"dev3": "pending reboot"})
    assert "`ssh dev3 sudo systemctl reboot`" in document["hosts"][0]["why"]
    assert fleet.machine("dev3").current == document["hosts"][0]["new"]
    assert fleet.on("dev3", "cat /proc/sys/kernel/random/boot_id").output == boot
    definitions.write_text(before)
    fleet.lab("break", "dev3")
