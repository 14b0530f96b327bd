"""Storages that a guest's volumes or backups are to go to: they have to be there, usable now, and hold such things."""

from collections.abc import Iterator

from nixherd.errors import ApiError, FleetError
from nixherd.fleet.models import GuestType
from nixherd.proxmox.client import Client
from nixherd.proxmox.models import Storage, VmConfig
from nixherd.proxmox.steps import AddDisk, Backup, Clone, Create, Migrate, MoveDisk, Restore, Step


def require_places(client: Client, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps, when each storage that they put something on can take it now. Raises as `require_place` does."""
    for node, name, content in dict.fromkeys(place for step in steps for place in _places(step)):
        require_place(client, node, name, content)
    return steps


def _places(step: Step) -> Iterator[tuple[str, str, str]]:
    """Node, storage and content of what the step makes."""
    disks = "images" if step.type is GuestType.QEMU else "rootdir"
    match step:
        case Backup():
            yield step.node, step.storage, "backup"
        case AddDisk() | MoveDisk():
            yield step.node, step.storage, disks
        case Clone() | Restore() if step.storage:
            yield step.node, step.storage, disks
        case Migrate() if step.storage:
            yield step.target, step.storage, disks
        case Create():
            for drive in VmConfig(step.values).volumes.values():
                yield step.node, drive.storage, disks
            if archive := step.values.get("ostemplate"):
                yield step.node, str(archive).partition(":")[0], "vztmpl"


def storage_seen(client: Client, node: str, name: str) -> Storage | None:
    """The storage as the node sees it; None when there is none or the token may not see it, which is not told apart."""
    try:
        return client.storage(node, name)
    except ApiError as error:
        if error.status != 403:
            raise
        return None


def require_place(client: Client, node: str, name: str, content: str) -> Storage:
    """The storage, which can take `content` (images, rootdir, backup) on that node now.

    FleetError when there is no such storage, when it takes no such thing, and while it is away.
    """
    found = storage_seen(client, node, name)
    if found is None:
        known = ", ".join(each.name for each in client.storages(node) if content in each.content) or "none"
        raise FleetError(f"{node} has no storage {name}; for {content} it has: {known} (as far as this token may see)")
    if found.away:
        raise FleetError(f"storage {name} on {node} {found.away}")
    if content not in found.content:
        raise FleetError(f"storage {name} on {node} takes no {content}; allow `{content}` there, or name another one")
    return found
