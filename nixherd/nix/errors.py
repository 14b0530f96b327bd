"""Nix's errors in one line each: where in the fleet's files, as Nix counts, and what. Source: Nix's own logs."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOG_FORMAT = ("--show-trace", "--log-format", "internal-json")
"""How `nix` is told to write the log that `explain` reads."""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_POSITION = re.compile(r"\bat (?P<file>/.*?):(?P<line>\d+):(?P<column>\d+):")
# A flake is evaluated in a copy of what git knows of it.
_COPY = re.compile(r"/nix/store/[0-9a-z]{32}-[^/\s'\"]+/")
_SHOWN = 1000  # characters
_BUILDER_SAID = 101  # a result of a build in LOG_FORMAT
_BUILDER_LINES = 5
# An error of a build that another one's error has led to, and where the builder's log is told a second time.
_FOLLOWS = re.compile(
    r"\d+ dependenc(y|ies) of derivation|\d+ dependenc(y|ies) failed|some errors were encountered during the evaluation"
)
# After an error's own words, where it is and the lines around.
_SNIPPET = re.compile(r"\n\s+at (?:/|«)")
_CONTEXT = re.compile(r"^\s*(?:last \d+ log lines|For full logs)", re.MULTILINE | re.IGNORECASE)


# What says nothing of the fleet's files: who cannot be reached, what is full, what this machine does not build.
_CIRCUMSTANCE = re.compile(
    r"unable to download|[Cc]ould not resolve host|unable to fetch|[Ff]ailed to fetch|HTTP error (?:403|407|429|5\d\d)"
    r"|[Cc]annot connect to (?:socket|daemon)|[Cc]annot open connection|Network is unreachable|[Tt]imed out"
    r"|Connection (?:refused|reset)|[Cc]ould not read from remote repository|No space left on device|out of memory"
    r"|Cannot allocate memory|Read-only file system|Too many open files|experimental (?:Nix )?feature '"
    r"|interrupted by the user|opening lock file|SQLite database|is required to build '/nix/store/|Required system: "
)
_BUILDER = re.compile(r"builder for '|the builder said|Cannot build '[^']*'\.? Reason: builder failed")


def is_circumstance(what: str) -> bool:
    """Whether an error is of where Nix runs (network, disk, machine) and so leaves open what the fleet's files are."""
    return bool(_CIRCUMSTANCE.search(what)) and not _BUILDER.search(what)


def explain(stderr: str, directory: Path, within: Path | None = None) -> str:
    """The error of an evaluation of the fleet in `directory`, run with LOG_FORMAT, and what to do about it.

    That log has an error as `@nix {"raw_msg", "msg", …}`; `msg` holds the trace, whose last position inside the
    fleet (or `within` the repository that it is in) is where a person has to look.
    """
    what = _error(stderr)[1]
    if lacking := re.search(r"^flake .* does not provide attribute .*'([^']+)'$", _one_line(what)):
        return f"{directory}/flake.nix: it has no {lacking[1]}; add it"
    unknown = _not_in_git(what, directory)
    where, what = cause(stderr, directory, within)
    remedy = f"`git add {unknown}`, Nix sees only what git knows" if unknown else "correct the Nix there"
    if where is None:
        return f"{directory}: Nix cannot evaluate the fleet: {what}" + (f"; {remedy}" if unknown else "")
    return f"{where}: {what}; {remedy}"


def cause(stderr: str, directory: Path, within: Path | None = None) -> tuple[str | None, str]:
    """Where it is, if Nix said so, and what, in one line; as `explain` has it, without what to do."""
    trace, what = _error(stderr)
    positions = list(_positions(trace, directory, within or directory))
    return positions[-1] if positions else None, _COPY.sub("", _one_line(what)).replace(f"{directory}/", "")


def _error(stderr: str) -> tuple[str, str]:
    """The trace of an evaluation's error, and the error."""
    for line in stderr.splitlines():
        if line.startswith("@nix ") and (entry := _entry(line)).get("level") == 0 and "raw_msg" in entry:
            return _ANSI.sub("", entry["msg"]), _ANSI.sub("", entry["raw_msg"])
    return stderr, stderr.rpartition("error:")[2]


def errors(stderr: str, directory: Path, within: Path | None = None) -> Iterator[tuple[str | None, str, str]]:
    """All errors of a log that go on after the first (`--keep-going`), each as `cause` has it, and with its trace.

    Those that follow from others are left out where there are others.
    """
    found = []
    for entry in (_entry(line) for line in stderr.splitlines() if line.startswith("@nix ")):
        if entry.get("level") == 0 and entry.get("action") == "msg":
            trace = _ANSI.sub("", str(entry.get("msg", "")))
            if "raw_msg" not in entry and "error:" not in trace:  # builtins.trace is as loud as an error
                continue
            what = _ANSI.sub("", str(entry["raw_msg"])) if "raw_msg" in entry else trace.rpartition("error:")[2]
            found.append((trace, _SNIPPET.split(what)[0]))
    causes = [each for each in found if not _FOLLOWS.search(each[1])]
    for trace, what in causes or found:
        positions = list(_positions(trace, directory, within or directory))
        said = _COPY.sub("", _one_line(what)).replace(f"{directory}/", "")
        yield positions[-1] if positions else None, said, trace


def last_error(stderr: str) -> str:
    """The last error in a log that does not follow from another, in one line: of a build with what its builder said."""
    entries = [_entry(line) for line in stderr.splitlines()]
    text = _ANSI.sub("", "\n".join(str(entry.get("msg", "")) for entry in entries))
    output = [
        str(entry["fields"][0]) for entry in entries if entry.get("type") == _BUILDER_SAID and entry.get("fields")
    ]
    errors = re.split(r"^error:", text, flags=re.MULTILINE)[1:]
    errors = [_CONTEXT.split(error)[0] for error in errors] if output else errors
    causes = [error for error in errors if not _FOLLOWS.search(error)]
    said = "; the builder said: " + " / ".join(output[-_BUILDER_LINES:]) if output else ""
    return (_one_line((causes or errors or [text])[-1]).rstrip(";") + said)[-_SHOWN:]


def innermost_error(stderr: str) -> str:
    """The same without what Nix was doing when it came to that."""
    return last_error(stderr).rpartition("error: ")[2]


def is_unsigned(stderr: str) -> bool:
    """Whether a store did not take a path because nobody has signed it whom it trusts."""
    return "lacks a signature by a trusted key" in stderr


def _entry(line: str) -> dict[str, Any]:
    """A line of a log; of an ordinary one it is all message."""
    if not line.startswith("@nix "):
        return {"msg": line}
    try:
        found = json.loads(line[5:])
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _positions(trace: str, directory: Path, within: Path) -> Iterator[str]:
    for match in _POSITION.finditer(trace):
        if (file := _of_fleet(match["file"], directory, within)) is not None:
            yield f"{file}:{match['line']}:{match['column']}"


def _of_fleet(file: str, directory: Path, within: Path) -> str | None:
    """The file relative to the fleet; None for one of nixpkgs, say, which lies in a copy of its own."""
    if file.startswith((f"{directory}/", f"{within}/")):
        return os.path.relpath(file, directory)
    copy = _COPY.match(file)
    if copy is None:
        return None
    for base in _bases(directory):
        ours = base / file[copy.end() :]
        try:
            if ours.read_bytes() == Path(file).read_bytes():
                return os.path.relpath(ours, directory)
        except OSError:
            continue
    return None


def below(path: str, directory: Path) -> str:
    """A path in a flake's copy as one below the fleet's directory: the copy is of the whole repository."""
    found = next((base for base in _bases(directory) if os.path.lexists(base / path)), directory)
    return os.path.relpath(found / path, directory)


def _bases(directory: Path) -> list[Path]:
    """The fleet's directory, and those above it up to the top of its repository."""
    way = [directory, *directory.parents]
    tops = (number for number, each in enumerate(way, 1) if os.path.lexists(each / ".git"))
    return way[: next(tops, 1)]


def _not_in_git(what: str, directory: Path) -> str | None:
    """A file that Nix misses although it is there."""
    if not re.search(r"path '[^']*' does not exist|No such file|not tracked by Git", what):
        return None
    missing = re.search(_COPY.pattern + r"(?P<path>[^'\"\n]+)(?=['\"])", what)
    missing = missing or re.search(_COPY.pattern + r"(?P<path>[^\s'\"]+)", what)
    path = below(missing["path"], directory) if missing else ""
    return path if path and (directory / path).exists() else None
