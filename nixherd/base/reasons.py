"""The line that says why a program failed, among all that it printed. Pure.

Programs end with what follows from the cause as often as with the cause: `unexpected end-of-file` after the signature
that was missing, the list of remedies after the file that is in the way. The table below says of the programs that we
and machines run which lines tell why, and which follow from others. Source: the programs' own messages, tried.
"""

import json
import re
from collections.abc import Iterable

from nixherd.base.becoming_root import REFUSED
from nixherd.base.errors import FleetError
from nixherd.base.terminal import visible

SHOWN = 500  # characters of a reason
_BUILDER_LINES = 5
_REST = 60  # lines of what else was printed that are kept

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# What says why, whatever else says `error`; the first in the order of the table, of several lines the first.
_CAUSES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # nix copy, store, build
        r"lacks a (valid )?signature by a trusted key",
        r"protocol mismatch.*, got '",
        r"No space left on device|not enough space available on",
        r"Disk quota exceeded|Read-only file system|Cannot allocate memory|out of memory",
        r"hash mismatch in|is required to build|path '.*' is corrupted|was modified! expected hash",
        # ssh
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed",
        r"^ssh: |Permission denied \(|Too many authentication failures|kex_exchange_identification",
        # sudo, doas
        REFUSED.pattern,
        r"^doas: ",
        # home-manager's activation
        r"would be clobbered|is in the way of|conflicting (files|packages)|Cannot link|is outside \$?HOME",
        # switch-to-configuration, systemd
        r"^warning: the following units failed: |^the following new units were started and failed",
        r"Pre-switch check '.*' failed|Could not acquire lock|Unit .* was already loaded|Failed to (start|load) .*: ",
        r"^Activation script snippet '.*' failed",
        # sops, age
        r"MAC mismatch|message authentication failed|no identity matched any of the recipients",
        r"did not find keys in|Failed to get the data key|no matching creation rules found",
        # disko, its programs and nixos-install
        r"^Problem opening |Could not stat device|does not exist and no size was specified|target is busy",
        r"Device or resource busy|^(mount|mkfs\.\w+|mke2fs|wipefs|sfdisk|parted|cryptsetup|zpool|mdadm|swapon): ",
        # kexec
        r"kexec_load failed|kexec_file_load failed|Could not find a free area of memory",
        # git
        r"^(?:! \[(?:remote )?rejected\]|remote: error: )|could not read Username|src refspec .* does not match",
        # curl
        r"^curl: \(\d+\)",
    )
)
# What only follows from something else that was printed.
_FOLLOWS = re.compile(
    r"unexpected end-of-file|Nix daemon disconnected|failed to start SSH connection|writing to file: Broken pipe"
    r"|\d+ dependenc(y|ies) (of derivation|failed)|some (errors|substitutes) |error\(s\) occurred while switching"
    r"|Failed to run activate script|failed to push some refs|Error is not recoverable|Recovery failed because"
    r"|^Connection (to|closed)|control process exited with error code|^See \"|journalctl -xe|^make\b.*Error"
    r"|has failed because|command terminated by|Process .* failed with exit code",
    re.IGNORECASE,
)
_ERROR = re.compile(r"\b(error|fatal|panic|failed|cannot|could not|no such|denied|refused|unable)\b", re.IGNORECASE)
_LEVELS = re.compile(r"^(?:(?:error|fatal|ERROR|warning): )+(?=\S)")
# How things go on, and what does not end a program.
_NARRATION = re.compile(
    r"^(copying|building|these \d+|this (derivation|path) will|fetching|activating|setting up|reloading|(re)?starting"
    r"|\S*/tmpfiles\.d/\S+:\d+: "
    r"|stopping|Activating |warning: (?!the following)|evaluating|unpacking|downloading|debug\d?:|Warning: Permanently)"
)


def reason(output: str | Iterable[str], default: str = "no answer") -> str:
    """Why the program failed that printed this, in one line of visible text; `default` where it printed nothing."""
    lines = _lines(output)
    number = _cause(lines)
    if number is None:
        others = [n for n, line in enumerate(lines) if not _NARRATION.match(line) and not _FOLLOWS.search(line)]
        errors = [number for number, line in enumerate(lines) if _is_error(line)]
        number = next(iter(others[-1:] or errors[-1:] or list(range(len(lines)))[-1:]), None)
    return default if number is None else _shown(lines, number)


def _cause(lines: list[str]) -> int | None:
    """The number of the line that says why; None where none of them says an error that does not follow from another."""
    for cause in _CAUSES:
        for number, line in enumerate(lines):
            if cause.search(line):
                return number
    errors = [number for number, line in enumerate(lines) if _is_error(line)]
    marked = [number for number in errors if re.match(r"(?i)(error|fatal)\b", lines[number])] or errors
    return next((number for number in marked if not _FOLLOWS.search(lines[number])), None)


def _is_error(line: str) -> bool:
    return _ERROR.search(line) is not None and not _NARRATION.match(line)


def rest(output: str | Iterable[str]) -> list[str]:
    """The end of all that it printed, as visible lines, for those who want to read it."""
    return _lines(output)[-_REST:]


def went_back(why: str | None, old: str | None, log: Iterable[str] = ()) -> str:
    """How a deployment ended that its machine did not keep; `old` is what it went back to, None where nothing was."""
    lines = _lines(log)
    number = None if "units failed" in (why or "") else _cause(lines)
    line = "" if number is None else _shown(lines, number)
    words = f"{why or 'the machine does not say why'}{f' ({line})' if line and line not in (why or '') else ''}"
    if old:
        return f"{words}; it went back to {old}"
    return f"{words}; there was no generation before it to go back to: what it began may be there in part"


def failure(
    what: str, output: str | Iterable[str], default: str = "no answer", kind: type[FleetError] = FleetError
) -> FleetError:
    """The error that says what failed, and why; it keeps the rest of the output for the report."""
    lines = [output] if isinstance(output, str) else list(output)
    error = kind(f"{what}: {reason(lines, default)}")
    error.output = rest(lines)
    return error


def kept_output(error: BaseException | None) -> list[str]:
    """What the program printed that an error is about, or that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # one that was raised from itself is its own cause
        if isinstance(error, FleetError) and error.output:
            return rest(error.output)
        seen.add(id(error))
        error = error.__cause__
    return []


def _lines(output: str | Iterable[str]) -> list[str]:
    texts = [output] if isinstance(output, str) else output
    lines = (_message(line) for text in texts for line in re.split(r"[\r\n]+", text))
    return [visible(line) for each in lines if (line := _ANSI.sub("", each).strip())]


def _message(line: str) -> str:
    """What a line of Nix's log as JSON says, where it is an error or a warning; any other line is its own."""
    if not line.startswith("@nix "):
        return line
    try:
        entry = json.loads(line.removeprefix("@nix "))
        return str(entry.get("raw_msg") or entry["msg"]) if entry.get("level", 9) <= 1 else ""
    except (ValueError, KeyError, AttributeError, TypeError):
        return ""


def _shown(lines: list[str], number: int) -> str:
    """The line, with what it announces where it is only that."""
    text = _LEVELS.sub("", lines[number])
    following = lines[number + 1 :]
    if builder := [line.removeprefix("> ") for line in following if line.startswith("> ")]:
        text = f"{text.rstrip(';')}; the builder said: {' / '.join(builder[-_BUILDER_LINES:])}"
    elif text.endswith((":", ": ")):
        text = " ".join([text, *following[:2]])
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
