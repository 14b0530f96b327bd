"""What is seen of a guest after something was asked of it that came to no known end: in words, read back then."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nixherd.errors import FleetError, Undecided
from nixherd.fleet.models import Fleet, Vm
from nixherd.proxmox.errors import OutcomeUnknown, StillRunning
from nixherd.proxmox.identity import label
from nixherd.proxmox.models import unlike_snapshot
from nixherd.proxmox.observe import observe
from nixherd.proxmox.plan import ActualVm
from nixherd.proxmox.refused import options_of
from nixherd.proxmox.standing import stands
from nixherd.proxmox.steps import DeleteSnapshot, MoveDisk, Regenerate, Resize, Rollback, Snapshot, Step

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client

UNKNOWN = (OutcomeUnknown, StillRunning, Undecided)  # how whatever was asked for ended is not known


def add_seen(error: FleetError, client: "Client", fleet: Fleet, vm: Vm, step: Step | None = None) -> None:
    """Have the error say where the guest stands now."""
    error.args = (f"{error}; {seen(client, fleet, vm, step)}", *error.args[1:])


def seen(client: "Client", fleet: Fleet, vm: Vm, step: Step | None = None) -> str:
    """Where the guest is and how it stands, with what the step was to change of it; unknown where nobody tells."""
    try:
        actual = observe(client, fleet, vm)
        if actual is None:
            return f"{label(vm)} is not there now"
        status = client.status(actual.node, vm.vmid, vm.type)
        return "; ".join([f"now {label(vm)} on {actual.node} {stands(status)}", *_of(client, vm, actual, step)])
    except FleetError as error:
        return f"how {label(vm)} stands now is not known ({error})"


def _of(client: "Client", vm: Vm, actual: ActualVm, step: Step | None) -> Iterator[str]:
    match step:
        case Rollback(name=name):
            then = client.config(actual.node, vm.vmid, vm.type, snapshot=name)
            if then is None:
                return
            differs = unlike_snapshot(actual.config, then)
            other = f"is not that of snapshot {name}: {', '.join(differs)}"
            same = f"is that of snapshot {name}, which says nothing of what is on its disks"
            yield f"its configuration {other if differs else same}"
        case Snapshot() | DeleteSnapshot():
            rows = client.snapshots(actual.node, vm.vmid, vm.type)
            words = [f"{row.name}{f' (state: {row.state})' if row.state else ''}" for row in rows]
            yield f"its snapshots: {', '.join(words) or 'none'}"
        case Resize(disk=disk) | MoveDisk(disk=disk):
            yield f"{disk}: {actual.config.text(disk) or 'none'}"
        case Regenerate():
            differs_ = client.cloudinit_differs(actual.node, vm.vmid)
            yield f"its cloud-init drive {'is not' if differs_ else 'is'} as its options say"
        case Step():
            for key in sorted(options_of(step)):
                yield f"{key}: {actual.config.text(key) or 'none'}"
