"""Snapshots around steps: taken before, removed or kept after, and old ones left alone."""

import time

import pytest

from nixherd.errors import FleetError, Usage
from nixherd.proxmox import actions
from nixherd.proxmox.reversible import Reversible, reversible
from nixherd.sizes import parse_size
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.proxmox.dev import config_of, do, twice
from tests.nixherd.proxmox.fleets import DEV, FLEET

pytestmark = [pytest.mark.unit, pytest.mark.xdist_group("emulator"), pytest.mark.usefixtures("no_long_pauses")]


def test_a_risky_step_between_snapshots(dev: Emulator) -> None:
    assert twice(dev, reversible(actions.configure({"cores": 2}), "remove")) == [
        "snapshot vm 110 as undo-configure",
        "set cores 4 → 2",
        "delete snapshot undo-configure of vm 110",
    ]
    assert dev.client().snapshots("prom", 110) == ()
    done = do(dev, reversible(actions.configure({"cores": 3}), "keep"))
    assert len(done) == 2
    [row] = dev.client().snapshots("prom", 110)
    assert row.name.startswith("before-configure-20")


def test_a_risky_step_that_fails_says_how_to_go_back(dev: Emulator) -> None:
    dev.control("fault", name="task-fails", type="resize")
    with pytest.raises(
        FleetError, match=r"the state before is in snapshot undo-resize: `nixherd vm rollback dev undo-resize`"
    ):
        do(dev, reversible(actions.resize(parse_size("70G")), "remove"))
    assert [row.name for row in dev.client().snapshots("prom", 110)] == ["undo-resize"]
    # run again: the snapshot that is there holds the state before, and goes in the end
    assert "snapshot vm 110 as undo-resize" not in do(dev, reversible(actions.resize(parse_size("70G")), "remove"))
    assert dev.client().snapshots("prom", 110) == ()


def test_an_old_snapshot_is_neither_used_nor_removed(dev: Emulator) -> None:
    do(dev, actions.snapshot("undo-resize"))
    later = Reversible(actions.resize(parse_size("70G")), keep=False, began=time.time() + 7200)
    with pytest.raises(Usage, match=r"has a snapshot undo-resize of 20.* UTC, left by an action that failed; go back"):
        do(dev, later)
    assert [row.name for row in dev.client().snapshots("prom", 110)] == ["undo-resize"]


def test_only_two_words_say_what_becomes_of_the_snapshot() -> None:
    with pytest.raises(Usage, match="snapshot=yes: write keep or remove"):
        reversible(actions.start(), "yes")
    assert reversible(actions.start(), None) is not None


def test_a_disk_that_a_snapshot_names_is_moved_only_if_it_may_stay(dev: Emulator) -> None:
    client, changes = dev.client(), dev.changes()
    for word in ("keep", "remove"):
        for does in ("plan", "run"):
            with pytest.raises(Usage, match=r"with a snapshot before it, scsi0 cannot be moved .*--keep-source"):
                getattr(reversible(actions.move_disk("scsi0", "tank"), word), does)(client, FLEET, DEV)
    assert dev.changes() == changes
    do(dev, actions.snapshot("clean"))
    with pytest.raises(Usage, match=r"scsi0 \(nvmeprom:vm-110-disk-0\) is in its snapshots clean, .*--keep-source"):
        actions.move_disk("scsi0", "tank").plan(client, FLEET, DEV)
    client.set_config("prom", 110, {"scsi1": "tank:1"})
    do(dev, actions.move_disk("scsi1", "nvmeprom"))  # made since
    do(dev, actions.move_disk("scsi0", "tank", keep_source=True))
    assert config_of(dev).drives["scsi0"].storage == "tank"
