"""What may be deployed at all: what is committed, and where that is required signed by somebody who may."""

from collections.abc import Sequence
from pathlib import Path

from nixherd.errors import FleetError
from nixherd.git import Repository


def uncommitted(fleet: str) -> list[str]:
    """Files of the fleet that differ from what is committed; none outside a repository."""
    repository = Repository.around(Path(fleet))
    return repository.changed(["."]) if repository else []


def require_committed(fleet: str, dirty: Sequence[str]) -> None:
    """FleetError while there are such files: nobody could say later what was deployed."""
    if dirty:
        more = f" (and {len(dirty) - 1} more)" if len(dirty) > 1 else ""
        raise FleetError(
            f"{fleet}/{dirty[0]}: has changes that are not committed{more}; commit them, or say allow_dirty=true"
        )


def require_signed(fleet: str, running: str | None, allowed_signers: str | None) -> None:
    """FleetError unless every commit since the `running` one was signed by somebody who may; without it, the last one.

    `allowed_signers` is a file below the fleet's directory, as ssh-keygen(1) describes it.
    """
    repository = Repository.around(Path(fleet))
    if repository is None:
        raise FleetError(f"{fleet}: require_signed is set, but it is in no git repository")
    unsigned = repository.not_signed(running, Path(fleet) / allowed_signers if allowed_signers else None)
    if unsigned:
        more = f" (and {len(unsigned) - 1} more)" if len(unsigned) > 1 else ""
        raise FleetError(f"{fleet}: commit {unsigned[0]!r}{more} is signed by nobody who may; nothing was changed")
