"""The main job: a VM from nothing to a verified machine, judged through other channels than the one that did it."""

import pytest

from tests.integration.lab_driver import ROWS, Lab, edit
from tests.integration.verified import assert_verified, evaluated

pytestmark = pytest.mark.slow


def test_a_plan_names_every_step_and_sends_no_changing_request(lab: Lab) -> None:
    planned = lab.pyinfra("--dry", "inventory.py", "deploys/provision.py", "--limit", "dev")
    steps = [
        "clone template 9002 to vm 110 (dev)",
        "set cores 2 → 4, memory 2048 → 8192 MiB",
        "grow scsi0 4G → 64G",
        "set cloud-init user none →",
        "start vm 110",
        "find the address of vm 110 (dev)",
        "boot the NixOS installer on dev",
        "wipe /dev/sda of dev",
        f"install {evaluated(lab, 'dev')['toplevel']} on dev",
        "reboot dev into its installed system",
        "verify that dev runs /nix/store/",
    ]
    positions = [planned.output.find(step) for step in steps]
    assert -1 not in positions, f"not planned: {steps[positions.index(-1)]}\n{planned.output}"
    assert positions == sorted(positions)
    assert lab.changes() == []
    assert not lab.kept.exists() or not list(lab.kept.glob("dev/*"))


def test_from_nothing_to_a_verified_machine_and_again(lab: Lab) -> None:
    first = lab.provision()
    assert first.rows("Success") == list(ROWS[1:-2])
    assert first.rows("No changes") == ["validate", "verify", "secrets"]
    assert_verified(lab)
    assert lab.boots() == ["disk", "installer", "disk"]

    before = lab.changes()
    again = lab.provision()
    assert lab.changes() == before
    assert again.rows("No changes") == list(ROWS)

    output = lab.pyinfra("-y", "inventory.py", "--limit", "dev", "exec", "--", "hostname")
    assert "[dev] dev" in " ".join(output.output.split())
    fact = lab.pyinfra("inventory.py", "--limit", "dev", "fact", "facts.nixos.CurrentSystem")
    assert evaluated(lab, "dev")["toplevel"] in fact.output


def test_a_readonly_vm_that_matches_is_unchanged_and_one_that_does_not_is_refused(lab: Lab) -> None:
    lab.provision()
    definitions = lab.state / "fleet/vms/definitions.nix"
    edit(definitions, "vmid = 110;", "vmid = 110; readonly = true;")
    lab.run("git", "-C", str(lab.state / "fleet"), "commit", "-qam", "dev is provisioned")
    before = lab.changes()
    assert lab.provision().rows("No changes") == list(ROWS)
    edit(definitions, "memory = 8192;", "memory = 4096;")
    refused = lab.provision(check=False)
    assert refused.status == 3
    assert "vm 110 (dev) is readonly in vms/definitions.nix; refusing to set memory" in refused.output
    assert lab.changes() == before
