"""The last steps of destroying a guest: the claim in its notes, the removal, and what is seen of it afterwards."""

import re
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import NamedTuple

from nixherd.base.errors import ApiError, FleetError, OutcomeUnknown, Refused, TaskFailed, Undecided
from nixherd.base.terminal import Narrator
from nixherd.base.waiting import Backoff, poll
from nixherd.fleet.models import Fleet, GuestType, Vm
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.belongings import BY_SNAPSHOT_ALONE, Belongings
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest import desired, tasks
from nixherd.proxmox.guest.apply import PAUSE, achieve
from nixherd.proxmox.guest.identity import ActualVm, label
from nixherd.proxmox.guest.observe import observe, still_there, would_be_shown
from nixherd.proxmox.guest.tasks import Held, Progress
from nixherd.proxmox.steps import Change, Configure, Destroy, Step

CLAIM = "nixherd destroys this guest"
FRESH = 3600  # seconds for which the backup of a killed run stands for the guest
# Tasks that leave what a guest holds as it was. One that is shut down after its backup was started after it.
_HARMLESS = (
    *("vzdump", "qmstop", "qmshutdown", "qmdestroy", "vzstop", "vzshutdown", "vzdestroy"),
    *("vncproxy", "spiceproxy", "termproxy"),
)
_REMOVALS = ("qmdestroy", "vzdestroy")
_CLAIMED = re.compile(rf"{CLAIM}(?:; backup: (?P<archive>\S+?)(?:; task: (?P<task>\S+))?)?", re.ASCII)
_NOT_REMOVED = re.compile(
    r"(?:WARN(?:ING)?: )?(?:Could not remove disk|failed to get path and owner of volume) "
    r"'(?P<volume>[^']+)'(?:, check manually)?: (?P<why>.*)"
)


class Claim(NamedTuple):
    """What the notes say of a guest that is being destroyed: where it was saved, and by which task."""

    archive: str | None = None
    task: Upid | None = None

    def __str__(self) -> str:
        task = f"; task: {self.task}" if self.task else ""
        return f"{CLAIM}; backup: {self.archive}{task}" if self.archive else CLAIM


def claim_in(config: VmConfig) -> Claim | None:
    """Return the claim that an earlier run wrote into the notes; None without one."""
    for line in config.description.splitlines():
        if match := _CLAIMED.fullmatch(line.strip()):
            try:
                return Claim(match["archive"], Upid.parse(match["task"]) if match["task"] else None)
            except ValueError:
                return Claim(match["archive"])
    return None


# Earlier runs


def relied_on(client: Client, fleet: Fleet, vm: Vm) -> Claim:
    """Return the claim in the guest's notes now."""
    actual = observe(client, fleet, vm)
    return (claim_in(actual.config) if actual else None) or Claim()


def under_way(client: Client, vm: Vm, actual: ActualVm) -> Upid | None:
    """Return the task that is removing the guest already; None without one.

    Raise FleetError when a removal has begun and no task works on it.
    """
    begun = actual.config.lock == "destroyed"
    if not begun and claim_in(actual.config) is None:
        return None
    task = removal_of(client, vm, actual.node)
    if begun and task is None:
        how = f"qm destroy {vm.vmid} --skiplock" if vm.type is GuestType.QEMU else f"pct unlock {vm.vmid}, then destroy"
        raise FleetError(
            f"{label(vm)} on {actual.node}: its removal has begun (lock: destroyed), and no task that this token may "
            f"see works on it; when none does, remove the rest there: `{how}`"
        )
    return task


def removal_of(client: Client, vm: Vm, node: str) -> Upid | None:
    """Return the task that is removing the guest; also when the guest is not visible any more."""
    running = (task for task in client.tasks(node, vmid=vm.vmid) if task.type in _REMOVALS)
    return next((task.upid for task in running if task.id == str(vm.vmid)), None)


def _ended_removal(client: Client, vm: Vm, node: str, but: Collection[str]) -> Upid | None:
    """Return our token's newest removal of the guest that has ended, apart from these."""
    rows = client.tasks(node, active=False, vmid=vm.vmid)
    ours = (task for task in rows if task.type in _REMOVALS and task.user == client.token_id)
    return next((task.upid for task in ours if task.id == str(vm.vmid) and str(task.upid) not in but), None)


def wait_for(client: Client, upid: Upid, timeout: float, progress: Progress) -> None:
    """Wait for the removal that an earlier run began; how it ended is for whoever looks then."""
    try:
        tasks.wait(client, upid, timeout, progress)
    except TaskFailed as error:
        progress(str(error))


def is_still_good(client: Client, vm: Vm, actual: ActualVm, archive: str) -> bool:
    """Tell whether the backup of a killed run holds what the guest does: it exists, and nothing was done since.

    Others' tasks may be hidden from our token, so it must be new as well.
    """
    if actual.running:
        return False
    rows = client.volumes(actual.node, archive.partition(":")[0], content="backup", vmid=vm.vmid)
    made = next((row.ctime or 0 for row in rows if row.volid == archive and row.size), 0)
    since = (task for task in client.tasks(actual.node, active=False, vmid=vm.vmid) if task.starttime >= made)
    return time.time() - made <= FRESH and all(task.type in _HARMLESS for task in since)


def tasks_of(client: Client, step: Step) -> frozenset[str]:
    """Return the tasks of the guest that have ended."""
    return frozenset(str(task.upid) for task in client.tasks(step.node, active=False, vmid=step.vmid))


def require_untouched(client: Client, vm: Vm, step: Step, before: frozenset[str]) -> None:
    """Refuse when anything was done to the guest since the tasks `before`: then no backup stands for it."""
    for task in client.tasks(step.node, active=False, vmid=step.vmid):
        if str(task.upid) not in before and task.type not in _HARMLESS:
            raise Refused(f"{label(vm)}: {task.user} did {task.type} since it was seen ({task.upid}); not destroyed")


# Claim and removal

Judge = Callable[[ActualVm], Belongings]


def claim_and_remove(
    client: Client, fleet: Fleet, vm: Vm, target: Destroy, claim: Claim, judge: Judge, timeout: float, say: Progress
) -> Destroy:
    """Claim the guest as it was judged and remove it; return the step, with what the server left of its volumes.

    `judge` raises Refused for a guest that must not go, and tells what belongs to it now.
    """
    waits, held = poll(timeout, Backoff(PAUSE, PAUSE)), Held(client, vm, 4 * PAUSE)
    while True:
        _claim(client, fleet, vm, target, claim, judge, timeout)
        say(str(target))
        try:
            upid = _remove(client, fleet, vm, target, timeout, say)
        except (ApiError, TaskFailed) as error:
            # it came too late for a lock: what was claimed is looked at again before the next try
            if not tasks.lost_the_lock(error) or not waits.left:
                raise
            narrate = Narrator(say, grace=0, timed=False)
            obstacle = held.lost(target.node, "its removal", error)
            while obstacle and waits.pause():
                narrate(obstacle)
                obstacle = held.still()
            continue
        return _what_is_left(client, vm, target, upid)


def _claim(client: Client, fleet: Fleet, vm: Vm, target: Destroy, claim: Claim, judge: Judge, timeout: float) -> None:
    """Write into the guest's notes that it is destroyed, on the very configuration that was judged."""

    def replan(actual: ActualVm | None) -> tuple[Step, ...]:
        if actual is None:
            raise FleetError(f"{label(vm)} went away while it was being destroyed; look at its node's task list")
        _require_same(vm, target.belongings, judge(actual))
        before = actual.config.description.rstrip()
        lines = [line for line in before.splitlines() if not line.startswith(CLAIM)]
        note = "\n".join([*lines, str(claim)])
        # nobody can change a guest that is suspended to disk, not even its notes
        if note == before or actual.config.lock == "suspended":
            return ()
        change = Change("description", desired.short(before), CLAIM, note)
        return (Configure(actual.node, vm.vmid, (change,), actual.config.digest, type=vm.type),)

    achieve(client, fleet, vm, replan, timeout=timeout, what="claim")


def _require_same(vm: Vm, seen: Belongings, now: Belongings) -> None:
    """Refuse when other things would go than were announced.

    What waited for the next start may be in force now: a server takes it over as soon as a stopped guest is changed. So
    a volume is the same under whatever name; one that was taken away is an unused one then.
    """
    announced, current = ({part.volume or part.name for part in each.parts} for each in (seen, now))
    new = [part for part in now.parts if (part.volume or part.name) not in announced]
    gone = [part for part in seen.parts if (part.volume or part.name) not in current]
    if not new and not gone:
        return
    words = [f"there is now {now.shown(new)}"] if new else []
    words += [f"{seen.shown(gone)} is gone"] if gone else []
    raise Refused(f"{label(vm)} changed since it was looked at; {', and '.join(words)}; not destroyed")


def _remove(client: Client, fleet: Fleet, vm: Vm, target: Destroy, timeout: float, progress: Progress) -> Upid | None:
    """Remove the guest, and see that it is gone. The task that did it, None where that is not known."""
    upid, ended = None, tasks_of(client, target)
    try:
        upid = target.begin(client)
        assert upid is not None
        tasks.wait(client, upid, timeout, progress)
    except (OutcomeUnknown, TaskFailed, ApiError):
        if other := removal_of(client, vm, target.node):
            wait_for(client, other, timeout, progress)
            upid = other
        elif upid is None:
            upid = _ended_removal(client, vm, target.node, ended)
        if observe(client, fleet, vm) is not None:
            raise
    if observe(client, fleet, vm) is not None:
        raise FleetError(f"{label(vm)} is still there although its removal ended well; look at it by hand")
    return upid


def _what_is_left(client: Client, vm: Vm, target: Destroy, upid: Upid | None) -> Destroy:
    """Return the step with the volumes that the server leaves by its own rule. Raise FleetError when others remain."""
    log = _not_removed(client, upid)
    why, belongings = dict(log or ()), target.belongings
    left = still_there(client, target.node, vm.vmid, belongings) | (belongings.volumes & why.keys())
    expected = {part.volume for part in belongings.parts if part.volume and part.unsaved == BY_SNAPSHOT_ALONE}
    failed = sorted(left - expected)
    if failed:
        raise _not_gone(vm, target.node, {volume: why.get(volume, "still there") for volume in failed})
    # where the removal's log cannot be read, what no storage shows us any more is not known to be gone
    doubtful = (expected if log is not None else belongings.volumes) - left
    unseen = [volume for volume in sorted(doubtful) if not would_be_shown(client, vm.vmid, volume)]
    return replace(target, left=tuple(sorted(left)), unseen=tuple(unseen))


def require_removed(client: Client, vm: Vm, node: str, upid: Upid) -> None:
    """Raise FleetError when a removal that an earlier run began could not remove a volume.

    Raise Undecided when its log cannot be read.
    """
    log = _not_removed(client, upid)
    if log is None:
        raise Undecided(
            f"{label(vm)} is destroyed; whether all of its volumes are gone is not known, for the log of its removal "
            f"cannot be read: `pvenode task log {upid}` on {node}"
        )
    if failed := dict(log):
        raise _not_gone(vm, node, failed)


def _not_gone(vm: Vm, node: str, failed: dict[str, str]) -> FleetError:
    words = ", ".join(f"{volume} ({why})" for volume, why in failed.items())
    how = " && ".join(f"pvesm free {volume}" for volume in failed)
    return FleetError(f"{label(vm)} is destroyed, but not all of it is gone: {words}; remove that on {node}: `{how}`")


def _not_removed(client: Client, upid: Upid | None) -> list[tuple[str, str]] | None:
    """Return the volumes that a removal's log says it could not remove, and why; None where it cannot be read."""
    if upid is None:
        return None
    try:
        log = client.task_log(upid)
    except ApiError:
        return None
    return [(match["volume"], match["why"].strip()) for line in log if (match := _NOT_REMOVED.match(line))]
