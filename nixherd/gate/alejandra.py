"""alejandra: formatting. Source: its command line (src/alejandra_cli/src/cli.rs), 3.0 to 4.0.

It ends with 0, with 2 where `--check` would change a file, and with 1 where it cannot read or parse one. A path that it
cannot find it passes over; so how many files it says that it looked at has to be as many as it was asked about.
"""

import re
from collections.abc import Sequence

from nixherd.gate.files import Place
from nixherd.gate.program import file_of, how_it_ended, run_tool, shares
from nixherd.gate.results import Found, Look, Unknown
from nixherd.process import Completed

PROGRAM = "alejandra"
_COUNT = re.compile(r"Checking style in (\d+) files? using \d+ threads?\.")
_CHANGED = re.compile(r"Requires formatting: (?P<file>.+)")
_ERROR = re.compile(r"- (?P<file>.+?): (?P<what>.+)", re.DOTALL)
_POSITION = re.compile(r"\bat (?P<at>\d+)(?:\.\.\d+)?")
_REMEDY = "run `nixherd fmt`"


def check(place: Place, deadline: float) -> Look:
    """What is not formatted, or does not parse. Missing, Unknown."""
    found: list[Found] = []
    for share in shares(place.arguments):
        done = run_tool([PROGRAM, "--check", *share], place.root, deadline, (0, 1, 2))
        found += parse(done, [each.removeprefix("./") for each in share], place)
    return Look(found, f"{len(place.nix)} files")


def format_files(place: Place, deadline: float) -> None:
    """Format the files in place; those that do not parse stay as they are. Missing, Unknown."""
    for share in shares(place.arguments):
        run_tool([PROGRAM, "--quiet", *share], place.root, deadline, (0, 1))


def parse(done: Completed, asked: Sequence[str], place: Place | None = None) -> list[Found]:
    """What `--check` printed. Unknown on anything that it does not print."""
    lines = done.stderr.splitlines()
    counts = [int(said[1]) for line in lines if (said := _COUNT.fullmatch(line.strip()))]
    if counts != [len(asked)]:
        seen = counts[0] if counts else "an unknown number"
        raise Unknown(f"{PROGRAM} looked at {seen} of {len(asked)} files; it {how_it_ended(done)}")
    found = [_unformatted(line, asked) for line in done.stdout.splitlines() if line.strip()]
    errors = [_error(line, asked, place) for line in lines if line.startswith("- ")]
    if (done.status == 2 and not found) or (done.status == 1) != bool(errors) or (done.status == 0 and found):
        raise Unknown(f"{PROGRAM} {how_it_ended(done)}, which does not fit")
    return sorted(found + errors, key=lambda each: each.file or "")


def _unformatted(line: str, asked: Sequence[str]) -> Found:
    said = _CHANGED.fullmatch(line)
    file = file_of(said["file"], asked) if said else None
    if file is None:
        raise Unknown(f"{PROGRAM} printed something unexpected: {line[:200]}")
    return Found("is not formatted", file, remedy=_REMEDY, rule="format")


def _error(line: str, asked: Sequence[str], place: Place | None) -> Found:
    said = _ERROR.fullmatch(line)
    file = file_of(said["file"], asked) if said else None
    if said is None or file is None:
        raise Unknown(f"{PROGRAM} printed something unexpected: {line[:200]}")
    at = _POSITION.search(said["what"])
    line_number, column = _line_of(place, file, int(at["at"])) if at and place else (None, None)
    return Found(f"does not parse: {said['what']}", file, line_number, column, remedy="correct it", rule="syntax")


def _line_of(place: Place, file: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset in bytes, which is how rnix says where an error is."""
    before = (place.root / file).read_bytes()[:offset]
    return before.count(b"\n") + 1, offset - (before.rfind(b"\n") + 1) + 1
