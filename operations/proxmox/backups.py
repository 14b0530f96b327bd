"""Backups of guests, and guests out of backups."""

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import operation

from nixherd.proxmox.guest import actions
from operations.arguments import flag_of, names_of, text_of, text_or_none, whole
from operations.proxmox.acting import act
from operations.steps import Commands

AN_HOUR = 3600


@operation()
def backup(
    storage: str | None = None,
    newer_than: int | None = AN_HOUR,
    mode: str = "snapshot",
    notes: str = "",
    protected: bool = False,
) -> Commands:
    """Back the guest up, unless it has a backup less than `newer_than` seconds old; no older one is pruned.

    Where to: `storage`, else proxmox.backupStorage, else the node's only storage for backups.
    """

    def action() -> actions.Action:
        return actions.backup(
            storage=text_or_none("storage", storage),
            mode=text_of("mode", mode),
            newer_than=None if newer_than is None else whole("newer_than", newer_than),
            notes=str(notes),
            protected=flag_of("protected", protected),
        )

    yield from act(host, action)


@operation()
def restore(
    archive: str, storage: str | None = None, overwrite: bool = False, discard: Sequence[str] | str | None = None
) -> Commands:
    """Make the guest out of a backup. One that is there is left alone, or with `overwrite` replaced: it must be off.

    `discard` names what of it may go although the backup does not hold it: `scsi1`, `snapshot:clean`.
    """

    def action() -> actions.Action:
        place, over = text_or_none("storage", storage), flag_of("overwrite", overwrite)
        names = () if discard is None else tuple(names_of("discard", discard))
        return actions.restore(text_of("archive", archive), storage=place, overwrite=over, discard=names)

    yield from act(host, action)
