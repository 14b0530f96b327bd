"""Lists of near names: variants of the names that protect, each put where it could be believed to do so.

The oracle is written from what a person means by a name, not by asking our rules: one that is a protecting name but for
case and what stands between its letters is meant to be it.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nixherd.fleet.nix_values import NixPath
from tests.judged import find

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHr0XQJzPKAyGJHXvWcsDGeSw3aLPLCHdTQbnrBHtmY"
STRONGEST = ("readonly", "access", "healthChecks")
# Where each protects: the path of the set that it stands in, and a value that would be sound there.
PROTECTING: dict[tuple[str, ...], dict[str, Any]] = {
    ("hosts", "dev"): {"access": "trigger", "healthChecks": {"a": {"unit": "x.service"}}, "wave": 2, "publicKey": KEY},
    ("definitions", "managed", "dev"): {"readonly": True, "vmid": 110, "node": "prom", "protection": True},
    ("definitions", "imported", "doc"): {"readonly": True, "vmid": 104, "node": "prom"},
    ("definitions", "proxmox"): {"node": "prom", "fingerprint": "ab" * 32},
    ("definitions", "template"): {"vmid": 9000, "node": "prom"},
}
BETWEEN = ("-", "_", "--", "_-", "")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_'"


@dataclass(frozen=True)
class Named:
    """A name that stands beside all that its set has to have; `meant` is the protecting name that it is near."""

    place: tuple[str, ...]
    meant: str
    name: str
    edits: int

    @property
    def is_meant(self) -> bool:
        """Whether it is the protecting name itself, for people."""
        return self.name.lower().replace("-", "").replace("_", "") == self.meant.lower()

    def __str__(self) -> str:
        return f"{'.'.join(self.place)}.{self.name!r}, near {self.meant}"


def fleet() -> dict[str, Any]:
    """A small one that is sound."""
    host = {"hostname": "dev", "user": "u", "publicKey": KEY, "homeFile": NixPath("/f/h.nix")}
    guest = {"vmid": 110, "cores": 1, "memory": 512, "disk": "8G", "nixosConfig": "dev", "storage": "st"}
    definitions = {
        "proxmox": {"host": "p", "node": "prom"},
        "imported": {"doc": {"vmid": 104}},
        "managed": {"dev": guest},
        "template": {"vmid": 9000},
    }
    return {"hosts": {"dev": host}, "definitions": definitions}


def findings_with(named: Named) -> list[Any]:
    """What is found in the fleet with this name in it, the sound value beside it where the set has to have one."""
    files = fleet()
    target: Any = files
    for part in named.place:
        target = target[part]
    target[named.name] = PROTECTING[named.place][named.meant]
    return find(files["hosts"], files["definitions"])


def mistake(named: Named) -> str | None:
    """What is wrong with how the name was taken; None when nothing is."""
    if named.name == named.meant or named.name.startswith("_"):
        return None
    found = findings_with(named)
    where = f"{'.'.join(named.place[1:])}.{named.name}: "
    loads = not any(where in each and not each.is_warning for each in found)
    if loads and (named.is_meant or named.meant in STRONGEST):
        return f"{named} protects nothing and loads{' silently' if not found else ''}"
    return None


def names_are_judged() -> bool:
    """Nothing is found where no name is near another: so what is found is about the name."""
    files = fleet()
    return not find(files["hosts"], files["definitions"])


def respelled(dice: random.Random, name: str) -> str:
    """The same letters in any case, and anything that Nix takes in a name between them."""
    letters = "".join(dice.choice((letter.lower(), letter.upper(), letter)) for letter in name)
    for _ in range(dice.randrange(3)):
        place = dice.randrange(1, len(letters) + 1)
        letters = letters[:place] + dice.choice(BETWEEN) + letters[place:]
    return letters


def edited(dice: random.Random, name: str) -> str:
    """One letter changed, added, left out, or swapped with the next one."""
    at = dice.randrange(len(name))
    letter = dice.choice(LETTERS)
    return dice.choice(
        (
            name[:at] + letter + name[at + 1 :],
            name[:at] + letter + name[at:],
            name[:at] + name[at + 1 :],
            name[:at] + name[at + 1 : at + 2] + name[at] + name[at + 2 :],
        )
    )


def near_names(dice: random.Random, count: int) -> Iterator[Named]:
    places = [(place, meant) for place, names in PROTECTING.items() for meant in names]
    for _ in range(count):
        place, meant = dice.choice(places)
        edits = dice.randrange(2)
        name = respelled(dice, edited(dice, meant) if edits else meant)
        if name:
            yield Named(place, meant, name, edits)
