"""`nix flake check`: everything that the flake has evaluates, and its checks build."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from nixherd.errors import DeadlineExceeded, ProcessFailed
from nixherd.gate.results import Found, Look, Missing, Unknown, judged
from nixherd.nix import commands as nix
from nixherd.nix.errors import explanations, last_error
from nixherd.nix.log import warnings
from nixherd.nix.places import Place
from nixherd.process import Completed, run

_OMITTED = re.compile(r"omitted these incompatible systems: ([\w-]+(?:, [\w-]+)*)")
_LOCK = "requires lock file changes"
# What a trace says of whose evaluation it is.
_CHECKED = re.compile(r"while checking (?:the NixOS configuration|the derivation|flake output) '([^']+)'")


def check(flake: str, root: Path, deadline: float, file_of: Callable[[str], str | None] = lambda _: None) -> Look:
    """What does not evaluate or build. `file_of` is a configuration's file, for what names none. Missing, Unknown."""
    try:
        done = run(nix.flake_check(flake), timeout=deadline, check=False)
    except DeadlineExceeded:
        raise Unknown(f"nix flake check was not done after {deadline:g} s, and was stopped; see --deadline") from None
    except ProcessFailed as error:
        if error.status == 127:
            raise Missing(f"nix is not on PATH; install it (https://nixos.org/download), {flake} is a flake") from error
        raise Unknown(str(error)) from error
    omitted = _OMITTED.search(done.stderr)
    note = f"evaluated, its checks built{f', not those for {omitted[1]}' if omitted else ''}"
    warned = dict.fromkeys(" ".join(text.split()) for text, _ in warnings(done.stderr))
    return judged(parse(done, root, file_of), "; warning: ".join([note, *warned]))


def parse(done: Completed, root: Path, file_of: Callable[[str], str | None] = lambda _: None) -> list[Found]:
    """What it logged. Unknown where it failed without a word of why."""
    if done.status == 0:
        return []
    if done.status < 0:
        raise Unknown(f"nix flake check was killed by signal {-done.status}")
    found = list(_found(done.stderr, root, file_of))
    if not found:
        raise Unknown(f"nix flake check ended with status {done.status}: {last_error(done.stderr) or 'without a word'}")
    return list(dict.fromkeys(found))


def _found(stderr: str, root: Path, file_of: Callable[[str], str | None]) -> Iterator[Found]:
    for explained, trace in explanations(stderr, root):
        if _LOCK in explained.what:
            yield Found("names not all inputs of flake.nix as they are now", "flake.lock", remedy=explained.remedy)
            continue
        attribute = next(reversed(_CHECKED.findall(trace)), "")
        place = explained.place or Place(file_of(attribute) or "flake.nix")
        remedy = explained.remedy or "correct it there"
        yield Found(explained.what, place.file, place.line, place.column, attribute=attribute, remedy=remedy)
