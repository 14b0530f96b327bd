"""statix: what could be said better, and what is deprecated. Source: its command line (bin/src), 0.5 and newer.

It takes one file or directory a call. It ends with 1 where it found something, with 0 where nothing, and with 0 as well
where it could not begin: that it says on stderr. It is known to panic (status 101) on some files; which one it was is
then found by asking about each. A directory's `.gitignore` keeps files from it that git knows all the same: those, and
everything where there are few, are asked about one by one.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from nixherd.findings import Severity
from nixherd.gate.files import Place
from nixherd.gate.program import how_it_ended, last_words, run_tool
from nixherd.gate.results import Found, Look, Unknown
from nixherd.process import Completed

PROGRAM = "statix"
_FEW = 8  # files that are asked about one by one
_PANIC = 101  # of a Rust program
_NO_JSON = "not compiled with the `json` feature"
_ERRFMT = re.compile(r"(?P<file>.+?)>(?P<line>\d+):(?P<column>\d+):(?P<type>[WEI]):(?P<code>\d+):(?P<what>.*)")
_SYNTAX = 0  # the code of what does not parse


def check(place: Place, deadline: float, passed_over: Callable[[], Sequence[str]] = tuple) -> Look:
    """What it has to say of the files. `passed_over` are those of them that it would not look at by itself.

    Missing, Unknown.
    """
    files, note = place.nix, f"{len(place.nix)} files"
    if not files:
        return Look((), note)
    if len(files) <= _FEW:
        return _each(place, files, deadline, note)
    try:
        found = _ask(place, ".", deadline)
    except Unknown:
        return _each(place, files, deadline, note)
    known = set(files)
    rest = _each(place, sorted(known & set(passed_over())), deadline, note)
    found = list(dict.fromkeys([*(each for each in found if each.file in known), *rest.findings]))
    return Look(sorted(found, key=_order), note, rest.unknown)


def fix(place: Place, deadline: float) -> None:
    """Mend in the files themselves what it can. Missing, Unknown for the first that it cannot deal with."""
    for file in place.arguments:
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
