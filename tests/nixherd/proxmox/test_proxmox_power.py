"""A switch of power ends when the guest stands where it was meant to; what is said is what was read back."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nixherd.base.errors import Exit, FleetError, Usage, exit_of
from nixherd.base.files import BOOT_ID
from nixherd.base.names import parse_size
from nixherd.proxmox.answers import Task, Upid
from nixherd.proxmox.client import Client
from nixherd.proxmox.guard.policy import Policy
from nixherd.proxmox.guest import reboots
from nixherd.proxmox.guest.backups import BackupGuest
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.disks import AttachDisk, RelocateDisk, ResizeDisk
from nixherd.proxmox.guest.hardware import SetOptions
from nixherd.proxmox.guest.lifecycle import (
    ApplyDefinition,
    RebootGuest,
    ResumeGuest,
    ShutdownGuest,
    StartGuest,
    StopGuest,
    SuspendGuest,
)
from nixherd.proxmox.guest.snapshots import Action, RemoveSnapshot, RollbackGuest, TakeSnapshot
from nixherd.proxmox.steps import Reboot, Shutdown, Start, Stop
from tests.nixherd.proxmox.conftest import GIB, TOKEN, WIDER, Emulator, granted
from tests.nixherd.proxmox.dev import begin, do, running
from tests.nixherd.proxmox.fleets import DEV, FLEET

pytestmark = [pytest.mark.xdist_group("emulator"), pytest.mark.usefixtures("no_long_pauses")]

REBOOT = RebootGuest(always=True)
SIGHTED = granted(*WIDER, ("/nodes/prom", "PVEAuditor"))


def outcome(
    emulator: Emulator, action: Action, *, timeout: float = 20, on: Callable[[str], None] = lambda _: None
) -> tuple[Any, str]:
    """The steps that were done, or the exit status; and all that was said, the error last. `on` gets each line."""
    client, said = emulator.client(Policy.from_fleet(FLEET)), list[str]()

    def progress(line: str) -> None:
        said.append(line)
        on(line)

    try:
        done: Any = [str(step) for step in action.run(client, FLEET, DEV, timeout=timeout, progress=progress)]
    except FleetError as error:
        done, said = exit_of(error, changed=client.accepted_changes > 0), [*said, str(error)]
    return done, "\n".join(said)


def booted(emulator: Emulator, boot_id: str) -> None:
    emulator.control("outside", do="guest-booted", vmid=110, guest={"files": {BOOT_ID: f"{boot_id}\n"}})


def rebooted(emulator: Emulator) -> int:
    return len([change for change in emulator.changes() if change.endswith("/status/reboot")])


@pytest.fixture
def dev(emulator: Emulator) -> Emulator:
    """As elsewhere, and our token sees what root does, which the documented rights do not give."""
    begin(emulator, acl=SIGHTED)
    return emulator


@pytest.fixture
def deaf(emulator: Emulator) -> Emulator:
    """`dev` runs without an agent, and does not hear ACPI."""
    begin(emulator, agent="0")
    emulator.control("outside", do="stop-agent", vmid=110)
    return emulator


# Reboots


def test_a_reboot_ends_when_the_guest_runs_again(dev: Emulator) -> None:
    """Today's server ends its task when the guest is off: "does not run; start it", four times of five."""
    before = dev.client().status("prom", 110)
    done, said = outcome(dev, REBOOT)
    after = dev.client().status("prom", 110)
    assert done == ["reboot vm 110"]
    assert before is not None
    assert after is not None
    assert after.running
    assert after.pid != before.pid
    assert "vm 110 is off; waiting for it to be started again" in said
    assert re.search(r"vm 110 runs again, since \d+ s", said)
    assert "vm 110 was started by task qmstart of root@pam" in said
    assert said.endswith("no agent told of the boot of vm 110 before: whether its system is up was not asked")


@pytest.mark.parametrize(
    "action", [REBOOT, RebootGuest(), ApplyDefinition(allow_reboot=True)], ids=["always", "pending", "all"]
)
def test_what_waits_is_rebooted_for_once_and_it_runs_then(dev: Emulator, action: Action) -> None:
    """With options that wait it was rebooted twice when it was asked for in any case."""
    dev.client().set_config("prom", 110, {"sockets": 2})
    done, said = outcome(dev, action)
    assert isinstance(done, list), said
    assert [step for step in done if step.startswith("reboot")] == ["reboot vm 110 so that sockets take effect"]
    assert (rebooted(dev), running(dev), dev.client().pending("prom", 110)) == (1, True, ())


def test_a_second_task_that_failed_is_named_with_its_reason(dev: Emulator) -> None:
    dev.control("fault", name="restart", vmid=110, message="bridge 'vmbr77' does not exist")
    done, said = outcome(dev, REBOOT)
    assert done is Exit.FAILED
    assert "vm 110 is off: it shut down for its reboot, and was not started again: task qmstart 110 on prom" in said
    assert "bridge 'vmbr77' does not exist" in said.splitlines()[-1]
    assert not running(dev)
    assert rebooted(dev) == 1


@pytest.mark.parametrize("action", [RebootGuest(), ApplyDefinition(allow_reboot=True)])
def test_it_is_no_success_either_when_options_waited(dev: Emulator, action: Action) -> None:
    dev.client().set_config("prom", 110, {"sockets": 2})
    dev.control("fault", name="restart", vmid=110, message="out of memory")
    done, said = outcome(dev, action)
    assert done is Exit.FAILED
    assert "was not started again: task qmstart 110 on prom failed: out of memory" in said


def test_a_second_task_that_never_comes_or_cannot_be_seen(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not see root's tasks is told that, not that there are none."""
    monkeypatch.setattr(reboots, "RETURN", 0.7)
    for fault, acl in (({"never": 1}, SIGHTED), ({"message": "out of memory"}, None)):
        begin(emulator, acl=acl)
        emulator.control("fault", name="restart", vmid=110, **fault)
        done, said = outcome(emulator, REBOOT)
        assert done is Exit.FAILED
        last = said.splitlines()[-1]
        assert re.match(r"vm 110 is off: it shut down for its reboot, and \d s later no task that this token may", last)
        assert "Sys.Audit on /nodes/prom shows them" in last
        assert "out of memory" not in said


def test_a_second_task_that_cannot_be_seen_may_have_done_its_work(emulator: Emulator) -> None:
    begin(emulator)
    done, said = outcome(emulator, REBOOT)
    assert (done, running(emulator)) == (["reboot vm 110"], True)
    assert "qmstart" not in said


def test_a_second_task_that_comes_late_is_waited_for(dev: Emulator) -> None:
    dev.control("fault", name="restart", vmid=110, seconds=1)
    assert outcome(dev, REBOOT)[0] == ["reboot vm 110"]
    assert running(dev)


def test_a_guest_that_does_not_shut_down_runs_on_and_that_is_said(deaf: Emulator) -> None:
    done, said = outcome(deaf, RebootGuest(always=True, timeout=1))
    assert done is Exit.FAILED
    assert "task qmreboot 110 on prom failed: VM quit/powerdown failed - got timeout" in said
    assert re.search(r"; vm 110 \(dev\) runs, since \d+ s$", said)


def test_a_reboot_that_takes_too_long_says_where_it_stands(dev: Emulator) -> None:
    dev.control("fault", name="restart", vmid=110, seconds=30)
    done, said = outcome(dev, REBOOT, timeout=1.5)
    assert done is Exit.FAILED
    assert re.search(r"vm 110 is off: it shut down for its reboot, and \d s later no task", said)


def test_the_agent_tells_of_another_boot(dev: Emulator) -> None:
    booted(dev, "one")

    def boots(line: str) -> None:
        if line.startswith("waiting for the agent"):
            booted(dev, "two")

    assert outcome(dev, REBOOT, on=boots)[0] == ["reboot vm 110"]


@pytest.mark.parametrize(
    ("since", "why"), [("one", "tells of the same boot as before"), ("", "has not answered since")]
)
def test_an_agent_that_does_not_is_unknown(
    dev: Emulator, monkeypatch: pytest.MonkeyPatch, since: str, why: str
) -> None:
    monkeypatch.setattr(reboots, "BOOT", 0.3)
    booted(dev, "one")

    def boots(line: str) -> None:
        if line.startswith("waiting for the agent") and since:
            booted(dev, since)

    done, said = outcome(dev, REBOOT, on=boots)
    assert done is Exit.UNKNOWN
    assert re.search(
        rf"vm 110 runs, since \d+ s, but \d s after its reboot its agent {why}: whether its system is", said
    )


def test_a_guest_that_somebody_shuts_down_in_between(dev: Emulator) -> None:
    booted(dev, "one")

    def stops(line: str) -> None:
        if line.startswith("waiting for the agent"):
            client = dev.client()
            Stop("prom", 110).begin(client)
            while running(dev):
                pass

    done, said = outcome(dev, REBOOT, on=stops)
    assert done is Exit.FAILED
    assert "vm 110 ran again after its reboot and is off now" in said
    assert "task qmstop of nixherd@pve!lab: OK" in said.splitlines()[-1]


def test_options_that_wait_again_are_no_success(dev: Emulator) -> None:
    dev.client().set_config("prom", 110, {"cores": 3})

    def changes(line: str) -> None:
        if line.startswith("vm 110 runs again"):
            dev.client().set_config("prom", 110, {"cores": 2})

    done, said = outcome(dev, RebootGuest(), on=changes)
    assert (done, rebooted(dev)) == (Exit.FAILED, 1)
    assert "vm 110 (dev) was rebooted, and cores wait for its next start" in said


def test_a_paused_guest_is_not_rebooted(dev: Emulator) -> None:
    do(dev, SuspendGuest())
    with pytest.raises(Usage, match=r"vm 110 \(dev\) is paused and cannot shut down for a reboot; resume it, or"):
        do(dev, REBOOT)
    do(dev, SuspendGuest(to_disk=True))
    with pytest.raises(Usage, match="is suspended to disk and does not run; resume it"):
        do(dev, REBOOT)
    assert rebooted(dev) == 0


def test_a_guest_that_is_suspended_to_disk_is_changed_by_nothing_and_waited_for_by_nobody(dev: Emulator) -> None:
    do(dev, TakeSnapshot("clean"))
    do(dev, SuspendGuest(to_disk=True))
    changes = dev.changes()
    for action in (
        *(TakeSnapshot("more"), RemoveSnapshot("clean"), RollbackGuest("clean"), BackupGuest()),
        *(
            SetOptions({"cores": 2}),
            ResizeDisk(size=70 * GIB),
            RelocateDisk("scsi0", "tank", keep_source=True),
        ),
        *(AttachDisk("scsi1", GIB, storage="tank"), ApplyDefinition()),
    ):
        for does in (action.plan, action.run):
            with pytest.raises(Usage, match=r"is suspended to disk, .*resume it first \(`nixherd vm resume dev`\)"):
                does(dev.client(), FLEET, replace(DEV, cores=2))
    assert dev.changes() == changes
    do(dev, ResumeGuest())
    assert running(dev)


@pytest.mark.parametrize(
    ("action", "more"), [(StopGuest(), ["stop vm 110 at once"]), (StartGuest(), [])], ids=["stop", "start"]
)
def test_who_comes_in_the_middle_of_a_reboot_waits_for_its_end(dev: Emulator, action: Action, more: list[str]) -> None:
    """It is off then, and a stop would have been done: seconds later it ran."""
    dev.control("fault", name="restart", vmid=110, seconds=4)  # off for so long that a busy machine comes in time
    Reboot("prom", 110, 60).begin(dev.client())
    while running(dev):
        time.sleep(0.05)
    done, said = outcome(dev, action)
    assert done == ["wait for the reboot of vm 110 that is under way", *more], said
    assert running(dev) is not bool(more)


def test_a_reboot_that_is_not_under_way_is_waited_for_by_nobody(dev: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reboots, "RETURN", 0.7)
    dev.control("fault", name="restart", vmid=110, never=1)
    assert outcome(dev, REBOOT)[0] is Exit.FAILED
    monkeypatch.setattr(reboots, "RETURN", 0.0)
    assert outcome(dev, StopGuest()) == ([], "")
    assert outcome(dev, StartGuest())[0] == ["start vm 110"]


# The others


def test_a_task_that_is_not_done_in_time_says_where_the_guest_stands(deaf: Emulator) -> None:
    done, said = outcome(deaf, ShutdownGuest(timeout=60), timeout=0.5)
    assert done is Exit.UNKNOWN
    assert re.search(
        r"task qmshutdown 110 on prom is not done within \d s; .*; now vm 110 \(dev\) on prom runs, since \d+ s$", said
    )


def test_a_guest_that_does_not_stay_where_it_was_put(dev: Emulator) -> None:
    """It is not switched off time and again: somebody wants it to run."""
    stop = Stop.begin

    def stopped_and_started(step: Stop, client: Client) -> Upid | None:
        upid = stop(step, client)
        assert upid is not None
        while client.task_status(upid).running or running(dev):
            pass
        upid_of_theirs = Start("prom", 110).begin(client)
        assert upid_of_theirs is not None
        while client.task_status(upid_of_theirs).running:
            pass
        return upid

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stop, "begin", stopped_and_started)
        done, said = outcome(dev, StopGuest())
    assert done is Exit.FAILED
    assert re.search(
        r"vm 110 \(dev\) runs, since \d s, although a task that was to stop vm 110 at once has ended", said
    )
    assert "task qmstart of nixherd@pve!lab: OK" in said


# The lock of the configuration file, which `qm cleanup` may hold


@pytest.mark.parametrize(
    ("action", "status"),
    [
        (StopGuest(), "running"),
        (ShutdownGuest(), "running"),
        (REBOOT, "running"),
        (StartGuest(), "stopped"),
        (SuspendGuest(), "running"),
        (TakeSnapshot("clean"), "running"),
        (SetOptions({"cores": 2}), "running"),
        (ResizeDisk(size=parse_size("65G")), "running"),
        (AttachDisk("scsi1", parse_size("1G")), "running"),
    ],
    ids=["stop", "shutdown", "reboot", "start", "suspend", "snapshot", "configure", "resize", "add-disk"],
)
def test_a_held_lock_file_is_waited_for_and_named(emulator: Emulator, action: Action, status: str) -> None:
    begin(emulator, status=status)
    emulator.control("fault", name="file-held", vmid=110, seconds=2)
    done, said = outcome(emulator, action)
    assert isinstance(done, list), said
    assert len(done) == 1
    assert (
        "waits for the lock of its configuration file, which somebody holds: no task that this token may see;" in said
    )
    assert "`qm cleanup`" in said


def test_so_does_a_removal(emulator: Emulator) -> None:
    begin(emulator, status="stopped")

    client, said = emulator.client(Policy.from_fleet(FLEET)), list[str]()

    def progress(line: str) -> None:
        said.append(line)
        if [each[:14] for each in said].count("destroy vm 110") == 1 and line.startswith("destroy vm 110"):
            emulator.control("fault", name="file-held", vmid=110, seconds=2)

    DestroyGuest("dev", 110, backup=False).run(client, FLEET, DEV, timeout=20, progress=progress)
    assert client.config("prom", 110) is None
    assert any(
        "its removal waits for the lock of its configuration file, which somebody holds" in line for line in said
    )


def test_the_task_that_holds_the_lock_file_is_named(deaf: Emulator) -> None:
    theirs = Shutdown("prom", 110, 1).begin(deaf.client())
    assert theirs is not None
    done, said = outcome(deaf, SetOptions({"cores": 2}))
    assert done == ["set cores 4 → 2"], said
    assert f"which somebody holds: task qmshutdown of {theirs.user}: still at work" in said


# Lists


def test_whose_a_task_is_is_told_by_lists_of_both_kinds() -> None:
    """Rows of running tasks have no `tokenid`: there the user is written with the token's name."""
    upid = f"UPID:prom:00000001:00000001:00000001:qmstart:110:{TOKEN.id}:"
    row = {"upid": upid, "node": "prom", "type": "qmstart", "id": "110", "starttime": 1}
    name, _, token = TOKEN.id.partition("!")
    running = Task.of({**row, "user": TOKEN.id, "status": "RUNNING", "saved": "0"})
    ended = Task.of({**row, "user": name, "tokenid": token, "status": "OK", "endtime": 2})
    assert running.user == ended.user == TOKEN.id
