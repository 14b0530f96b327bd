"""The programs that look at Nix files, and mend them: alejandra (formatting), deadnix (unused code) and statix (lints).

Each is installed, ends in time, by itself and not by a fault of its own; whatever else it prints is Unknown, never ok.

alejandra 3.0 to 4.0 (src/alejandra_cli/src/cli.rs) ends with 0, with 2 where `--check` would change a file, and with 1
where it cannot read or parse one. A path that it cannot find it passes over; so the number of files that it says it
looked at has to be the number that it was given.

deadnix 1.2 and 1.3 (src/main.rs, src/report.rs) with `--fail` ends with 1 where there is dead code. A file that it
cannot read or parse it names and passes over, and ends with 0: in JSON as a result without a line, before 1.3 on
stderr.

statix 0.5 and newer (bin/src) takes one file or directory a call, and gets each file by itself: in a directory it
leaves out what git ignores although git knows it, follows links out of the fleet, and ends at a directory without files
while others are left (dirs.rs), so nobody could say which files it has looked at. It ends with 1 where it found
something, with 0 where nothing, and with 0 as well where it could not begin: that it says on stderr. It is known to
panic (status 101) on some files. A file that its settings' `ignore` names it looks at all the same: we leave that out.
"""

import difflib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pathspec import GitIgnoreSpec

from nixherd.base.errors import DeadlineExceeded, FleetError, ProcessFailed, Severity
from nixherd.base.process import Completed, run
from nixherd.fleet.tree import opened
from nixherd.gate.files import Place, copied, read_all
from nixherd.gate.results import Found, Look, Missing, Unknown
from nixherd.nix.syntax import parse

ALEJANDRA, DEADNIX, STATIX = "alejandra", "deadnix", "statix"
_FILES_PER_CALL = 1000  # the kernel takes 2 MiB of arguments
_SHOWN = 300  # characters
# By a colour, or by where its ads and caches are, a tool would print or do something else.
_PLAIN = {"NO_COLOR": "1", "CLICOLOR": "0", "LC_ALL": "C.UTF-8", "RUST_BACKTRACE": "0"}


def _run_tool(argv: Sequence[str], place: Place, deadline: float, statuses: Collection[int]) -> Completed:
    """Run a tool in `place`, and return what it wrote. Missing; Unknown for any status but `statuses`."""
    _require(argv[0])
    try:
        done = run(argv, cwd=place.root, env=_PLAIN, timeout=deadline, check=False)
    except DeadlineExceeded:
        raise Unknown(f"{argv[0]} was not done after {deadline:g} s, and was stopped; see --deadline") from None
    except ProcessFailed as error:
        raise Unknown(str(error)) from error
    if done.status not in statuses:
        raise Unknown(f"{argv[0]} {_how_it_ended(done)}")
    return done


def _run_shares(
    argv: Sequence[str], place: Place, deadline: float, statuses: Collection[int]
) -> Iterator[tuple[Completed, list[str]]]:
    """Run a tool on as many files as one call takes, again and again; yield each output with its files."""
    for start in range(0, len(place.nix), _FILES_PER_CALL):
        files = place.nix[start : start + _FILES_PER_CALL]
        yield _run_tool([*argv, *place.arguments[start : start + _FILES_PER_CALL]], place, deadline, statuses), files


def _edit(argv: Sequence[str], place: Place, deadline: float) -> None:
    """Have a tool change the files themselves. Missing, Unknown."""
    for _ in _run_shares(argv, place, deadline, (0, 1)):
        pass


def _require(program: str) -> None:
    if shutil.which(program) is None:
        raise Missing(f"{program} is not on PATH; `nix develop` in the fleet or `nix shell nixpkgs#{program}` has it")


def _how_it_ended(done: Completed) -> str:
    ending = f"was killed by signal {-done.status}" if done.status < 0 else f"ended with status {done.status}"
    return f"{ending}{_last_words(done)}"


def _last_words(done: Completed) -> str:
    """What it wrote to stderr, or else to stdout, shortened."""
    text = " ".join((done.stderr.strip() or done.stdout.strip()).split())
    return f": {text[:_SHOWN]}" if text else ""


def _file_of(word: str, files: Collection[str]) -> str:
    """The file that a tool means. ValueError for one that it was not given."""
    file = word.removeprefix("./")
    if file not in files:
        raise ValueError(word)
    return file


def _matched(program: str, pattern: re.Pattern[str], line: str, files: Collection[str]) -> tuple[re.Match[str], str]:
    """The match of a line of the tool's, and the file that it names. Unknown for any other line."""
    try:
        if match := pattern.fullmatch(line):
            return match, _file_of(match["file"], files)
    except ValueError:
        pass
    raise Unknown(f"{program} printed something unexpected: {line[:200]}")


# alejandra

_CHECKED = re.compile(r"Checking style in (\d+) files? using \d+ threads?\.")
_UNFORMATTED = re.compile(r"Requires formatting: (?P<file>.+)")
_NOT_PARSED = re.compile(r"- (?P<file>.+?): (?P<what>.+)", re.DOTALL)
_POSITION = re.compile(r"\bat (?P<at>\d+)(?:\.\.\d+)?")


def alejandra(place: Place, deadline: float) -> Look:
    """Find what is not formatted, or does not parse. Missing, Unknown."""
    findings: list[Found] = []
    for done, files in _run_shares([ALEJANDRA, "--check"], place, deadline, (0, 1, 2)):
        findings += parse_alejandra(done, files, place)
    return Look(findings, f"{len(place.nix)} files")


def parse_alejandra(done: Completed, files: Sequence[str], place: Place | None = None) -> list[Found]:
    """The findings in what `--check` printed of these files. Unknown on anything that it does not print."""
    lines = done.stderr.splitlines()
    counts = [int(match[1]) for line in lines if (match := _CHECKED.fullmatch(line.strip()))]
    if counts != [len(files)]:
        seen = counts[0] if counts else "an unknown number"
        raise Unknown(f"{ALEJANDRA} looked at {seen} of {len(files)} files; it {_how_it_ended(done)}")
    findings = [_unformatted(line, files) for line in done.stdout.splitlines() if line.strip()]
    errors = [_error(line, files, place) for line in lines if line.startswith("- ")]
    if (done.status == 2 and not findings) or (done.status == 1) != bool(errors) or (done.status == 0 and findings):
        raise Unknown(f"{ALEJANDRA} {_how_it_ended(done)}, which does not fit")
    return sorted(findings + errors, key=lambda each: each.file or "")


def _unformatted(line: str, files: Sequence[str]) -> Found:
    _, file = _matched(ALEJANDRA, _UNFORMATTED, line, files)
    return Found("is not formatted", file, remedy="run `nixherd fmt`", rule="format")


def _error(line: str, files: Sequence[str], place: Place | None) -> Found:
    match, file = _matched(ALEJANDRA, _NOT_PARSED, line, files)
    at = _POSITION.search(match["what"])
    line_number, column = _line_of(place, file, int(at["at"])) if at and place else (None, None)
    return Found(f"does not parse: {match['what']}", file, line_number, column, remedy="correct it", rule="syntax")


def _line_of(place: Place, file: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset in bytes, which is how rnix says where an error is."""
    before = (place.root / file).read_bytes()[:offset]
    return before.count(b"\n") + 1, offset - (before.rfind(b"\n") + 1) + 1


# deadnix

_PASSED_OVER = re.compile(r"Error (?:parsing|reading|stating) file (?P<file>.+?): (?P<what>.+)")


def deadnix(place: Place, deadline: float) -> Look:
    """Find what nothing uses, and files that it could not look at. Missing, Unknown."""
    findings: list[Found] = []
    for done, files in _run_shares([DEADNIX, "--fail", "--output-format", "json"], place, deadline, (0, 1)):
        findings += parse_deadnix(done, files)
    return Look(findings, f"{len(place.nix)} files")


def parse_deadnix(done: Completed, files: Sequence[str]) -> list[Found]:
    """The findings in what it printed of these files, a JSON document a line. Unknown on anything else."""
    findings: list[Found] = []
    try:
        for line in done.stdout.splitlines():
            document = json.loads(line)
            file = _file_of(str(document["file"]), files)
            findings += (_dead(file, each) for each in document["results"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unknown(f"{DEADNIX} printed something unexpected: {done.stdout[:200]!r}") from error
    is_dead = any(each.line is not None for each in findings)
    for line in filter(str.strip, done.stderr.splitlines()):
        match, file = _matched(DEADNIX, _PASSED_OVER, line, files)
        findings.append(_not_looked_at(file, match["what"]))
    if is_dead != (done.status == 1):
        raise Unknown(f"{DEADNIX} {_how_it_ended(done)}, which does not fit")
    return findings


def _dead(file: str, result: dict[str, object]) -> Found:
    message = str(result["message"])
    if "line" not in result:
        return _not_looked_at(file, message)
    line, column = int(str(result["line"])), int(str(result["column"]))
    remedy = "remove it, or begin its name with _"
    return Found(message[:1].lower() + message[1:], file, line, column, remedy=remedy, rule="unused")


def _not_looked_at(file: str, why: str) -> Found:
    return Found(f"could not be looked at: {why}", file, remedy="correct it", rule="syntax")


# statix

_SETTINGS = "statix.toml"
_PANIC = 101  # of a Rust program
_NO_JSON = "not compiled with the `json` feature"
_ERRFMT = re.compile(r"(?P<file>.+?)>(?P<line>\d+):(?P<column>\d+):(?P<type>[WEI]):(?P<code>\d+):(?P<what>.*)")
_SYNTAX = 0  # the code of what does not parse


def statix(place: Place, deadline: float) -> Look:
    """Find its lints in the files, but for those that its settings have it ignore. Missing, Unknown.

    A call a file, side by side: a file that it stumbles over is named, and the rest is known.
    """
    files = _not_ignored(place)

    def look(file: str) -> tuple[list[Found], str]:
        try:
            return _lints(place, f"./{file}", deadline), ""
        except Unknown as error:
            return [], f"{file}: {error}"

    if files:
        _require(STATIX)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        looks = list(pool.map(look, files))
    unknown = [why for _, why in looks if why]
    reason = "; ".join(unknown[:3]) + (f"; and {len(unknown) - 3} more" if len(unknown) > 3 else "")
    left_out = len(place.nix) - len(files)
    note = f"{len(files)} files" + (f", {left_out} ignored by {_SETTINGS}" if left_out else "")
    return Look(sorted((each for findings, _ in looks for each in findings), key=_order), note, reason)


def fix_lints(place: Place, deadline: float) -> None:
    """Mend in the files themselves what it can. Missing, Unknown for the first that it cannot deal with."""
    for file in (f"./{each}" for each in _not_ignored(place)):
        done = _run_tool([STATIX, "fix", "--config", str(place.settings), file], place, deadline, (0,))
        if done.stderr.strip():
            raise Unknown(f"{STATIX} fix could not begin{_last_words(done)}")


def _not_ignored(place: Place) -> list[str]:
    """The Nix files but what `ignore` names in the nearest settings; of settings that are wrong statix itself tells."""
    settings = place.settings.resolve()
    nearest = next((each for each in (settings, *settings.parents) if (each / _SETTINGS).exists()), None)
    if nearest is None:
        return place.nix
    try:
        patterns = tomllib.loads((nearest / _SETTINGS).read_text()).get("ignore", [])
        ignored = GitIgnoreSpec.from_lines([*patterns])
    except (OSError, ValueError, TypeError, AttributeError):
        return place.nix
    return [file for file in place.nix if not ignored.match_file(file)]


def _lints(place: Place, target: str, deadline: float) -> list[Found]:
    def check(form: str) -> Completed:
        words = [STATIX, "check", "--format", form, "--config", str(place.settings), target]
        return _run_tool(words, place, deadline, (0, 1, _PANIC, 2))

    done = check("json")
    return parse_statix(check("errfmt"), errfmt=True) if _NO_JSON in done.stderr else parse_statix(done)


def parse_statix(done: Completed, *, errfmt: bool = False) -> list[Found]:
    """The findings in JSON documents one after the other, or in errfmt's lines. Unknown on anything else."""
    if done.status == _PANIC or "panicked at" in done.stderr:
        raise Unknown(f"{STATIX} panicked{_last_words(done)}")
    if done.stderr.strip() or done.status not in (0, 1):
        raise Unknown(f"{STATIX} {_how_it_ended(done)}")
    try:
        findings = [_of_errfmt(line) for line in done.stdout.splitlines()] if errfmt else list(_of_json(done.stdout))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unknown(f"{STATIX} printed something unexpected: {done.stdout[:200]!r}") from error
    if bool(findings) != (done.status == 1):
        raise Unknown(f"{STATIX} {_how_it_ended(done)}, which does not fit")
    return findings


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
                yield _lint(str(document["file"]), at, str(severity), int(report["code"]), str(diagnostic["message"]))


def _of_errfmt(line: str) -> Found:
    match = _ERRFMT.fullmatch(line)
    if match is None:
        raise ValueError(line)
    at = (int(match["line"]), int(match["column"]))
    severity = {"E": "Error", "W": "Warn", "I": "Hint"}[match["type"]]
    return _lint(match["file"], at, severity, int(match["code"]), match["what"])


def _lint(file: str, at: tuple[int, int], severity: str, code: int, message: str) -> Found:
    level = Severity.ERROR if severity == "Error" else Severity.WARNING
    what, rule = " ".join(message.split()), "syntax" if code == _SYNTAX else f"W{code:02}"
    remedy = "correct it" if code == _SYNTAX else f"`statix explain {rule}` says why, `nixherd lint --fix` mends most"
    return Found(what[:1].lower() + what[1:], os.path.normpath(file), *at, severity=level, remedy=remedy, rule=rule)


def _order(found: Found) -> tuple[str, int, int]:
    return found.file or "", found.line or 0, found.column or 0


# Mending: on copies, looked at, and put in place one whole file after the other

# The last one formats what the others have left; what does not parse it leaves alone.
MENDERS: Mapping[str, Callable[[Place, float], None]] = {
    STATIX: fix_lints,
    DEADNIX: partial(_edit, [DEADNIX, "--edit", "--quiet"]),
    ALEJANDRA: partial(_edit, [ALEJANDRA, "--quiet"]),
}


@dataclass(frozen=True)
class Mended:
    """Contents by file, before and after, of those that are to be another; `unmended` says which tool could not."""

    before: Mapping[str, bytes] = field(repr=False)
    after: Mapping[str, bytes] = field(repr=False)
    unmended: Sequence[str] = ()

    def diff(self) -> str:
        """As `diff -u` prints it."""
        return "".join(_diff(file, self.before[file], self.after[file]) for file in sorted(self.after))


def mended(root: Path, files: Sequence[str], names: Collection[str], deadline: float) -> Mended:
    """What the tools of these names would make of the files. A file that would not parse any more stays as it is.

    Missing or Unknown where the only tool that is asked for cannot do it.
    """
    before = {file: content for file, content in read_all(root, files).items() if file.endswith(".nix")}
    sound = {file for file, content in before.items() if parses(content)}
    unmended: list[str] = []
    with copied(root, before) as copy:
        for name, mend in MENDERS.items():
            # Whether a file parses is for the formatter to say, which leaves it alone if not.
            able = sorted(before if name == ALEJANDRA else sound)
            if name not in names or not able:
                continue
            try:
                mend(Place(copy.root, able, root), deadline)
            except (Missing, Unknown) as error:
                if len(names) == 1:
                    raise
                unmended.append(str(error))
        after = {file: (copy.root / file).read_bytes() for file in before}
    differing = {file: content for file, content in after.items() if content != before[file]}
    broken = [file for file, content in differing.items() if file in sound and not parses(content)]
    unmended += [f"{file}: would not parse any more, and stays as it is" for file in broken]
    return Mended(before, {file: content for file, content in differing.items() if file not in broken}, unmended)


def put_in_place(root: Path, changes: Mended) -> list[str]:
    """Replace the files, each whole or not at all, its mode kept; their paths. FleetError for one changed meanwhile."""
    with opened(root) as tree:
        for file, content in changes.after.items():
            if tree.read(file) != changes.before[file]:
                raise FleetError(f"{root / file}: was changed meanwhile; nothing was done to it, run it again")
            tree.replace(file, content)
    return sorted(changes.after)


def parses(content: bytes) -> bool:
    return not parse(content).has_error


def _diff(file: str, before: bytes, after: bytes) -> str:
    old, new = (text.decode(errors="replace").splitlines(keepends=True) for text in (before, after))
    lines = difflib.unified_diff(old, new, f"a/{file}", f"b/{file}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
