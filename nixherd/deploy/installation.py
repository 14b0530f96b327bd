"""What an installation needs on this side, judged before anything is changed."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath, PurePosixPath

from nixherd.base.errors import FleetError
from nixherd.fleet.git import Repository
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Fleet
from nixherd.fleet.tree import opened
from nixherd.nix.builder import Builder
from nixherd.nix.commands import Evaluated


def obstacles(
    keys: HostKeys, builder: Builder, config: Evaluated, extra_files: object, hardware: str | bool | None
) -> Iterator[str]:
    """One line per finding; none when the host of `config` can be installed.

    `extra_files` and `hardware` (of hardware-configuration.nix) are what the operator gave as data, unchecked.
    """
    if problem := keys.problem(config.host_id):
        yield problem
    if config.disko_script is None:
        yield f"{config.host_id}: config.system.build.diskoScript is missing; import disko and declare its disks"
    try:
        builder.require_installer(config.system)
    except FleetError as error:
        yield str(error)
    yield from _extra_files(config.host_id, extra_files)
    if hardware:
        try:
            configuration_path(keys.fleet, config.host_id, hardware)
        except FleetError as error:
            yield str(error)


def _extra_files(host_id: str, files: object) -> Iterator[str]:
    if not files:
        return
    if not isinstance(files, Mapping):
        yield f'{host_id}: extra_files: is not a mapping; write it as {{"/etc/x": "path/of/the/local/file"}}'
        return
    for target, source in files.items():
        path = PurePosixPath(str(target))
        if not path.is_absolute() or ".." in path.parts:
            yield f"{host_id}: extra_files: {target} is not an absolute path; say where in the new root the file is"
        if not Path(str(source)).is_file():
            yield f"{host_id}: extra_files: {source} is not there; correct the path of the local file"


def configuration_path(fleet: Fleet, host_id: str, given: str | bool) -> Path:
    """Where the file belongs: `given`, relative to the flake, or beside the host's configuration when True.

    FleetError when it lies outside the flake, a link leads there, or git does not know it: Nix would not see it there.
    """
    flake = Path(fleet.path)
    configuration = fleet.hosts[host_id].configuration_file
    if given is True and configuration:
        file = str(Path(configuration).parent / "hardware-configuration.nix")
    else:
        file = str(flake / str(given))
    inside = _below(file, flake) or _below(file, flake.resolve())
    if inside is None:
        raise FleetError(f"{host_id}: hardware_configuration: {file} is not in the flake {flake}")
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
