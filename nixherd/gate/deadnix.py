"""deadnix: bindings that nothing uses. Source: its command line (src/main.rs, src/report.rs), 1.2 and 1.3.

With `--fail` it ends with 1 where there is dead code. A file that it cannot read or parse it names and passes over, and
ends with 0: in JSON as a result without a line, before 1.3 on stderr.
"""

import json
import re
from collections.abc import Iterator, Sequence

from nixherd.gate.files import Place
from nixherd.gate.program import file_of, how_it_ended, run_tool, shares
from nixherd.gate.results import Found, Look, Unknown
from nixherd.process import Completed

PROGRAM = "deadnix"
_PASSED_OVER = re.compile(r"Error (?:parsing|reading|stating) file (?P<file>.+?): (?P<what>.+)")


def check(place: Place, deadline: float) -> Look:
    """What nothing uses, and files that it could not look at. Missing, Unknown."""
    found: list[Found] = []
    for share in shares(place.arguments):
        done = run_tool([PROGRAM, "--fail", "--output-format", "json", *share], place.root, deadline, (0, 1))
        found += parse(done, [each.removeprefix("./") for each in share])
    return Look(found, f"{len(place.nix)} files")


def edit(place: Place, deadline: float) -> None:
    """Remove what nothing uses from the files themselves. Missing, Unknown."""
    for share in shares(place.arguments):
        run_tool([PROGRAM, "--edit", "--quiet", *share], place.root, deadline, (0, 1))


def parse(done: Completed, asked: Sequence[str]) -> list[Found]:
    """What it printed, a JSON document a line. Unknown on anything else."""
    found: list[Found] = []
    try:
        for line in done.stdout.splitlines():
            document = json.loads(line)
            file = file_of(str(document["file"]), asked)
            if file is None:
                raise ValueError(line)
            found += (_found(file, each) for each in document["results"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unknown(f"{PROGRAM} printed something unexpected: {done.stdout[:200]!r}") from error
    is_dead = any(each.line is not None for each in found)
    found += _passed_over(done, asked)
    if is_dead != (done.status == 1):
        raise Unknown(f"{PROGRAM} {how_it_ended(done)}, which does not fit")
    return found


def _found(file: str, result: dict[str, object]) -> Found:
    message = str(result["message"])
    if "line" not in result:
        return Found(f"could not be looked at: {message}", file, remedy="correct it", rule="syntax")
    line, column = int(str(result["line"])), int(str(result["column"]))
    remedy = "remove it, or begin its name with _"
    return Found(message[:1].lower() + message[1:], file, line, column, remedy=remedy, rule="unused")


def _passed_over(done: Completed, asked: Sequence[str]) -> Iterator[Found]:
    for line in done.stderr.splitlines():
        if not line.strip():
            continue
        said = _PASSED_OVER.fullmatch(line)
        file = file_of(said["file"], asked) if said else None
        if said is None or file is None:
            raise Unknown(f"{PROGRAM} said something unexpected: {line[:200]}")
        yield Found(f"could not be looked at: {said['what']}", file, remedy="correct it", rule="syntax")
