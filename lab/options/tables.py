"""The tables in `data/`: which module set declares which option, with which type."""

import functools
import lzma
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"

# Where NixOS' table has options of modules that a flake only provides when it imports them.
_IMPORTED = {"sops": "sops-nix", "disko": "disko", "home-manager": "home-manager-nixos"}

# Every module set. `home-manager-nixos` are the few options that configure homes inside a NixOS machine.
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
    """An option that was removed: `now` is its replacement, or None."""

    name: str
    now: str | None


@functools.cache
def options() -> Mapping[str, Mapping[str, str]]:
    """Return the options of each of SETS: name → type in Nix' words. `<name>` and `*` stand for names and list
    positions.
    """
    options: dict[str, dict[str, str]] = {name: {} for name in SETS}
    for name, kind in _lines("nixos"):
        options[_IMPORTED.get(name.split(".", 1)[0], "nixos")][name] = kind
    options["home-manager"] = dict(_lines("home-manager"))
    for module_set, name, kind in _lines("more"):
        # the position of internal options comes from the name as well
        home = _IMPORTED.get(name.split(".", 1)[0], module_set) if module_set == "nixos" else module_set
        options[home][name] = kind
    return options


@functools.cache
def former() -> Mapping[str, tuple[Former, ...]]:
    """Return the options of each of SETS that only report a removal or a new name."""
    former: dict[str, list[Former]] = {name: [] for name in SETS}
    for module_set, name, now in _lines("former"):
        home = _IMPORTED.get(name.split(".", 1)[0], module_set) if module_set == "nixos" else module_set
        former[home].append(Former(name, now or None))
    return {module_set: tuple(each) for module_set, each in former.items()}


def _lines(table: str) -> Iterator[list[str]]:
    with lzma.open(DATA / f"{table}.tsv.xz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield line.rstrip("\n").split("\t")
