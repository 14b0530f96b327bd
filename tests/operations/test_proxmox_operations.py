"""Each row of a VM's making, over the emulator: planned, changed, unchanged, refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Exit
from nixherd.deploy.report import Journal, entries
from nixherd.fleet.models import Fleet, GuestType, Origin, Vm
from nixherd.operations import proxmox
from tests.nixherd.proxmox.conftest import Emulator
from tests.runs import Perform, evaluates_to, has_installer, vm
from tests.shared import Shared

pytestmark = pytest.mark.xdist_group("emulator")

ROWS = [
    (proxmox.clone, "clone template 9002 to vm 110 (dev) on nvmeprom"),
    (proxmox.configure, "set cores 2 → 4, memory 2048 → 8192 MiB"),
    (proxmox.resize, "grow scsi0 4G → 64G"),
    (proxmox.cloud_init, "set cloud-init user none → root, keys 0 → 1 of dev"),
    (proxmox.start, "start vm 110"),
]


def declare(shared: Shared, **changes: Any) -> None:
    """Other definitions of `dev`."""
    fleet: Fleet = shared.fleet
    dev: Vm = replace(fleet.vms["dev"], **changes)
    shared.fleet = replace(fleet, vms={**fleet.vms, "dev": dev})


def test_rows_change_what_they_planned_and_then_nothing(
    run: Perform, shared: Shared, emulator: Emulator, tmp_path: Path
) -> None:
    shared.run.journal = Journal(tmp_path / "run")
    for operation, summary in ROWS:
        planned = run(operation, plan=True)
        assert (planned.changed, planned.failed) == (True, False)
        assert planned.said[-1].startswith(summary)
        before = emulator.changes()
        done = run(operation)
        assert (done.changed, done.failed) == (True, False), done.said
        assert done.said[-1].startswith(summary)
        assert len(emulator.changes()) > len(before)
    card = {"name": "e", "hardware-address": "BC:24:11:00:01:10", "ip-addresses": [{"ip-address": "127.0.0.1"}]}
    guest = {"interfaces": [card], "files": {"/etc/os-release": "ID=debian\n"}}
    emulator.control("outside", do="guest-booted", vmid=110, guest=guest)
    changes = emulator.changes()
    for operation, _ in ROWS:
        again = run(operation)
        assert (again.changed, again.failed) == (False, False)
    assert emulator.changes() == changes
    steps = [entry for entry in entries(tmp_path / "run") if entry["event"] == "step"]
    for (_, summary), first, last in zip(ROWS, steps[::3], steps[2::3], strict=True):  # planned twice, then done
        assert first["text"] == last["text"]
        assert last["text"].startswith(summary)
        assert (first["planned"], last["planned"], last["host"]) == (True, False, "dev")


def test_the_host_key_is_there_before_the_clone(run: Perform, shared: Shared, emulator: Emulator) -> None:
    run(proxmox.clone, plan=True)
    assert shared.keys.held("dev") is None
    emulator.control("fault", name="task-fails", type="qmclone")
    failed = run(proxmox.clone)
    assert failed.failed
    assert "qmclone" in failed.said[-1]
    assert shared.keys.held("dev") is not None


def test_a_vm_that_may_be_made_is_valid(run: Perform, emulator: Emulator) -> None:
    outcome = run(proxmox.validate)
    assert (outcome.changed, outcome.failed) == (False, False)
    assert emulator.changes() == []


@pytest.mark.parametrize("plan", [True, False])
def test_every_finding_is_a_line_and_fails_the_host(run: Perform, emulator: Emulator, plan: bool) -> None:
    emulator.control("reset", patch={"vms": {"9002": {"config": {"ide2": None, "agent": "0"}}}})
    outcome = run(proxmox.validate, plan=plan)
    assert outcome.failed
    assert outcome.said[-2:] == [
        "template 9002 on prom has no guest agent; install it there, `qm set 9002 --agent 1`",
        "template 9002 on prom has no cloud-init drive; add one: `qm set 9002 --ide2 STORAGE:cloudinit`",
    ]


def test_what_the_flake_lacks_is_found_before_the_clone(run: Perform, shared: Shared, emulator: Emulator) -> None:
    evaluates_to(shared, disko_script=None, devices=("/dev/vda",))
    has_installer(shared, "other")
    outcome = run(proxmox.validate, data={"extra_files": {"x": "/nowhere"}})
    assert [line.partition(";")[0].partition(", but")[0] for line in outcome.said[-5:]] == [
        "dev: disko formats /dev/vda",
        "dev: config.system.build.diskoScript is missing",
        "/fleet/flake.nix: it has no packages.x86_64-linux.kexec-installer",
        "dev: extra_files: x is not an absolute path",
        "dev: extra_files: /nowhere is not there",
    ]
    assert outcome.failed
    assert emulator.changes() == []


@pytest.mark.parametrize("operation", [proxmox.validate, *(row[0] for row in ROWS), proxmox.address])
def test_what_is_documented_is_refused_in_each_row(
    run: Perform, shared: Shared, emulator: Emulator, operation: Any
) -> None:
    declare(shared, origin=Origin.IMPORTED)
    outcome = run(operation)
    assert outcome.failed
    refusal = "vm 110 (dev) is imported.dev in vms/definitions.nix: documented, never changed;"
    assert outcome.said[-1].startswith(refusal)
    assert shared.run.failures == {"dev": Exit.REFUSED}
    assert emulator.changes() == []


@pytest.mark.parametrize("operation", [proxmox.validate, proxmox.address])
def test_a_container_is_not_provisioned(run: Perform, shared: Shared, emulator: Emulator, operation: Any) -> None:
    declare(shared, type=GuestType.LXC)
    outcome = run(operation)
    assert outcome.failed
    refusal = "managed.dev is a container (lxc); only virtual machines are provisioned by cloning"
    assert outcome.said[-1].startswith(refusal)
    assert emulator.changes() == []


@pytest.mark.parametrize("operation", [row[0] for row in ROWS])
def test_a_readonly_vm_that_would_need_a_change_is_refused(
    run: Perform, shared: Shared, emulator: Emulator, operation: Any
) -> None:
    vm(emulator, "127.0.0.1", scsi0="nvmeprom:vm-110-disk-0,size=4G", boot="order=scsi0")
    declare(shared, readonly=True)
    outcome = run(operation)
    assert outcome.failed
    assert outcome.said[-1].startswith("vm 110 (dev) is readonly in vms/definitions.nix; refusing to set cores")
    assert emulator.changes() == []


@pytest.mark.parametrize("plan", [True, False])
def test_what_differs_of_an_unmarked_guest_is_shown_before_it_is_refused(
    run: Perform, emulator: Emulator, plan: bool
) -> None:
    vm(
        emulator,
        "127.0.0.1",
        description="built by hand",
        cores=1,
        boot="order=scsi0",
        scsi0="nvmeprom:vm-110-disk-0,size=64G",
    )
    outcome = run(proxmox.apply, plan=plan, data={"api_only": True})  # as deploys/vms.py is
    assert outcome.failed
    assert any(line.startswith("differs: set cores 1 → 4") for line in outcome.said)
    assert "`nixherd vm adopt dev 110`" in outcome.said[-1]
    assert emulator.changes() == []


def test_an_address_that_never_comes_fails_the_host_at_its_deadline(run: Perform, emulator: Emulator) -> None:
    outcome = run(proxmox.address)
    assert outcome.failed
    assert outcome.said[-1] == "vm 110 (dev) does not exist on prom; provision it first"
