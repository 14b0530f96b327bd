"""Each operation on a guest, over the emulator: changed as planned, the second time unchanged, refused, malformed."""

from dataclasses import replace
from typing import Any

import pytest

from lab.start import PRIVILEGES
from nixherd.base.errors import Exit
from nixherd.fleet.models import Origin, Vm
from nixherd.operations import proxmox
from nixherd.proxmox.config import VmConfig
from tests.nixherd.proxmox.conftest import Emulator, granted
from tests.nixherd.proxmox.dev import begin
from tests.runs import Outcome, Perform
from tests.shared import Shared

pytestmark = [pytest.mark.xdist_group("emulator"), pytest.mark.usefixtures("no_long_pauses")]

Arguments = dict[str, Any]
BACKUP = "local:backup/vzdump-qemu-110-2026_01_01-00_00_00.vma.zst"


@pytest.fixture
def off(emulator: Emulator) -> Emulator:
    begin(emulator, status="stopped")
    return emulator


@pytest.fixture
def by_api(run: Perform) -> Perform:
    """Performs an operation as the command line does: without asking the machine."""

    def one(operation: Any, *, plan: bool = False, **arguments: Any) -> Outcome:
        return run(operation, plan=plan, data={"api_only": True}, **arguments)

    return one


def config(emulator: Emulator) -> VmConfig:
    found = emulator.client().config("prom", 110)
    assert found is not None
    return found


def twice(run: Perform, emulator: Emulator, operation: Any, **arguments: Any) -> str:
    """Planned, done as planned, and the second time nothing; what was said."""
    before = emulator.changes()
    planned = run(operation, plan=True, **arguments)
    assert (planned.changed, planned.failed) == (True, False), planned.said
    assert emulator.changes() == before
    done = run(operation, **arguments)
    assert (done.changed, done.failed) == (True, False), done.said
    assert planned.said[-1] in done.said
    changes = emulator.changes()
    assert changes != before
    again = run(operation, **arguments)
    assert (again.changed, again.failed) == (False, False), again.said
    assert emulator.changes() == changes
    return planned.said[-1]


RUNNING: list[tuple[Any, Arguments, str]] = [
    (proxmox.shutdown, {"timeout": 20}, "shut vm 110 down within 20 s"),
    (proxmox.stop, {}, "stop vm 110 at once"),
    (proxmox.suspend, {}, "suspend vm 110"),
    (proxmox.configure, {"onboot": True, "tags": "b,A", "description": "x"}, "set tags none → a;b, description nix"),
    (proxmox.configure, {"unset": ["ciuser"]}, "set ciuser abl030 → none"),
    (proxmox.resize, {"size": "70G"}, "grow scsi0 64G → 70G"),
    (proxmox.resize, {"size": "70G", "snapshot": "remove"}, "snapshot vm 110 as undo-resize-"),
    (proxmox.add_disk, {"disk": "scsi1", "size": "10G", "storage": "tank"}, "add scsi1, 10G on tank"),
    (
        *(proxmox.move_disk, {"disk": "scsi0", "storage": "tank"}),
        "move scsi0 to tank; nvmeprom:vm-110-disk-0 is deleted then",
    ),
    (proxmox.network, {"device": "net0", "tag": 20}, "set net0 tag=unset → tag=20"),
    (proxmox.network, {"device": "net0", "present": False}, "set net0 virtio="),
    (proxmox.cloud_init, {"user": "ops", "upgrade": False}, "set ciuser abl030 → ops, ciupgrade none → False"),
    (proxmox.cloud_init, {"addresses": {"ipconfig0": "ip=10.0.0.5/24"}}, "set ipconfig0 none → ip=10.0.0.5/24"),
    (proxmox.snapshot, {"snapname": "clean"}, "snapshot vm 110 as clean"),
    (proxmox.backup, {}, "back vm 110 up to local"),
    (proxmox.destroy, {"vm": "dev", "vmid": 110, "stop": True}, "shut vm 110 down within 180 s, pull the plug then"),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "arguments", "says"), RUNNING)
def test_on_a_guest_that_runs(by_api: Perform, dev: Emulator, operation: Any, arguments: Arguments, says: str) -> None:
    assert twice(by_api, dev, operation, **arguments).startswith(says)


OFF: list[tuple[Any, Arguments, str]] = [
    (proxmox.start, {}, "start vm 110"),
    (proxmox.template, {}, "convert vm 110 to a template, for good"),
]


@pytest.mark.parametrize(("operation", "arguments", "says"), OFF)
def test_on_a_guest_that_is_off(
    by_api: Perform, off: Emulator, operation: Any, arguments: Arguments, says: str
) -> None:
    assert twice(by_api, off, operation, **arguments).startswith(says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "clone template 9002 to vm 110 (dev) on nvmeprom"),
        ({"full": False}, "link-clone template 9002 to vm 110 (dev)"),
        ({"empty": True}, "create vm 110 (dev) from its definition"),
    ],
)
def test_a_guest_is_made(by_api: Perform, emulator: Emulator, arguments: Arguments, says: str) -> None:
    assert twice(by_api, emulator, proxmox.create, **arguments) == says


def test_snapshots_and_back(by_api: Perform, dev: Emulator) -> None:
    by_api(proxmox.snapshot, snapname="clean")
    by_api(proxmox.configure, onboot=True)
    assert twice(by_api, dev, proxmox.rollback, snapname="clean").startswith("roll vm 110 back to clean")
    assert not config(dev).flag("onboot")
    assert twice(by_api, dev, proxmox.delete_snapshot, snapname="clean") == "delete snapshot clean of vm 110"


def test_a_backup_and_back(by_api: Perform, dev: Emulator) -> None:
    by_api(proxmox.backup)
    [volume] = dev.client().volumes("prom", "local", content="backup", vmid=110)
    by_api(proxmox.destroy, vm="dev", vmid=110, stop=True, backup=False)
    made = twice(by_api, dev, proxmox.restore, archive=volume.volid)
    assert made.startswith(f"restore vm 110 (dev) from {volume.volid}")


def test_what_waits_for_a_reboot_is_rebooted_for_once(by_api: Perform, dev: Emulator) -> None:
    unchanged = by_api(proxmox.reboot)
    assert (unchanged.changed, unchanged.failed) == (False, False)
    by_api(proxmox.configure, cores=2)
    assert twice(by_api, dev, proxmox.reboot) == "reboot vm 110 so that cores take effect"


def test_resumed_and_regenerated(by_api: Perform, dev: Emulator) -> None:
    by_api(proxmox.suspend)
    assert twice(by_api, dev, proxmox.resume) == "resume vm 110"
    dev.client().set_config("prom", 110, {"ciuser": "ops"})
    assert twice(by_api, dev, proxmox.regenerate_cloud_init) == "write the cloud-init drive of vm 110 anew"


def test_a_cloud_init_drive(by_api: Perform, off: Emulator) -> None:
    begin(off, status="stopped", ide2=None)
    refused = by_api(proxmox.cloud_init_drive, storage="tank")
    assert "VM.Config.CDROM" in refused.said[-1]  # which the recipe leaves out
    begin(off, status="stopped", ide2=None, roles={"Nixherd": [*PRIVILEGES, "VM.Config.CDROM"]})
    says = twice(by_api, off, proxmox.cloud_init_drive, storage="tank")
    assert says == "set ide2 none → a cloud-init drive on tank"
    assert config(off).has_cloudinit_drive


def test_a_mapped_device(by_api: Perform, off: Emulator) -> None:
    mappings = {"igpu": {"map": ["id=1002:1638,node=prom,path=0000:06:00.0"]}}
    begin(off, status="stopped", pci_mappings=mappings, acl=granted(("/mapping/pci", "PVEMappingUser")))
    done = by_api(proxmox.pci, mapping="nosuch")
    assert done.failed
    assert "mapping 'nosuch' not found" in done.said[-1]
    says = twice(by_api, off, proxmox.pci, mapping="igpu", pcie=True)
    assert says == "set hostpci0 none → mapping=igpu,pcie=1"


# The whole definition


def declare(shared: Shared, **changes: Any) -> None:
    dev: Vm = replace(shared.fleet.vms["dev"], **changes)
    shared.fleet = replace(shared.fleet, vms={**shared.fleet.vms, "dev": dev})


def test_a_guest_is_brought_to_its_definition(by_api: Perform, dev: Emulator, shared: Shared) -> None:
    declare(shared, cores=2, tags=("web",))
    says = twice(by_api, dev, proxmox.apply)
    assert "set cores 4 → 2, tags none → web (from its next start on)" in says
    assert "reboot" not in says
    waiting = by_api(proxmox.apply)
    assert set(waiting.said) == {"reboot vm 110 so that cores take effect"}  # said, not done
    assert not waiting.changed
    assert twice(by_api, dev, proxmox.apply, allow_reboot=True) == "reboot vm 110 so that cores take effect"


def test_what_cannot_be_done_fails_the_host_after_the_rest_was_done(
    by_api: Perform, dev: Emulator, shared: Shared
) -> None:
    declare(shared, disk=1 << 30, tags=("web",))
    done = by_api(proxmox.apply)
    assert done.failed
    assert "disks are never shrunk" in done.said[-1]
    assert shared.run.failures == {"dev": Exit.FAILED}
    assert config(dev).tags == ("web",)


def test_a_disk_that_would_have_to_shrink_is_no_silent_success(by_api: Perform, dev: Emulator, shared: Shared) -> None:
    declare(shared, disk=1 << 30)
    done = by_api(proxmox.resize)
    assert done.failed
    assert "not as declared: vm 110 (dev): scsi0 has 64G" in done.said[-1]
    assert shared.run.failures == {"dev": Exit.REMOTE}  # nothing was changed
    assert dev.changes() == []


def test_what_is_left_alone_shows_how_it_differs(by_api: Perform, dev: Emulator, shared: Shared) -> None:
    declare(shared, readonly=True, cores=2)
    for operation in (proxmox.drift, proxmox.apply):
        done = by_api(operation)
        assert (done.changed, done.failed) == (False, False)
    declare(shared, origin=Origin.IMPORTED, specs={"cores": 8})
    shown = by_api(proxmox.drift)
    assert set(shown.said) == {"left alone: cores: documented 8, is 4"}
    assert dev.changes() == []


@pytest.mark.parametrize("changes", [{"readonly": True}, {"origin": Origin.IMPORTED}], ids=["readonly", "imported"])
def test_what_is_left_alone_and_not_visible_fails_nobody(
    by_api: Perform, dev: Emulator, shared: Shared, changes: Arguments
) -> None:
    declare(shared, **changes)
    begin(dev, acl=granted(), pools={"nixherd": {"members": []}})
    for operation in (proxmox.drift, proxmox.apply):
        done = by_api(operation)
        assert (done.changed, done.failed) == (False, False)
    shown = by_api(proxmox.drift)
    assert any("vm 110 (dev) is not visible: VMID 110 is taken" in line for line in shown.said)
    assert shared.run.failures == {}
    assert dev.changes() == []


def test_one_that_is_to_be_changed_and_not_visible_fails(by_api: Perform, dev: Emulator, shared: Shared) -> None:
    begin(dev, acl=granted(), pools={"nixherd": {"members": []}})
    done = by_api(proxmox.apply)
    assert done.failed
    assert done.said[-1].startswith("vm 110 (dev) is not visible")
    assert shared.run.failures == {"dev": Exit.REFUSED}
    assert dev.changes() == []


# Refused and malformed

EVERYTHING: list[tuple[Any, Arguments]] = [
    *((operation, arguments) for operation, arguments, _ in (*RUNNING, *OFF)),
    (proxmox.reboot, {"always": True}),
    (proxmox.resume, {}),
    (proxmox.create, {}),
    (proxmox.rollback, {"snapname": "clean"}),
    (proxmox.delete_snapshot, {"snapname": "clean"}),
    (proxmox.restore, {"archive": BACKUP}),
    (proxmox.migrate, {"target": "prom2"}),
    (proxmox.pci, {"mapping": "igpu"}),
    (proxmox.regenerate_cloud_init, {}),
]


@pytest.mark.parametrize("changes", [{"readonly": True}, {"origin": Origin.IMPORTED}], ids=["readonly", "imported"])
@pytest.mark.parametrize(("operation", "arguments"), [each for each in EVERYTHING if each[0] is not proxmox.start])
def test_a_protected_guest_is_refused_and_nothing_is_sent(
    by_api: Perform, dev: Emulator, shared: Shared, operation: Any, arguments: Arguments, changes: Arguments
) -> None:
    declare(shared, **changes)
    before = dev.requests()
    done = by_api(operation, **arguments)
    assert done.failed
    assert len(done.said) == 1
    assert done.said[0].startswith("vm 110 (dev) is ")
    assert shared.run.failures == {"dev": Exit.REFUSED}
    assert dev.requests() == before


@pytest.mark.parametrize(
    ("operation", "arguments", "words"),
    [
        (proxmox.shutdown, {"timeout": "soon"}, "timeout=soon is not a whole number from 1"),
        (proxmox.shutdown, {"force": "maybe"}, "force=maybe is neither true nor false"),
        (proxmox.resize, {"size": "many"}, "size=many is not a size; write one like 64G"),
        (proxmox.resize, {"size": 64}, "size=64 is not a size; write one like 64G"),
        (proxmox.resize, {"size": "65G", "snapshot": "yes"}, "snapshot=yes: write keep or remove, or leave it out"),
        (proxmox.configure, {"cores": 0}, "cores=0 is not a whole number from 1"),
        (proxmox.configure, {"boot": 3}, "boot=3 is not a list of names"),
        (proxmox.configure, {"onboot": True, "unset": "onboot"}, "onboot is both set and in unset"),
        (proxmox.add_disk, {"disk": "-x", "size": "1G"}, "disk=-x is not a name"),
        (
            proxmox.network,
            {"device": "eth0", "tag": 1},
            "device=eth0 is not a device of this kind; use one",
        ),
        (proxmox.network, {"device": "net0", "bridge": "a,b"}, "bridge=a,b cannot be a value of it"),
        (proxmox.cloud_init, {"keys": ["x"]}, "keys: not an SSH public key: "),
        (proxmox.cloud_init, {"addresses": {"ip": "dhcp"}}, "addresses: ip=dhcp is not an address; write ipconfig0"),
        (proxmox.pci, {"pcie": True}, "hostpci0: say what it is to have: a mapping"),
        (proxmox.snapshot, {"snapname": "x y"}, "x y is not a name for a snapshot"),
        (proxmox.destroy, {"vm": "dev", "vmid": 111}, "to destroy vm 110 (dev) name both, dev and 110"),
        (proxmox.destroy, {"vm": "dev", "vmid": "110"}, "vmid=110 is not a whole number from 100"),
        (proxmox.destroy, {"vm": "dev", "vmid": 110, "discard": 7}, "discard=7 is not a list of names"),
        (
            *(proxmox.destroy, {"vm": "dev", "vmid": 110, "stop": True, "discard": ["scsi9"]}),
            "--discard scsi9: vm 110 (dev) has no scsi9; with it would go ide2, scsi0",
        ),
        (proxmox.create, {"source": "nosuch"}, "source=nosuch is not a guest of vms/definitions.nix"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_sends_nothing(
    by_api: Perform, dev: Emulator, shared: Shared, operation: Any, arguments: Arguments, words: str
) -> None:
    done = by_api(operation, **arguments)
    assert done.failed
    assert len(done.said) == 1
    assert done.said[0].startswith(words)
    assert shared.run.failures["dev"] in (Exit.USAGE, Exit.REMOTE)
    assert dev.changes() == []


def test_a_host_that_is_no_guest_has_nothing_to_shut_down(run: Perform, shared: Shared, emulator: Emulator) -> None:
    shared.fleet = replace(shared.fleet, vms={})
    done = run(proxmox.shutdown, data={"api_only": True})
    assert done.failed
    assert done.said == ["dev is not a guest of vms/definitions.nix; nothing can be done for it here"]
