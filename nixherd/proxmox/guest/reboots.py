"""A reboot, to its end. The server's task ends when the guest is off; another one starts it again, seconds later.

That one belongs to root@pam: qmeventd runs `qm cleanup`, which starts the guest. It may fail, or never come, and
nobody is told; a token without Sys.Audit on the node does not even see it. So what decides is the guest: it runs, by
another process and uptime than before, and its agent, where it told of a boot before, tells of another one.
"""

import time
from dataclasses import dataclass

from nixherd.base.errors import AgentUnavailable, ApiError, FleetError, StillRunning, TaskFailed, Undecided
from nixherd.base.files import BOOT_ID
from nixherd.base.waiting import Backoff, Poll, poll
from nixherd.proxmox.answers import Task, Upid, VmStatus
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest import tasks
from nixherd.proxmox.guest.tasks import Progress, after, stands, told
from nixherd.proxmox.steps import QEMU, AwaitReboot, Reboot
from nixherd.proxmox.wire import TRANSIENT

# Seconds for a second task to appear. `qm cleanup` waits up to 60 s for the lock of the configuration.
RETURN = 75.0
BOOT = 180.0  # seconds for the agent of a guest that runs again
LOOKS = Backoff(0.2, 2.0)
STARTS, REBOOTS = ("qmstart", "vzstart"), ("qmreboot", "vzreboot")


def under_way(client: Client, node: str, vmid: int) -> Upid | None:
    """Return the reboot that is about to start a guest again that is off; None where none can be seen.

    It is the last thing done to it as far as we see, and not long ago; clocks that differ make us wait in vain, or not.
    Raise ApiError where the tasks cannot be asked for: that says nothing.
    """
    last = next(iter(tasks.asked_tasks(client, node, vmid)), None)
    if last is None or last.type not in REBOOTS or last.status not in (None, "RUNNING", "OK"):
        return None
    return last.upid if last.status != "OK" or time.time() - last.starttime < RETURN else None


def await_end(client: Client, step: AwaitReboot, *, timeout: float, say: Progress) -> None:
    """Return when the guest runs, or no reboot is under way any more. Raise StillRunning after `timeout` seconds."""
    for _ in poll(timeout, LOOKS):
        if not _goes_on(client, step):
            return
        status, _answered = _status(client, step)
        if status is not None and status.running:
            say(f"{step.guest} runs again, since {status.uptime} s")
            return
    where = stands(status) if status else "does not tell"
    raise StillRunning(f"{step.guest} {where}, in the middle of a reboot: {step.upid}", str(step.upid))


def _goes_on(client: Client, step: AwaitReboot) -> bool:
    """Tell whether it is still under way; it counts as that while the server does not answer."""
    try:
        return under_way(client, step.node, step.vmid) == step.upid
    except ApiError as error:
        if error.status in TRANSIENT:
            return True
        raise


@dataclass(frozen=True, slots=True)
class Before:
    """A guest before its reboot. `boot_id` is None where no agent told; `tasks` are the UPIDs that were there."""

    status: VmStatus | None
    since: float
    boot_id: str | None
    tasks: frozenset[str]

    def is_another(self, now: VmStatus) -> bool:
        """Tell whether another process runs it, or a younger one than this would be."""
        if self.status is None:
            return True
        if self.status.pid and now.pid and self.status.pid != now.pid:
            return True
        return now.uptime < self.status.uptime + (time.monotonic() - self.since) - 1.5  # both are whole seconds


def look(client: Client, step: Reboot) -> Before:
    """Record what tells a reboot afterwards."""
    boot_id = _boot_id(client, step)
    known = frozenset(str(task.upid) for task in tasks.asked_tasks(client, step.node, step.vmid))
    since = time.monotonic()
    return Before(client.status(step.node, step.vmid, step.type), since, boot_id, known)


def rebooted_or_not(client: Client, step: Reboot, before: Before) -> str:
    """Say whether the guest was seen to have been started since, for a reboot whose end nobody knows."""
    try:
        status, answered = _status(client, step)
    except ApiError:
        status, answered = None, False
    if not answered:
        return "whether it was started since cannot be seen"
    if status is None or not status.running:
        return f"{step.guest} {stands(status)}"
    if before.is_another(status):
        return f"{step.guest} was started since"
    return f"{step.guest} is as it was started before, so it has not been rebooted yet"


def _boot_id(client: Client, step: Reboot) -> str | None:
    """Return what the guest's agent says; None without an agent, or where it does not tell."""
    if step.type is not QEMU:
        return None
    try:
        return client.agent_read(step.node, step.vmid, BOOT_ID).strip() or None
    except ApiError:
        return None


def await_return(client: Client, step: Reboot, before: Before, begun: Upid, *, timeout: float, say: Progress) -> None:
    """Return when the guest runs again: another process, another boot where its agent tells.

    Raises TaskFailed with the reason when the task that was to start it failed, FleetError when it is off or runs on as
    before, StillRunning while that task is at work after `timeout` seconds, Undecided when its agent told of a boot
    before, and of none since.
    """
    waits = poll(timeout, LOOKS)
    second = _started(client, step, before, begun, waits, say)
    if second is not None:
        _tell_end(client, step, second, waits.left, say)
    if before.boot_id:
        _await_boot(client, step, before.boot_id, begun, min(BOOT, waits.left), say)
    elif step.type is QEMU:
        say(f"no agent told of the boot of {step.guest} before: whether its system is up was not asked")


def _started(client: Client, step: Reboot, before: Before, begun: Upid, waits: Poll, say: Progress) -> Task | None:
    """Wait until the guest runs again; return the task that started it, None where it cannot be seen."""
    last, ended = "", False
    while True:
        status, answered = _status(client, step)
        since = after(tasks.tasks_of(client, step.node, step.vmid), begun, before.tasks)
        second = next((task for task in since or () if task.type in STARTS), None)
        if answered and status is None:
            raise FleetError(f"{step.guest} is not on {step.node} any more, it shut down for its reboot{_seen(since)}")
        if status and status.running and not status.paused and before.is_another(status):
            say(f"{step.guest} runs again, since {status.uptime} s")
            return second
        off = status is not None and not status.running
        if off and second is not None and second.status not in (None, "RUNNING"):
            if ended:  # seen before the guest was: it is not just coming up
                raise _gone_again(client, step, second, since)
            ended = True
            waits.soon()
        if not waits.left or (second is None and waits.waited > RETURN):
            raise _late(step, status, second, since, waits.waited)
        if status is not None and (where := stands(status).partition(", since")[0]) != last:
            last = where
            say(f"{step.guest} {where}; waiting for it to be started again")
        waits.pause()


def _status(client: Client, step: Reboot | AwaitReboot) -> tuple[VmStatus | None, bool]:
    """Return the guest's status, and whether anybody answered; a server that does not answer is asked again."""
    try:
        return client.status(step.node, step.vmid, step.type), True
    except ApiError as error:
        if error.status in TRANSIENT:
            return None, False
        raise


def _seen(since: tuple[Task, ...] | None) -> str:
    if since is None:
        return "; its tasks since then could not be asked for"
    return f"; since then: {told(since)}" if since else ""


def _gone_again(client: Client, step: Reboot, second: Task, since: tuple[Task, ...] | None) -> FleetError:
    """Return why the guest is off although a task to start it has ended."""
    start = f"task {second.type} of {second.user}"
    try:
        tasks.wait(client, second.upid, 1)
    except TaskFailed as error:
        return TaskFailed(
            f"{step.guest} is off: it shut down for its reboot, and was not started again: {error}; mend that, then "
            "start it",
            str(second.upid),
            error.exitstatus,
        )
    except ApiError as error:
        return FleetError(f"{step.guest} is off: it shut down for its reboot; how {start} ended is not known: {error}")
    others = tuple(task for task in since or () if task is not second)
    who = f": {told(others)}" if others else "; whether somebody or it itself did that cannot be seen"
    return FleetError(f"{step.guest} was started again after its reboot by {start}, and is off{who}")


def _late(
    step: Reboot, status: VmStatus | None, second: Task | None, since: tuple[Task, ...] | None, waited: float
) -> FleetError:
    """Return the error for a guest that has not come back in time."""
    if second is not None and second.status in (None, "RUNNING"):
        return StillRunning(
            f"{step.guest} {stands(status) if status else 'does not tell'} after {waited:.0f} s; task {second.type} of "
            f"{second.user}, which starts it again, is still at work: `pvenode task log {second.upid}`",
            str(second.upid),
        )
    if status is None:
        return Undecided(f"{step.guest} was shut down for its reboot; {step.node} has not answered for {waited:.0f} s")
    if status.paused:
        return FleetError(f"{step.guest} is paused, {waited:.0f} s after the task of its reboot ended{_seen(since)}")
    if status.running:
        return FleetError(
            f"{step.guest} runs since {status.uptime} s: it has not been rebooted, though the task of that ended well "
            f"{waited:.0f} s ago{_seen(since)}"
        )
    if since is None:
        return FleetError(
            f"{step.guest} is off: it shut down for its reboot {waited:.0f} s ago{_seen(since)}, so whether one is to "
            "start it again is not known; look at it, then start it"
        )
    return FleetError(
        f"{step.guest} is off: it shut down for its reboot, and {waited:.0f} s later no task that this token may see "
        f"has started it again{_seen(since)}; root@pam's tasks on {step.node} say why (Sys.Audit on "
        f"/nodes/{step.node} shows them), then start it"
    )


def _tell_end(client: Client, step: Reboot, second: Task, timeout: float, say: Progress) -> None:
    """Tell how the task ended that started it; the guest runs, so its failure is only told."""
    try:
        tasks.wait(client, second.upid, timeout, say)
    except (TaskFailed, ApiError, StillRunning) as error:
        say(f"{step.guest} runs all the same: {error}")
    else:
        say(f"{step.guest} was started by task {second.type} of {second.user}")


def _await_boot(client: Client, step: Reboot, before: str, begun: Upid, seconds: float, say: Progress) -> None:
    """Wait until the agent tells of another boot; the guest must go on running meanwhile."""
    say(f"waiting for the agent of {step.guest}, which told of its boot before")
    waits = poll(seconds, LOOKS)
    for _ in waits:
        why = "tells of the same boot as before"
        try:
            told_now = client.agent_read(step.node, step.vmid, BOOT_ID).strip()
            if told_now and told_now != before:
                return
        except AgentUnavailable:
            why = "has not answered since"
        except ApiError as error:
            # switched off by what waited for the reboot, forbidden, or without that file
            if error.status not in TRANSIENT:
                say(f"{step.guest} runs; its agent does not tell of its boot any more: {error}")
                return
            why = "could not be asked"
        status, answered = _status(client, step)
        if answered and (status is None or not status.running):
            since = after(tasks.tasks_of(client, step.node, step.vmid), begun)
            raise FleetError(f"{step.guest} ran again after its reboot and {stands(status)} now{_seen(since)}")
    raise Undecided(
        f"{step.guest} {stands(status) if answered else 'does not tell'}, but {waits.waited:.0f} s after its reboot "
        f"its agent {why}: whether its system is up is not known; look at its console"
    )
