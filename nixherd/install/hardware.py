"""Where the generated hardware-configuration.nix of a host belongs in the flake's working tree."""

import os
from pathlib import Path, PurePath

from nixherd.errors import FleetError
from nixherd.fleet.git import Repository
from nixherd.fleet.models import Fleet
from nixherd.fleet.tree import opened


def configuration_path(fleet: Fleet, host_id: str, wanted: str | bool) -> Path:
    """Where the file belongs: `wanted`, relative to the flake, or beside the host's configuration when True.

    FleetError when it lies outside the flake, a link leads there, or git does not know it: Nix would not see it there.
    """
    flake = Path(fleet.path)
    configuration = fleet.hosts[host_id].configuration_file
    if wanted is True and configuration:
        given = str(Path(configuration).parent / "hardware-configuration.nix")
    else:
        given = str(flake / str(wanted))
    inside = _below(given, flake) or _below(given, flake.resolve())
    if inside is None:
        raise FleetError(f"{host_id}: hardware_configuration: {given} is not in the flake {flake}")
    path = flake / inside
    with opened(flake) as tree:
        if tree.stat(str(inside)) is None:
            raise FleetError(f"{path}: not there; create it (an empty module, {{ }}, will do) and `git add` it")
    repository = Repository.around(flake)
    if repository is not None and not repository.tracked([str(inside)]):
        raise FleetError(f"{path}: git does not know it, so Nix would not see it; `git add` it first")
    return path


def _below(path: str, directory: Path) -> PurePath | None:
    """The path below a directory, by its letters: links are not followed, here or later."""
    normal = PurePath(os.path.normpath(path))
    return normal.relative_to(directory) if normal.is_relative_to(directory) and normal != directory else None
