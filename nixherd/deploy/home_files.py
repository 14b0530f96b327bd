"""A home's files that are in the way of its new generation: why it was not activated, and what they were moved to."""

from collections.abc import Sequence

from nixherd.base.terminal import visible
from nixherd.deploy.protocol import Stage, Standing
from nixherd.deploy.rollout import HostRun

_REMEDY = "deploy with -b EXT (backup_extension), which moves each to FILE.EXT, or move them away there"


def why_refused(standing: Standing, extension: str | None) -> str:
    """Why nothing was activated: as the machine says, or with the files that Home Manager does not replace.

    With an extension it moves files; what it still refuses are backups that exist already, and links.
    """
    files = standing.in_the_way
    if not files:
        return (standing.why or "it says no").removesuffix("; nothing was changed")
    if extension is None:
        return f"{_are(files, 'in the way')}; {_REMEDY}"
    backups = [file for file in files if file.endswith(f".{extension}")]
    others = [file for file in files if file not in backups]
    parts = list[str]()
    if backups:
        parts.append(f"{_are(backups, 'there already')}: move that away, or use another -b EXT")
    if others:
        parts.append(f"{_are(others, 'in the way')}, of which Home Manager moves none (links, say): move that away")
    return "; ".join(parts)


def tell_backed_up(host_run: HostRun, standing: Standing) -> None:
    """Note and say which files were moved, as the machine has read back; after a rollback, those not put back."""
    if standing.backed_up:
        what = "files that were in the way are kept as" if standing.stage is Stage.KEPT else "not put back:"
        words = f"{what} {_listed(standing.backed_up)}"
        host_run.note(backed_up=standing.backed_up, moved_files=words)
        host_run.say(words)


def _are(files: Sequence[str], where: str) -> str:
    return f"{_listed(files)} {'is' if len(files) == 1 else 'are'} {where}"


def _listed(files: Sequence[str]) -> str:
    return ", ".join(map(visible, files))
