"""What was not told is unknown: no lost answer counts as done, no list that did not come as an empty one."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nixherd.base.errors import ApiError, Exit, OutcomeUnknown, TaskFailed, Undecided, exit_of
from nixherd.fleet.models import GuestType
from nixherd.proxmox.answers import Task, Upid
from nixherd.proxmox.belongings import Belongings, Part
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest import reboots, removal, tasks
from nixherd.proxmox.guest.tasks import Held
from nixherd.proxmox.steps import AwaitReboot, CloudInit, Destroy, Reboot, Regenerate
from nixherd.proxmox.steps.hardware import TRIES
from tests.nixherd.proxmox.fleets import DEV

UPID = Upid.parse("UPID:prom:00000001:00000001:00000001:qmreboot:110:nixherd@pve!lab:")
LOST = OutcomeUnknown("PUT /nodes/prom/qemu/110/cloudinit: no answer", None)
AWAY = ApiError("GET: no answer", None)


def task(type: str, status: str | None = "RUNNING", start: int = 1) -> Task:
    upid = str(UPID).replace("qmreboot", type)
    row = {"upid": upid, "node": "prom", "type": type, "id": "110", "user": "root@pam", "starttime": start}
    return Task.of({**row, **({"status": status} if status else {})})


def client(**calls: Any) -> Client:
    """Each call answers with a value, raises an error, or takes the next of a list of these."""

    def answering(what: Any) -> Callable[..., Any]:
        def call(*_: object, **__: object) -> Any:
            found = what.pop(0) if isinstance(what, list) else what
            if isinstance(found, Exception):
                raise found
            return found

        return call

    return cast(Client, SimpleNamespace(token_id="nixherd@pve!lab", **{k: answering(v) for k, v in calls.items()}))


# The cloud-init drive


@pytest.mark.parametrize(
    "step", [Regenerate("prom", 110), CloudInit("prom", 110, (), running=True)], ids=["own", "set"]
)
def test_a_drive_whose_writing_got_no_answer_is_written_again(step: Any) -> None:
    answers = [*([None] if isinstance(step, CloudInit) else []), LOST, None]
    step.begin(client(change=answers, cloudinit_differs=True))
    assert answers == []


def test_or_it_is_read_back() -> None:
    answers = [LOST]
    Regenerate("prom", 110).begin(client(change=answers, cloudinit_differs=False))
    assert answers == []


@pytest.mark.parametrize("differs", [True, AWAY], ids=["differs", "not told"])
def test_or_it_is_unknown(differs: object) -> None:
    told = client(change=[None, *[LOST] * TRIES], cloudinit_differs=differs)
    with pytest.raises(Undecided, match="whether its cloud-init drive was written anew is not known") as caught:
        CloudInit("prom", 110, (), running=True).begin(told)
    assert exit_of(caught.value, changed=True) is Exit.UNKNOWN


# Tasks


def test_a_list_of_tasks_that_did_not_come_is_no_empty_one() -> None:
    assert tasks.tasks_of(client(tasks=AWAY), "prom", 110) is None
    assert tasks.told(None) == "they could not be asked for"
    assert tasks.after(None, UPID) is None


def test_whether_a_reboot_is_under_way_is_not_no() -> None:
    with pytest.raises(ApiError):
        reboots.under_way(client(tasks=AWAY), "prom", 110)
    with pytest.raises(ApiError):
        reboots.look(client(tasks=AWAY, agent_read=AWAY), Reboot("prom", 110, 60))


def test_a_reboot_that_cannot_be_asked_for_is_waited_for() -> None:
    asked = [AWAY, AWAY]
    runs = SimpleNamespace(running=True, uptime=1)
    step = AwaitReboot("prom", 110, UPID)
    said = list[str]()
    reboots.await_end(client(tasks=asked, status=runs), step, timeout=5, say=said.append)
    assert said == ["vm 110 runs again, since 1 s"]


# What a removal left


def gone(**calls: Any) -> Client:
    grants = SimpleNamespace(allows=lambda *_: False)
    return client(permissions=grants, storages=(), volumes=(), **calls)


def test_the_volumes_of_a_removal_whose_log_cannot_be_read_are_not_known_to_be_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(removal, "still_there", lambda *_: frozenset())
    found = Belongings((Part("scsi0", "nvmeprom:vm-110-disk-0"),))
    target = Destroy("prom", 110, "dev", None, found)
    for upid, log, unseen in (
        (UPID, AWAY, ("nvmeprom:vm-110-disk-0",)),
        (None, (), ("nvmeprom:vm-110-disk-0",)),
        (UPID, ("removed",), ()),
    ):
        assert removal._what_is_left(gone(task_log=log), DEV, target, upid).unseen == unseen
    with pytest.raises(Undecided, match="whether all of its volumes are gone is not known"):
        removal.require_removed(gone(task_log=AWAY), DEV, "prom", UPID)


# A lock that no request shows


TIMEOUT = TaskFailed("can't lock file '/var/lock/qemu-server/lock-110.conf' - got timeout", str(UPID), "x")


def test_nothing_is_tried_while_a_task_works_on_the_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(tasks, "time", SimpleNamespace(monotonic=lambda: now[0]))
    rows = [(), (task("qmshutdown"),), (), (task("qmshutdown"),), (), (), (), (task("vncproxy"),)]
    waiting = Held(client(tasks=rows), DEV, 2)
    assert waiting.still() == ""
    assert waiting.lost("prom", "start vm 110", TIMEOUT).endswith("task qmshutdown of root@pam: still at work")
    now[0] = 100
    assert "qmshutdown" in waiting.still()
    assert waiting.still() == ""
    assert waiting.still() == ""  # a console holds no lock
    assert rows == []


def test_what_is_in_vain_is_tried_more_and_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now, tried = [0.0], list[float]()
    monkeypatch.setattr(tasks, "time", SimpleNamespace(monotonic=lambda: now[0]))
    waiting = Held(client(tasks=()), DEV, 2)
    while now[0] < 3600:
        if not waiting.still():
            tried.append(now[0])
            said = waiting.lost("prom", "start vm 110", TIMEOUT)
            assert "no task that this token may see; after a stop `qm cleanup` does" in said
        now[0] += 0.5
    assert tried[:6] == [0, 2, 6, 14, 30, 62]
    assert len(tried) < 70
    waiting.won()
    assert waiting.still() == ""


def test_whose_lock_it_is_is_said() -> None:
    storage = TaskFailed("can't lock file '/var/lock/pve-manager/pve-storage-tank' - got timeout", str(UPID), "x")
    said = Held(client(tasks=()), DEV, 2).lost("prom", "clone", storage)
    assert said == "vm 110 (dev): clone waits for the lock of storage tank, which somebody holds"
    said = Held(client(tasks=AWAY), replace(DEV, type=GuestType.LXC), 2).lost("prom", "stop", TIMEOUT)
    assert said.endswith("which somebody holds: its tasks could not be asked for")
