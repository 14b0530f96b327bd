"""`nix flake check`: everything that the flake has evaluates, and its checks build."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from nixherd.errors import DeadlineExceeded, ProcessFailed
from nixherd.gate.results import Found, Look, Missing, Unknown, judged, named_file
from nixherd.nix import commands as nix
from nixherd.nix.errors import errors, last_error
from nixherd.process import Completed, run

_OMITTED = re.compile(r"omitted these incompatible systems: ([\w-]+(?:, [\w-]+)*)")
_LOCK = "requires lock file changes"
# What a trace says of whose evaluation it is.
_CHECKED = re.compile(r"while checking (?:the NixOS configuration|the derivation|flake output) '([^']+)'")
_BUILD = re.compile(r"(?:builder for|Cannot build) '(/nix/store/[^']+\.drv)'")


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
    return judged(parse(done, root, file_of), note)


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
    for where, what, trace in errors(stderr, root):
        if _LOCK in what:
            remedy = "`nix flake lock` there, and commit it"
            yield Found("names not all inputs of flake.nix as they are now", "flake.lock", remedy=remedy)
            continue
        attributes = _CHECKED.findall(trace)
        attribute = attributes[-1] if attributes else ""
        named = named_file(what, root)
        is_there = named is not None and re.search(r"path '[^']*' does not exist", what) and (root / named).exists()
        remedy = f"`git add {named}`, Nix sees only what git knows" if is_there else ""
        if where is not None:
            file, line, column = where.rsplit(":", 2)
            yield Found(
                what, file, int(line), int(column), attribute=attribute, remedy=remedy or "correct the Nix there"
            )
        else:
            file = named or file_of(attribute) or "flake.nix"
            yield Found(what, file, attribute=attribute, remedy=remedy or _remedy(what))


def _remedy(what: str) -> str:
    if built := _BUILD.search(what):
        return f"`nix log {built[1]}` has all that its builder said"
    return "correct it there"
