"""What the hypervisor says of guests: how few requests that takes, and what is not known where it may not be seen."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nixherd.fleet.models import Fleet, GuestType, Vm
from nixherd.overview.document import Guest
from nixherd.overview.guests import AT_ONCE, GuestsSeen, look_at_guests
from nixherd.proxmox.client import Client, connect
from nixherd.proxmox.config import encode_ssh_keys
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest.identity import mark
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.proxmox.token import Server
from tests.nixherd.proxmox.conftest import GIB, Emulator, granted
from tests.nixherd.proxmox.dev import begin
from tests.nixherd.proxmox.fleets import DEV, DOC1, FLEET, HOST, IGP, KEPT, POOLED

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("emulator")]

MADE = 1_760_000_000


def fleet_at(emulator: Emulator, *vms: Vm, **endpoint: Any) -> Fleet:
    where = replace(emulator.endpoint, **endpoint)
    return replace(FLEET, endpoint=where, vms={vm.name: vm for vm in vms} if vms else FLEET.vms)


def looked_at(emulator: Emulator, *vms: Vm, **endpoint: Any) -> GuestsSeen:
    """These guests, each by its name in place of its host's id."""
    fleet = fleet_at(emulator, *vms, **endpoint)
    api = SimpleNamespace(guarded=emulator.client(Policy.from_fleet(fleet)))
    return look_at_guests(cast(Hypervisor, api), fleet, {vm.name: vm for vm in vms})


def archive(vmid: int = 110, ctime: int = MADE + 60, notes: str = "dev, by nixherd") -> tuple[str, dict[str, Any]]:
    stamp = time.strftime("%Y_%m_%d-%H_%M_%S", time.gmtime(ctime))
    values = {"content": "backup", "format": "vma.zst", "size": GIB, "ctime": ctime, "notes": notes}
    return f"backup/vzdump-qemu-{vmid}-{stamp}.vma.zst", values


def storage(name: str, *archives: tuple[str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    place = {"type": "dir", "path": f"/srv/{name}", "content": "backup,iso", "total": GIB, "avail": GIB}
    return {name: {**place, "volumes": {f"{name}:{volume}": values for volume, values in archives}, **changes}}


def as_declared(emulator: Emulator, **changes: Any) -> None:
    """The VM `dev`, in which nothing differs but what `changes` says."""
    begin(emulator, sshkeys=encode_ssh_keys(HOST.authorized_keys), ipconfig0="ip=dhcp", ciupgrade=0, **changes)


def sent(emulator: Emulator) -> list[str]:
    assert emulator.changes() == []
    return sorted(row["path"] for row in emulator.requests())


def test_one_list_then_configuration_and_snapshots_of_each_and_the_backups(emulator: Emulator) -> None:
    as_declared(
        emulator,
        meta=f"creation-qemu=10.0.2,ctime={MADE}",
        storages=storage("local", archive(), archive(ctime=MADE + 99)),
    )
    seen = looked_at(emulator, DEV, KEPT)
    assert seen.guests["dev"] == Guest(
        *(110, "dev", "qemu", True, "prom", "running"),
        drift=(),
        snapshots=0,
        backups=2,
        newest_backup="2025-10-09T08:54:59Z",
    )
    assert (seen.hypervisor.state, seen.unknown) == ("answered", {})
    of_guests = [f"/nodes/prom/qemu/{vmid}/{part}" for vmid in (110, 111) for part in ("config", "snapshot")]
    assert sent(emulator) == ["/cluster/resources", *of_guests, "/nodes/prom/storage/local/content"]


SPECS = replace(DOC1, specs={"cores": 8}, status="stopped")


@pytest.mark.parametrize(
    ("vm", "config", "words", "remedy"),
    [
        (
            DEV,
            {"cores": 2},
            ["set cores 2 → 4 (from its next start on)", "reboot vm 110 so that cores take effect"],
            "apply",
        ),
        (DEV, {"description": ""}, ["nixherd vm adopt dev 110"], "adopt"),
        (DEV, {"description": "", "cores": 2}, ["nixherd vm adopt dev 110", "set cores", "reboot"], "adopt"),
        (DEV, {"name": "other"}, ["its name is other, not dev"], "by hand"),
        (DEV, {"scsi0": "nvmeprom:vm-110-disk-0,size=128G"}, ["scsi0 has 128G"], "by hand"),
        (DEV, {"scsi0": None}, ["no boot disk with a size"], "by hand"),
        (
            replace(DEV, vmid=112),
            {},
            ["vm 112 (dev) does not exist on prom; `nixherd provision dev` makes it"],
            "by hand",
        ),
        (replace(KEPT, cores=1, disk=None), {}, ["set cores 2 → 1", "reboot vm 111"], "by hand"),
        (replace(DEV, type=GuestType.LXC), {}, ["VMID 110 is taken by a VM (dev) on prom"], "by hand"),
        (SPECS, {}, ["cores: documented 8, is 2", "status: documented stopped, is running"], "by hand"),
        (replace(SPECS, vmid=113), {}, ["documented as imported.doc1, not there"], "by hand"),
    ],
)
def test_drift_is_what_the_guests_differences_say(
    emulator: Emulator, vm: Vm, config: dict[str, Any], words: list[str], remedy: str
) -> None:
    as_declared(emulator, **config)
    guest = looked_at(emulator, vm).guests[vm.name]
    assert guest.drift is not None
    assert len(guest.drift) == len(words), guest.drift
    assert all(word in line for word, line in zip(words, guest.drift, strict=True)), guest.drift
    assert guest.remedy == remedy


def test_what_only_waits_is_no_difference_and_no_unused_disk_is_taken_for_another(emulator: Emulator) -> None:
    as_declared(emulator)
    emulator.by_hand("/nodes/prom/qemu/110", bios="ovmf", unused0="nvmeprom:vm-110-disk-7")
    assert looked_at(emulator, DEV).guests["dev"].drift == ()


def test_a_clone_in_the_making_is_not_judged(emulator: Emulator) -> None:
    as_declared(emulator, lock="clone")
    seen = looked_at(emulator, DEV)
    assert seen.guests["dev"].drift is None
    assert "`nixherd vm diff dev` tells" in seen.unknown["dev"]


def test_fifty_guests_take_two_requests_each_and_eight_at_a_time(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    vms = [replace(DEV, name=f"web{n:02}", vmid=300 + n) for n in range(50)]
    config = {"cores": 4, "memory": "8192", "agent": "1", "scsi0": "nvmeprom:vm-110-disk-0,size=64G"}
    rows = {
        str(vm.vmid): {
            **{"type": "qemu", "node": "prom", "status": "running"},
            "config": {**config, "name": vm.name, "description": mark(FLEET, vm)},
        }
        for vm in vms
    }
    begin(emulator, vms=rows)
    flight, most, lock = 0, 0, threading.Lock()
    ask = Client._ask

    def counted(self: Client, *given: Any) -> Any:
        nonlocal flight, most
        with lock:
            flight += 1
            most = max(most, flight)
        try:
            return ask(self, *given)
        finally:
            with lock:
                flight -= 1

    monkeypatch.setattr(Client, "_ask", counted)
    seen = looked_at(emulator, *vms)
    paths = sent(emulator)
    assert len(paths) == 1 + 2 * len(vms) + 1
    assert paths.count("/cluster/resources") == 1
    assert 1 < most <= AT_ONCE
    assert {(guest.drift, guest.snapshots, guest.backups) for guest in seen.guests.values()} == {((), 0, 0)}


@pytest.mark.parametrize("named", [None, "vault"])
def test_a_shared_storage_is_asked_once_and_another_on_each_node(emulator: Emulator, named: str | None) -> None:
    node = {"ip": "127.0.0.1", "cpus": 2, "memory": 8 * GIB, "bridges": {"vmbr0": {}}}
    places = {**storage("vault", archive(), shared=1), **storage("local", archive(ctime=MADE + 9))}
    as_declared(emulator, storages=places)
    state = {"nodes": {"prom": node, "deux": node}, "storages": places}
    emulator.control("reset", patch=state)
    looked_at(emulator, DEV, backup_storage=named)
    shared = ["/nodes/prom/storage/vault/content"]
    each = [f"/nodes/{node}/storage/local/content" for node in ("deux", "prom")]
    found = [path for path in sent(emulator) if path.endswith("/content")]
    assert found == (shared if named else sorted([*each, *shared]))


def test_a_backup_of_another_guest_under_the_same_vmid_is_not_counted(emulator: Emulator) -> None:
    before, renamed = archive(ctime=MADE - 60), archive(ctime=MADE + 120, notes="old, by nixherd")
    others, ours = archive(ctime=MADE + 180, notes="kept"), archive(ctime=MADE + 60, notes="before the upgrade")
    as_declared(
        emulator,
        meta=f"creation-qemu=10.0.2,ctime={MADE}",
        storages=storage("local", before, renamed, others, ours),
    )
    guest = looked_at(emulator, DEV, KEPT).guests["dev"]
    assert (guest.backups, guest.newest_backup) == (1, "2025-10-09T08:54:20Z")


def rights(*but: str) -> list[dict[str, Any]]:
    """The documented ones, without these paths."""
    return [row for row in granted() if row["path"] not in but]


def test_with_the_documented_rights_what_may_not_be_seen_is_a_reason_of_its_own(emulator: Emulator) -> None:
    hidden = replace(DEV, name="web", vmid=105)
    people = {"type": "qemu", "node": "prom", "status": "running", "config": {"name": "theirs"}}
    as_declared(emulator, acl=rights("/vms/104"), vms={"105": people})
    absent = replace(DEV, name="new", vmid=120)
    pooled = replace(KEPT, disk=None, settings=POOLED)
    seen = looked_at(emulator, DEV, hidden, DOC1, IGP, absent, pooled)
    assert seen.guests["dev"].drift == ()
    assert {name: guest.drift for name, guest in seen.guests.items() if guest.drift is None} == dict.fromkeys(
        ("web", "doc1")
    )
    assert "VMID 105 is taken, and token nixherd@pve!lab lacks VM.Audit on /vms/105" in seen.unknown["web"]
    assert set(seen.unknown) == {"web", "doc1"}
    assert "does not exist" in str(seen.guests["new"].drift)
    assert [seen.guests[name].backups for name in ("new", "dev", "kept")] == [None, 0, 0]
    assert seen.no_backups["igp"] == "no backup of it is shown; without VM.Backup on /vms/109 a token is shown none"


@pytest.mark.parametrize(
    ("named", "why"),
    [
        (None, "this token sees no storage that takes backups"),
        ("local", "storage local on prom: GET /nodes/prom/storage/local/content"),
        ("nosuch", "storage nosuch on prom: GET /nodes/prom/storage/nosuch/content"),
    ],
)
def test_storages_that_may_not_be_seen(emulator: Emulator, named: str | None, why: str) -> None:
    as_declared(emulator, acl=rights("/storage/local"))
    seen = looked_at(emulator, DEV, backup_storage=named)
    assert (seen.guests["dev"].drift, seen.guests["dev"].backups, seen.unknown) == ((), None, {})
    assert why in seen.no_backups["dev"]


def test_a_node_that_is_down_is_not_asked(emulator: Emulator) -> None:
    node = {"ip": "127.0.0.1", "cpus": 2, "memory": 8 * GIB, "bridges": {"vmbr0": {}}}
    away = {"type": "qemu", "node": "deux", "status": "running", "config": {"name": "web"}}
    begin(emulator)
    emulator.control("reset", patch={"nodes": {"deux": node}, "vms": {"105": away}})
    emulator.control("fault", name="node-down", node="deux")
    seen = looked_at(emulator, replace(DEV, name="web", vmid=105), KEPT)
    assert seen.unknown == {"web": "guest 105 is not known: node deux is offline"}
    assert not [path for path in sent(emulator) if "/deux/" in path]


def test_one_that_hangs_up_on_one_guest_is_asked_for_the_others(emulator: Emulator) -> None:
    as_declared(emulator)
    emulator.control("fault", name="drop-connection", method="GET", path="/110/config", count=5)
    seen = looked_at(emulator, DEV, replace(KEPT, disk=None))
    assert list(seen.unknown) == ["dev"]
    assert "hung up" in seen.unknown["dev"]
    assert seen.guests["dev"].snapshots == 0
    assert (seen.guests["kept"].drift, seen.hypervisor.state) == ((), "answered")


def api_of(emulator: Emulator, fleet: Fleet, **token: Any) -> Hypervisor:
    assert fleet.endpoint is not None
    given = replace(emulator.token, server=Server.of(fleet.endpoint), **token)
    return cast(Hypervisor, SimpleNamespace(guarded=connect(fleet.endpoint, Policy.from_fleet(fleet), given)))


@pytest.mark.parametrize(
    ("endpoint", "token", "state", "why"),
    [
        ({"port": 1}, {}, "unreachable", "cannot connect"),
        ({"fingerprint": "0" * 64}, {}, "refused", "shows a certificate"),
        ({}, {"secret": "00000000-0000-4000-8000-000000000000"}, "refused", "does not accept token"),
    ],
)
def test_without_an_answer_each_guest_has_the_reason(
    emulator: Emulator, endpoint: dict[str, Any], token: dict[str, Any], state: str, why: str
) -> None:
    fleet = fleet_at(emulator, DEV, **endpoint)
    seen = look_at_guests(api_of(emulator, fleet, **token), fleet, {"dev": DEV})
    assert (seen.hypervisor.state, seen.guests) == (state, {})
    assert seen.hypervisor.endpoint == f"127.0.0.1:{fleet.endpoint and fleet.endpoint.port}"
    assert why in (seen.hypervisor.why or "")
    assert seen.unknown == {"dev": seen.hypervisor.why}
    assert "\n" not in seen.unknown["dev"]


def test_without_a_token_nobody_is_asked(emulator: Emulator, tmp_path: Path) -> None:
    fleet = fleet_at(emulator, DEV)
    seen = look_at_guests(Hypervisor(fleet, tmp_path / "none"), fleet, {"dev": DEV})
    assert seen.hypervisor.state == "not asked"
    assert seen.unknown == {"dev": seen.hypervisor.why}
    assert emulator.requests() == []
