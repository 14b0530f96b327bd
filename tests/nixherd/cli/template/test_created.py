"""Creating the template: images, the trial, input that is refused."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.nixherd.cli.template.conftest import (
    BARRED,
    GOOD,
    IMAGE,
    POOL,
    RECIPE,
    SHA256,
    URL,
    Create,
    begin,
    guests,
    template,
)
from tests.nixherd.proxmox.conftest import Emulator, granted
from tests.nixherd.proxmox.fleets import TEMPLATE

pytestmark = pytest.mark.xdist_group("emulator")


@pytest.mark.parametrize("source", ["an image there", "a URL", "a file here"])
def test_a_template_out_of_nothing(create: Create, emulator: Emulator, tmp_path: Path, source: str) -> None:
    begin(emulator)
    file = tmp_path / "own image.qcow2"
    file.write_bytes(b"QFI\xfb" + bytes(range(256)) * 9)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    words = {
        "an image there": ["--image", IMAGE],
        "a URL": ["--url", URL, "--checksum", SHA256],
        "a file here": ["--from", str(file)],
    }[source]
    planned = create(*words, "--dry-run")
    assert planned.status == 0, planned.err
    assert emulator.changes() == []
    done = create(*words)
    assert done.status == 0, done.err
    assert done.json["changed"]
    assert done.json["steps"] == planned.json["steps"]
    assert planned.json["steps"][-2:] == [
        "try it: clone it to vm 9000, boot that, ask its agent, destroy it",
        "convert vm 9002 to a template, for good",
    ]
    made = template(emulator)
    assert (made["template"], made["name"], made["agent"], made["serial0"]) == (1, "base", "enabled=1", "socket")
    assert "pre-enrolled-keys=0" in made["efidisk0"]
    assert (made["bios"], made["boot"]) == ("ovmf", "order=scsi0")
    assert "cloudinit" in made["ide2"]
    assert made["scsi0"].startswith("nvmeprom:base-9002-disk-")
    assert guests(emulator) == {104, 109, 111, 9002}
    images = {row.volid for row in emulator.client().volumes("prom", "local", content="import")}
    brought = {"a URL": SHA256, "a file here": digest}.get(source)
    assert images == ({IMAGE, f"local:import/nixherd-9002-{brought[:16]}.qcow2"} if brought else {IMAGE})
    changes = emulator.changes()
    assert not any("/104" in change or "/109" in change or "/111" in change for change in changes)
    again = create(*words)
    assert (again.status, again.json["changed"], again.json["steps"]) == (0, False, [])
    assert again.json["reason"] == "it is there and has what a clone needs"
    assert emulator.changes() == changes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("boots", "words"),
    [
        (None, "no guest agent answered within 1 s of its first boot"),
        (BARRED, "its guest agent does not allow guest-exec"),
        ({**GOOD, "commands": []}, "cloud-init cannot be asked"),
    ],
    ids=["no agent", "barred", "no cloud-init"],
)
def test_an_image_that_will_not_do_is_noticed_and_leaves_nothing(
    create: Create, emulator: Emulator, boots: dict[str, Any] | None, words: str
) -> None:
    begin(emulator, boots)
    ended = create("--image", IMAGE, "--boot-deadline", "1")
    assert ended.status == 1
    last = ended.err.splitlines()[-1]
    assert words in last
    assert "nixherd template create --from" in last
    assert guests(emulator) == {104, 109, 111}


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"name": "drop-connection", "method": "POST", "path": "/agent/exec"}, 5),
        ({"name": "timed-out", "method": "GET", "path": "/agent/info", "count": 999}, 5),
        ({"name": "timed-out", "method": "POST", "path": "/agent/exec"}, 0),  # asked once more
    ],
    ids=["lost", "overloaded", "late"],
)
def test_a_lost_answer_says_nothing_of_the_image(
    create: Create, emulator: Emulator, fault: dict[str, Any], status: int
) -> None:
    begin(emulator)
    emulator.control("fault", **fault)
    ended = create("--image", IMAGE, "--boot-deadline", "1")
    assert ended.status == status, ended.err
    assert "will not do" not in ended.err
    assert guests(emulator) == {104, 109, 111, 9002}  # kept, its trial is gone


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"name": "task-fails", "type": "qmdestroy", "message": "disk is busy"}, "disk is busy"),
        ({"name": "drop-connection", "method": "DELETE", "path": "/qemu/9002"}, "without an answer"),
    ],
    ids=["the trial", "the VM"],
)
def test_what_cannot_be_removed_hides_no_reason(
    create: Create, emulator: Emulator, fault: dict[str, Any], words: str
) -> None:
    begin(emulator, BARRED)
    emulator.control("fault", **fault)
    ended = create("--image", IMAGE)
    assert ended.status == 1
    last = ended.err.splitlines()[-1]
    assert "its guest agent does not allow guest-exec" in last
    assert "is not known to be gone" in last
    assert words in last


def test_what_is_there_is_never_changed(create: Create, emulator: Emulator) -> None:
    disk = {"scsi0": "nvmeprom:vm-9002-disk-0,size=4G", "boot": "order=scsi0"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": "theirs", **disk}, "is not a template and was not made by"),
        ({"name": "base", **disk}, "is not a template and was not made by"),
        ({"name": "base", "template": 1, **disk}, "is a template already, which is never changed"),
        ({"name": "base", "description": "nixherd fleet=other template=9002", **disk}, "was not made by"),
    ]
    for config, words in cases:
        one = {"type": "qemu", "node": "prom", "status": "stopped"}
        begin(emulator, vms={"9002": {**one, "config": {**dict.fromkeys(TEMPLATE), **config}}})
        ended = create("--image", IMAGE)
        assert ended.status == 3, ended.err
        assert words in ended.err.splitlines()[-1]
        assert emulator.changes() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name one image"),
        (["--image", IMAGE, "--url", URL], "name one image"),
        (["--url", URL], "needs --checksum SHA256"),
        (["--url", f"{URL}.xz", "--checksum", SHA256], "ends with .xz"),
        (["--image", "local:import/nosuch.qcow2"], "is not there"),
        (["--image", "local:iso/debian.img"], "is content iso"),
        (["--image", "nosuch:import/x.qcow2"], "has no storage nosuch"),
        (["--from", "/nonexistent.qcow2"], "cannot be read"),
        (["--image", IMAGE, "--range", "nosuch"], "vmidRanges has no nosuch"),
    ],
)
def test_what_cannot_be_meant(create: Create, emulator: Emulator, words: list[str], said: str) -> None:
    begin(emulator)
    ended = create(*words)
    assert (ended.status, len(ended.err.splitlines())) == (2, 1), ended.err
    assert said in ended.err
    assert emulator.changes() == []


@pytest.mark.parametrize("option", ["--boot-deadline", "--deadline"])
@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "1e999", "1e300", "2592001", "0", "-1", "soon", ""])
def test_a_deadline_is_a_number_of_seconds(create: Create, emulator: Emulator, option: str, seconds: str) -> None:
    begin(emulator)
    ended = create("--image", IMAGE, option, seconds)
    assert (ended.status, len(ended.err.splitlines())) == (2, 1), ended.err
    assert f"{seconds} is not a number of seconds from 1 to 2592000; write one like 300" in ended.err
    assert f"'{option}'" in ended.err
    assert emulator.changes() == []


def test_another_checksum_ends_before_anything_is_made(create: Create, emulator: Emulator) -> None:
    begin(emulator)
    ended = create("--url", URL, "--checksum", "f" * 64)
    assert ended.status == 1
    assert "checksum mismatch" in ended.err
    assert guests(emulator) == {104, 109, 111}


def test_a_guest_that_may_not_be_seen_is_not_taken_for_nothing(create: Create, emulator: Emulator) -> None:
    hidden = [row for row in granted(*RECIPE) if row["path"] not in ("/vms/9002", "/vms")]
    one = {"type": "qemu", "node": "prom", "status": "stopped", "config": {"name": "x"}}
    begin(emulator, vms={"9002": one}, acl=hidden)
    ended = create("--image", IMAGE)
    assert ended.status == 3
    assert "--roles PVETemplateUser" in ended.err
    assert emulator.changes() == []


def test_rights_that_are_missing_are_all_named_before_anything_is_changed(create: Create, emulator: Emulator) -> None:
    begin(emulator, acl=granted(*RECIPE[:-1]))
    ended = create("--url", URL, "--checksum", SHA256)
    assert ended.status == 2
    assert "the API token lacks Sys.AccessNetwork on /nodes/prom" in ended.err
    begin(emulator, acl=[row for row in granted(("/", "PVEAuditor")) if row["path"] == "/"])
    ended = create("--url", URL, "--checksum", SHA256)
    said = [line.partition(" on ")[2].partition(";")[0] for line in ended.err.splitlines()]
    assert said == [
        *(f"/pool/{POOL}", "/storage/nvmeprom", "/sdn/zones/localnetwork/vmbr0", "/storage/local", "/nodes/prom"),
    ]
    assert emulator.changes() == []
