"""Carrying out what a plan says until observing again finds nothing left to do.

A run may be killed, an answer may be lost, another may hold a lock: what decides is always what is there now.
"""

import re
import time
from collections.abc import Callable

from nixherd.base.errors import (
    ApiError,
    FleetError,
    Locked,
    OutcomeUnknown,
    StillRunning,
    TaskFailed,
    TaskForgotten,
    Undecided,
    Usage,
)
from nixherd.base.names import STORAGE
from nixherd.base.terminal import Narrator
from nixherd.base.waiting import Backoff, poll
from nixherd.fleet.models import Fleet, GuestType, Host, Vm
from nixherd.proxmox import steps
from nixherd.proxmox.answers import Upid
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import CT_DISKS, VM_DISKS, VmConfig, properties, size_or_none, tags_of
from nixherd.proxmox.guest import aftermath, plan, reboots, tasks
from nixherd.proxmox.guest.identity import ActualVm, label, marked, sent_text, unmarked
from nixherd.proxmox.guest.observe import holder, observe, template_or_why
from nixherd.proxmox.guest.plan import Desired
from nixherd.proxmox.guest.tasks import Held, Progress
from nixherd.proxmox.steps import Reboot, Row, Start, Step, doable, sent

PAUSE = 0.5  # seconds before looking again at what another holds or what came to an unknown end
LONGEST_PAUSE = 5.0
PATIENCE = 3600.0  # seconds for a task of the hypervisor, and for whoever holds its locks
# How long a task whose begin was not answered may take to appear: the server hands calls on for 30 s.
UNKNOWN_PATIENCE = 45.0

# Another one was faster, or still at work; nothing was done, and looking again tells what is left to do.
_LOOK_AGAIN = re.compile(
    r"checksum mismatch|detected modified configuration|(VM|CT) is locked|already running|"
    r"config file already exists|already exists on node"
)

Replan = Callable[[ActualVm | None], tuple[Step, ...]]


def desired(client: Client, fleet: Fleet, vm: Vm, host: Host) -> Desired:
    """Return the guest as declared, with what it would be cloned from; a container has no template."""
    seen = template_or_why(client, fleet) if vm.type is GuestType.QEMU else (None, None)
    return Desired(fleet, vm, host, *seen)


def plan_of(client: Client, fleet: Fleet, vm: Vm, host: Host) -> tuple[Step, ...]:
    """Plan the guest's steps; only GETs are sent. Raise Refused when a readonly one needs any."""
    planned = plan.plan_vm(desired(client, fleet, vm, host), observe(client, fleet, vm))
    plan.require_changeable(vm, doable(planned))
    return planned


def ensure(
    client: Client, fleet: Fleet, vm: Vm, host: Host, row: Row, *, timeout: float, progress: Progress | None = None
) -> tuple[Step, ...]:
    """Carry out the steps of one row of the plan, and look again until none is left. Raises as `achieve` does."""
    target = desired(client, fleet, vm, host)

    def replan(actual: ActualVm | None) -> tuple[Step, ...]:
        planned = steps.rows(doable(plan.plan_vm(target, actual)), row)
        plan.require_changeable(vm, planned)
        if planned and actual is None and row is not Row.CLONE:
            raise FleetError(f"{label(vm)} does not exist; {row} comes after {Row.CLONE}")
        return planned

    return achieve(client, fleet, vm, replan, timeout=timeout, progress=progress, what=row)


def achieve(
    client: Client, fleet: Fleet, vm: Vm, replan: Replan, *, timeout: float, progress: Progress | None = None, what: str
) -> tuple[Step, ...]:
    """Carry out what `replan` says of the guest as it is, and look again until that is nothing.

    One step at a time: each is decided on the guest as it is after the one before, and sent with that digest, so that
    our own steps are no obstacle to each other and what others do between them is seen. Returns the steps that were
    carried out, or what `replan` said where there were none; one whose answer was lost and whose end is there counts.

    Raises Locked after `timeout` seconds, with what stood in the way and whose it is; whatever `replan` raises;
    TaskFailed and ApiError for what trying again does not mend.
    """
    say = progress or (lambda _: None)
    narrate = Narrator(say, grace=0, timed=False)
    done, obstacle, waits = list[Step](), "", poll(timeout, Backoff(PAUSE, LONGEST_PAUSE))
    lost: Step | None = None
    held = Held(client, vm, 4 * PAUSE)
    before: ActualVm | None = None
    while True:
        actual = observe(client, fleet, vm)
        planned = _left_to_do(client, vm, replan, actual, done)
        if lost is not None and str(lost) not in map(str, planned):
            done.append(lost)
            client.recount(1)
        others = aftermath.changed_by_others(before, actual, done[-1]) if done else []
        if others:
            say(f"{label(vm)}: somebody else changed {', '.join(others)} meanwhile; planned anew")
        before, lost = actual, None
        if not planned:
            return tuple(done) if done else planned
        require_awake(vm, actual, planned)
        if not planned[0].repeatable and done and type(done[-1]) is type(planned[0]):
            return tuple(done)
        if in_vain(done, planned[0]):
            raise FleetError(f"{label(vm)}: done twice without effect: {planned[0]}; look at it by hand")
        if (left := waits.left) <= 0:
            raise Locked(f"{label(vm)}: {what}: not within {timeout:.0f} s: {obstacle or planned[0]}")
        reason = _obstacle(client, fleet, vm, actual, planned[0]) or held.still()
        if not reason:
            if done or len(planned) > 1:
                say(str(planned[0]))
            try:
                reason = _carry_out(client, fleet, vm, actual, planned[0], left, say, held)
            except _Unknown as error:
                reason, lost = str(error), planned[0]
            if not reason:
                done.append(planned[0])
                held.won()
        if reason:
            narrate(reason)
            if reason != obstacle:
                waits.soon()
            obstacle = reason
            waits.pause()


def _left_to_do(client: Client, vm: Vm, replan: Replan, actual: ActualVm | None, done: list[Step]) -> tuple[Step, ...]:
    """Plan again. Raise FleetError when a switch of power was carried out, and the guest is in another state."""
    last = done[-1] if done else None
    try:
        planned = replan(actual)
    except Usage as error:
        if last is None:
            raise
        raise FleetError(f"{error}; before that, this was done: {'; '.join(map(str, done))}") from error
    if last is None or not planned or type(last) is not type(planned[0]) or not isinstance(last, steps.Power):
        return planned
    if isinstance(last, Reboot):
        waits = planned[0].because if isinstance(planned[0], Reboot) else ()
        if waits:
            raise FleetError(f"{label(vm)} was rebooted, and {', '.join(waits)} wait for its next start; look at it")
        return ()
    where = tasks.seen(client, last.node, vm.vmid, vm.type)
    tasks_ = tasks.tasks_of(client, last.node, vm.vmid)
    since = tasks.told(tasks_ if tasks_ is None else tasks_[:3])
    raise FleetError(
        f"{label(vm)} {where}, although a task that was to {last} has ended well"
        f"{f'; its last tasks: {since}' if since else ''}"
    )


def require_awake(vm: Vm, actual: ActualVm | None, planned: tuple[Step, ...]) -> None:
    """Require that a guest is not suspended to disk, unless it is to go on: waiting for that is vain."""
    if (
        actual is None
        or actual.config.lock != "suspended"
        or not planned
        or isinstance(planned[0], (Start, steps.Resume))
    ):
        return
    raise Usage(
        f"{label(vm)} on {actual.node} is suspended to disk, and nothing else can be done to it; resume it first "
        f"(`nixherd vm resume {vm.name}`)"
    )


def _obstacle(client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None, step: Step) -> str:
    lock = actual.config.lock if actual else None
    if actual is None or lock is None or isinstance(step, (steps.AwaitClone, steps.AwaitRestore)):
        return ""
    if lock == "suspended" and isinstance(step, (Start, steps.Resume)):
        return ""
    return holder(client, fleet, vm, actual)


class _Unknown(Exception):
    """The guest is to be looked at again: the step may have been carried out."""


def _carry_out(
    client: Client, fleet: Fleet, vm: Vm, actual: ActualVm | None, step: Step, timeout: float, say: Progress, held: Held
) -> str:
    """Apply the step; return what to wait for before looking again, empty when all went well."""
    try:
        apply(client, step, timeout=timeout, progress=say)
    except Undecided as error:
        aftermath.add_seen(error, client, fleet, vm, step)
        raise
    except OutcomeUnknown as error:
        if not step.repeatable:
            if not isinstance(step, steps.Restore):  # which says more
                aftermath.add_seen(error, client, fleet, vm, step)
            raise
        raise _Unknown(
            str(error) if actual is None else aftermath.after_lost_answer(client, step, actual, error)
        ) from error
    except StillRunning as error:
        aftermath.add_seen(error, client, fleet, vm, step)
        raise
    except (ApiError, TaskFailed) as error:
        if tasks.lost_the_lock(error):
            return held.lost(step.node, str(step), error)
        if _LOOK_AGAIN.search(str(error)):
            return str(error)
        if isinstance(step, steps.Power) and isinstance(error, TaskFailed):
            _where_it_stands(client, vm, step, error, say)
            return ""
        refusal = error if actual is None else aftermath.after_refusal(client, step, actual, error)
        if refusal is error:
            raise
        raise refusal from error
    return ""


def _where_it_stands(client: Client, vm: Vm, step: steps.Power, error: TaskFailed, say: Progress) -> None:
    """Accept a failed switch of power if the guest is in the state that was asked for, else raise TaskFailed."""
    if isinstance(step, Reboot) and Upid.parse(error.upid).type in reboots.STARTS:
        raise error  # which says where the guest stands
    status = client.status(step.node, vm.vmid, vm.type)
    if status is not None and step.is_reached(status):
        say(f"{label(vm)} {tasks.stands(status)}, all the same: {error}")
        return
    raise TaskFailed(f"{error}; {label(vm)} {tasks.stands(status)}", error.upid, error.exitstatus) from error


def apply(client: Client, step: Step, *, timeout: float, progress: Progress | None = None) -> Upid | None:
    """Carry out one step and wait for its task, which is returned; for a reboot until the guest runs again.

    When the server did not say what came of a step that must not be done twice, its task is looked for: then that is
    waited for. Raise OutcomeUnknown when there is none.
    """
    began, say = time.monotonic(), progress or (lambda _: None)
    if isinstance(step, steps.AwaitReboot):
        reboots.await_end(client, step, timeout=timeout, say=say)
        return step.upid
    before = reboots.look(client, step) if isinstance(step, Reboot) else None
    if step.repeatable:
        upid = step.begin(client)
    else:
        earlier = _tasks_of(client, step)
        try:
            upid = step.begin(client)
        except OutcomeUnknown as error:
            upid = _begun(client, step, earlier, error, min(timeout, UNKNOWN_PATIENCE))
    if upid:
        try:
            tasks.wait(client, upid, timeout, progress)
        except TaskForgotten as error:
            if before and isinstance(step, Reboot):
                error.args = (f"{error}; {reboots.rebooted_or_not(client, step, before)}", *error.args[1:])
            raise
    if upid and before and isinstance(step, Reboot):
        left = max(0.0, timeout - (time.monotonic() - began))
        reboots.await_return(client, step, before, upid, timeout=left, say=say)
    return upid


def _tasks_of(client: Client, step: Step) -> set[str]:
    """Return our token's tasks, running or ended, on the step's guest and of its kind."""
    tasks = (*client.tasks(step.node, vmid=step.vmid), *client.tasks(step.node, vmid=step.vmid, active=False))
    return {str(task.upid) for task in tasks if task.user == client.token_id and task.type in step.task_types}


def _begun(client: Client, step: Step, earlier: set[str], error: OutcomeUnknown, patience: float) -> Upid:
    for _ in poll(patience, Backoff(PAUSE, PAUSE)):
        new = sorted(_tasks_of(client, step) - earlier)
        if new:
            return Upid.parse(new[-1])
    raise error


_NEW = re.compile(rf"(?:(?:file|volume)=)?(?P<storage>{STORAGE}):(?P<size>\d+(?:\.\d+)?)", re.ASCII)
_CLOUD_INIT = re.compile(rf"(?:file=)?(?P<storage>{STORAGE}):cloudinit", re.ASCII)
_DRIVE = re.compile(f"{VM_DISKS}|{CT_DISKS}", re.ASCII)
_CARD = re.compile(r"net\d+", re.ASCII)
_OF_THE_SERVER = frozenset(("type", "hwaddr"))  # what it adds to a container's card


def to_send(fleet: Fleet, vm: Vm, config: VmConfig, values: dict[str, object]) -> dict[str, object]:
    """Return the options as they may be sent: tags as the server keeps them, notes with our mark.

    Raise Usage for what would make the guest somebody else's: another name, or notes without the mark.
    """
    if isinstance(tags := values.get("tags"), str):
        values = {**values, "tags": ";".join(tags_of(tags))}
    name = "hostname" if vm.type is GuestType.LXC else "name"
    if name in values and values[name] != vm.name:
        raise Usage(f"{label(vm)}: by its {name} and notes it is known to be this fleet's; both are left as they are")
    if "description" not in values:
        return values
    if values["description"] is None:
        raise Usage(
            f"{label(vm)}: its notes hold the mark that makes it this fleet's and are not taken away; "
            'description="" empties the rest'
        )
    words = unmarked(fleet, vm, str(values["description"]))
    same = words == unmarked(fleet, vm, config.description)
    return {**values, "description": config.text("description") if same else marked(fleet, vm, words)}


def is_so(config: VmConfig, key: str, value: object) -> bool:
    """Tell whether the option has this value already: the server names volumes and makes up MACs."""
    present = config.text(key)
    text = sent_text(value)
    if present == text or present is None or text is None:
        return present == text
    if _CARD.fullmatch(key):
        return _is_card(present, text)
    return _DRIVE.fullmatch(key) is not None and _is_drive(present, text)


def _is_drive(present: str, text: str) -> bool:
    first, *rest = text.split(",")
    has = properties(present, "file")
    storage, _, volume = (has.get("file") or has.get("volume") or "").partition(":")
    if new := _CLOUD_INIT.fullmatch(first):
        return storage == new["storage"] and "cloudinit" in volume
    new = _NEW.fullmatch(first)
    if new is None or storage != new["storage"]:
        return False
    size = size_or_none(has.get("size"))
    target = properties(",".join(rest), "")
    return size == int(float(new["size"]) * (1 << 30)) and target.items() <= has.items() | {("format", "raw")}


def _is_card(present: str, text: str) -> bool:
    """Tell whether they are the same, but for a MAC that nobody asked for."""
    has, target = properties(present, "model"), properties(text, "model")
    if (model := target.pop("model", None)) and model in has:
        del has[model]
    if "hwaddr" not in target and "name" in target:
        has = {key: value for key, value in has.items() if key not in _OF_THE_SERVER or key in target}
    return has == target


def makes_a_volume(change: steps.Change) -> bool:
    """Tell whether a server makes a new volume each time that this is sent."""
    return isinstance(change.value, str) and _NEW.match(change.value) is not None and bool(_DRIVE.fullmatch(change.key))


def in_vain(done: list[Step], step: Step) -> bool:
    """Tell whether a step that was carried out is to be carried out again, by what it sends: it has no effect.

    Once more is allowed, for somebody may have taken it back, unless that makes another volume.
    """
    if not isinstance(step, steps.Configure):
        return [str(each) for each in done].count(str(step)) > 1
    same = [each for each in done if isinstance(each, steps.Configure) and sent(each.changes) == sent(step.changes)]
    return len(same) > (0 if any(map(makes_a_volume, step.changes)) else 1)
