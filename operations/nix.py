"""Nix' store here and on the machine: what is built, copied and signed."""

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import operation

from nixherd.errors import Usage
from nixherd.nix.builder import realise
from nixherd.nix.commands import is_store_path
from operations.remote import copy_closure
from operations.signing import SigningKey
from operations.steps import Commands, decide, do, fleet_host, session_of


@operation()
def built(derivations: Sequence[str]) -> Commands:
    """Build derivations here, in one go for all hosts that ask for the same; held until the run ends.

    Args:
        derivations: store paths that end in .drv.
    """
    yield from decide(host, lambda: _built([*derivations]))


def _built(derivations: list[str]) -> Commands:
    if wrong := [path for path in derivations if not (is_store_path(path) and path.endswith(".drv"))]:
        raise Usage(f"{wrong[0]} is no derivation in the store")
    session, host_id = session_of(host), fleet_host(host).id
    said = f"build {len(derivations)} derivations"
    yield from do(host, said, lambda: realise(session, {host_id: derivations}, host_id))


@operation()
def copied(paths: Sequence[str]) -> Commands:
    """Copy the closures of store paths to the machine; only what is missing there."""
    yield from decide(host, lambda: _copied(_paths(paths)))


def _copied(paths: list[str]) -> Commands:
    yield from do(host, f"copy {', '.join(paths)}", lambda: copy_closure(host, paths))


@operation()
def signed(paths: Sequence[str], key_file: str) -> Commands:
    """Sign the closures of store paths here, for machines that take none unsigned.

    Args:
        paths: store paths.
        key_file: a secret key as `nix key generate-secret` makes it.
    """
    yield from decide(host, lambda: _signed(_paths(paths), SigningKey.of("key_file", key_file)))


def _signed(paths: list[str], key: SigningKey) -> Commands:
    yield from do(host, f"sign {', '.join(paths)}", lambda: key.sign(paths))


def _paths(paths: object) -> list[str]:
    found = [paths] if isinstance(paths, str) else list(paths) if isinstance(paths, (list, tuple)) else []
    if not found or not all(isinstance(path, str) and is_store_path(path) for path in found):
        raise Usage(f"paths={paths}: these are no store paths")
    return found
