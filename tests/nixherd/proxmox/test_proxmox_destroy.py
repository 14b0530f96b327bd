"""Destroying: both names, a backup that is seen, a claim, and only what was judged."""

import time
from typing import Any

import pytest

from nixherd.base.errors import FleetError, Refused, Usage
from nixherd.base.names import parse_size
from nixherd.proxmox.guest import destroy
from nixherd.proxmox.guest.backups import BackupGuest
from nixherd.proxmox.guest.destroy import CLAIM, DestroyGuest, claimed_backup
from nixherd.proxmox.guest.disks import AttachDisk
from nixherd.proxmox.guest.lifecycle import StartGuest, StopGuest
from nixherd.proxmox.guest.removal import Claim
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.proxmox.dev import MAC, begin, config_of, do
from tests.nixherd.proxmox.fleets import DEV, FLEET

pytestmark = [pytest.mark.xdist_group("emulator"), pytest.mark.usefixtures("no_long_pauses")]


def test_destroying_takes_both_names(dev: Emulator) -> None:
    for name, vmid in (("dev", 111), ("kept", 110), ("dev", 104)):
        with pytest.raises(Usage, match=r"to destroy vm 110 \(dev\) name both, dev and 110"):
            do(dev, DestroyGuest(name, vmid))
    assert dev.requests() == []


def test_a_running_guest_is_destroyed_only_when_told(dev: Emulator) -> None:
    with pytest.raises(Usage, match=r"vm 110 \(dev\) runs; shut it down first"):
        do(dev, DestroyGuest("dev", 110))
    assert dev.changes() == []
    steps = do(dev, DestroyGuest("dev", 110, stop=True))
    assert [step.split()[0] for step in steps] == ["shut", "back", "destroy"]
    assert steps[-1].startswith(
        f"destroy vm 110 (dev), net0 {MAC.lower()}, with ide2 nvmeprom:vm-110-cloudinit (4M), "
        "scsi0 nvmeprom:vm-110-disk-0 (64G); with it go the rights set on /vms/110, its firewall rules, and its "
        "membership of pool nixherd; backup: local:backup/vzdump-qemu-110-"
    )
    client = dev.client()
    assert client.config("prom", 110) is None
    assert client.is_free(110)
    assert [volume.vmid for volume in dev.root().volumes("prom", "nvmeprom")] == [9002, 104]
    assert len(dev.root().volumes("prom", "local", content="backup", vmid=110)) == 1
    assert DestroyGuest("dev", 110).plan(client, FLEET, DEV) == ()
    assert do(dev, DestroyGuest("dev", 110)) == []


def test_the_backup_prunes_no_other(dev: Emulator) -> None:
    do(dev, StopGuest())
    do(dev, BackupGuest())
    do(dev, DestroyGuest("dev", 110))
    assert len(dev.root().volumes("prom", "local", content="backup", vmid=110)) == 2
    [request] = [row for row in dev.requests() if row["path"].endswith("/vzdump")][-1:]
    assert str(request["params"]["remove"]) == "0"


def test_without_a_backup_nothing_is_destroyed(dev: Emulator) -> None:
    do(dev, StopGuest())
    dev.control("fault", name="task-fails", type="vzdump")
    with pytest.raises(FleetError, match="vzdump"):
        do(dev, DestroyGuest("dev", 110))
    assert config_of(dev).name == "dev"
    assert CLAIM not in config_of(dev).description


def test_a_run_that_was_killed_after_its_claim_makes_no_second_backup(dev: Emulator) -> None:
    do(dev, StopGuest())
    dev.control("fault", name="task-fails", type="qmdestroy")
    with pytest.raises(FleetError, match="qmdestroy"):
        do(dev, DestroyGuest("dev", 110))
    saved = claimed_backup(config_of(dev))
    assert saved is not None
    steps = do(dev, DestroyGuest("dev", 110))
    assert [step.split()[0] for step in steps] == ["destroy"]
    assert steps[0].endswith(f"backup: {saved}")
    assert len(dev.root().volumes("prom", "local", content="backup", vmid=110)) == 1


def test_a_disk_that_is_attached_during_the_backup_is_not_destroyed(
    dev: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = destroy._save

    def and_a_disk(*args: Any) -> Claim:
        do(dev, AttachDisk("scsi1", parse_size("8G"), storage="nvmeprom"))
        return saved(*args)

    monkeypatch.setattr(destroy, "_save", and_a_disk)
    do(dev, StopGuest())
    with pytest.raises(Refused, match=r"vm 110 \(dev\) changed since it was looked at; .*\(8G\); .*not destroyed"):
        do(dev, DestroyGuest("dev", 110))
    assert CLAIM not in config_of(dev).description


@pytest.mark.parametrize("since", ["started", "removed"])
def test_a_backup_that_a_killed_run_made_is_no_longer_relied_on(dev: Emulator, since: str) -> None:
    do(dev, StopGuest())
    dev.control("fault", name="task-fails", type="qmdestroy")
    with pytest.raises(FleetError, match="qmdestroy"):
        do(dev, DestroyGuest("dev", 110))
    first = claimed_backup(config_of(dev))
    assert first is not None
    if since == "started":
        do(dev, StartGuest())
        do(dev, StopGuest())
    else:
        dev.control("outside", do="remove-volume", volid=first)
    time.sleep(1.1)  # archives are named after the second
    steps = do(dev, DestroyGuest("dev", 110))
    assert [step.split()[0] for step in steps][-2:] == ["back", "destroy"]
    assert first not in steps[-1]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"name": "devs"}, "its name is devs, not dev"),
        ({"description": "somebody's"}, "its notes lack the line"),
        ({"protection": 1}, "is protected"),
    ],
)
def test_what_is_not_the_declared_guest_is_not_destroyed(
    emulator: Emulator, config: dict[str, Any], words: str
) -> None:
    begin(emulator, status="stopped", **config)
    with pytest.raises(Refused, match=words):
        do(emulator, DestroyGuest("dev", 110))
    assert emulator.changes() == []


def test_a_failure_after_the_shutdown_says_that_the_guest_is_off(dev: Emulator) -> None:
    dev.control("fault", name="storage-full", storage="local")
    with pytest.raises(
        FleetError,
        match=r"; before that, this was done: shut vm 110 down.*; vm 110 \(dev\) is there on prom, not destr",
    ) as caught:
        do(dev, DestroyGuest("dev", 110, stop=True))
    assert str(caught.value).endswith("not destroyed, and is off")
