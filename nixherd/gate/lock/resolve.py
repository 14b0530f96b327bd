"""What the inputs are today, by Nix itself; an input whose server does not answer is unknown, and the rest goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nixherd.display import visible
from nixherd.errors import DeadlineExceeded, ProcessFailed
from nixherd.gate.lock.groups import Group
from nixherd.nix.commands import NIX
from nixherd.nix.errors import innermost_error
from nixherd.process import run

_TIMEOUT = 1800.0  # seconds
_LONGEST = 300  # characters


def update(fleet: Path, groups: Sequence[Group]) -> Mapping[str, str]:
    """Have Nix write today's revisions of all the groups' inputs into flake.lock; why not, by input that it could not.

    Such an input, and its group with it, is as it was.
    """
    everything = [input for group in groups for input in group.inputs]
    if not everything or not _try(fleet, everything):
        return {}
    # which of them it is; what was fetched already is not fetched again
    unknown: dict[str, str] = {}
    for group in groups:
        before = (fleet / "flake.lock").read_bytes()
        failed = {input: why for input in group.inputs if (why := _try(fleet, [input]))}
        if failed:
            (fleet / "flake.lock").write_bytes(before)
            unknown |= failed
    return unknown


def _try(fleet: Path, inputs: Sequence[str]) -> str | None:
    """Why these cannot be updated, together; None once they are."""
    argv = [*NIX, "--option", "accept-flake-config", "false", "flake", "update", "--flake", str(fleet), *inputs]
    try:
        run(argv, timeout=_TIMEOUT)
    except DeadlineExceeded as error:
        return str(error)
    except ProcessFailed as error:
        if error.status in (126, 127):
            raise
        return visible(innermost_error(error.stderr) or str(error))[:_LONGEST]
    return None


def is_consistent(fleet: Path) -> str | None:
    """Why Nix would have to change the lock file of the flake there; None where it takes it as it is."""
    try:
        run([*NIX, "flake", "metadata", "--json", "--no-update-lock-file", str(fleet)], timeout=_TIMEOUT)
    except ProcessFailed as error:
        return visible(innermost_error(error.stderr) or str(error))[:_LONGEST]
    return None
