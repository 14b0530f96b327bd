"""A guest is made, kept in snapshots and backups, and destroyed."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from nixherd.base.errors import Refused, Usage
from nixherd.fleet.models import GuestType, Template
from nixherd.proxmox.guest.backups import BackupGuest, RestoreGuest
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.disks import AttachDisk, RelocateDisk
from nixherd.proxmox.guest.hardware import SetOptions
from nixherd.proxmox.guest.identity import mark
from nixherd.proxmox.guest.lifecycle import ApplyDefinition, CreateGuest, RebootGuest, StartGuest, StopGuest
from nixherd.proxmox.guest.snapshots import RemoveSnapshot, RollbackGuest, TakeSnapshot
from tests.nixherd.proxmox.conftest import GIB, Emulator, granted, state
from tests.nixherd.proxmox.conftest import running as another
from tests.nixherd.proxmox.dev import MAC, begin, config_of, do, twice
from tests.nixherd.proxmox.fleets import DEV, FLEET

pytestmark = [pytest.mark.xdist_group("emulator"), pytest.mark.usefixtures("no_long_pauses")]


TWIN = replace(DEV, name="twin", vmid=112)
WITH_TWIN = replace(FLEET, vms={**FLEET.vms, "twin": TWIN})


# Making


@pytest.mark.parametrize(
    ("full", "words"),
    [(True, "clone template 9002 to vm 110 (dev) on nvmeprom"), (False, "link-clone template 9002 to vm 110 (dev)")],
)
def test_a_clone_of_the_template(emulator: Emulator, full: bool, words: str) -> None:
    assert twice(emulator, CreateGuest(full=full)) == [words]
    assert config_of(emulator).name == "dev"


def test_a_clone_of_a_guest_of_ours(dev: Emulator) -> None:
    action = CreateGuest(source="dev")
    assert twice(dev, action, TWIN, WITH_TWIN) == ["clone vm 110 to vm 112 (twin) on nvmeprom"]
    assert mark(WITH_TWIN, TWIN) in config_of(dev, 112).description
    with pytest.raises(Refused, match=r"vm 104 \(doc1\) is readonly .* refusing to clone it"):
        CreateGuest(source="doc1").plan(dev.client(), WITH_TWIN, TWIN)


@pytest.mark.parametrize("template", [FLEET.template, None], ids=["not visible", "not declared"])
def test_a_copy_of_a_guest_needs_that_guest_and_no_template(emulator: Emulator, template: Template | None) -> None:
    hidden = [row for row in granted(("/vms/110", "Nixherd"), ("/vms/112", "Nixherd")) if row["path"] != "/vms/9002"]
    begin(emulator, acl=hidden)
    fleet = replace(WITH_TWIN, template=template)
    copied = ["clone vm 110 to vm 112 (twin) on nvmeprom"]
    assert twice(emulator, CreateGuest(source="dev"), TWIN, fleet) == copied
    assert not [row for row in emulator.requests() if "/9002" in row["path"]]


def test_a_container_is_no_copy_and_none_is_made_of_one() -> None:
    ct = replace(TWIN, type=GuestType.LXC)
    fleet = replace(WITH_TWIN, vms={**WITH_TWIN.vms, "twin": ct})
    for vm, source in ((ct, "dev"), (DEV, "twin"), (DEV, "dev")):
        with pytest.raises(Usage, match="cannot be a copy of"):
            CreateGuest(source=source).plan(Mock(), fleet, vm)


def test_everything_that_is_declared_and_no_reboot_unless_allowed(dev: Emulator) -> None:
    vm = replace(DEV, cores=2, tags=("web",))
    fleet = replace(FLEET, vms={**FLEET.vms, "dev": vm})
    done = do(dev, ApplyDefinition(), vm, fleet)
    assert "set cores 4 → 2, tags none → web (from its next start on)" in done
    assert not any("reboot" in step for step in done)
    assert do(dev, ApplyDefinition(), vm, fleet) == []
    assert do(dev, ApplyDefinition(allow_reboot=True), vm, fleet) == ["reboot vm 110 so that cores take effect"]
    assert do(dev, ApplyDefinition(allow_reboot=True), vm, fleet) == []


# Snapshots


def test_snapshots_are_taken_rolled_back_and_deleted(dev: Emulator) -> None:
    assert twice(dev, TakeSnapshot("clean", description="before")) == ["snapshot vm 110 as clean"]
    [row] = dev.client().snapshots("prom", 110)
    assert (row.name, row.description) == ("clean", "before")
    do(dev, SetOptions({"onboot": True}))
    assert twice(dev, RollbackGuest("clean")) == ["roll vm 110 back to clean; what was done since is lost"]
    assert not config_of(dev).flag("onboot")
    do(dev, StartGuest())
    assert len(do(dev, RollbackGuest("clean"))) == 1  # something was done since
    assert twice(dev, RemoveSnapshot("clean")) == ["delete snapshot clean of vm 110"]
    assert dev.client().snapshots("prom", 110) == ()


@pytest.mark.parametrize("name", ["x", "current", "pending", "-a", "a b", "a" * 41, "ünder"])
def test_names_that_snapshots_cannot_have(name: str) -> None:
    with pytest.raises(Usage, match="is not a name for a snapshot"):
        TakeSnapshot(name)


def test_there_is_no_way_back_to_what_was_not_taken(dev: Emulator) -> None:
    with pytest.raises(Usage, match=r"vm 110 \(dev\) has no snapshot clean; it has none"):
        do(dev, RollbackGuest("clean"))


# Backups


def test_a_backup_and_none_while_it_is_new_enough(dev: Emulator) -> None:
    assert twice(dev, BackupGuest(newer_than=3600)) == ["back vm 110 up to local"]
    [volume] = dev.client().volumes("prom", "local", content="backup", vmid=110)
    assert volume.size > 0
    assert len(do(dev, BackupGuest())) == 1
    assert len(dev.client().volumes("prom", "local", content="backup", vmid=110)) == 2


def test_where_backups_go_must_be_clear(dev: Emulator) -> None:
    dev.control("reset", patch={"storages": {"local": {"type": "dir", "content": "iso"}}, "vms": {"110": None}})
    begin(dev)
    with pytest.raises(Usage, match="mode=slow: write snapshot, suspend or stop"):
        do(dev, BackupGuest(mode="slow"))


def test_a_guest_comes_back_from_its_backup(dev: Emulator) -> None:
    do(dev, BackupGuest())
    [volume] = dev.client().volumes("prom", "local", content="backup", vmid=110)
    do(dev, StopGuest())
    do(dev, DestroyGuest("dev", 110, backup=False))
    assert dev.client().config("prom", 110) is None
    [made] = twice(dev, RestoreGuest(volume.volid))
    assert made.startswith(f"restore vm 110 (dev) from {volume.volid}")
    config = config_of(dev)
    assert (config.name, config.nets["net0"].mac) == ("dev", MAC.lower())
    do(dev, SetOptions({"cores": 1}))
    assert do(dev, RestoreGuest(volume.volid)) == []
    over = RestoreGuest(volume.volid, overwrite=True)
    assert twice(dev, over) == [f"restore vm 110 (dev) from {volume.volid}, over the one that is there"]
    assert config_of(dev).cores == 4
    do(dev, StartGuest())
    with pytest.raises(Usage, match="runs; shut it down before it is restored over"):
        do(dev, over)


# Destroying


# 8.4


@pytest.mark.process
def test_the_same_on_8(tmp_path: Path) -> None:
    older = {"version": 8, "release": {"version": "8.4.1", "release": "8.4", "repoid": "0" * 16}}
    with another(tmp_path, state() | older) as found:
        begin(found)
        for action in (
            SetOptions({"cores": 2, "tags": "B;a"}),
            RebootGuest(),
            TakeSnapshot("clean"),
            AttachDisk("scsi1", GIB, storage="tank"),
            RelocateDisk("scsi1", "nvmeprom"),
            BackupGuest(newer_than=60),
            StopGuest(),
            RollbackGuest("clean"),
        ):
            twice(found, action)
        done = do(found, DestroyGuest("dev", 110, discard=("snapshot:clean", "unused0")))
        assert done[-1].startswith("destroy vm 110 (dev)")
