"""What a merge leaves behind where nobody has finished it: conflict markers, and files that git has several of."""

import re
from collections.abc import Callable, Sequence

from nixherd.gate.files import Place
from nixherd.gate.results import Found, Look

_BEGIN = re.compile(rb"^<{7} [^\n]*$", re.MULTILINE)
_END = re.compile(rb"^>{7} [^\n]*$", re.MULTILINE)
_REMEDY = "decide what is to stay, and `git add` it"


def check(place: Place, unmerged: Callable[[], Sequence[str]] = tuple) -> Look:
    """All text files, not only Nix."""
    found, unknown = [], []
    for file in place.files:
        try:
            found += markers(file, place.text(file))
        except OSError as error:
            unknown.append(f"{file}: {error.strerror}")
    marked = {each.file for each in found}
    found += [Found("is not merged", file, remedy=_REMEDY, rule="merge") for file in unmerged() if file not in marked]
    return Look(found, f"{len(place.files)} files", "; ".join(unknown))


def markers(file: str, content: bytes) -> list[Found]:
    """Each beginning that an end follows."""
    if b"<<<<<<< " not in content:
        return []
    return [
        Found("a conflict that was not resolved", file, content[: begin.start()].count(b"\n") + 1, remedy=_REMEDY)
        for begin in _BEGIN.finditer(content)
        if _END.search(content, begin.end())
    ]
