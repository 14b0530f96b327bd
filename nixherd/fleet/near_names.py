"""Names that nobody obeys and that are near one that is obeyed: what their author believes is not so. Pure.

Names are equal here when they differ in case, `-`, `_` and the like alone, and close when few letters have to be
changed, added, left out or swapped.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from nixherd.base.errors import Severity
from nixherd.fleet.field_types import FREE
from nixherd.fleet.models import DEFINITIONS
from nixherd.fleet.schema import COMMON, FIELDS, OPERATORS, Place, fields_of

# Whoever writes something close to these believes to be safe.
STRONGEST = ("readonly", "access", "healthChecks")
# What is said of these in their own place alone, by where that is.
_ELSEWHERE = {
    "readonly": f"the guest's entry in {DEFINITIONS}",
    **dict.fromkeys(("access", "healthChecks", "wave"), "the host's entry in hosts.nix"),
    **dict.fromkeys(("neighbours", "discover"), f"`proxmox` or the guest's entry in {DEFINITIONS}"),
}
# What people may call a flag that is to protect, whose name is readonly.
_MEANT_READONLY = ("ro", "protect", "protected", "immutable", "locked", "frozen")


@dataclass(frozen=True)
class Judgement:
    """What a name gives rise to."""

    severity: Severity
    what: str
    remedy: str


def judge(place: Place, name: str, value: Any = None) -> Judgement | None:
    """What to say of a name at this place; None for one that is obeyed there, or that is its owner's own.

    The value matters only where a flag is meant.
    """
    return _judge(place, name) or (_flag(place, name) if isinstance(value, bool) else None)


@cache
def _judge(place: Place, name: str) -> Judgement | None:
    if name in fields_of(place) or name.startswith("_"):
        return None
    if place is Place.HOST and name in OPERATORS:
        what = "is obeyed by nobody here, where whoever can push could say it"
        return _said(False, what, "say it with --data or in group data")
    for known, strict in _near(place, name, 0):
        kind = "protects nothing" if strict else "is obeyed by nobody"
        return _said(strict, f"{kind}: the name is {known}", f"write {known}, or another name of your own")
    if normal(name) in _COMMON:
        return None
    for known in _elsewhere(place):
        if normal(name) == normal(known):
            kind = "is obeyed by nobody" if known in ("neighbours", "discover") else "protects nothing"
            what = f"{kind} here: {known} is obeyed in {_ELSEWHERE[known]} alone"
            return _said(_is_strict_elsewhere(place, known), what, "write it there, or take it out")
    for known, strict in _near(place, name, None):
        kind = "protects nothing" if strict else "is obeyed by nobody"
        return _said(strict, f"{kind}, and is close to {known}", f"write {known}, or another name of your own")
    for known in _elsewhere(place):
        if known in STRONGEST and distance(normal(name), normal(known), _limit(known)) <= _limit(known):
            what = f"protects nothing, and is close to {known}, which is obeyed in {_ELSEWHERE[known]} alone"
            return _said(_is_strict_elsewhere(place, known), what, "write it there, or take another name of your own")
    return None


@cache
def near_option(name: str) -> str | None:
    """The option of a deployment that a datum's name (`--data NAME=VALUE`) is near; None for one that is an option
    itself, or its owner's own."""
    options = (*(field.name for field in FIELDS[Place.HOST] if field.deploys), *OPERATORS)
    if name in options or name.startswith("_") or normal(name) in _COMMON:
        return None
    near = [(distance(normal(name), normal(known), _limit(known)), known) for known in options]
    far, known = min(near, key=lambda each: (each[0] - _limit(each[1]) > 0, each[0]))
    return known if far <= _limit(known) else None


def _near(place: Place, name: str, limit: int | None) -> Iterator[tuple[str, bool]]:
    """The names of a place that this one is equal to (`limit` 0) or close to, nearest first, and whether it is refused
    for that."""
    found = []
    for known, field in fields_of(place).items():
        most = _limit(known) if limit is None else limit
        far = distance(normal(name), normal(known), most)
        if far <= most and (far == 0 or field.type is not FREE):
            strict = known in STRONGEST or (far == 0 and field.protects)
            found.append((not strict, far, known))
    for lax, _, known in sorted(found):
        yield known, not lax


def _elsewhere(place: Place) -> Iterator[str]:
    yield from (known for known in _ELSEWHERE if known not in fields_of(place))


def _is_strict_elsewhere(place: Place, known: str) -> bool:
    """Of what does not act on a machine by itself, only what was to protect guests is refused."""
    return known == "readonly" or (known in STRONGEST and place is Place.MANAGED)


def _flag(place: Place, name: str) -> Judgement | None:
    """A flag that is on, or off, for nothing."""
    if place is Place.HOST or name in fields_of(place) or name.startswith("_"):
        return None
    if "readonly" in normal(name) or normal(name) in _MEANT_READONLY:
        where = "readonly" if "readonly" in fields_of(place) else f"readonly, in {_ELSEWHERE['readonly']}"
        return _said(False, "protects nothing: the flag that does is readonly", f"write {where}, or give it no flag")
    return None


def _said(strict: bool, what: str, remedy: str) -> Judgement:
    return Judgement(Severity.ERROR if strict else Severity.WARNING, what, remedy)


def _limit(known: str) -> int:
    """How many letters may differ in a name that is close."""
    return 1 if len(known) < 6 else 2 if len(known) < 12 else 3


@cache
def normal(name: str) -> str:
    """The name's letters and digits alone, without case and the variants that Unicode has of them."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in unicodedata.normalize("NFKD", folded) if letter.isalnum())


_COMMON = frozenset(normal(name) for name in COMMON)


def distance(one: str, other: str, most: int) -> int:
    """How many letters have to be changed, added, left out or swapped with the next one to come from one to the other;
    `most` + 1 where it is more than that."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before, last = [0] * (len(other) + 1), list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, letter_there in enumerate(other, 1):
            best = min(last[column] + 1, line[-1] + 1, last[column - 1] + (letter != letter_there))
            if row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == letter_there:
                best = min(best, before[column - 2] + 1)
            line.append(best)
        before, last = last, line
    return min(last[-1], most + 1)
