"""Where the generated hardware-configuration.nix of a host belongs in the flake's working tree."""

from pathlib import Path

from nixherd.errors import FleetError
from nixherd.git import Repository
from nixherd.session import Session


def configuration_path(session: Session, host_id: str, wanted: str | bool) -> Path:
    """Where the file belongs: `wanted`, relative to the flake, or beside the host's configuration when True.

    FleetError when it lies outside the flake, or git does not know it: Nix would not see it there.
    """
    flake = Path(session.fleet.path).resolve()
    configuration = session.host(host_id).configuration_file
    if wanted is True and configuration:
        path = Path(configuration).parent / "hardware-configuration.nix"
    else:
        path = flake / str(wanted)
    path = path.resolve()
    if not path.is_relative_to(flake):
        raise FleetError(f"{host_id}: hardware_configuration: {path} is not in the flake {flake}")
    if not path.is_file():
        raise FleetError(f"{path}: not there; create it (an empty module, {{ }}, will do) and `git add` it")
    repository = Repository.around(flake)
    if repository is not None and not repository.tracked([str(path)]):
        raise FleetError(f"{path}: git does not know it, so Nix would not see it; `git add` it first")
    return path
