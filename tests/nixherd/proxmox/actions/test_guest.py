"""Power, configuration and disks of a guest that is there, and again: then nothing is to do."""

from typing import Any

import pytest

from nixherd.base.errors import Usage
from nixherd.base.names import parse_size
from nixherd.proxmox.guest.disks import AttachDisk, RelocateDisk, ResizeDisk
from nixherd.proxmox.guest.hardware import RegenerateCloudInit, SetOptions
from nixherd.proxmox.guest.lifecycle import (
    ConvertToTemplate,
    RebootGuest,
    ResumeGuest,
    ShutdownGuest,
    StartGuest,
    StopGuest,
    SuspendGuest,
)
from nixherd.proxmox.guest.snapshots import Action
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.proxmox.dev import begin, config_of, do, running, twice
from tests.nixherd.proxmox.fleets import DEV, FLEET

pytestmark = [pytest.mark.xdist_group("emulator"), pytest.mark.usefixtures("no_long_pauses")]


# Power


def test_shutdown_and_start(dev: Emulator) -> None:
    assert twice(dev, ShutdownGuest()) == ["shut vm 110 down within 180 s"]
    assert not running(dev)
    assert twice(dev, StartGuest()) == ["start vm 110"]
    assert running(dev)


def test_a_guest_that_does_not_shut_down_is_stopped_only_where_asked(dev: Emulator) -> None:
    dev.control("fault", name="agent-silent", vmid=110)
    assert twice(dev, ShutdownGuest(timeout=1, force=True)) == ["shut vm 110 down within 1 s, pull the plug then"]
    assert not running(dev)


def test_stop(dev: Emulator) -> None:
    assert twice(dev, StopGuest()) == ["stop vm 110 at once"]
    assert not running(dev)


def test_suspend_and_resume(dev: Emulator) -> None:
    assert twice(dev, SuspendGuest()) == ["suspend vm 110"]
    assert twice(dev, ResumeGuest()) == ["resume vm 110"]
    do(dev, SuspendGuest())
    with pytest.raises(Usage, match="is paused and cannot shut down; resume it first, or stop it"):
        do(dev, ShutdownGuest())
    assert twice(dev, StartGuest()) == ["resume vm 110"]


def test_a_reboot_applies_what_waits_and_then_nothing_waits(dev: Emulator) -> None:
    do(dev, SetOptions({"cores": 2}))
    assert twice(dev, RebootGuest(timeout=30)) == ["reboot vm 110 so that cores take effect"]
    assert dev.client().pending("prom", 110) == ()
    assert config_of(dev).cores == 2


def test_a_reboot_that_is_wanted_always_happens_once_each(dev: Emulator) -> None:
    assert do(dev, RebootGuest()) == []
    assert do(dev, RebootGuest(always=True)) == ["reboot vm 110"]
    assert [change for change in dev.changes() if "reboot" in change] == ["POST /nodes/prom/qemu/110/status/reboot"]


@pytest.mark.parametrize("action", [SuspendGuest(), ResumeGuest(), RebootGuest(always=True)])
def test_what_does_not_run_cannot_be_paused_or_rebooted(emulator: Emulator, action: Action) -> None:
    begin(emulator, status="stopped")
    with pytest.raises(Usage, match=r"vm 110 \(dev\) does not run"):
        do(emulator, action)
    assert emulator.changes() == []


# Configuration and disks


def test_options_are_set_and_taken_away(dev: Emulator) -> None:
    assert twice(dev, SetOptions({"cores": 2, "onboot": True, "ciuser": None})) == [
        "set cores 4 → 2, onboot none → True, ciuser abl030 → none"
    ]
    config = config_of(dev)
    assert (config.cores, config.flag("onboot"), config.text("ciuser")) == (2, True, None)


def test_a_changed_configuration_is_looked_at_again(dev: Emulator) -> None:
    """The digest that it was decided on does not fit any more: planned anew, and then set."""
    client, real = dev.client(), Emulator.client
    changed: list[str] = []

    def change(*args: Any, **kwargs: Any) -> Any:
        if not changed:
            changed.append("once")
            real(dev).set_config("prom", 110, {"tags": "theirs"})
        return original(*args, **kwargs)

    original = client.change
    client.change = change  # type: ignore[method-assign]
    done = SetOptions({"cores": 2}).run(client, FLEET, DEV, timeout=20)
    assert [str(step) for step in done] == ["set cores 4 → 2"]
    config = config_of(dev)
    assert (config.cores, config.tags) == (2, ("theirs",))


def test_disks_only_grow(dev: Emulator) -> None:
    assert twice(dev, ResizeDisk(size=parse_size("65G"))) == ["grow scsi0 64G → 65G"]
    with pytest.raises(Usage, match="scsi0 has 65G, and disks only grow"):
        do(dev, ResizeDisk(size=parse_size("1G")))
    with pytest.raises(Usage, match="has no disk scsi7; its disks: scsi0"):
        do(dev, ResizeDisk(size=parse_size("99G"), disk="scsi7"))
    with pytest.raises(Usage, match="has no disk ide2"):
        do(dev, ResizeDisk(size=parse_size("99G"), disk="ide2"))


def test_a_further_disk(dev: Emulator) -> None:
    assert twice(dev, AttachDisk("scsi1", parse_size("10G"), storage="tank")) == ["add scsi1, 10G on tank"]
    disk = config_of(dev).drives["scsi1"]
    assert (disk.size, disk.storage) == (parse_size("10G"), "tank")
    with pytest.raises(Usage, match="has a disk scsi1 already, of 10G"):
        do(dev, AttachDisk("scsi1", parse_size("11G")))
    with pytest.raises(Usage, match="hda is not a name for a disk"):
        do(dev, AttachDisk("hda", parse_size("11G")))


def test_a_disk_moves(dev: Emulator) -> None:
    assert twice(dev, RelocateDisk("scsi0", "tank")) == ["move scsi0 to tank; nvmeprom:vm-110-disk-0 is deleted then"]
    assert config_of(dev).drives["scsi0"].storage == "tank"
    assert [volume.volid for volume in dev.client().volumes("prom", "nvmeprom", vmid=110)] == [
        "nvmeprom:vm-110-cloudinit"
    ]


def test_the_cloud_init_drive_is_written_anew_when_it_differs(dev: Emulator) -> None:
    assert do(dev, RegenerateCloudInit()) == []
    dev.client().set_config("prom", 110, {"ciuser": "ops"})
    assert twice(dev, RegenerateCloudInit()) == ["write the cloud-init drive of vm 110 anew"]


def test_a_stopped_vm_becomes_a_template(emulator: Emulator) -> None:
    begin(emulator, status="stopped")
    assert twice(emulator, ConvertToTemplate()) == ["convert vm 110 to a template, for good"]
    assert config_of(emulator).is_template


def test_a_running_vm_becomes_none(dev: Emulator) -> None:
    with pytest.raises(Usage, match="runs; shut it down before it becomes a template"):
        do(dev, ConvertToTemplate())
