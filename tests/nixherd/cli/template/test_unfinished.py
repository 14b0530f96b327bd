"""A template that a killed run left unfinished, or that others changed."""

from dataclasses import replace
from typing import Any

import pytest

from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest.tasks import wait
from nixherd.proxmox.steps import Start, Stop
from nixherd.proxmox.template import image
from tests.nixherd.cli.template.conftest import IMAGE, POOL, SHA256, URL, Create, begin, guests, template
from tests.nixherd.proxmox.conftest import GIB, Emulator
from tests.nixherd.proxmox.fleets import DEV, FLEET, TEMPLATE

pytestmark = pytest.mark.xdist_group("emulator")


def test_what_a_killed_run_left_is_gone_on_with(create: Create, emulator: Emulator) -> None:
    """The VM that is not a template yet, and a trial that still runs; somebody's guest among the trials stays."""
    notes = f"nixherd fleet=homelab template=9002\nmade of {IMAGE}, ovmf, on nvmeprom"
    values = {"name": "base", "description": notes, "agent": "1", "boot": "order=scsi0"}
    values |= {"scsi0": "nvmeprom:vm-9002-disk-0,size=3G", "net0": "virtio,bridge=vmbr0", "memory": "2048"}
    values |= {"ide2": "nvmeprom:vm-9002-cloudinit,media=cdrom"}
    left = {"name": "nixherd-trial-9002", "description": "nixherd fleet=homelab trial=9002 vmid=9000"}
    copied = {"name": "nixherd-trial-9002", "description": "nixherd fleet=homelab trial=9002 vmid=9000"}
    one = {"type": "qemu", "node": "prom"}
    volume = {"content": "images", "format": "raw", "size": 3 * GIB, "used": GIB}
    names = ("nvmeprom:vm-9002-disk-0", "nvmeprom:vm-9002-cloudinit")
    begin(
        emulator,
        pools={POOL: {"members": [9000, 9001, 9002]}},
        volumes=dict.fromkeys(names, volume),
        vms={
            "9002": {**one, "status": "stopped", "config": {**dict.fromkeys(TEMPLATE), **values}},
            "9000": {**one, "status": "running", "config": left},
            "9001": {**one, "status": "running", "config": copied},
        },
    )
    planned = create("--image", IMAGE, "--dry-run")
    assert planned.json["steps"] == [
        "destroy vm 9000, the trial of a run that was killed",
        "try it: clone it to vm 9003, boot that, ask its agent, destroy it",
        "convert vm 9002 to a template, for good",
    ]
    # of another image, or with other firmware, it is made anew
    for words in (["--url", URL, "--checksum", SHA256], ["--image", IMAGE, "--bios", "seabios"]):
        assert "destroy vm 9002, unfinished and made of something else" in create(*words, "--dry-run").json["steps"]
    done = create("--image", IMAGE)
    assert done.status == 0, done.err
    assert done.json["steps"] == planned.json["steps"]
    assert guests(emulator) == {104, 109, 111, 9001, 9002}
    assert template(emulator)["template"] == 1
    assert not any("/9001" in change for change in emulator.changes())


def unfinished(emulator: Emulator, values: dict[str, Any] | None = None, **patch: Any) -> None:
    """What a killed run of ours left under 9002, of IMAGE; `values` are what somebody changed since."""
    made = {"name": "base", "agent": "1", "boot": "order=scsi0", "memory": "2048", "net0": "virtio,bridge=vmbr0"}
    made["description"] = f"nixherd fleet=homelab template=9002\nmade of {IMAGE}, ovmf, on nvmeprom"
    made |= {"scsi0": "nvmeprom:vm-9002-disk-0,size=3G", "ide2": "nvmeprom:vm-9002-cloudinit,media=cdrom"}
    volume = {"content": "images", "format": "raw", "size": 3 * GIB, "used": GIB}
    vm = {"type": "qemu", "node": "prom", "status": "stopped"}
    vm["config"] = {**dict.fromkeys(TEMPLATE), **made, **(values or {})}  # type: ignore[assignment]
    begin(
        emulator,
        volumes=dict.fromkeys(("nvmeprom:vm-9002-disk-0", "nvmeprom:vm-9002-cloudinit"), volume),
        **{"pools": {POOL: {"members": [9002]}}, "vms": {"9002": vm}, **patch},
    )


@pytest.mark.parametrize(
    "drive",
    [
        {"scsi1": "nvmeprom:vm-104-disk-0,size=4G"},
        {"unused0": "nvmeprom:vm-104-disk-0"},
        {"scsi1": "/dev/disk/by-id/ata-1"},
        {"scsi1": "nvmeprom:theirs"},
    ],
    ids=str,
)
@pytest.mark.parametrize("words", [["--image", IMAGE], ["--image", IMAGE, "--bios", "seabios"]], ids=["on", "anew"])
def test_another_guests_disk_is_neither_converted_nor_destroyed(
    create: Create, emulator: Emulator, drive: dict[str, str], words: list[str]
) -> None:
    unfinished(emulator, drive)
    ended = create(*words)
    assert ended.status == 3, ended.err
    assert "has drives that are not its own" in ended.err
    assert next(iter(drive.values())).partition(",")[0] in ended.err
    assert emulator.changes() == []


@pytest.mark.parametrize("ran", [False, True], ids=["runs", "ran"])
@pytest.mark.parametrize("when", ["before", "during the trial"])
def test_an_unfinished_one_that_somebody_started_is_never_converted(
    create: Create, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, when: str, ran: bool
) -> None:
    unfinished(emulator)

    def started(*_: object, **__: object) -> list[str]:
        theirs = replace(FLEET, vms={"dev": replace(DEV, vmid=9002)}, template=None)
        client = emulator.client(Policy.from_fleet(theirs))
        for step in [Start("prom", 9002), *([Stop("prom", 9002)] if ran else [])]:
            upid = step.begin(client)
            assert upid is not None
            wait(client, upid, 10)
        return []

    if when == "before":
        started()
    else:
        monkeypatch.setattr(image, "try_out", started)
    before = emulator.changes()
    ended = create("--image", IMAGE)
    assert ended.status == 3, ended.err
    assert ("was started since it was made (qmstart" if ran else "runs, since") in ended.err
    assert [each for each in emulator.changes() if each.endswith("/template")] == []
    assert when != "before" or emulator.changes() == before


@pytest.mark.parametrize("meanwhile", [{"scsi1": "nvmeprom:vm-104-disk-0,size=4G"}, {"ide2": None}], ids=str)
def test_what_somebody_changes_during_the_trial_is_seen_before_the_conversion(
    create: Create, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, meanwhile: dict[str, Any]
) -> None:
    unfinished(emulator)

    def meanwhile_changed(*_: object, **__: object) -> list[str]:
        unfinished(emulator, meanwhile)
        return []

    monkeypatch.setattr(image, "try_out", meanwhile_changed)
    ended = create("--image", IMAGE)
    assert ended.status == 3, ended.err
    assert emulator.changes() == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ide2": None}, "has no cloud-init drive"),
        ({"boot": "order=net0", "scsi0": None}, "boots from no disk"),
        ({"agent": "0"}, "has no guest agent"),
        ({"net0": "virtio"}, "has no net0 on a bridge"),
    ],
)
def test_what_would_be_no_good_template_does_not_become_one(
    create: Create, emulator: Emulator, values: dict[str, Any], said: str
) -> None:
    unfinished(emulator, values)
    ended = create("--image", IMAGE)
    assert ended.status == 3, ended.err
    assert said in ended.err
    assert "is not a template" not in ended.err
    assert emulator.changes() == []


@pytest.mark.parametrize("words", [["--image", IMAGE], ["--image", IMAGE, "--bios", "seabios"]], ids=["on", "anew"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"description": f"nixherd fleet=homelab template=9002\nmade of {IMAGE}, ovmf, on nvmeprom\nkeep"}, "'keep'"),
        ({"description": "nixherd fleet=homelab template=9002"}, "its notes were changed"),
        ({"protection": 1}, "is protected, and so would its trial be"),
    ],
    ids=["noted on", "notes cut", "protected"],
)
def test_the_unfinished_one_that_somebody_took_over_is_left_alone(
    create: Create, emulator: Emulator, values: dict[str, Any], said: str, words: list[str]
) -> None:
    unfinished(emulator, values)
    ended = create(*words)
    assert ended.status == 3, ended.err
    assert said in ended.err
    assert emulator.changes() == []


def test_a_trial_that_somebody_took_over_is_left_alone(create: Create, emulator: Emulator) -> None:
    mark = "nixherd fleet=homelab trial=9002 vmid="
    own = {"name": "nixherd-trial-9002"}
    one = {"type": "qemu", "node": "prom", "status": "stopped"}
    vms = {
        "9002": None,
        "9000": {**one, "config": {"name": "theirs", "description": f"{mark}9000"}},
        "9001": {**one, "config": {**own, "description": f"{mark}9001\nplease keep"}},
        "9003": {**one, "config": {**own, "description": f"{mark}9003\ntried with token {emulator.token.id}"}},
    }
    pools = {POOL: {"members": [9000, 9001, 9003, 9004]}}
    begin(emulator, vms=vms, pools=pools)
    steps = create("--image", IMAGE, "--dry-run").json["steps"]
    assert [step for step in steps if "killed" in step] == ["destroy vm 9003, the trial of a run that was killed"]
    # a run of another operator is at work
    vms["9004"] = {**one, "config": {**own, "description": f"{mark}9004\ntried with token other@pve!theirs"}}
    begin(emulator, vms=vms, pools=pools)
    ended = create("--image", IMAGE)
    assert ended.status == 3
    assert "vm 9004 is a trial of template 9002 which token other@pve!theirs makes" in ended.err
    assert emulator.changes() == []
