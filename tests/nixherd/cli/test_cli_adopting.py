"""A guest that was made elsewhere: shown, asked for, and marked as ours, with nothing else changed."""

from pathlib import Path
from typing import Any

import click
import pytest

from nixherd.cli import front, output
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.steps import Mark
from tests.nixherd.cli.conftest import Nixherd
from tests.nixherd.proxmox.conftest import Emulator, granted
from tests.nixherd.proxmox.dev import MAC, begin, config_of
from tests.nixherd.proxmox.fleets import FLEET

pytestmark = pytest.mark.xdist_group("emulator")

LINE = "nixherd fleet=homelab vmid=110"
NOTES = "  made by hand\n\nsee the wiki: https://wiki/dev?a=1&b=%20"
CONTAINER = '    dns = { type = "lxc"; vmid = 210; cores = 1; memory = 512; disk = "4G"; nixosConfig = "caddy"; };\n'


@pytest.fixture
def elsewhere(emulator: Emulator) -> Emulator:
    """`dev` runs, whole, and nobody has marked it."""
    begin(emulator, description=NOTES)
    return emulator


def but_for_the_notes(config: VmConfig) -> dict[str, Any]:
    return {key: value for key, value in config.values.items() if key not in ("description", "digest")}


@pytest.mark.parametrize("notes", [NOTES, "", "nixherd fleet=homelab vmid=105", "nixherd fleet=other vmid=105"])
def test_the_mark_is_put_there_and_nothing_else(nixherd: Nixherd, emulator: Emulator, notes: str) -> None:
    begin(emulator, description=notes or None, cores=2)
    before = config_of(emulator)
    assert nixherd("start", "dev").status == 3  # without the mark it is not changed
    planned = nixherd("adopt", "dev", "110", "--dry-run").json
    assert (planned["planned"], planned["ours"], planned["steps"]) == (
        True,
        False,
        [f"put `{LINE}` into the notes of vm 110"],
    )
    assert any(line.startswith("set cores 2 → 4") for line in planned["differences"])
    assert emulator.changes() == []
    done = nixherd("adopt", "dev", "110", "--yes")
    assert done.status == 0, done.err
    assert done.json | {"seconds": 0} == {
        **{"name": "dev", "vmid": 110, "node": "prom", "ours": True, "needs_mark": True, "changed": True},
        **{"differences": planned["differences"], "steps": planned["steps"], "seconds": 0},
    }
    after = config_of(emulator)
    assert but_for_the_notes(after) == but_for_the_notes(before)
    assert after.description.rstrip("\n") == f"{LINE}\n{notes}".rstrip("\n")
    assert emulator.changes() == ["PUT /nodes/prom/qemu/110/config"]
    [sent] = [row["params"] for row in emulator.requests() if row["method"] == "PUT"]
    assert sent.keys() == {"description", "digest"}
    assert sent["digest"] == before.digest
    again = nixherd("adopt", "dev", "110", "--yes")
    assert (again.status, again.json["changed"], again.json["ours"]) == (0, False, True)
    assert len(emulator.changes()) == 1
    assert nixherd("stop", "dev").json["changed"]


def test_people_see_what_it_is_and_how_it_differs_and_are_asked(
    nixherd: Nixherd, elsewhere: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = nixherd("adopt", "dev", "110", "--table")
    assert refused.status == 2
    assert refused.err == "vm 110 (dev) was not adopted: without a terminal to ask on, say --yes\n"
    first, *rest = refused.out.splitlines()
    assert first == f"vm 110 (dev) on prom: named dev, running, net0 {MAC.lower()}, scsi0 64G"
    assert all(line.startswith("vm 110 (dev): differs: set cloud-init ") for line in rest)
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    for answer, status in ((False, 2), (True, 0)):
        assert LINE not in config_of(elsewhere).description
        monkeypatch.setattr(click, "confirm", lambda *words, answer=answer, **options: answer)
        assert nixherd("adopt", "dev", "110").status == status
    assert LINE in config_of(elsewhere).description


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "another name": ({"name": "theirs"}, 3, "its name is theirs, not dev"),
    "a template": ({"template": 1}, 3, "it is a template"),
    "another fleet's": ({"description": "nixherd fleet=other vmid=110"}, 3, "another fleet's, `nixherd fleet=other"),
    "being backed up": ({"lock": "backup"}, 4, "vm 110 (dev) is locked (backup)"),
    "being restored": ({"lock": "create"}, 4, "vm 110 (dev) is locked (create)"),
    "suspended": ({"lock": "suspended"}, 4, "vm 110 (dev) is suspended to disk"),
    "long notes": ({"description": "x" * 8170}, 4, "its notes have 8170 characters"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_adopted_is_left_as_it_is(nixherd: Nixherd, emulator: Emulator, case: str) -> None:
    values, status, words = REFUSED[case]
    begin(emulator, **{"description": NOTES, **values})
    before = config_of(emulator).values
    ended = nixherd("adopt", "dev", "110", "--yes")
    assert (ended.status, ended.out) == (status, ""), ended.err
    assert words in ended.err.splitlines()[-1]
    assert emulator.changes() == []
    assert config_of(emulator).values == before


def test_another_card_than_the_declared_one_is_another_machine(
    nixherd: Nixherd, elsewhere: Emulator, fleet: Path
) -> None:
    file = fleet / "vms" / "definitions.nix"
    declared = 'vmid = 110;\n      networks.net0 = { bridge = "vmbr0"; mac = "BC:24:11:00:00:99"; };'
    file.write_text(file.read_text().replace("vmid = 110;", declared))
    ended = nixherd("adopt", "dev", "110", "--yes")
    assert ended.status == 3
    assert f"has net0 {MAC.lower()}, managed.dev declares bc:24:11:00:00:99: it is another machine" in ended.err
    file.write_text(file.read_text().replace("BC:24:11:00:00:99", MAC.lower()))
    assert nixherd("adopt", "dev", "110", "--yes").status == 0


def test_what_is_not_there_or_not_meant(nixherd: Nixherd, emulator: Emulator) -> None:
    for words, status, said in [
        (["dev", "110"], 4, "vm 110 (dev) does not exist on prom; there is nothing to adopt"),
        (["dev", "115"], 2, "managed.dev is dev and 110; dev and 115 were given"),
        (["110", "110"], 2, "110 and 110 were given"),
        (["105", "105"], 3, "vm 105 is not declared in vms/definitions.nix"),
        (["9002", "9002"], 3, "vm 9002 is the template in vms/definitions.nix"),
    ]:
        ended = nixherd("adopt", *words, "--yes")
        assert (ended.status, len(ended.err.splitlines())) == (status, 1)
        assert said in ended.err
    container = {"type": "lxc", "node": "prom", "status": "stopped", "config": {"hostname": "dev", "memory": 512}}
    emulator.control("reset", patch={"vms": {"110": container}})
    assert nixherd("adopt", "dev", "110", "--yes").status == 3
    assert emulator.changes() == []


def test_a_guest_that_the_token_may_not_see_is_not_adopted(nixherd: Nixherd, elsewhere: Emulator) -> None:
    acl = [{"path": "/vms/104", "type": "user", "ugid": "nixherd@pve", "roleid": "PVEAuditor", "propagate": 1}]
    config = {"name": "dev", "description": NOTES}
    vm = {"110": {"type": "qemu", "node": "prom", "status": "stopped", "config": config}}
    elsewhere.control("reset", patch={"acl": acl, "vms": vm})
    ended = nixherd("adopt", "dev", "110", "--yes")
    assert ended.status in (3, 4)
    [line] = ended.err.splitlines()
    assert "110" in line
    assert "absent" not in line
    assert "does not exist" not in line
    assert elsewhere.changes() == []


@pytest.mark.parametrize("moment", ["while it is asked", "while it is written"])
@pytest.mark.parametrize(
    "change", [{"cores": 1}, {"description": "by another"}, {"net0": "virtio=BC:24:11:00:09:99,bridge=vmbr0"}]
)
def test_a_change_in_between_is_noticed(
    nixherd: Nixherd, elsewhere: Emulator, monkeypatch: pytest.MonkeyPatch, moment: str, change: dict[str, Any]
) -> None:
    def another(*seen: object, **options: object) -> None:
        if not elsewhere.changes():
            elsewhere.client(Policy.from_fleet(FLEET)).set_config("prom", 110, change)

    def late(*words: Any) -> Any:
        another()
        return begin(*words)

    begin = Mark.begin
    where: tuple[Any, str, Any] = (front, "confirm", another) if "asked" in moment else (Mark, "begin", late)
    monkeypatch.setattr(*where)
    ended = nixherd("adopt", "dev", "110", "--yes")
    assert ended.status == 4, ended.err
    assert f"changed since it was shown ({next(iter(change))}), not adopted" in ended.err
    assert LINE not in config_of(elsewhere).description
    monkeypatch.undo()


def test_a_lock_in_between_is_waited_for_and_a_lost_answer_is_looked_after(
    nixherd: Nixherd, elsewhere: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*seen: object, **options: object) -> None:
        elsewhere.control("fault", name="lock-held", vmid=110, requests=3)
        elsewhere.control("fault", name="drop-connection", method="PUT", path="/config", count=1)

    monkeypatch.setattr(front, "confirm", locked)
    ended = nixherd("adopt", "dev", "110", "--yes")
    assert (ended.status, ended.json["changed"]) == (0, True), ended.err
    assert "is locked (backup)" in ended.err
    assert len(ended.json["steps"]) == 1
    assert config_of(elsewhere).description.startswith(LINE)


@pytest.mark.parametrize(("name", "vmid"), [("kept", 111), ("doc1", 104)])
def test_what_is_never_changed_needs_none(nixherd: Nixherd, emulator: Emulator, name: str, vmid: int) -> None:
    ended = nixherd("adopt", name, str(vmid), "--yes")
    assert ended.status == 0, ended.err
    assert (ended.json["needs_mark"], ended.json["changed"], ended.json["steps"]) == (False, False, [])
    said = nixherd("adopt", name, str(vmid), "--yes", "--table").out
    assert "what is never changed needs no mark; nothing was written" in said
    assert emulator.changes() == []


def test_a_container_is_adopted_alike(nixherd: Nixherd, emulator: Emulator, fleet: Path) -> None:
    file = fleet / "vms" / "definitions.nix"
    kept = 'kept = { vmid = 111; cores = 2; memory = 2048; disk = "8G"; nixosConfig = "caddy"; readonly = true; };\n'
    file.write_text(file.read_text().replace(f"    {kept}", CONTAINER))
    config = {"hostname": "dns", "memory": 512, "cores": 2, "rootfs": "nvmeprom:vm-210-disk-0,size=4G"}
    dns = {"type": "lxc", "node": "prom", "status": "stopped", "config": config}
    emulator.control("reset", patch={"vms": {"210": dns}, "acl": granted(("/vms/210", "Nixherd"))})
    assert nixherd("diff", "dns").json[0]["remedy"] == "adopt"
    ended = nixherd("adopt", "dns", "210", "--yes")
    assert ended.status == 0, ended.err
    assert ended.json["differences"] == ["set cores 2 → 1"]
    assert emulator.changes() == ["PUT /nodes/prom/lxc/210/config"]
    assert [row["difference"] for row in nixherd("diff", "dns").json] == ["set cores 2 → 1"]


@pytest.mark.parametrize("attribute", ["hwaddr", "mac"])
def test_a_containers_card_tells_it_from_another(
    nixherd: Nixherd, emulator: Emulator, fleet: Path, attribute: str
) -> None:
    """Whatever the definitions call its MAC."""
    card = f'networks.net0 = {{ bridge = "vmbr0"; {attribute} = "BC:24:11:00:00:99"; }}; vmid = 210;'
    file = fleet / "vms" / "definitions.nix"
    kept = 'kept = { vmid = 111; cores = 2; memory = 2048; disk = "8G"; nixosConfig = "caddy"; readonly = true; };\n'
    file.write_text(file.read_text().replace(f"    {kept}", CONTAINER.replace("vmid = 210;", card)))
    config = {"hostname": "dns", "memory": 512, "cores": 1, "rootfs": "nvmeprom:vm-210-disk-0,size=4G"}
    dns = {"type": "lxc", "node": "prom", "status": "stopped", "config": config}
    for mac, status in (("BC:24:11:00:00:11", 3), ("BC:24:11:00:00:99", 0)):
        config["net0"] = f"name=eth0,bridge=vmbr0,hwaddr={mac}"
        emulator.control("reset", patch={"vms": {"210": dns}, "acl": granted(("/vms/210", "Nixherd"))})
        ended = nixherd("adopt", "dns", "210", "--yes")
        assert (ended.status, "declares bc:24:11:00:00:99: it is another machine" in ended.err) == (status, status == 3)
        assert len(emulator.changes()) == (0 if status else 1)


def test_an_unmarked_guest_stops_nobody_but_itself(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator, description=NOTES, cores=2)
    rows = nixherd("diff").json
    assert {row["name"] for row in rows} >= {"dev", "doc1", "igp"}
    dev = [(row["remedy"], row["difference"]) for row in rows if row["name"] == "dev"]
    assert dev[0][0] == "adopt"
    assert "`nixherd vm adopt dev 110`" in dev[0][1]
    assert any(what.startswith("set cores 2 → 4") for _, what in dev)
    # kept is readonly: it is compared, and needs no mark
    assert not any(row["remedy"] == "adopt" for row in rows if row["name"] == "kept")
    begin(emulator, name="theirs")
    [row] = [row for row in nixherd("diff").json if row["name"] == "dev"]
    assert (row["remedy"], "its name is theirs" in row["difference"]) == ("by hand", True)
