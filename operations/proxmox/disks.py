"""Disks: growing, adding and moving. `snapshot=keep` or `remove` takes one before, and keeps or removes it after."""

from pyinfra import host
from pyinfra.api import operation

from nixherd.proxmox.guest import actions
from nixherd.proxmox.guest.undo import reversible
from nixherd.proxmox.steps import Row
from operations.arguments import flag_of, size_of, text_of, text_or_none
from operations.proxmox.acting import act
from operations.proxmox.provisioning import row
from operations.steps import Commands, decide


@operation()
def resize(disk: str | None = None, size: str | None = None, snapshot: str | None = None) -> Commands:
    """Grow a disk to `size` (64G), the one that boots unless another is named; without a size, as it is declared.

    Disks are never shrunk.
    """
    if size is None and disk is None and snapshot is None:
        yield from decide(host, lambda: row(Row.RESIZE))
        return

    def action() -> actions.Action:
        named = None if disk is None else text_of("disk", disk)
        return reversible(actions.resize(size_of("size", size), disk=named), snapshot)

    yield from act(host, action)


@operation()
def add_disk(disk: str, size: str, storage: str | None = None, snapshot: str | None = None) -> Commands:
    """Give the guest a new, empty disk, on its own storage unless another is named."""

    def action() -> actions.Action:
        place = text_or_none("storage", storage)
        return reversible(actions.add_disk(text_of("disk", disk), size_of("size", size), storage=place), snapshot)

    yield from act(host, action)


@operation()
def move_disk(disk: str, storage: str, keep_source: bool = False, snapshot: str | None = None) -> Commands:
    """Move a disk to another storage; `keep_source` leaves the old one as an unused disk."""

    def action() -> actions.Action:
        kept = flag_of("keep_source", keep_source)
        return reversible(
            actions.move_disk(text_of("disk", disk), text_of("storage", storage), keep_source=kept), snapshot
        )

    yield from act(host, action)
