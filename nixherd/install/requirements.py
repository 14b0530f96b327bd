"""What an installation needs on this side, judged before anything is changed."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from nixherd.errors import FleetError
from nixherd.fleet.host_keys import HostKeys
from nixherd.install.hardware import configuration_path
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
        builder.require_installer()
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
        yield f'{host_id}: extra_files: is no mapping; write it as {{"/etc/x": "path/of/the/local/file"}}'
        return
    for target, source in files.items():
        path = PurePosixPath(str(target))
        if not path.is_absolute() or ".." in path.parts:
            yield f"{host_id}: extra_files: {target} is no absolute path; say where in the new root the file belongs"
        if not Path(str(source)).is_file():
            yield f"{host_id}: extra_files: {source} is not there; correct the path of the local file"
