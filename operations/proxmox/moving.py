"""Guests on their way to another node."""

from pyinfra import host
from pyinfra.api import operation

from nixherd.proxmox.guest import actions
from operations.arguments import flag_of, text_of, text_or_none
from operations.proxmox.acting import act
from operations.steps import Commands


@operation()
def migrate(target: str, local_disks: bool = False, storage: str | None = None) -> Commands:
    """Move the guest to another node, while it runs if it runs. `local_disks` takes the disks that only its node sees.

    A running container restarts for that.
    """

    def action() -> actions.Action:
        place = text_or_none("storage", storage)
        return actions.migrate(
            text_of("target", target), local_disks=flag_of("local_disks", local_disks), storage=place
        )

    yield from act(host, action)
