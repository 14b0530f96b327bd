"""statix: what could be said better, and what is deprecated. Source: its command line (bin/src), 0.5 and newer.

It takes one file or directory a call, and is asked about each file by itself. In a directory it leaves out what git
ignores although git knows it, follows links out of the fleet, and ends at a directory without files while others are
left (dirs.rs): nobody could say which files it has looked at. It ends with 1 where it found something, with 0 where
nothing, and with 0 as well where it could not begin: that it says on stderr. It is known to panic (status 101) on some
files. What `ignore` of its settings names it looks at all the same where it is asked about it: we leave that out.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pathspec import GitIgnoreSpec

from nixherd.findings import Severity
from nixherd.gate.files import Place
from nixherd.gate.program import how_it_ended, last_words, require, run_tool
from nixherd.gate.results import Found, Look, Unknown
from nixherd.process import Completed

PROGRAM = "statix"
_SETTINGS = "statix.toml"
_PANIC = 101  # of a Rust program
_NO_JSON = "not compiled with the `json` feature"
_ERRFMT = re.compile(r"(?P<file>.+?)>(?P<line>\d+):(?P<column>\d+):(?P<type>[WEI]):(?P<code>\d+):(?P<what>.*)")
_SYNTAX = 0  # the code of what does not parse


def check(place: Place, deadline: float) -> Look:
    """What it has to say of the files, but those that its settings have it ignore. Missing, Unknown."""
    files = _wanted(place)
    left_out = len(place.nix) - len(files)
    note = f"{len(files)} files" + (f", {left_out} ignored by {_SETTINGS}" if left_out else "")
    return _each(place, files, deadline, note)


def _wanted(place: Place) -> list[str]:
    """The Nix files but what `ignore` names in the nearest settings; of settings that are wrong statix itself tells."""
    settings = place.settings.resolve()
    for directory in (settings, *settings.parents):
        if (directory / _SETTINGS).exists():
            return _not_ignored(place.nix, directory / _SETTINGS)
    return place.nix


def _not_ignored(files: Sequence[str], settings: Path) -> list[str]:
    try:
        patterns = tomllib.loads(settings.read_text()).get("ignore", [])
        ignored = GitIgnoreSpec.from_lines([*patterns])
    except (OSError, ValueError, TypeError, AttributeError):
        return [*files]
    return [file for file in files if not ignored.match_file(file)]


def fix(place: Place, deadline: float) -> None:
    """Mend in the files themselves what it can. Missing, Unknown for the first that it cannot deal with."""
    for file in (f"./{each}" for each in _wanted(place)):
        done = run_tool([PROGRAM, "fix", "--config", str(place.settings), file], place.root, deadline, (0,))
        if done.stderr.strip():
            raise Unknown(f"{PROGRAM} fix could not begin{last_words(done)}")


def _each(place: Place, files: Sequence[str], deadline: float, note: str) -> Look:
    """A call a file, side by side: of what it stumbles over, the file is named, and the rest is known."""

    def one(file: str) -> tuple[list[Found], str]:
        try:
            return _ask(place, f"./{file}", deadline), ""
        except Unknown as error:
            return [], f"{file}: {error}"

    if files:
        require(PROGRAM)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        looked = list(pool.map(one, files))
    unknown = [why for _, why in looked if why]
    reason = "; ".join(unknown[:3]) + (f"; and {len(unknown) - 3} more" if len(unknown) > 3 else "")
    return Look(sorted((each for found, _ in looked for each in found), key=_order), note, reason)


def _ask(place: Place, target: str, deadline: float) -> list[Found]:
    def ask(form: str) -> Completed:
        words = [PROGRAM, "check", "--format", form, "--config", str(place.settings), target]
        return run_tool(words, place.root, deadline, (0, 1, _PANIC, 2))

    done = ask("json")
    if _NO_JSON in done.stderr:
        return parse(ask("errfmt"), errfmt=True)
    return parse(done)


def parse(done: Completed, *, errfmt: bool = False) -> list[Found]:
    """What it printed, as JSON documents one after the other or as errfmt's lines. Unknown on anything else."""
    if done.status == _PANIC or "panicked at" in done.stderr:
        raise Unknown(f"{PROGRAM} panicked{last_words(done)}")
    if done.stderr.strip() or done.status not in (0, 1):
        raise Unknown(f"{PROGRAM} {how_it_ended(done)}")
    try:
        found = [_of_errfmt(line) for line in done.stdout.splitlines()] if errfmt else list(_of_json(done.stdout))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unknown(f"{PROGRAM} printed something unexpected: {done.stdout[:200]!r}") from error
    if bool(found) != (done.status == 1):
        raise Unknown(f"{PROGRAM} {how_it_ended(done)}, which does not fit")
    return found


def _of_json(text: str) -> Iterator[Found]:
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        rest = rest[end:].lstrip()
        for report in document["report"]:
            severity = report["severity"]
            for diagnostic in report["diagnostics"]:
                start = diagnostic["at"]["from"]
                at = (int(start["line"]), int(start["column"]))
                yield _found(str(document["file"]), at, str(severity), int(report["code"]), str(diagnostic["message"]))


def _of_errfmt(line: str) -> Found:
    said = _ERRFMT.fullmatch(line)
    if said is None:
        raise ValueError(line)
    at = (int(said["line"]), int(said["column"]))
    severity = {"E": "Error", "W": "Warn", "I": "Hint"}[said["type"]]
    return _found(said["file"], at, severity, int(said["code"]), said["what"])


def _found(file: str, at: tuple[int, int], severity: str, code: int, message: str) -> Found:
    level = Severity.ERROR if severity == "Error" else Severity.WARNING
    what, rule = " ".join(message.split()), "syntax" if code == _SYNTAX else f"W{code:02}"
    remedy = "correct it" if code == _SYNTAX else f"`statix explain {rule}` says why, `nixherd lint --fix` mends most"
    return Found(what[:1].lower() + what[1:], os.path.normpath(file), *at, severity=level, remedy=remedy, rule=rule)


def _order(found: Found) -> tuple[str, int, int]:
    return found.file or "", found.line or 0, found.column or 0
