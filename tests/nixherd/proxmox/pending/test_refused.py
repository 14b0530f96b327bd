"""Options that a server refuses, and keeps all the same."""

from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import ApiError, Exit, FleetError, exit_of
from nixherd.fleet.models import Device
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest.disks import AttachDisk
from nixherd.proxmox.guest.hardware import SetDevice, SetOptions
from nixherd.proxmox.guest.snapshots import Action
from tests.nixherd.proxmox.conftest import GIB, Emulator
from tests.nixherd.proxmox.dev import MAC, begin, config_of, do
from tests.nixherd.proxmox.fleets import DEV, FLEET
from tests.nixherd.proxmox.pending.conftest import people, volumes, waiting

pytestmark = pytest.mark.usefixtures("no_long_pauses")


NET1 = Device("net1", {"bridge": "vmbr77"})  # a bridge that the node lacks


def refused(emulator: Emulator, action: Action, client: Client | None = None) -> tuple[Exit, str]:
    """How a command that carries the action out ends."""
    client = client or emulator.client()
    with pytest.raises(FleetError) as error:
        action.run(client, FLEET, DEV, timeout=10)
    return exit_of(error.value, changed=client.accepted_changes > 0), str(error.value)


# Refused, and kept all the same


@pytest.mark.parametrize("card", ["net0", "net1"])
def test_what_was_refused_is_taken_back_and_what_waited_before_stays(dev: Emulator, card: str) -> None:
    people(dev, memory=4096)
    before = config_of(dev).nets
    status, words = refused(dev, SetDevice(replace(NET1, name=card)))
    assert (waiting(dev), config_of(dev).nets) == ({"memory": "4096"}, before)
    assert f"{card}: hotplug problem" in words
    assert words.endswith(f"; {card}, which the server had kept for the next start, is taken back")
    assert status is Exit.REMOTE  # nothing was changed


def test_what_the_same_request_set_all_the_same_is_said(dev: Emulator) -> None:
    status, words = refused(dev, SetOptions({"tags": "web", "cores": 2, "net1": "virtio,bridge=vmbr77"}))
    assert waiting(dev) == {}
    config = config_of(dev)
    assert (config.tags, config.cores) == (("web",), 4)
    assert (
        "cores, net1, which the server had kept for the next start, are taken back; tags is set all the same" in words
    )
    assert status is Exit.FAILED


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_a_disk_that_cannot_be_made_leaves_nothing_of_the_request(emulator: Emulator, status: str) -> None:
    begin(emulator, status=status)
    before = volumes(emulator)
    emulator.control("fault", name="storage-full", storage="nvmeprom")
    ended, words = refused(emulator, SetOptions({"cores": 2, "scsi1": "nvmeprom:50"}))
    assert "free space in thin pool" in words
    assert "; cores, which the server had kept for the next start, is taken back" in words
    assert (waiting(emulator), config_of(emulator).cores, volumes(emulator)) == ({}, 4, before)
    assert ended is Exit.REMOTE


def test_what_replaced_something_that_waited_is_not_taken_back_but_said(dev: Emulator) -> None:
    with pytest.raises(ApiError, match="hotplug problem"):
        people(dev, net1=f"virtio={MAC[:-1]}1,bridge=vmbr8")
    status, words = refused(dev, SetDevice(replace(NET1, values={"bridge": "vmbr9"})))
    assert "bridge=vmbr9" in str(waiting(dev)["net1"])
    assert "waits, for the next start, which may fail by it; `qm set 110 --revert net1` on prom takes back" in words
    assert status is Exit.FAILED


def test_a_new_disk_that_is_refused_leaves_no_volume(dev: Emulator) -> None:
    before = volumes(dev)
    dev.control("fault", name="hotplug-fails", option="scsi1")
    status, words = refused(dev, AttachDisk("scsi1", 10 * GIB))
    assert "scsi1: hotplug problem" in words
    assert (waiting(dev), config_of(dev).unused, volumes(dev)) == ({}, {}, before)
    assert status is Exit.REMOTE


def test_an_unplugging_that_fails_is_taken_back(dev: Emulator) -> None:
    do(dev, AttachDisk("scsi1", 10 * GIB))
    dev.control("fault", name="hotplug-fails", option="scsi1")
    status, words = refused(dev, SetOptions({"scsi1": None}))
    assert "scsi1, which the server had kept for the next start, is taken back" in words
    assert waiting(dev) == {}
    assert config_of(dev).drives["scsi1"].size == 10 * GIB
    assert status is Exit.REMOTE


def test_what_cannot_be_taken_back_is_said(dev: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    client = dev.client()
    real = client.set_config

    def set_config(node: str, vmid: int, values: dict[str, Any], *rest: Any, **more: Any) -> None:
        if "revert" in values:
            raise ApiError("PUT: VM is locked (backup) (500)", 500)
        real(node, vmid, values, *rest, **more)

    monkeypatch.setattr(client, "set_config", set_config)
    status, words = refused(dev, SetDevice(NET1), client)
    assert "net1 (none → virtio=" in words
    assert "for the next start, which may fail by it (not taken back: PUT: VM is locked (backup) (500))" in words
    assert status is Exit.FAILED


def test_taking_back_minds_what_others_change_meanwhile(dev: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    client = dev.client()
    real, reverted = client.set_config, list[object]()

    def set_config(node: str, vmid: int, values: dict[str, Any], *rest: Any, **more: Any) -> None:
        if "revert" in values:
            reverted.append(values["revert"])
            if len(reverted) == 1:
                people(dev, memory=4096)
        real(node, vmid, values, *rest, **more)

    monkeypatch.setattr(client, "set_config", set_config)
    status, words = refused(dev, SetDevice(NET1), client)
    assert (waiting(dev), reverted) == ({"memory": "4096"}, ["net1", "net1"])
    assert words.endswith("is taken back")
    assert status is Exit.REMOTE


def test_what_cannot_be_looked_at_is_unknown(dev: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    client = dev.client()
    real, asked = client.pending, list[int]()

    def pending(*arguments: Any) -> Any:
        asked.append(1)
        if len(asked) > 1:
            raise ApiError("GET: no answer", None)
        return real(*arguments)

    monkeypatch.setattr(client, "pending", pending)
    status, words = refused(dev, SetDevice(NET1), client)
    assert "what of it waits for the next start is unknown (GET: no answer); look: `qm pending 110`" in words
    assert status is Exit.UNKNOWN


@pytest.mark.parametrize("fault", ["drop-connection", "timed-out"])
def test_a_refusal_whose_answer_is_lost_is_found_all_the_same(dev: Emulator, fault: str) -> None:
    dev.control("fault", name=fault, method="PUT", path="/config", count=1, refused=True)
    status, words = refused(dev, SetDevice(NET1))
    assert "net1: hotplug problem" in words
    assert waiting(dev) == {}
    assert status is Exit.REMOTE


def test_a_disk_whose_refusal_is_lost_is_made_once(dev: Emulator) -> None:
    dev.control("fault", name="hotplug-fails", option="scsi1", count=1)
    dev.control("fault", name="drop-connection", method="PUT", path="/config", count=1, refused=True)
    before = volumes(dev)
    assert do(dev, AttachDisk("scsi1", 10 * GIB)) == ["add scsi1, 10G on nvmeprom"]
    assert (waiting(dev), config_of(dev).unused) == ({}, {})
    assert len(volumes(dev)) == len(before) + 1


def test_a_step_whose_answer_was_lost_is_one_that_was_done(dev: Emulator) -> None:
    dev.control("fault", name="drop-connection", method="PUT", path="/config", count=1)
    client = dev.client()
    done = SetOptions({"cores": 2}).run(client, FLEET, DEV, timeout=10)
    assert [str(step) for step in done] == ["set cores 4 → 2"]
    assert client.accepted_changes == 1
