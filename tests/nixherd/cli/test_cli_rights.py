"""Commands with less than the documented rights: a guest that may not be seen is *not visible*, never absent."""

import json
from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import ApiError, NotVisible
from nixherd.fleet.models import GuestType
from nixherd.proxmox.answers import Node, Presence
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest.apply import desired
from nixherd.proxmox.guest.identity import mark
from nixherd.proxmox.guest.observe import find, observe
from nixherd.proxmox.steps import Clone
from tests.nixherd.cli.conftest import Nixherd
from tests.nixherd.proxmox.conftest import Emulator, granted
from tests.nixherd.proxmox.dev import begin
from tests.nixherd.proxmox.fleets import DEV, DOC1, FLEET, HOST, KEPT

HIDDEN = (104, 109)


def rights() -> list[dict[str, Any]]:
    """The recipe, but for what it says of the guests that are only shown."""
    return [row for row in granted() if row["path"] not in [f"/vms/{vmid}" for vmid in HIDDEN]]


@pytest.fixture
def blind(emulator: Emulator) -> Emulator:
    """dev and kept are there and differ; nothing is granted on 104 and 109, of which 109 does not exist."""
    ours = {"config": {"description": mark(FLEET, KEPT), "cores": 1}}
    begin(emulator, acl=rights(), vms={"109": None, "111": ours}, cores=2)
    return emulator


def test_the_list_tells_what_is_absent_from_what_is_not_visible(nixherd: Nixherd, blind: Emulator) -> None:
    status = {row["vmid"]: row["status"] for row in nixherd("list").json}
    assert status == {104: "not visible", 109: "absent", 110: "running", 111: "running", 9002: "stopped"}
    assert "not visible" in nixherd("list", "--table").out
    assert blind.changes() == []
    begin(blind, acl=[row for row in granted() if row["path"] != "/vms/9002"])
    [template] = [row for row in nixherd("list").json if row["vmid"] == 9002]
    assert (template["status"], template["origin"], template["name"]) == ("not visible", "template", "base")


def test_differences_go_on_past_what_is_not_visible(nixherd: Nixherd, blind: Emulator) -> None:
    ended = nixherd("diff")
    found = {row["name"]: row["difference"] for row in ended.json}
    assert ended.status == 1
    assert found["doc1"].startswith("vm 104 (doc1) is not visible: VMID 104 is taken, and token nixherd@pve!lab lacks ")
    grant = "pveum acl modify /vms/104 --roles PVEAuditor --users nixherd@pve --tokens 'nixherd@pve!lab'"
    assert grant in found["doc1"]
    assert "not there" in found["igp"]
    assert {"dev", "kept"} <= found.keys()  # and those after it are compared as ever
    assert "doc1 (104): vm 104 (doc1) is not visible" in nixherd("diff", "--table").out


@pytest.mark.parametrize("words", [["status"], ["config"], ["ip"], ["tasks"], ["snapshot"]])
def test_what_is_not_visible_is_said_to_who_asks_for_it(nixherd: Nixherd, blind: Emulator, words: list[str]) -> None:
    hidden = nixherd(words[0], "doc1")
    assert (hidden.status, hidden.out) == (4, "")
    assert "vm 104 (doc1) is not visible" in hidden.err
    absent = nixherd(words[0], "igp")
    assert absent.status == 4
    assert "vm 109 (igp) does not exist" in absent.err


def test_a_vmid_that_nobody_declared(nixherd: Nixherd, blind: Emulator) -> None:
    begin(blind, acl=rights(), vms={"105": {"config": {"name": "theirs"}}})
    taken = nixherd("status", "105")
    assert taken.err == "guest 105 is not visible: the VMID is taken, by a guest that this token may not see\n"
    assert nixherd("import", "105").err == taken.err
    assert nixherd("status", "106").err == "guest 106 does not exist\n"


ACTING = [
    *(["clone", "dev"], ["apply", "dev"], ["start", "dev"], ["backup", "dev"], ["resize", "dev", "99G"]),
    *(["destroy", "dev", "110"], ["restore", "dev", "local:backup/vzdump-qemu-110-2026_01_01-00_00_00.vma.zst"]),
]


@pytest.mark.parametrize("words", ACTING, ids=lambda words: words[0])
def test_nothing_is_made_removed_or_changed_under_a_vmid_that_an_unseen_guest_has(
    nixherd: Nixherd, emulator: Emulator, words: list[str]
) -> None:
    begin(emulator, acl=granted(), pools={"nixherd": {"members": []}})
    ended = nixherd(*words)
    assert ended.status == 3
    assert ended.err.startswith("vm 110 (dev) is not visible: VMID 110 is taken")
    assert "give managed.dev another VMID" in ended.err
    assert emulator.changes() == []


def test_when_not_even_the_vmid_is_told_it_is_unknown(
    nixherd: Nixherd, blind: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Client, vmid: int) -> bool:
        raise ApiError("GET /cluster/nextid: no", 500)

    monkeypatch.setattr(Client, "is_free", fails)
    status = {row["vmid"]: row["status"] for row in nixherd("list").json}
    assert (status[104], status[109]) == ("unknown", "unknown")
    found = {row["name"]: row["difference"] for row in nixherd("diff").json}
    assert found["doc1"].startswith("guest 104: whether there is one is unknown: GET /nodes/prom/qemu/104/config")
    assert "dev" in found
    asked = nixherd("status", "106")
    assert asked.err == "this token may see no guest 106; whether one exists is unknown\n"


def test_backups_of_a_guest_that_is_gone_may_be_hidden(nixherd: Nixherd, emulator: Emulator) -> None:
    begin(emulator, acl=granted())
    assert nixherd("destroy", "dev", "110", "--stop").status == 0
    assert len(emulator.root().volumes("prom", "local", content="backup", vmid=110)) == 1
    listed = nixherd("backups", "dev")
    assert (listed.status, listed.json) == (0, [])
    assert "there may be backups of guest 110 that are hidden: they show with VM.Backup on /vms/110" in listed.err
    assert "pveum acl modify /vms/110 --roles ROLE --users nixherd@pve --tokens 'nixherd@pve!lab'" in listed.err
    begin(emulator, acl=granted())
    assert "hidden" not in nixherd("backups", "dev").err
    assert "hidden" in nixherd("backups", "doc1").err


def test_backups_on_storages_that_are_not_visible_are_not_known_to_be_none(
    nixherd: Nixherd, emulator: Emulator
) -> None:
    seen = {"all": granted(("/storage", "PVEDatastoreUser")), "some": granted()}
    seen["none"] = [row for row in granted() if not row["path"].startswith("/storage")]
    said = {}
    for which, acl in seen.items():
        begin(emulator, acl=acl)
        listed = nixherd("backups", "dev")
        assert listed.json == []
        said[which] = (listed.status, listed.err)
    assert said["all"] == (0, "")
    assert said["some"][0] == 0
    assert said["some"][1].startswith("only local on prom was looked at, and one that token nixherd@pve!lab may not")
    assert said["none"][0] == 5
    assert said["none"][1].startswith("no storage on prom was looked at, and one that token nixherd@pve!lab may not")
    assert "which backups guest 110 has is not known" in said["none"][1]


def test_an_agent_that_may_not_be_asked_is_as_good_as_none(nixherd: Nixherd, emulator: Emulator) -> None:
    rows = [{**row, "roleid": "OnlyAudit"} for row in granted(("/vms/110", "OnlyAudit")) if row["path"] == "/vms/110"]
    begin(emulator, acl=rows, roles={"OnlyAudit": ["VM.Audit"]}, ipconfig0="ip=10.0.0.5/24,gw=10.0.0.1")
    told = nixherd("ip", "dev", "--json")
    assert told.status == 0, told.err
    assert told.json == {"vmid": 110, "address": "10.0.0.5", "source": "configuration"}
    assert told.err.startswith("its agent may not be asked: ")
    assert "fixed in its configuration, and nobody was asked whether it is there" in told.err
    begin(emulator, acl=rows, roles={"OnlyAudit": ["VM.Audit"]})
    for words in (["ip", "dev"], ["ip", "dev", "--all"]):
        unknown = nixherd(*words)
        assert (unknown.status, unknown.out) == (4, "")
        assert unknown.err.startswith("vm 110 (dev): its agent may not be asked: ")


def test_a_template_that_may_not_be_seen_is_an_obstacle_to_cloning_alone(nixherd: Nixherd, emulator: Emulator) -> None:
    hidden = [row for row in granted() if row["path"] != "/vms/9002"]
    begin(emulator, acl=hidden, cores=2, onboot=1)
    said = [row["difference"] for row in nixherd("diff", "dev").json]
    assert any(line.startswith("set cores 2 → 4") for line in said)
    assert not any(line.startswith("template 9002") for line in said)
    noted = nixherd("apply", "dev", "--dry-run").err
    assert "onboot came from its template is not known: template 9002 is not visible" in noted
    begin(emulator, acl=hidden, cores=2, description="by hand")
    shown = nixherd("adopt", "dev", "110", "--dry-run").json["differences"]
    assert any(line.startswith("set cores 2 → 4") for line in shown)
    assert not any("9002" in line for line in shown)
    container = replace(DEV, type=GuestType.LXC)
    assert desired(emulator.client(), FLEET, container, HOST).unseen is None  # which is made of no template
    begin(emulator, acl=hidden, cores=2)
    assert nixherd("apply", "dev").status == 0
    begin(emulator, acl=hidden, vms={"110": None})
    for words in (["clone", "dev"], ["apply", "dev"]):
        ended = nixherd(*words)
        assert ended.status == 3
        assert ended.err.startswith("template 9002 is not visible: VMID 9002 is taken")
    assert [row["difference"][:12] for row in nixherd("diff", "dev").json] == ["template 900"]
    assert not any("clone" in each for each in emulator.changes())


def test_the_doctor_goes_on_past_what_is_not_visible_and_knows_what_it_cannot_know(
    nixherd: Nixherd, blind: Emulator
) -> None:
    ended = nixherd("doctor")
    rows = {(row["check"], row["verdict"], row["found"].split(":")[0]) for row in ended.json}
    assert ("guest", "unknown", "vm 104 (doc1) is not visible") in rows
    assert ("guest", "ok", "vm 110 (dev) on prom is this fleet's") in rows
    [token] = [row for row in ended.json if row["check"] == "token"]
    assert token["verdict"] == "unknown"
    assert token["found"].endswith("cannot be known: no token may read itself")
    assert "pveum user token list nixherd@pve" in token["remedy"]
    assert not {("guest", "failed"), ("token", "failed")} & {(check, verdict) for check, verdict, _ in rows}
    assert blind.changes() == []


@pytest.mark.parametrize(
    ("row", "verdict", "said"),
    [
        ({"status": "online"}, "ok", "prom is online"),
        ({"status": "offline"}, "failed", "prom is offline"),
        ({"status": "unknown"}, "unknown", "whether prom is online is not told: its status is unknown"),
        ({}, "unknown", "whether prom is online is not told: its status is unknown"),
    ],
)
def test_a_node_without_statistics_is_not_offline(
    nixherd: Nixherd,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    row: dict[str, str],
    verdict: str,
    said: str,
) -> None:
    monkeypatch.setattr(Client, "node_rows", lambda self: (Node.of({"node": "prom", **row}),))
    [node] = [row for row in nixherd("doctor").json if row["check"] == "node"]
    assert (node["verdict"], node["found"]) == (verdict, said)


def test_what_a_failed_restore_left_is_said_to_be_that(nixherd: Nixherd, emulator: Emulator) -> None:
    """A guest joins its pool when it is whole; the empty one that a failure leaves is nobody's that we may see."""
    begin(emulator, acl=granted())
    assert nixherd("destroy", "dev", "110", "--stop").status == 0
    [hidden] = emulator.root().volumes("prom", "local", content="backup", vmid=110)
    emulator.control("fault", name="storage-full", storage="nvmeprom")
    assert nixherd("restore", "dev", hidden.volid).status != 0
    again = nixherd("restore", "dev", hidden.volid)
    assert again.status == 3
    assert "vm 110 (dev) is not visible" in again.err
    assert "it may be what our qmrestore left when it failed (UPID:prom:" in again.err
    assert "`qm destroy 110`" in again.err


def test_the_client_tells_three_ways_of_not_being_listed(emulator: Emulator) -> None:
    begin(emulator, acl=rights(), vms={"109": None})
    client = emulator.client()
    assert client.config("prom", 109) is None
    assert (client.presence(109), client.presence(104)) == (Presence.ABSENT, Presence.NOT_VISIBLE)
    for ask in (client.config, client.status):
        with pytest.raises(NotVisible, match="guest 104 is not visible"):
            ask("prom", 104)
    with pytest.raises(NotVisible, match=r"vm 104 \(doc1\) is not visible"):
        find(client, FLEET, DOC1)
    assert json.loads(json.dumps(Presence.NOT_VISIBLE)) == "not visible"


def test_what_our_own_task_is_making_is_not_taken_for_a_strangers(emulator: Emulator) -> None:
    """A clone joins its pool when it is done: until then its VMID is taken, and nothing of it is visible."""
    emulator.control("reset", patch={"acl": granted(), "task_seconds": {"qmclone": 3}})
    client = emulator.client()
    Clone(
        "prom", 110, template=9002, template_node="prom", name="dev", description="", pool="nixherd", storage="nvmeprom"
    ).begin(client)
    while client.presence(110) is Presence.ABSENT:
        pass
    seen = observe(client, FLEET, DEV)
    assert seen is not None
    assert (seen.config.lock, seen.clone_task is not None) == ("clone", True)
