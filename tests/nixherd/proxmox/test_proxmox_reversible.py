"""Snapshots around steps: taken before, removed or kept after, and old ones left alone."""

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import FleetError, Usage
from nixherd.base.names import parse_size
from nixherd.proxmox.guest import snapshots
from nixherd.proxmox.guest.disks import RelocateDisk, ResizeDisk
from nixherd.proxmox.guest.hardware import SetOptions
from nixherd.proxmox.guest.lifecycle import StartGuest
from nixherd.proxmox.guest.snapshots import Reversible, TakeSnapshot, reversible
from nixherd.proxmox.steps import Outcome
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.proxmox.dev import config_of, do, twice
from tests.nixherd.proxmox.fleets import DEV, FLEET

pytestmark = [pytest.mark.xdist_group("emulator"), pytest.mark.usefixtures("no_long_pauses")]


UNDO = "undo-resize-[0-9a-f]{6}"


def names(emulator: Emulator) -> list[str]:
    return [row.name for row in emulator.client().snapshots("prom", 110)]


def grown(to: str = "70G", **about: Any) -> Reversible:
    return Reversible(ResizeDisk(size=parse_size(to)), keep=False, **about)


def test_a_risky_step_between_snapshots(dev: Emulator) -> None:
    action = Reversible(SetOptions({"cores": 2}), keep=False, run_id="0a1b2c")
    assert twice(dev, action) == [
        "snapshot vm 110 as undo-configure-0a1b2c",
        "set cores 4 → 2",
        "delete snapshot undo-configure-0a1b2c of vm 110",
    ]
    assert names(dev) == []
    done = do(dev, reversible(SetOptions({"cores": 3}), "keep"))
    assert len(done) == 2
    [name] = names(dev)
    assert re.fullmatch(r"before-configure-20\d{6}-\d{6}-[0-9a-f]{6}", name)


def test_a_risky_step_that_fails_says_how_to_go_back(dev: Emulator) -> None:
    dev.control("fault", name="task-fails", type="resize")
    with pytest.raises(FleetError, match=rf"the state before is in snapshot {UNDO}: `nixherd vm rollback dev {UNDO}`"):
        do(dev, grown())
    [name] = names(dev)
    # run again: the snapshot that is there holds the state before, and goes in the end
    assert do(dev, grown()) == ["grow scsi0 64G → 70G", f"delete snapshot {name} of vm 110"]
    assert names(dev) == []


def test_an_old_snapshot_is_neither_used_nor_removed(dev: Emulator) -> None:
    dev.control("fault", name="task-fails", type="resize")
    with pytest.raises(FleetError):
        do(dev, grown())
    left = names(dev)
    with pytest.raises(Usage, match=rf"has a snapshot {UNDO} of 20.* UTC, left by an action that failed; go back"):
        do(dev, grown(began=time.time() + 7200))
    assert names(dev) == left


def test_a_run_neither_uses_nor_deletes_what_another_run_made(dev: Emulator) -> None:
    """Of another user, of another machine, of a process that is at work, or of nobody knows whom."""
    theirs = {
        "undo-resize-aaaaaa": "before nixherd was to resize it; by eve@far, process 12/34 of 00000000",
        "undo-resize-bbbbbb": re.sub(r"process \d+/\d+", _alive, snapshots.by_this_run()),
        "undo-resize": "by hand",
    }
    for name, description in theirs.items():
        do(dev, TakeSnapshot(name, description=description))
    action = grown(began=time.time() + 7200)
    planned = action.plan(dev.client(), FLEET, DEV)
    done = action.run(dev.client(), FLEET, DEV, timeout=20)
    assert list(map(str, done)) == list(map(str, planned))
    assert str(done[0]) == f"snapshot vm 110 as undo-resize-{action.run_id}"
    assert sorted(names(dev)) == sorted(theirs)
    for each in (planned, done):
        assert isinstance(each, Outcome)
        assert set(each.observed["snapshots_left"]) == set(theirs)  # type: ignore[call-overload]
        assert any(
            "undo-resize-aaaaaa of 20" in line and "by eve@far, which may be at work" in line for line in each.lines
        )


def test_two_runs_at_once_have_each_their_own(dev: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins while the first is at work, elsewhere: each goes back to what it saw itself."""
    second: list[str] = []

    class Meanwhile(ResizeDisk):
        def run(self, *args: Any, **rest: Any) -> Any:
            monkeypatch.setattr(snapshots, "_where", lambda: "ffffffff")
            second.extend(do(dev, grown("68G", run_id="ffffff")))
            monkeypatch.undo()
            return super().run(*args, **rest)

    done = do(dev, Reversible(Meanwhile(size=parse_size("70G")), keep=False, run_id="0a1b2c"))
    assert [done[0], done[-1]] == [
        "snapshot vm 110 as undo-resize-0a1b2c",
        "delete snapshot undo-resize-0a1b2c of vm 110",
    ]
    assert re.fullmatch(f"snapshot vm 110 as {UNDO}", second[0])
    assert second[-1] != done[-1]
    assert names(dev) == []


def _alive(_: re.Match[str]) -> str:
    """Our own parent, which is at work."""
    began = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[19]
    return f"process {os.getppid()}/{began}"


def test_only_two_words_say_what_becomes_of_the_snapshot() -> None:
    with pytest.raises(Usage, match="snapshot=yes: write keep or remove"):
        reversible(StartGuest(), "yes")
    assert reversible(StartGuest(), None) is not None


def test_a_disk_that_a_snapshot_names_is_moved_only_if_it_may_stay(dev: Emulator) -> None:
    client, changes = dev.client(), dev.changes()
    for word in ("keep", "remove"):
        for does in ("plan", "run"):
            with pytest.raises(Usage, match=r"with a snapshot before it, scsi0 cannot be moved .*--keep-source"):
                getattr(reversible(RelocateDisk("scsi0", "tank"), word), does)(client, FLEET, DEV)
    assert dev.changes() == changes
    do(dev, TakeSnapshot("clean"))
    with pytest.raises(Usage, match=r"scsi0 \(nvmeprom:vm-110-disk-0\) is in its snapshots clean, .*--keep-source"):
        RelocateDisk("scsi0", "tank").plan(client, FLEET, DEV)
    client.set_config("prom", 110, {"scsi1": "tank:1"})
    do(dev, RelocateDisk("scsi1", "nvmeprom"))  # made since
    do(dev, RelocateDisk("scsi0", "tank", keep_source=True))
    assert config_of(dev).drives["scsi0"].storage == "tank"
