"""Facts of the Nix store on a machine."""

import json
import shlex
from typing import Any, TypedDict

from pyinfra.api.exceptions import FactProcessError
from typing_extensions import override

from nixherd.facts.base import Fact
from nixherd.nix import commands as nix
from nixherd.nix.builder import closure_listing, parse_listing


class StoreInfo(TypedDict):
    """`trusted`: whether it takes from us what nobody signed, None where it does not say."""

    version: str | None
    trusted: bool | None


class Store(Fact[StoreInfo | None]):
    """
    Returns what the machine's store says of itself and of us, None without Nix:

    .. code:: python

        {"version": "2.31.2", "trusted": False}
    """

    @override
    def command(self) -> str:
        return f"! command -v nix >/dev/null || {shlex.join(nix.STORE_INFO)}"

    @override
    def process(self, output: list[str]) -> StoreInfo:
        document = _json(output)
        trusted = document.get("trusted")
        return StoreInfo(version=document.get("version"), trusted=None if trusted is None else bool(trusted))


class Closure(Fact[dict[str, int]]):
    """
    Returns all that a store path refers to, with the sizes of their NARs in bytes; nothing where it is not there.

    .. code:: python

        {"/nix/store/…-nixos-system-dev-25.11": 14312, "/nix/store/…-linux-6.12.63": 129412312}

    `path`: a store path.
    """

    default = dict

    @override
    def command(self, path: str) -> str:
        if not nix.is_store_path(path):
            raise ValueError(f"path={path} is not a store path")
        return closure_listing(path)

    @override
    def process(self, output: list[str]) -> dict[str, int]:
        return parse_listing("\n".join(output))


class Settings(Fact[dict[str, Any]]):
    """
    Returns what nix.conf comes to on the machine, by name:

    .. code:: python

        {"substituters": ["https://cache.nixos.org/"], "trusted-users": ["root", "@wheel"], "max-jobs": 8, …}
    """

    default = dict

    @override
    def command(self) -> str:
        return f"! command -v nix >/dev/null || {shlex.join((*nix.NIX, 'config', 'show', '--json'))}"

    @override
    def process(self, output: list[str]) -> dict[str, Any]:
        return {name: setting["value"] for name, setting in _json(output).items() if "value" in setting}


def _json(output: list[str]) -> dict[str, Any]:
    try:
        found = json.loads("\n".join(output))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise FactProcessError(f"expected JSON from nix, got {output[:3]!r}")
    return found
