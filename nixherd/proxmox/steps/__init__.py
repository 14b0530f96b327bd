"""What may be done to a guest, one class per step: what a plan prints and what `apply` carries out.

Each says in one place how it reads, which request it is (its rows in the guard's table and their parameters), whether
it interrupts a machine, and what shows that it was done. `Cannot`, `Drift` and `Note` are words only.
"""

from nixherd.proxmox.route import Route
from nixherd.proxmox.steps import hardware, making, state
from nixherd.proxmox.steps.base import (
    QEMU,
    Await,
    Cannot,
    Change,
    Drift,
    Note,
    Outcome,
    Row,
    Step,
    Steps,
    doable,
    nothing,
    rows,
    sent,
    why_nothing,
)
from nixherd.proxmox.steps.hardware import (
    GIB,
    AddDisk,
    CloudInit,
    Configure,
    Mark,
    MoveDisk,
    Regenerate,
    Resize,
    whole_gib,
)
from nixherd.proxmox.steps.making import (
    AwaitClone,
    AwaitRemoval,
    AwaitRestore,
    Clone,
    Create,
    Destroy,
    MakeTemplate,
    Migrate,
    Restore,
)
from nixherd.proxmox.steps.state import (
    AwaitReboot,
    Backup,
    DeleteSnapshot,
    Power,
    Reboot,
    Resume,
    Rollback,
    Shutdown,
    Snapshot,
    Start,
    Stop,
    Suspend,
)


def requests() -> tuple[Route, ...]:
    """Return the rows of the guard's table that the steps of this package declare, each once."""
    steps = [each for module in (making, hardware, state) for each in vars(module).values()]
    declared = [step for step in steps if isinstance(step, type) and issubclass(step, Step)]
    table: dict[tuple[str, str], Route] = {}
    for route in (route for step in declared for route in step.requests.values()):
        if table.setdefault((route.method, route.path), route) != route:
            raise TypeError(f"{route.method} {route.path} is declared twice, and not alike")
    return tuple(table.values())
