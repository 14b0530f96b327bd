"""The declared template, made out of an image: brought, tried by a clone that boots, and only then a template."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest.tasks import wait
from nixherd.proxmox.steps import Start, Stop
from nixherd.proxmox.template import create as create_template
from nixherd.proxmox.template import image
from tests.nixherd.cli.conftest import Ended, Nixherd
from tests.nixherd.proxmox.conftest import GIB, Emulator, granted
from tests.nixherd.proxmox.fleets import DEV, FLEET, TEMPLATE

pytestmark = pytest.mark.xdist_group("emulator")

IMAGE = "local:import/debian-13-genericcloud-amd64.qcow2"
URL = "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2"
SHA256 = "0123456789abcdef" * 4
COMMANDS = [{"name": name, "enabled": True} for name in ("guest-ping", *image.AGENT_COMMANDS)]
GOOD: dict[str, Any] = {
    "info": {"version": "10.0.2", "supported_commands": COMMANDS},
    "commands": [{"argv": ["cloud-init", "status", "--wait"], "exitcode": 0, "stdout": "status: done\n"}],
}
BARRED = {**GOOD, "info": {"version": "9", "supported_commands": [{**each, "enabled": False} for each in COMMANDS]}}

Create = Callable[..., Ended]


@pytest.fixture
def create(nixherd: Nixherd, capfd: pytest.CaptureFixture[str]) -> Create:
    """Runs `nixherd template create WORDS`."""

    def call(*words: str) -> Ended:
        capfd.readouterr()
        status = run(["template", "create", "--pool", POOL, *words])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Ended(status, out, err)

    return call


def begin(
    emulator: Emulator,
    boots: dict[str, Any] | None = GOOD,
    vms: dict[str, Any] | None = None,
    volumes: dict[str, Any] | None = None,
    **patch: Any,
) -> None:
    """No template, a storage of images, a URL that the node can fetch; new machines come up as `boots`."""
    volume = {"content": "import", "format": "qcow2", "size": 3 * GIB, "used": GIB}
    local = {
        **{"type": "dir", "path": "/var/lib/vz", "content": "import,iso", "total": 99 * GIB, "avail": 99 * GIB},
        "volumes": {IMAGE: volume, "local:iso/debian.img": {**volume, "content": "iso", "format": "iso"}},
    }
    web = {URL: {"size": 3 * GIB, "sha256": SHA256}}
    emulator.control(
        "reset",
        patch={
            **{"vms": vms or {"9002": None}},
            **{"storages": {"local": local, "nvmeprom": {"volumes": {_BASE: None, **(volumes or {})}}}},
            **{"web": web, "boots": boots, "acl": granted(*RECIPE), "roles": ROLES},
            "pools": {POOL: {"members": []}},
            **patch,
        },
    )


POOL = "nixherd-templates"
# What docs/proxmox.md grants for making a template, beside what the token has anyway.
ROLES = {
    "NixherdTemplate": [
        *("VM.Allocate", "VM.Audit", "VM.Clone", "VM.PowerMgmt", "VM.GuestAgent.Unrestricted"),
        *(f"VM.Config.{it}" for it in ("CPU", "Memory", "Options", "Disk", "Network", "HWType", "Cloudinit")),
    ],
    "NixherdImages": ["Datastore.AllocateTemplate", "Datastore.Audit"],
    "NixherdFetch": ["Sys.AccessNetwork"],
}
RECIPE = (
    *((f"/pool/{POOL}", "NixherdTemplate"), ("/storage/local", "NixherdImages")),
    *(("/storage/nvmeprom", "PVEDatastoreUser"), ("/sdn/zones/localnetwork/vmbr0", "PVESDNUser")),
    ("/nodes/prom", "NixherdFetch"),
)
_BASE = "nvmeprom:base-9002-disk-0"


def template(emulator: Emulator) -> dict[str, Any]:
    config = emulator.client().config("prom", 9002)
    return dict(config.values) if config else {}


def guests(emulator: Emulator) -> set[int]:
    return {row.vmid for row in emulator.client().resources()}


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
        ({"name": "theirs", **disk}, "is no template and was not made by"),
        ({"name": "base", **disk}, "is no template and was not made by"),
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
    assert f"{seconds} is no number of seconds from 1 to 2592000; write one like 300" in ended.err
    assert f"'{option}'" in ended.err
    assert emulator.changes() == []


def test_another_checksum_ends_before_anything_is_made(create: Create, emulator: Emulator) -> None:
    begin(emulator)
    ended = create("--url", URL, "--checksum", "f" * 64)
    assert ended.status == 1
    assert "checksum mismatch" in ended.err
    assert guests(emulator) == {104, 109, 111}


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
        monkeypatch.setattr(create_template, "try_out", started)
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

    monkeypatch.setattr(create_template, "try_out", meanwhile_changed)
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
