"""Replacing parts of a text whose other bytes are somebody's: places in the old text, and what comes there."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import AnyStr, Generic


@dataclass(frozen=True, slots=True)
class Splice(Generic[AnyStr]):
    """`text` instead of what is from `start` up to `end`."""

    start: int
    end: int
    text: AnyStr


def spliced(source: AnyStr, splices: Iterable[Splice[AnyStr]]) -> AnyStr:
    """The text with all of them done. ValueError when two of them overlap."""
    result, position = source[:0], 0
    for each in sorted(splices, key=lambda splice: (splice.start, splice.end)):
        if each.start < position:
            raise ValueError("two changes are to be made at one place")
        result, position = result + source[position : each.start] + each.text, each.end
    return result + source[position:]
