"""The commands that change something: changed, unchanged, refused, malformed, with their exit codes and shapes."""

from pathlib import Path

import pytest

from tests.nixherd.cli.conftest import Nixherd
from tests.nixherd.proxmox.conftest import Emulator, granted
from tests.nixherd.proxmox.dev import begin

pytestmark = pytest.mark.xdist_group("emulator")

CHANGES: list[tuple[list[str], str]] = [
    (["shutdown", "dev", "--timeout", "20"], "shut vm 110 down within 20 s"),
    (["stop", "110"], "stop vm 110 at once"),
    (["suspend", "DEV"], "suspend vm 110"),
    (["resize", "dev", "70G"], "grow scsi0 64G → 70G"),
    (["add-disk", "dev", "scsi1", "10G", "--storage", "tank"], "add scsi1, 10G on tank"),
    (["move-disk", "dev", "scsi0", "tank"], "move scsi0 to tank; nvmeprom:vm-110-disk-0 is deleted then"),
    (["backup", "dev", "--newer-than", "60"], "back vm 110 up to local"),
    (["destroy", "dev", "110", "--stop", "--no-backup"], "shut vm 110 down within 180 s, pull the plug then"),
]


@pytest.mark.parametrize(("words", "says"), CHANGES, ids=lambda value: " ".join(value)[:30])
def test_changed_and_then_unchanged(nixherd: Nixherd, emulator: Emulator, words: list[str], says: str) -> None:
    begin(emulator)
    planned = nixherd(*words, "--dry-run")
    assert planned.status == 0, planned.err
    assert planned.json["planned"]
    assert planned.json["steps"][0] == says
    assert emulator.changes() == []
    done = nixherd(*words)
    assert done.status == 0, done.err
    assert (done.json["name"], done.json["vmid"], done.json["changed"]) == ("dev", 110, True)
    assert done.json["steps"] == planned.json["steps"] or words[0] == "destroy"
    changes = emulator.changes()
    assert changes
    again = nixherd(*words)
    assert (again.status, again.json["changed"], again.json["steps"]) == (0, False, [])
    assert again.json.get("reason") or words[0] == "destroy", "a no-op says what was found"
    assert emulator.changes() == changes


def test_people_read_lines(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator)
    done = nixherd("stop", "dev", "--table")
    assert done.out == "vm 110 (dev): stop vm 110 at once\n"
    assert done.err.startswith("done in ")
    assert nixherd("stop", "dev", "--table").out == "vm 110 (dev): nothing to do: it does not run\n"
    assert nixherd("start", "dev", "--dry-run", "--table").out == "vm 110 (dev): would start vm 110\n"


def test_from_nothing_and_back(nixherd: Nixherd, emulator: Emulator) -> None:
    assert nixherd("clone", "dev", "--dry-run").json["steps"] == ["clone template 9002 to vm 110 (dev) on nvmeprom"]
    assert nixherd("clone", "dev").status == 0
    applied = nixherd("apply", "dev")
    assert applied.status == 0
    assert any(step.startswith("set cores 2 → 4") for step in applied.json["steps"])
    assert nixherd("apply", "dev").json["changed"] is False
    assert nixherd("diff", "dev").status == 0
    assert nixherd("start", "dev").status == 0


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ('disk = "32G";', "scsi0 has 64G, vms/definitions.nix wants 32G; disks are never shrunk"),
        ('disk = "64G"; bios = "ovmf";', "bios: vm 110 (dev) has seabios, managed.dev.bios says ovmf"),
        ('disk = "64G"; storage = "tank";', "storage: scsi0 of vm 110 (dev) is on nvmeprom"),
    ],
)
def test_what_apply_cannot_do_is_one_judgement_for_all(
    nixherd: Nixherd, emulator: Emulator, fleet: Path, declared: str, words: str
) -> None:
    begin(emulator)
    definitions = fleet / "vms" / "definitions.nix"
    text = definitions.read_text().replace('      storage = "nvmeprom";\n', "", 1)
    definitions.write_text(text.replace('disk = "64G";', declared, 1))
    first = nixherd("apply", "dev", "--allow-reboot")
    for ended in (first, nixherd("apply", "dev"), nixherd("apply", "dev", "--dry-run")):
        assert ended.status == 1
        [left] = ended.json["left"]
        assert words in left["difference"]
        assert (left["remedy"], left["interrupts"]) == ("by hand", False)
    assert first.json["changed"] is True  # everything else was done
    found = nixherd("diff", "dev")
    assert (found.status, [row["difference"] for row in found.json]) == (1, [left["difference"]])
    shown = nixherd("apply", "dev", "--table")
    assert (shown.status, shown.out) == (1, f"vm 110 (dev): left by hand: {left['difference']}\n")


def test_what_waits_for_a_reboot_that_nobody_allowed_is_said(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator, cores=2)
    reboot = {"difference": "reboot vm 110 so that cores take effect", "remedy": "apply", "interrupts": True}
    done = nixherd("apply", "dev")
    assert (done.status, done.json["left"]) == (0, [reboot])
    assert [row["difference"] for row in nixherd("diff", "dev").json] == [reboot["difference"]]
    again = nixherd("apply", "dev", "--table")
    assert (again.status, again.out) == (0, "vm 110 (dev): left: reboot vm 110 so that cores take effect\n")
    assert nixherd("apply", "dev", "--allow-reboot").json["left"] == []
    assert nixherd("diff", "dev").status == 0


def test_what_is_unused_is_known_and_no_difference(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator)
    nixherd("apply", "dev")
    nixherd("move-disk", "dev", "scsi0", "tank", "--keep-source")
    nixherd("move-disk", "dev", "scsi0", "nvmeprom")
    found = nixherd("diff", "dev")
    assert (found.status, found.json) == (0, [])
    assert "vm 110 (dev): unused0 (nvmeprom:vm-110-disk-0, 64G) is attached nowhere" in found.err
    waits = nixherd("add-disk", "dev", "sata1", "1G")
    assert waits.json["steps"] == ["add sata1, 1G on nvmeprom (from its next start on)"]
    assert "vm 110 (dev): waits for its next start: sata1" in waits.err


def test_snapshots_back_and_gone(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator)
    nixherd("snapshot", "dev", "clean", "--description", "before")
    [row] = nixherd("snapshot", "dev").json
    assert (row["name"], row["description"]) == ("clean", "before")
    taken = nixherd("snapshot", "dev", "clean")
    assert taken.status == 2
    assert taken.err.startswith("vm 110 (dev): it has a snapshot clean of 20")
    assert nixherd("rollback", "dev", "clean").json["changed"]
    assert nixherd("rollback", "dev", "clean").json["changed"], "who asks for it gets it, whoever was there since"
    assert nixherd("rollback", "dev", "other").status == 2
    assert nixherd("snapshot", "dev", "clean", "--delete").json["changed"]
    assert nixherd("snapshot", "dev").json == []
    gone = nixherd("snapshot", "dev", "clean", "--delete")
    assert (gone.status, gone.out) == (2, "")
    assert gone.err == "vm 110 (dev): it has no snapshot clean; it has none; nothing was deleted\n"


def test_a_guest_that_is_there_is_not_made_again_and_that_is_said(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator)
    for words in (["clone", "dev"], ["clone", "dev", "--empty"], ["clone", "dev", "--dry-run"]):
        ended = nixherd(*words)
        assert (ended.status, ended.out) == (2, "")
        assert ended.err.startswith("vm 110 (dev): it exists on prom; nothing was made; `nixherd vm apply dev` brings")
    assert emulator.changes() == []


def test_a_backup_comes_back(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator, acl=granted())
    assert nixherd("destroy", "dev", "110", "--stop").status == 0
    assert nixherd("backups", "dev").json == []  # the right to see them went with the guest
    [hidden] = emulator.root().volumes("prom", "local", content="backup", vmid=110)
    assert nixherd("restore", "dev", hidden.volid).json["changed"]
    [backup] = nixherd("backups", "dev").json
    assert nixherd("status", "dev").json["ours"] is True
    again = nixherd("restore", "dev", backup["volid"])
    assert (again.status, again.json["changed"]) == (0, False)
    assert again.json["reason"].startswith(f"it was restored from {backup['volid']} by UPID:")
    assert nixherd("start", "dev").status == nixherd("stop", "dev").status == 0
    again = nixherd("restore", "dev", backup["volid"])
    assert (again.status, again.out) == (2, "")
    assert "is on prom, nothing was done; to replace it for good add --overwrite" in again.err
    assert nixherd("restore", "dev", backup["volid"], "--overwrite").json["changed"]


def test_a_backup_prints_the_volume_that_it_made(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator)
    done = nixherd("backup", "dev")
    [row] = nixherd("backups", "dev").json
    assert (done.json["volume"], done.json["size"]) == (row["volid"], row["size"])
    people = nixherd("backup", "dev", "--table").out
    assert people.splitlines()[1].startswith("vm 110 (dev): made local:backup/vzdump-qemu-110-")


def test_what_no_backup_holds_goes_only_by_name(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator, status="stopped", unused0="tank:vm-110-disk-3")
    nixherd("snapshot", "dev", "clean")
    before = emulator.changes()
    words = ["destroy", "dev", "110", "--discard", "unused0"]
    for more in (["--dry-run"], []):
        ended = nixherd(*words, *more)
        assert (ended.status, ended.out) == (3, "")
        [line] = ended.err.splitlines()
        assert "a backup does not hold snapshot:clean; not destroyed: " in line
        assert line.endswith(" name what may go: --discard snapshot:clean")
    assert nixherd(*words, "--discard", "snapshot:cleam").status == 2
    assert emulator.changes() == before
    done = nixherd(*words, "--discard", "snapshot:clean")
    assert done.status == 0
    assert "; given up: unused0, snapshot:clean; " in done.json["steps"][-1]


REFUSED = [
    *(["start"], ["stop"], ["shutdown"], ["reboot"], ["suspend"], ["resume"], ["apply"], ["clone"], ["backup"]),
    *(["resize", "999G"], ["add-disk", "scsi5", "1G"], ["move-disk", "scsi0", "tank"], ["migrate", "prom2"]),
    *(["snapshot", "clean"], ["snapshot", "clean", "--delete"], ["rollback", "clean"]),
    ["restore", "local:backup/vzdump-qemu-104-2026_01_01-00_00_00.vma.zst"],
]


@pytest.mark.parametrize("guest", ["doc1", "104", "109", "proxmox-vm", "kept"])
@pytest.mark.parametrize("words", REFUSED, ids=lambda words: words[0])
def test_protected_guests_are_refused_in_one_sentence_and_nothing_is_sent(
    nixherd: Nixherd, emulator: Emulator, guest: str, words: list[str]
) -> None:
    ended = nixherd(words[0], guest, *words[1:])
    assert ended.status == 3
    assert ended.out == ""
    [line] = ended.err.splitlines()
    assert line.startswith("vm 1")
    assert "in vms/definitions.nix" in line
    assert emulator.requests() == []


@pytest.mark.parametrize(("name", "vmid"), [("doc1", "104"), ("igp", "109"), ("kept", "111")])
def test_protected_guests_are_not_destroyed(nixherd: Nixherd, emulator: Emulator, name: str, vmid: str) -> None:
    ended = nixherd("destroy", name, vmid, "--stop", "--no-backup")
    assert ended.status == 3
    assert len(ended.err.splitlines()) == 1
    assert emulator.requests() == []


@pytest.mark.parametrize("vmid", ["105", "9002"])
def test_what_is_not_declared_is_refused(nixherd: Nixherd, emulator: Emulator, vmid: str) -> None:
    ended = nixherd("stop", vmid)
    assert ended.status == 3
    assert ended.err.startswith(f"vm {vmid} is ")
    assert emulator.requests() == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["start", "deb"], "deb: no guest of vms/definitions.nix has this name, host or alias; the nearest are dev"),
        (["resize", "dev", "many"], "Error: Invalid value for 'SIZE': 'many' is not a size; write one like 64G"),
        (["resize", "dev", "1G"], "vm 110 (dev): scsi0 has 64G, and disks only grow; ask for more"),
        (["snapshot", "dev", "x"], "x is not a name for a snapshot"),
        (["snapshot", "dev", "--delete"], "Error: --delete needs the NAME of a snapshot"),
        (["destroy", "dev", "111"], "to destroy vm 110 (dev) name both, dev and 110, not dev and 111"),
        (["destroy", "110", "110"], "to destroy vm 110 (dev) name both, dev and 110, not 110 and 110"),
        (["destroy", "dev"], "Error: Missing argument 'VMID'; see `nixherd vm destroy --help`"),
        (["destroy", "dev", "110"], "vm 110 (dev) runs; shut it down first, or say that it may be stopped (--stop)"),
        (["migrate", "dev", "prom9"], "node prom9 does not exist; the cluster has prom"),
        (["clone", "dev", "--empty", "--linked"], "--empty copies nothing; leave --from and --linked out"),
        (["next-id", "nosuch"], "vms/definitions.nix: vmidRanges has no nosuch; it has "),
        (["log", "nosuch"], "nosuch is not a UPID; `nixherd vm tasks` lists them"),
        (["backup", "dev", "--storage", "nosuch"], "prom has no storage nosuch"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_changes_nothing(
    nixherd: Nixherd, emulator: Emulator, words: list[str], line: str
) -> None:
    begin(emulator)
    ended = nixherd(*words)
    assert ended.status == (4 if "has no storage" in line else 2), ended.err
    assert ended.err.strip().splitlines()[-1].startswith(line)
    assert ended.out == ""
    assert emulator.changes() == []


def test_a_fleet_that_cannot_be_read_is_wrong_input(
    nixherd: Nixherd, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET", "/nowhere")
    ended = nixherd("list")
    assert ended.status == 2
    assert ended.err == "/nowhere: no such directory; FLEET names the directory of the fleet's flake\n"
    monkeypatch.setenv("PROXMOX_TOKEN_FILE", "/nowhere")


def test_a_token_that_is_not_there_is_said(
    nixherd: Nixherd, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROXMOX_TOKEN_FILE", "/nowhere")
    ended = nixherd("list")
    assert ended.status == 4
    assert ended.err.startswith("token file /nowhere: missing; make an API token")


def test_a_failing_task_is_a_failure(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator)
    emulator.control("fault", name="task-fails", type="qmshutdown")
    ended = nixherd("shutdown", "dev")
    assert ended.status == 1
    assert "task qmshutdown 110 on prom failed" in ended.err.splitlines()[-1]


def test_a_task_that_takes_too_long_is_still_running(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator, task_seconds={"vzdump": 4})
    ended = nixherd("backup", "dev", "--deadline", "1")
    assert ended.status == 5
    assert "is not done within 1 s; it goes on there" in ended.err.splitlines()[-1]
