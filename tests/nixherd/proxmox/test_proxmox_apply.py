"""Machines made on the emulator, through the real client, whatever gets in the way."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nixherd.base.errors import ApiError, DeadlineExceeded, FleetError, Refused, TaskFailed
from nixherd.fleet.models import Fleet, Template
from nixherd.proxmox.client import AgentUnavailable, Client, connect
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest import apply as module
from nixherd.proxmox.guest import tasks
from nixherd.proxmox.guest.apply import ensure, plan_of
from nixherd.proxmox.guest.identity import ActualVm, address_of, mark
from nixherd.proxmox.guest.observe import observe
from nixherd.proxmox.steps import Clone, Reboot, Regenerate, Resize, Row, Shutdown, Start, Stop
from tests.nixherd.proxmox.conftest import Emulator, running, state
from tests.nixherd.proxmox.fleets import DEV, EMPTY, FLEET, HOST, KEPT

pytestmark = pytest.mark.process


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.05)


def make(emulator: Emulator, *rows: Row, fleet: Fleet = FLEET, timeout: float = 20) -> list[str]:
    """Carry out the rows, each as a run of its own would: with a client of its own."""
    return [
        str(step)
        for row in rows
        for step in ensure(emulator.client(), fleet, fleet.vms["dev"], HOST, row, timeout=timeout)
    ]


def plan(emulator: Emulator) -> list[str]:
    return [str(step) for step in plan_of(emulator.client(), FLEET, DEV, HOST)]


def test_makes_what_it_planned_and_then_nothing(emulator: Emulator) -> None:
    planned = plan(emulator)
    assert len(planned) == 5
    assert emulator.changes() == []
    assert make(emulator, *Row) == planned
    assert plan(emulator) == []
    before = emulator.changes()
    assert make(emulator, *Row) == []
    assert emulator.changes() == before


def test_the_machine_is_as_declared(emulator: Emulator) -> None:
    make(emulator, *Row)
    actual = observe(emulator.client(), FLEET, DEV)
    assert actual is not None
    assert actual.running
    config = actual.config
    assert (config.name, config.cores, config.memory) == ("dev", 4, 8192)
    assert config.boot_disk is not None
    assert (config.boot_disk.size, config.boot_disk.storage) == (64 << 30, "nvmeprom")
    assert (config.text("ciuser"), config.ssh_keys) == (HOST.user, HOST.authorized_keys)
    assert mark(FLEET, DEV) in config.description
    assert not config.flag("protection")


@pytest.mark.parametrize(("version", "release"), [(8, "8.4"), (9, "9.2")])
def test_the_first_boot_upgrades_nothing(tmp_path: Path, version: int, release: str) -> None:
    older = {"version": version, "release": {"version": f"{release}.1", "release": release, "repoid": "0" * 16}}
    with running(tmp_path, state() | older) as emulator:
        make(emulator, *Row)
        assert plan(emulator) == []
        config = emulator.client().config("prom", 110)
        assert config is not None
        assert config.number("ciupgrade") == 0


def test_rows_wait_for_the_clone(emulator: Emulator) -> None:
    with pytest.raises(FleetError, match="vm 110 \\(dev\\) does not exist; configure comes after clone"):
        make(emulator, Row.CONFIGURE)
    assert emulator.changes() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "clone"), ("PUT", "/config"), ("PUT", "resize"), ("POST", "status/start"), ("GET", "tasks/.*/status")],
)
def test_a_lost_answer_changes_nothing_in_the_end(emulator: Emulator, method: str, path: str) -> None:
    emulator.control("fault", name="drop-connection", method=method, path=path, count=1)
    make(emulator, *Row)
    assert plan(emulator) == []
    changes = [change for change in emulator.changes() if path in change]
    assert len(changes) <= (2 if path == "/config" else 1)  # it was carried out, and not again


def begin_clone(emulator: Emulator) -> ActualVm:
    """The VM while its clone is at work, begun by a run that was killed."""
    client = emulator.client()
    Clone(
        "prom", 110, template=9002, template_node="prom", name="dev", description=mark(FLEET, DEV), storage="nvmeprom"
    ).begin(client)
    while (actual := observe(client, FLEET, DEV)) is None:
        time.sleep(0.01)
    return actual


def test_a_clone_that_an_earlier_run_began_is_waited_for(emulator: Emulator) -> None:
    actual = begin_clone(emulator)
    assert actual.config.lock == "clone"
    assert actual.clone_task is not None
    assert plan(emulator)[0] == "wait for the clone of vm 110 that is under way"
    make(emulator, *Row)
    assert plan(emulator) == []
    assert len([change for change in emulator.changes() if change.endswith("/clone")]) == 1


def test_a_clone_that_another_began_is_not(emulator: Emulator) -> None:
    begin_clone(emulator)
    client = emulator.client()
    client.token_id = "someone@pve!else"
    with pytest.raises(FleetError, match="no task of ours is at work on it"):
        plan_of(client, FLEET, DEV, HOST)


def test_a_clone_that_was_killed_is_refused(emulator: Emulator) -> None:
    make(emulator, Row.CLONE)
    emulator.control("outside", do="set-lock", vmid=110, lock="clone")
    before = emulator.changes()
    with pytest.raises(FleetError, match="unfinished clone and no task of ours is at work on it"):
        make(emulator, Row.CLONE)
    assert emulator.changes() == before


def test_a_lock_held_for_a_while_is_waited_for(emulator: Emulator) -> None:
    make(emulator, Row.CLONE)
    emulator.control("outside", do="set-lock", vmid=110, lock="backup")
    threading.Timer(0.5, emulator.control, ["outside"], {"do": "clear-lock", "vmid": 110}).start()
    make(emulator, Row.CONFIGURE)
    assert not [step for step in plan(emulator) if step.startswith("set cores")]


def test_a_lock_held_for_ever_ends_at_the_deadline(emulator: Emulator) -> None:
    make(emulator, Row.CLONE)
    emulator.control("outside", do="set-lock", vmid=110, lock="backup")
    before = emulator.changes()
    began = time.monotonic()
    with pytest.raises(
        DeadlineExceeded, match=r"configure: not within 1 s: vm 110 \(dev\) is locked \(backup\).*qm unlock 110"
    ):
        make(emulator, Row.CONFIGURE, timeout=1)
    assert time.monotonic() - began < 15
    assert emulator.changes() == before


def test_a_lock_that_only_shows_in_answers_is_waited_for(emulator: Emulator) -> None:
    make(emulator, Row.CLONE)
    emulator.control("fault", name="lock-held", vmid=110, requests=2)
    make(emulator, *Row)
    assert plan(emulator) == []


def test_a_task_that_fails_is_said_to(emulator: Emulator) -> None:
    emulator.control("fault", name="task-fails", type="qmclone", once=True)
    with pytest.raises(TaskFailed, match="task qmclone 9002 on prom failed: qmclone failed"):
        make(emulator, Row.CLONE)
    make(emulator, *Row)
    assert plan(emulator) == []


def test_a_task_that_lost_the_race_for_a_lock_is_tried_again(emulator: Emulator) -> None:
    message = "can't lock file '/var/lock/pve-manager/pve-storage-nvmeprom' - got timeout"
    emulator.control("fault", name="task-fails", type="qmclone", once=True, message=message)
    make(emulator, *Row)
    assert plan(emulator) == []
    assert len([change for change in emulator.changes() if change.endswith("/clone")]) == 2


def test_the_api_daemon_is_away_while_a_task_runs(emulator: Emulator) -> None:
    def away() -> None:
        emulator.control("outside", do="kill-pvedaemon")
        time.sleep(0.5)
        emulator.control("outside", do="start-pvedaemon")

    client = emulator.client()
    upid = Clone(
        "prom", 110, template=9002, template_node="prom", name="dev", description=mark(FLEET, DEV), storage="nvmeprom"
    ).begin(client)
    thread = threading.Thread(target=away)
    thread.start()
    assert upid is not None
    tasks.wait(client, upid, 10)
    thread.join()
    make(emulator, *Row)
    assert plan(emulator) == []


def test_what_another_changed_meanwhile_is_not_overwritten(emulator: Emulator) -> None:
    make(emulator, Row.CLONE)
    client = emulator.client()
    [configure, *_] = plan_of(client, FLEET, DEV, HOST)
    client.set_config("prom", 110, {"tags": "people"})
    with pytest.raises(ApiError, match="checksum mismatch"):
        module.apply(client, configure, timeout=5)
    make(emulator, Row.CONFIGURE)  # looks again
    actual = observe(client, FLEET, DEV)
    assert actual is not None
    assert actual.config.tags == ("people",)


@pytest.mark.parametrize(("vmid", "words"), [(104, "its name is doc1, not dev"), (109, "its name is igp, not dev")])
def test_a_machine_that_is_there_and_not_ours(emulator: Emulator, vmid: int, words: str) -> None:
    taken = replace(DEV, vmid=vmid)
    fleet = replace(FLEET, vms={"dev": taken})
    for row in Row:
        with pytest.raises(Refused, match=words):
            make(emulator, row, fleet=fleet)
    assert emulator.changes() == []


def test_readonly_and_not_as_declared(emulator: Emulator) -> None:
    for row in Row:
        with pytest.raises(Refused, match="vm 111"):
            ensure(emulator.client(), FLEET, KEPT, HOST, row, timeout=5)
    assert emulator.changes() == []


def test_readonly_and_as_declared(emulator: Emulator) -> None:
    make(emulator, *Row)
    before = emulator.changes()
    fleet = replace(FLEET, vms={"dev": replace(DEV, readonly=True)})
    assert make(emulator, *Row, fleet=fleet) == []
    assert emulator.changes() == before


def test_no_template(emulator: Emulator) -> None:
    with pytest.raises(FleetError, match="template 9003 does not exist on prom"):
        make(emulator, Row.CLONE, fleet=replace(FLEET, template=Template(9003)))
    assert emulator.changes() == []


def test_a_token_that_is_not_known(emulator: Emulator) -> None:
    stranger = replace(emulator.token, name="nosuch")
    client = connect(emulator.endpoint, Policy.from_fleet(FLEET), stranger)
    with pytest.raises(ApiError, match="does not accept token nixherd@pve!nosuch"):
        client.version()


def test_asks_the_node_what_it_wants_to_know(emulator: Emulator) -> None:
    client = emulator.client()
    assert client.version().release == "9.2"
    assert client.nodes() == ("prom",)
    assert client.permissions().allows("/vms/110", "VM.Allocate")
    assert not client.permissions().allows("/pool/x", "VM.Allocate")
    assert [guest.vmid for guest in client.resources()] == [104, 109, 111, 9002]
    storage = client.storage("prom", "nvmeprom")
    assert storage is not None
    assert (storage.active, storage.available, "images" in storage.content) == (True, 900 << 30, True)
    assert client.storage("prom", "nosuch") is None
    assert (client.is_free(110), client.is_free(104)) == (True, False)


def test_finds_an_address_through_the_agent(emulator: Emulator) -> None:
    client = emulator.client()
    config = client.config("prom", 104)
    assert config is not None
    assert address_of(config, client.agent_interfaces("prom", 104)) == "192.0.2.104"
    assert client.agent_read("prom", 111, "/etc/os-release") == "ID=nixos\n"
    emulator.control("outside", do="stop-agent", vmid=104)
    with pytest.raises(AgentUnavailable, match="QEMU guest agent is not running"):
        client.agent_interfaces("prom", 104)


def test_runs_a_command_through_the_agent(emulator: Emulator) -> None:
    make(emulator, *Row)
    said = "status: done ✓\n"
    shown = said.encode().decode("latin-1")
    wait = {"argv": ["cloud-init", "status", "--wait"], "stdout": shown, "exitcode": 0, "seconds": 0.3}
    emulator.control("outside", do="guest-booted", vmid=110, guest={"commands": [wait]})
    client = emulator.client()
    done = client.agent_exec("prom", 110, ["cloud-init", "status", "--wait"])
    assert (done.exitcode, done.stdout) == (0, said)


def every_change(client: Client, vmid: int) -> list[object]:
    return [
        lambda: Clone("prom", vmid, template=9002, template_node="prom", name="x", description="y").begin(client),
        lambda: Clone("prom", 110, template=vmid, template_node="prom", name="x", description="y").begin(client),
        lambda: client.set_config("prom", vmid, {"cores": 1}),
        lambda: client.set_config("prom", 110, {"scsi1": f"nvmeprom:vm-{vmid}-disk-0"}),
        lambda: Resize("prom", vmid, "scsi0", 1, 64 << 30).begin(client),
        lambda: Regenerate("prom", vmid).begin(client),
        lambda: Start("prom", vmid).begin(client),
        lambda: Stop("prom", vmid).begin(client),
        lambda: Shutdown("prom", vmid, 60).begin(client),
        lambda: Reboot("prom", vmid, 60).begin(client),
        lambda: client.agent_exec("prom", vmid, ["/bin/true"]),
    ]


@pytest.mark.parametrize("fleet", [FLEET, EMPTY])
def test_zero_writes_for_104_on_the_wire(emulator: Emulator, fleet: Fleet) -> None:
    client = emulator.client(Policy.from_fleet(fleet))
    for change in every_change(client, 104):
        with pytest.raises(Refused):
            change()  # type: ignore[operator]
    assert client.config("prom", 104) is not None
    seen = emulator.requests()
    assert [row["method"] for row in seen] == ["GET"]  # the log would have shown them
    Clone("prom", 110, "dev", 9002, "prom", "x").begin(emulator.client())
    assert emulator.changes() == ["POST /nodes/prom/qemu/9002/clone"]
