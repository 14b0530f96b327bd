"""The tables as they lie in `data/`: which set of modules declares which option, with which type."""

import functools
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"

# Where NixOS' table has options of modules that a flake brings only when it imports them.
_IMPORTED = {"sops": "sops-nix", "disko": "disko", "home-manager": "home-manager-nixos"}

# Every set of modules. `home-manager-nixos` are the few options that homes inside a NixOS machine are set by.
SETS = (
    "nixos",
    "home-manager",
    "home-manager-nixos",
    "sops-nix",
    "sops-nix-home",
    "disko",
    "nixos-wsl",
    "nixos-hardware",
)


@dataclass(frozen=True)
class Former:
    """An option that was removed: `now` is the one that took its place, None without one."""

    name: str
    now: str | None


@functools.cache
def options() -> Mapping[str, Mapping[str, str]]:
    """The options of each of SETS: name → type in Nix' words. Names have `<name>` and `*` for names and list places."""
    found: dict[str, dict[str, str]] = {name: {} for name in SETS}
    for name, kind in _lines("nixos"):
        found[_IMPORTED.get(name.split(".", 1)[0], "nixos")][name] = kind
    found["home-manager"] = dict(_lines("home-manager"))
    for where, name, kind in _lines("more"):
        # what is internal has its place by its name too
        home = _IMPORTED.get(name.split(".", 1)[0], where) if where == "nixos" else where
        found[home][name] = kind
    return found


@functools.cache
def former() -> Mapping[str, tuple[Former, ...]]:
    """The options of each of SETS that are only there to say that they are gone or renamed."""
    found: dict[str, list[Former]] = {name: [] for name in SETS}
    for where, name, now in _lines("former"):
        home = _IMPORTED.get(name.split(".", 1)[0], where) if where == "nixos" else where
        found[home].append(Former(name, now or None))
    return {where: tuple(each) for where, each in found.items()}


def _lines(table: str) -> Iterator[list[str]]:
    with lzma.open(DATA / f"{table}.tsv.xz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield line.rstrip("\n").split("\t")
