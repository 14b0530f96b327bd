"""Observing a VM, and carrying out what the plan says until observing again finds nothing left to do.

A run may be killed, an answer may be lost, another may hold a lock: what decides is always what is there now.
"""

import re
import time

from fleetwright.errors import ApiError, DeadlineExceeded, FleetError, Refused, TaskFailed
from fleetwright.models import Fleet, Host, Vm, format_size
from fleetwright.proxmox import plan, tasks
from fleetwright.proxmox.client import Client
from fleetwright.proxmox.errors import OutcomeUnknown
from fleetwright.proxmox.models import Upid, VmConfig
from fleetwright.proxmox.plan import ActualVm, AwaitClone, Clone, CloudInit, Configure, Resize, Row, Start, Step
from fleetwright.proxmox.tasks import Progress

PAUSE = 1.0  # seconds before looking again at what another holds or what came to an unknown end

# Another one was faster, or still at work; nothing was done, and looking again tells what is left to do.
_LOOK_AGAIN = re.compile(
    r"checksum mismatch|VM is locked|already running|config file already exists|already exists on node"
)


def observe_template(client: Client, fleet: Fleet) -> VmConfig | None:
    """The configuration of the declared template; None when none is declared or it does not exist."""
    if fleet.template is None or fleet.endpoint is None:
        return None
    return client.config(plan.template_node(fleet), fleet.template.vmid)


def observe(client: Client, fleet: Fleet, vm: Vm) -> ActualVm | None:
    """The VM as it is now, None while it does not exist.

    Raises Refused when its VMID is taken by a guest of another node or kind.
    """
    node = fleet.node_of(vm)
    config = client.config(node, vm.vmid)
    if config is None and not client.is_free(vm.vmid):
        config = client.config(node, vm.vmid)  # it may have come to be between the two questions
        if config is None:
            raise Refused(
                f"VMID {vm.vmid} is taken, by a guest on another node than {node} or by a container; "
                f"give {vm.attribute} another one in vms/definitions.nix"
            )
    if config is None:
        return None
    status = client.status(node, vm.vmid)
    if status is None:
        return None
    task = None
    if config.lock == "clone":
        task = _clone_task(client, node, vm.vmid)
        if task is None:  # it may just have ended, well or not
            config = client.config(node, vm.vmid)
    return ActualVm(config, status.running, task) if config else None


def _clone_task(client: Client, node: str, vmid: int) -> Upid | None:
    """The running task of our token that makes this VMID; the task itself is named after the template.

    8.4 does not log the new VMID until it has allocated a volume for it, so a log without any comes second.
    """
    named, silent = re.compile(rf"\b(ID {vmid}|(vm|subvol)-{vmid}-.*)\b"), []
    for task in client.tasks(node, type="qmclone"):
        if task.user != client.token_id:
            continue
        log = "\n".join(client.task_log(task.upid))
        if named.search(log):
            return task.upid
        if not re.search(r"with ID \d+|allocated target volume", log):
            silent.append(task.upid)
    return silent[0] if silent else None


def plan_of(client: Client, fleet: Fleet, vm: Vm, host: Host) -> tuple[Step, ...]:
    """What is to be done to the VM now; nothing is sent but GETs."""
    return plan.plan_vm(fleet, vm, host, observe(client, fleet, vm), observe_template(client, fleet))


def ensure(
    client: Client, fleet: Fleet, vm: Vm, host: Host, row: Row, *, timeout: float, progress: Progress | None = None
) -> tuple[Step, ...]:
    """Carry out the steps of one row, and look again until none is left. Returns those that were carried out.

    Raises DeadlineExceeded after `timeout` seconds, with what stood in the way; Refused as `plan_vm` does;
    TaskFailed and ApiError for what trying again does not mend.
    """
    say = progress or (lambda _: None)
    template = observe_template(client, fleet)
    began, done, obstacle = time.monotonic(), list[Step](), ""
    while True:
        actual = observe(client, fleet, vm)
        steps = plan.rows(plan.plan_vm(fleet, vm, host, actual, template), row)
        if not steps:
            return tuple(done)
        if actual is None and row is not Row.CLONE:
            raise FleetError(f"vm {vm.vmid} ({vm.name}) does not exist; {row} comes after {Row.CLONE}")
        if [str(step) for step in done].count(str(steps[0])) > 1:
            raise FleetError(f"vm {vm.vmid} ({vm.name}): done twice without effect: {steps[0]}; look at it by hand")
        left = began + timeout - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(
                f"vm {vm.vmid} ({vm.name}): {row}: not within {timeout:.0f} s: {obstacle or steps[0]}"
            )
        found = _obstacle(vm, actual, steps[0]) or _carry_out(client, steps, left, say, done)
        if found:
            say(found if found != obstacle else "still waiting")
            obstacle = found
            time.sleep(min(PAUSE, left))


def _obstacle(vm: Vm, actual: ActualVm | None, step: Step) -> str:
    lock = actual.config.lock if actual else None
    if lock is None or isinstance(step, AwaitClone) or (lock == "suspended" and isinstance(step, Start)):
        return ""
    return f"vm {vm.vmid} is locked ({lock}); when nothing is at work on it: `qm unlock {vm.vmid}` on the node"


def _carry_out(client: Client, steps: tuple[Step, ...], timeout: float, say: Progress, done: list[Step]) -> str:
    """Apply the steps; what to wait for before looking again, empty when all went well."""
    try:
        for step in steps:
            apply(client, step, timeout=timeout, progress=say)
            done.append(step)
    except OutcomeUnknown as error:
        return str(error)
    except (ApiError, TaskFailed) as error:
        if tasks.lost_the_lock(error) or _LOOK_AGAIN.search(str(error)):
            return str(error)
        raise
    return ""


def apply(client: Client, step: Step, *, timeout: float, progress: Progress | None = None) -> None:
    """Carry out one step and wait for its task."""
    upid = _begin(client, step)
    if upid:
        tasks.wait(client, upid, timeout, progress)


def _begin(client: Client, step: Step) -> Upid | None:
    match step:
        case AwaitClone(upid=upid):
            return upid
        case Clone():
            return client.clone(
                step.template_node,
                step.template,
                step.vmid,
                name=step.name,
                description=step.description,
                storage=step.storage,
                target=step.node if step.node != step.template_node else None,
                pool=step.pool,
            )
        case Configure():
            client.set_config(step.node, step.vmid, plan.options(step), digest=step.digest)
        case Resize():
            return client.resize(step.node, step.vmid, step.disk, format_size(step.after), digest=step.digest)
        case CloudInit():
            client.set_config(step.node, step.vmid, plan.options(step), digest=step.digest)
            if step.running:
                client.regenerate_cloudinit(step.node, step.vmid)
        case Start():
            return client.start(step.node, step.vmid)
    return None
