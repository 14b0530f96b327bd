"""Nix' store here and on the machine: what is built, copied and signed."""

from collections.abc import Sequence
from functools import partial

from pyinfra import host

from nixherd.base.errors import Usage
from nixherd.deploy.copy import SigningKey
from nixherd.nix.commands import is_store_path
from nixherd.pyinfra_glue.engine import copy_to
from nixherd.pyinfra_glue.hosts import context_of, fleet_host
from nixherd.pyinfra_glue.operation import Change, operation


@operation()
def built(derivations: Sequence[str]) -> Change:
    """Build derivations here, in one go for all hosts that ask for the same; held until the run ends.

    Args:
        derivations: store paths that end in .drv.
    """
    paths = [*derivations]
    if wrong := [path for path in paths if not (is_store_path(path) and path.endswith(".drv"))]:
        raise Usage(f"{wrong[0]} is not a derivation in the store")
    host_id, builder = fleet_host(host).id, context_of(host).builder
    return Change(f"build {len(paths)} derivations", partial(builder.realise, {host_id: paths}, host_id))


@operation()
def copied(paths: Sequence[str]) -> Change:
    """Copy the closures of store paths to the machine; only what is missing there."""
    return copy_to(host, _paths(paths))


@operation()
def signed(paths: Sequence[str], key_file: str) -> Change:
    """Sign the closures of store paths here, for machines that take none unsigned.

    Args:
        paths: store paths.
        key_file: a secret key as `nix key generate-secret` makes it.
    """
    store_paths, key = _paths(paths), SigningKey.of("key_file", key_file)
    return Change(f"sign {', '.join(store_paths)}", partial(key.sign, store_paths))


def _paths(paths: object) -> list[str]:
    result = [paths] if isinstance(paths, str) else list(paths) if isinstance(paths, (list, tuple)) else []
    if not result or not all(isinstance(path, str) and is_store_path(path) for path in result):
        raise Usage(f"paths={paths}: expected store paths")
    return result
