"""Snapshots of guests."""

from pyinfra import host
from pyinfra.api import operation

from nixherd.proxmox.guest import actions
from operations.arguments import flag_of, text_of
from operations.proxmox.acting import act
from operations.steps import Commands


@operation()
def snapshot(snapname: str, description: str = "", with_memory: bool = False) -> Commands:
    """Take a snapshot, unless there is one of that name."""

    def action() -> actions.Action:
        memory = flag_of("with_memory", with_memory)
        return actions.snapshot(text_of("snapname", snapname), description=str(description), with_memory=memory)

    yield from act(host, action)


@operation()
def delete_snapshot(snapname: str) -> Commands:
    """Delete a snapshot, if there is one of that name."""
    yield from act(host, lambda: actions.delete_snapshot(text_of("snapname", snapname)))


@operation()
def rollback(snapname: str) -> Commands:
    """Put disks and configuration back to a snapshot, unless that was the last thing done to the guest."""
    yield from act(host, lambda: actions.rollback(text_of("snapname", snapname)))
