"""Operations on real machines, by hand and as a deploy: done once, checked past our client, then nothing more."""

import json
import re
from typing import Any

import pytest

from tests.integration.lab_driver import Ended, Lab, edit, until

VM = "/nodes/prom/qemu/110"


def by_hand(lab: Lab, operation: str, *arguments: str, limit: str = "dev", check: bool = True) -> Ended:
    """`pyinfra -y inventory.py --limit dev operations.proxmox.OPERATION …`."""
    words = ("-y", "inventory.py", "--limit", limit, f"operations.proxmox.{operation}", *arguments)
    return lab.pyinfra(*words, check=check)


def twice(lab: Lab, operation: str, *arguments: str) -> str:
    """Once it changes something, the second time nothing; the API's own log says so."""
    before = len(lab.changes())
    done = by_hand(lab, operation, *arguments)
    changes = lab.changes()
    assert len(changes) > before, done.output
    by_hand(lab, operation, *arguments)
    assert lab.changes() == changes
    return done.output


def vm(lab: Lab, *words: str, check: bool = True) -> Any:
    """The JSON of `nixherd vm WORDS`, without what it says beside that."""
    return json.loads(lab.run("sh", "-c", 'nixherd vm "$@" 2>/dev/null', "sh", *words, check=check).output)


def in_guest(lab: Lab, script: str) -> str:
    """What a shell in the guest says, through the agent, asked past our client."""

    def answered() -> Any:
        try:
            return lab.api(f"{VM}/agent/exec", "POST", command=["/bin/sh", "-c", script])
        except Exception:  # noqa: BLE001  (the agent is not up yet, in whatever words)
            return None

    pid = until(answered, 30, "the guest's agent")["pid"]

    def ended() -> Any:
        found = lab.api(f"{VM}/agent/exec-status?pid={pid}")
        return found if found["exited"] else None

    return str(until(ended, 20, script).get("out-data", ""))


def power(lab: Lab) -> str:
    return str(lab.api(f"{VM}/status/current")["status"])


@pytest.fixture
def dev(lab: Lab) -> Lab:
    """`dev` is as declared and runs: the template's system, in its first boot. Its rights are its pool's.

    Those on its VMID would go with it when it is destroyed.
    """
    edit(lab.state / "fleet/vms/definitions.nix", "vmid = 110;", 'vmid = 110; pool = "nixherd";')
    lab.pyinfra("-y", "inventory.py", "deploys/vms.py", "--limit", "dev")
    by_hand(lab, "start")
    return lab


def test_all_managed_guests_are_brought_to_their_definitions(lab: Lab) -> None:
    planned = lab.pyinfra("--dry", "inventory.py", "deploys/vms.py")
    assert "clone template 9002 to vm 110 (dev) on nvmeprom" in planned.output
    assert lab.changes() == []
    done = lab.pyinfra("-y", "inventory.py", "deploys/vms.py")
    assert done.status == 0
    for vmid in range(110, 114):
        config = lab.api(f"/nodes/prom/qemu/{vmid}/config")
        assert (config["cores"], config["memory"]) == (4, "8192")
        assert "size=64G" in config["scsi0"]
    changes = lab.changes()
    assert not any("/104/" in change or "/109/" in change for change in changes)
    lab.pyinfra("-y", "inventory.py", "deploys/vms.py")
    assert lab.changes() == changes
    # what somebody changed is put right, and nothing is interrupted for it
    lab.api(f"{VM}/config", "PUT", cores=1, onboot=1)
    edit(lab.state / "fleet/vms/definitions.nix", "vmid = 110;", "vmid = 110; onboot = false;")
    lab.pyinfra("-y", "inventory.py", "deploys/vms.py", "--limit", "dev")
    config = lab.api(f"{VM}/config")
    assert (config["cores"], config["onboot"]) == (4, 0)
    assert not any("status/" in change for change in lab.changes())


@pytest.mark.slow
def test_power_and_hardware(dev: Lab) -> None:
    assert power(dev) == "running"
    in_guest(dev, "true")
    twice(dev, "configure", "onboot=true", "tags=web")
    assert dev.api(f"{VM}/config")["tags"] == "web"
    twice(dev, "add_disk", "disk=scsi1", "size=1G")
    twice(dev, "move_disk", "disk=scsi1", "storage=tank")
    assert dev.api(f"{VM}/config")["scsi1"].startswith("tank:vm-110-disk-")
    twice(dev, "resize", "disk=scsi1", "size=2G")
    twice(dev, "suspend")
    assert dev.api(f"{VM}/status/current")["qmpstatus"] == "paused"
    twice(dev, "resume")
    by_hand(dev, "configure", "cores=2")
    before = in_guest(dev, "cat /proc/sys/kernel/random/boot_id")
    assert "reboot vm 110 so that cores take effect" in twice(dev, "reboot")
    assert in_guest(dev, "cat /proc/sys/kernel/random/boot_id") != before
    twice(dev, "shutdown")
    assert power(dev) == "stopped"


@pytest.mark.slow
def test_what_is_on_the_disk_comes_back(dev: Lab) -> None:
    in_guest(dev, "echo first > /root/mark; sync")
    twice(dev, "snapshot", "snapname=clean")
    in_guest(dev, "echo second > /root/mark; sync")
    twice(dev, "rollback", "snapname=clean")
    assert power(dev) == "stopped"
    by_hand(dev, "start")
    assert in_guest(dev, "cat /root/mark") == "first\n"
    twice(dev, "delete_snapshot", "snapname=clean")
    twice(dev, "backup")
    [backup] = vm(dev, "backups", "dev")  # the right to see it goes with the guest
    done = twice(dev, "destroy", "vm=dev", "vmid=110", "stop=true", "backup=false")
    assert "destroy vm 110 (dev)" in done
    twice(dev, "restore", f"archive={backup['volid']}")
    by_hand(dev, "start")
    assert in_guest(dev, "cat /root/mark") == "first\n"


def test_the_command_on_a_real_machine(dev: Lab) -> None:
    in_guest(dev, "true")
    assert {row["vmid"]: row["origin"] for row in vm(dev, "list")}[110] == "managed"

    def addressed() -> Ended | None:
        ended = dev.run("nixherd", "vm", "ip", "dev", check=False)
        return ended if ended.status == 0 else None

    address = until(addressed, 30, "an address by DHCP, after the agent").output.strip()
    assert address in in_guest(dev, "ip -4 -o address show")
    assert vm(dev, "diff", "dev") == []
    assert vm(dev, "status", "dev")["ours"] is True
    assert {row["check"] for row in vm(dev, "doctor", check=False) if row["verdict"] == "failed"} == set()
    assert '"node": "prom"' in dev.pyinfra("inventory.py", "--limit", "dev", "fact", "facts.proxmox.VmStatus").output


@pytest.mark.parametrize("limit", ["doc1", "igp"])
def test_protected_guests_end_with_three_and_nothing_is_sent(lab: Lab, limit: str) -> None:
    number = {"doc1": "104", "igp": "109"}[limit]
    for operation in (["shutdown"], ["stop"], ["resize", "size=1T"], ["snapshot", "snapname=clean"],
                      ["destroy", f"vm={limit}", f"vmid={number}", "stop=true", "backup=false"]):  # fmt: skip
        ended = by_hand(lab, *operation, limit=limit, check=False)
        assert ended.status == 3, ended.output
        assert len(re.findall(rf"vm {number} \({limit}\) is readonly in vms/definitions.nix", ended.output)) == 1
    for words in (["stop", limit], ["destroy", limit, number, "--stop", "--no-backup"], ["restore", number, "x:y"]):
        ended = lab.run("nixherd", "vm", *words, check=False)
        assert ended.status == 3, ended.output
        assert len(ended.output.splitlines()) == 1
    assert lab.requests() == []
