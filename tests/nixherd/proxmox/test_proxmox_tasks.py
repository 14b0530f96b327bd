"""Waiting for tasks, on a client whose answers are listed."""

import pytest

from nixherd.base.errors import ApiError, DeadlineExceeded, StillRunning, TaskFailed, TaskForgotten
from nixherd.cli.output import percentage
from nixherd.proxmox.answers import TaskStatus, Upid
from nixherd.proxmox.guest.tasks import lost_the_lock, reason, wait

UPID = Upid.parse("UPID:prom:0002A2CB:00052A4E:6B03F0ED:qmclone:9002:nixherd@pve!lab:")
RUNNING = TaskStatus(True, None)


class Server:
    """Gives the listed answers in turn, the last one for ever."""

    def __init__(self, *answers: TaskStatus | ApiError, log: tuple[str, ...] = ()) -> None:
        self.answers, self.log, self.asked = list(answers), log, 0
        self.under_way: set[str] = set()

    def task_status(self, upid: Upid) -> TaskStatus:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ApiError):
            raise answer
        return answer

    def task_log(self, upid: Upid) -> tuple[str, ...]:
        return self.log


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("time.sleep", sleep)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return slept


@pytest.mark.parametrize("end", ["OK", "WARNINGS: 2"])
def test_success(pauses: list[float], end: str) -> None:
    wait(Server(RUNNING, RUNNING, TaskStatus(False, end)), UPID, 60)  # type: ignore[arg-type]
    assert len(pauses) == 2


def test_quick_at_first_then_once_a_second(pauses: list[float]) -> None:
    wait(Server(*[RUNNING] * 20, TaskStatus(False, "OK")), UPID, 60)  # type: ignore[arg-type]
    assert pauses[0] < 0.1
    assert pauses == sorted(pauses)
    assert pauses[-1] == 1.0


def test_a_failure_says_what_the_log_said(pauses: list[float]) -> None:
    log = ("creating", "Formatting", "WARN: x", "no space left", "TASK ERROR: clone failed")
    with pytest.raises(TaskFailed) as failure:
        wait(Server(TaskStatus(False, "clone failed"), log=log), UPID, 60)  # type: ignore[arg-type]
    assert failure.value.exitstatus == "clone failed"
    assert str(failure.value) == (
        "task qmclone 9002 on prom failed: clone failed; log: Formatting | WARN: x | no space left "
        f"(all of it: `pvenode task log {UPID}`)"
    )


def test_killed_is_failed(pauses: list[float]) -> None:
    with pytest.raises(TaskFailed, match="unexpected status"):
        wait(Server(TaskStatus(False, None)), UPID, 60)  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [None, 595, 596, 599])
def test_a_server_that_is_away_for_a_while(pauses: list[float], status: int | None) -> None:
    gone = ApiError("gone", status)
    wait(Server(gone, gone, RUNNING, gone, TaskStatus(False, "OK")), UPID, 60)  # type: ignore[arg-type]
    assert len(pauses) == 4


def test_any_other_error_ends_the_wait(pauses: list[float]) -> None:
    with pytest.raises(ApiError, match="no rights"):
        wait(Server(ApiError("no rights", 403)), UPID, 60)  # type: ignore[arg-type]


def test_a_task_that_the_server_forgot_has_no_known_end(pauses: list[float]) -> None:
    with pytest.raises(TaskForgotten, match=r"prom knows no task UPID:.* how it ended is not known"):
        wait(Server(ApiError("upid: no such task", 400)), UPID, 60)  # type: ignore[arg-type]


def test_warnings_are_told(pauses: list[float]) -> None:
    told: list[str] = []
    ended = TaskStatus(running=False, exitstatus="WARNINGS: 1")
    server = Server(ended, log=("x", "WARN: old format", "TASK WARNINGS: 1"))
    wait(server, UPID, 60, told.append)  # type: ignore[arg-type]
    assert told == ["task qmclone 9002 ended with WARNINGS: 1: WARN: old format"]


def test_what_nobody_waits_for_any_more_is_still_under_way(pauses: list[float]) -> None:
    server = Server(RUNNING)
    with pytest.raises(StillRunning) as still:
        wait(server, UPID, 7)  # type: ignore[arg-type]
    assert {still.value.upid} == server.under_way == {str(UPID)}
    server.answers = [TaskStatus(running=False, exitstatus="OK")]
    wait(server, UPID, 7)  # type: ignore[arg-type]
    assert not server.under_way


@pytest.mark.parametrize(
    ("line", "percent"),
    [
        ("transferred 1.0 GiB of 4.0 GiB (25.00%)", 25.0),
        ("INFO:  25% (1.0 GiB of 4.0 GiB) in 3s, read: 341.3 MiB/s", 25.0),
        ("drive-scsi0: transferred 4.0 GiB of 4.0 GiB (100.00%) in 1s", 100.0),
        ("creating a clone of VM 9002 with ID 110", None),
        ("999% of something", 100.0),
    ],
)
def test_how_far_a_task_is_by_its_log(line: str, percent: float | None) -> None:
    assert percentage(line) == percent


@pytest.mark.parametrize("answer", [RUNNING, ApiError("gone", None)])
def test_the_deadline_holds(pauses: list[float], answer: TaskStatus | ApiError) -> None:
    with pytest.raises(DeadlineExceeded, match=r"qmclone 9002 on prom is not done within 7 s.*pvenode task log UPID:"):
        wait(Server(answer), UPID, 7)  # type: ignore[arg-type]
    assert sum(pauses) <= 7


def test_tells_each_new_line_once(pauses: list[float]) -> None:
    told: list[str] = []
    server = Server(*[RUNNING] * 15, TaskStatus(False, "OK"), log=("transferred 40%",))
    wait(server, UPID, 60, told.append)  # type: ignore[arg-type]
    assert told == ["transferred 40%"]


def test_a_lost_lock_is_known_by_its_text() -> None:
    assert lost_the_lock(ApiError("can't lock file '/var/lock/qemu-server/lock-111.conf' - got timeout", 500))
    assert lost_the_lock(TaskFailed("x: can't lock file '/var/lock/pve-manager/s' - got timeout", "u", "x"))
    assert not lost_the_lock(ApiError("VM 101 qga command 'guest-exec' failed - got timeout", 500))


JOB = ["INFO: starting new backup job: vzdump 110 --storage local", "INFO: Starting Backup of VM 110 (qemu)"]


@pytest.mark.parametrize(
    ("exitstatus", "log", "why"),
    [
        ("job errors", ["ERROR: Backup of VM 110 failed - VM is locked (migrate)"], "VM is locked (migrate)"),
        (
            "job errors",
            ["ERROR: job failed with err -28", "ERROR: Backup of VM 110 failed - job failed"],
            "- job failed",
        ),
        ("unexpected status", ["ERROR: can't acquire lock '/var/run/vzdump.lock' - got timeout"], "can't acquire lock"),
        ("job errors", [], "job errors"),
        ("storage 'x' does not exist", ["ERROR: other"], "storage 'x' does not exist"),
    ],
)
def test_where_the_end_says_nothing_the_log_does(exitstatus: str, log: list[str], why: str) -> None:
    assert why in reason(exitstatus, [*JOB, *log, "INFO: Failed at 2026-11-29 12:00:29"])


def test_a_backup_that_found_a_lock_says_so_and_is_worth_another_try() -> None:
    log = (*JOB, "ERROR: Backup of VM 110 failed - can't lock file '/var/lock/qemu-server/lock-110.conf' - got timeout")
    server = Server(TaskStatus(False, "job errors"), log=(*log, "INFO: Backup job finished with errors"))
    with pytest.raises(TaskFailed, match=r"failed: Backup of VM 110 failed - can't lock file") as failure:
        wait(server, UPID, 60)  # type: ignore[arg-type]
    assert failure.value.exitstatus == "job errors"
    assert lost_the_lock(failure.value)


def test_a_right_that_a_job_lacked_is_told_with_the_remedy() -> None:
    server = Server(TaskStatus(False, "403 Permission check failed (/vms/110, VM.Backup)"), log=tuple(JOB))
    with pytest.raises(
        TaskFailed, match=r"failed: 403 Permission check failed \(/vms/110, VM.Backup\).*pveum acl modify"
    ):
        wait(server, UPID, 60)  # type: ignore[arg-type]
