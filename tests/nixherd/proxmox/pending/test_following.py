"""Steps that follow each other, and disks that are not there yet, or not any more."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import ApiError, Usage
from nixherd.fleet.models import Device, Fleet, Settings, Vm
from nixherd.proxmox.answers import Pending, Upid
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest.apply import in_vain
from nixherd.proxmox.guest.disks import AttachDisk, RelocateDisk, ResizeDisk
from nixherd.proxmox.guest.hardware import ConfigureGuest, SetOptions
from nixherd.proxmox.guest.lifecycle import ApplyDefinition
from nixherd.proxmox.guest.observe import observe
from nixherd.proxmox.guest.plan import Desired, plan_vm
from nixherd.proxmox.guest.snapshots import RollbackGuest, TakeSnapshot
from nixherd.proxmox.guest.verb import Guest
from nixherd.proxmox.route import Route
from nixherd.proxmox.steps import Cannot, Change, Configure, MoveDisk, Note, Resize
from tests.nixherd.proxmox.conftest import GIB, Emulator
from tests.nixherd.proxmox.dev import MAC, begin, config_of, do
from tests.nixherd.proxmox.fleets import DEV, FLEET, HOST
from tests.nixherd.proxmox.pending.conftest import people, waiting

pytestmark = pytest.mark.usefixtures("no_long_pauses")


def failed_tasks(emulator: Emulator) -> list[str]:
    return [str(row.upid) for row in emulator.client().tasks("prom", active=False) if row.status != "OK"]


def declaring(**changes: Any) -> tuple[Vm, Fleet]:
    vm = replace(DEV, **changes)
    return vm, replace(FLEET, vms={**FLEET.vms, "dev": vm})


def with_disk(size: str, **changes: Any) -> tuple[Vm, Fleet]:
    disk = Device("scsi1", {}, size=int(size.removesuffix("G")) * GIB)
    return declaring(settings=replace(Settings(), disks=(disk,)), **changes)


def differences(emulator: Emulator, vm: Vm, fleet: Fleet) -> list[str]:
    """What as_declared leaves, its notes aside."""
    left = ApplyDefinition().left(emulator.client(Policy.from_fleet(fleet)), fleet, vm)
    assert left is not None
    return [str(step) for step in left if not isinstance(step, Note)]


# Steps that follow each other


def test_our_own_steps_are_no_obstacle_to_each_other(dev: Emulator) -> None:
    vm, fleet = with_disk("10G", cores=2, disk=70 * GIB)
    done = do(dev, ApplyDefinition(), vm, fleet)
    assert done == [
        "set cores 4 → 2 (from its next start on)",
        "grow scsi0 64G → 70G",
        "add scsi1, 10G on nvmeprom",
        "set cloud-init keys 0 → 1 of dev, network none → ip=dhcp, upgrade on → off",
    ]
    assert failed_tasks(dev) == []
    assert [row["path"] for row in dev.requests() if row["status"] >= 400] == []


def between(client: Client, monkeypatch: pytest.MonkeyPatch, do_it: Callable[[], None]) -> None:
    """Do it right after the client's first change of the configuration."""
    real, done = client.change, list[int]()

    def change(route: Route, *arguments: Any, **more: Any) -> Upid | None:
        upid = real(route, *arguments, **more)
        if route.path.endswith("/config") and not done:
            done.append(1)
            do_it()
        return upid

    monkeypatch.setattr(client, "change", change)


def test_what_others_do_between_our_steps_is_seen(dev: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    vm, fleet = declaring(tags=("web",), disk=70 * GIB)
    client = dev.client(Policy.from_fleet(fleet))

    def theirs() -> None:
        people(dev, tags="theirs;web")
        other = dev.client()
        upid = Resize("prom", 110, "scsi0", 1, 80 * GIB).begin(other)
        assert upid is not None
        while other.task_status(upid).running:
            pass

    between(client, monkeypatch, theirs)
    said = list[str]()
    done = [str(step) for step in ApplyDefinition().run(client, fleet, vm, timeout=10, progress=said.append)]
    assert "vm 110 (dev): somebody else changed scsi0 meanwhile; planned anew" in said
    assert not any(step.startswith("grow") for step in done)
    config = config_of(dev)
    assert (config.tags, config.drives["scsi0"].size) == (("theirs", "web"), 80 * GIB)
    assert failed_tasks(dev) == []
    [left] = differences(dev, vm, fleet)
    assert "disks are never shrunk" in left


def test_a_move_that_lost_the_race_is_looked_at_again(dev: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    client = dev.client()
    real, sent = MoveDisk.begin, list[int]()

    def sending(step: MoveDisk, client: Client) -> Upid | None:
        if not sent:
            people(dev, tags="theirs")
        sent.append(1)
        return real(step, client)

    monkeypatch.setattr(MoveDisk, "begin", sending)
    done = RelocateDisk("scsi0", "tank").run(client, FLEET, DEV, timeout=10)
    assert [str(step) for step in done] == ["move scsi0 to tank; nvmeprom:vm-110-disk-0 is deleted then"]
    assert (len(sent), config_of(dev).tags) == (2, ("theirs",))


def test_a_reboot_is_for_what_waits_and_nothing_else(dev: Emulator) -> None:
    begin(dev, balloon=1024)
    vm, fleet = declaring(settings=replace(Settings(), balloon=2048))
    allowed = ApplyDefinition(allow_reboot=True)
    done = do(dev, allowed, vm, fleet)
    assert not any("reboot" in step or "next start" in step for step in done)
    assert waiting(dev) == {}


# Disks that are not there yet, or no more


def test_a_disk_that_waits_is_neither_grown_nor_moved(emulator: Emulator) -> None:
    begin(emulator, hotplug="0")
    added = AttachDisk("scsi1", 5 * GIB)
    assert do(emulator, added) == ["add scsi1, 5G on nvmeprom (from its next start on)"]
    left = added.left(emulator.client(), FLEET, DEV)
    assert left is not None
    assert [str(step) for step in left] == ["waits for its next start: scsi1"]
    before = emulator.changes()
    for action in (ResizeDisk(size=10 * GIB, disk="scsi1"), RelocateDisk("scsi1", "tank")):
        with pytest.raises(Usage, match=r"scsi1 waits for its next start, .* reboot it first"):
            do(emulator, action)
    vm, fleet = with_disk("10G")
    done = do(emulator, ApplyDefinition(), vm, fleet)
    assert all(step.startswith("set cloud-init") for step in done)
    assert differences(emulator, vm, fleet) == [
        "scsi1: it waits for the next start of vm 110 (dev) with 5G and cannot be grown to 10G before; "
        "reboot it, then run again",
        "reboot vm 110 so that scsi1 take effect",
    ]
    assert [change for change in emulator.changes() if change not in before and "config" not in change] == [
        "PUT /nodes/prom/qemu/110/cloudinit"
    ]
    assert do(emulator, ApplyDefinition(allow_reboot=True), vm, fleet) == [
        "reboot vm 110 so that scsi1 take effect",
        "grow scsi1 5G → 10G",
    ]
    assert failed_tasks(emulator) == []


def test_what_waits_for_a_guest_that_is_off_is_known(emulator: Emulator) -> None:
    """As one has it that switched itself off: a server that stops it applies what waits."""
    begin(emulator, status="stopped")
    vm, fleet = with_disk("10G")
    seen = observe(emulator.client(), FLEET, DEV)
    assert seen is not None
    drive = "nvmeprom:vm-110-disk-1,size=5G"
    config = VmConfig({**seen.config.values, "scsi1": drive})
    off = replace(seen, config=config, pending=(Pending("scsi1", None, drive),))
    words = [str(step) for step in plan_vm(Desired(fleet, vm, HOST), off) if isinstance(step, (Cannot, Note))]
    assert "start it, then run again" in words[0]
    assert words[-1] == "waits for its next start: scsi1"
    with pytest.raises(Usage, match="start it first"):
        ResizeDisk(size=10 * GIB, disk="scsi1").look(Guest(emulator.client(), fleet, vm, off))


def test_a_declared_disk_that_goes_at_the_next_start_is_not_replaced(emulator: Emulator) -> None:
    begin(emulator, hotplug="0", scsi1="nvmeprom:vm-110-disk-0,size=10G")
    people(emulator, delete="scsi1")
    vm, fleet = with_disk("10G")
    do(emulator, ApplyDefinition(), vm, fleet)
    assert waiting(emulator) == {"scsi1": None}
    assert "scsi1: vm 110 (dev) loses it at its next start" in differences(emulator, vm, fleet)[0]
    with pytest.raises(Usage, match="has a disk scsi1 until its next start"):
        do(emulator, AttachDisk("scsi1", 10 * GIB))


def test_a_disk_that_may_only_have_been_detached_is_not_made_anew(dev: Emulator) -> None:
    do(dev, AttachDisk("scsi1", 10 * GIB))
    people(dev, delete="scsi1")
    volid = config_of(dev).unused["unused0"].volume
    vm, fleet = with_disk("10G")
    assert not any(step.startswith("add") for step in do(dev, ApplyDefinition(), vm, fleet))
    [line] = differences(dev, vm, fleet)
    assert (
        f"unused0 ({volid}, 10G) is attached nowhere and may be it; attach that (`qm set 110 --scsi1 {volid}`" in line
    )
    vm, fleet = with_disk("11G")  # it is another one
    assert "add scsi1, 11G on nvmeprom" in do(dev, ApplyDefinition(), vm, fleet)
    left = ApplyDefinition().left(dev.client(Policy.from_fleet(fleet)), fleet, vm)
    assert left is not None
    assert [str(step) for step in left] == [f"unused0 ({volid}, 10G) is attached nowhere"]  # known, and no difference


def test_nobody_is_rebooted_for_what_was_refused(dev: Emulator) -> None:
    with pytest.raises(ApiError, match="hotplug problem"):
        people(dev, net1=f"virtio={MAC[:-1]}1,bridge=vmbr8")
    people(dev, cores=2)
    vm, fleet = declaring(cores=2)
    left = ApplyDefinition().left(dev.client(), fleet, vm)
    assert left is not None
    assert [type(step) for step in left] == [Cannot, Note]
    assert "net1: it could not be plugged in while the machine runs" in str(left[0])
    assert str(left[1]) == "waits for its next start as well: cores"
    assert not any("reboot" in step for step in do(dev, ApplyDefinition(allow_reboot=True), vm, fleet))
    people(dev, revert="net1")
    assert do(dev, ApplyDefinition(allow_reboot=True), vm, fleet) == ["reboot vm 110 so that cores take effect"]


def test_what_could_not_be_unplugged_goes_with_a_reboot(dev: Emulator) -> None:
    do(dev, AttachDisk("scsi1", 10 * GIB))
    dev.control("fault", name="hotplug-fails", option="scsi1")
    with pytest.raises(ApiError, match="hotplug problem"):
        people(dev, delete="scsi1")
    done = do(dev, ApplyDefinition(allow_reboot=True))
    assert "reboot vm 110 so that scsi1 take effect" in done
    assert waiting(dev) == {}


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_what_the_server_completes_is_sent_once(emulator: Emulator, status: str) -> None:
    begin(emulator, status=status)
    disks: tuple[dict[str, object], ...] = (
        {"scsi1": "tank:1"},
        {"net1": "virtio,bridge=vmbr0"},
        {"sata1": "tank:2,backup=0"},
    )
    for values in disks:
        assert len(do(emulator, SetOptions(values))) == 1
        assert do(emulator, SetOptions(values)) == []
    volumes = [row.volid for row in emulator.client().volumes("prom", "tank", vmid=110)]
    assert sorted(volumes) == ["tank:vm-110-disk-0", "tank:vm-110-disk-1"]


def test_what_is_sent_again_in_vain_is_told_by_what_is_sent() -> None:
    def step(value: str, before: str) -> Configure:
        return Configure("prom", 110, (Change("scsi1", before, value, value),), digest=before)

    assert in_vain([step("tank:1", "none")], step("tank:1", "tank:vm-110-disk-0"))  # each time another volume
    assert not in_vain([step("tank:1", "none")], step("tank:2", "none"))
    assert not in_vain([step("none", "x")], step("none", "y"))
    assert in_vain([step("none", "x"), step("none", "y")], step("none", "z"))


def test_no_option_takes_our_mark_away(dev: Emulator) -> None:
    before, changes = config_of(dev).description, dev.changes()
    with pytest.raises(Usage, match="hold the mark that makes it this fleet's"):
        do(dev, SetOptions({"description": None}))
    with pytest.raises(Usage, match="by its name and notes it is known"):
        do(dev, ConfigureGuest(unset=("name",)))
    assert do(dev, SetOptions({"description": ""})) == []
    assert dev.changes() == changes
    do(dev, SetOptions({"description": "of mine"}))
    assert config_of(dev).description.strip() == f"{before.strip()}\nof mine"


def test_a_rollback_tells_a_disk_that_only_waits_from_one_that_is_there(emulator: Emulator) -> None:
    begin(emulator)
    do(emulator, TakeSnapshot("clean"))
    client = emulator.client()
    client.set_config("prom", 110, {"sata1": "tank:1"})  # waits
    client.set_config("prom", 110, {"scsi2": "tank:2"})
    [told] = do(emulator, RollbackGuest("clean", by_person=True))
    assert "; stays as an unused disk: scsi2 tank:vm-110-disk-1;" in told
    assert told.endswith(
        "only waits for its next start, stays on its storage, named by nothing: sata1 tank:vm-110-disk-0"
    )
    assert [each.volume for each in config_of(emulator).unused.values()] == ["tank:vm-110-disk-1"]
    assert len(client.volumes("prom", "tank", vmid=110)) == 2
