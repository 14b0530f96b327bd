"""Read Nix's log: errors with their traces, what builders print, and the warnings of an evaluation.

Source: Nix, src/libutil/logging.cc: with `--log-format internal-json` a line is `@nix {"action": "msg", "level", "msg",
"raw_msg"}`. Only errors and warnings of the evaluated code have `raw_msg`; `builtins.trace` has an error's level.
"""

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from nixherd.base.errors import UNFORESEEN
from nixherd.base.names import human

LOG_FORMAT = ("--show-trace", "--log-format", "internal-json")
"""options of `nix` for the log that is read here"""

HOST_MARK = "nixherd evaluates "
"""the beginning of what an evaluation traces before it comes to a host"""

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CHECKS = "while checking"  # of what `nix flake check --keep-going` goes on after
_ERROR, _WARNING = 0, 1  # levels; source of these numbers: logging.hh
_COPY, _COPIES, _BUILDS, _BUILD = 100, 103, 104, 105  # activities
_LOG_LINE, _PROGRESS, _EXPECTED = 101, 105, 106  # results
_TRACE = "trace: "
# Without builtins.warn (before Nix 2.23) nixpkgs' lib.warn traces; nix-eval-jobs writes plain lines.
_OLD_WARNING = re.compile(r"^(?:trace: )?(?:evaluation )?warning: ")
# What follows an error's message: its place, and the lines around.
_SNIPPET = re.compile(r"\n\s+at (?:/|«)")
# A failure that follows from another one, and where a builder's output is repeated.
_FOLLOWS = re.compile(
    r"\d+ dependenc(y|ies) of derivation|\d+ dependenc(y|ies) failed|some errors were encountered during the evaluation"
)
_REPEATED = re.compile(r"^\s*(?:last \d+ log lines|For full logs)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class LoggedError:
    """`message` is the error alone, `trace` all that Nix prints of it; `builder` holds its last lines of output."""

    message: str
    trace: str
    builder: tuple[str, ...] = ()


def errors(stderr: str, *, logged: bool = False) -> list[LoggedError]:
    """Return the errors of a log that no other one led to; several where Nix goes on after an error.

    A text without an error of Nix's own log is one error, unless only those that are `logged` count.
    """
    entries = [_entry(line) for line in stderr.splitlines()]
    results = list(_logged(entries))
    if not results and not logged:
        text = _ANSI.sub("", "\n".join(str(entry["msg"]) for entry in entries if "msg" in entry))
        parts = re.split(r"^error:", text, flags=re.MULTILINE)[1:] or [text]
        results = [LoggedError(_innermost(part), part) for part in parts]
    return [error for error in results if not _FOLLOWS.search(error.message)] or results


def _logged(entries: Iterable[dict[str, Any]]) -> Iterator[LoggedError]:
    output: list[str] = []
    for entry in entries:
        output += _output_of(entry)
        if entry.get("level") != _ERROR or entry.get("action") != "msg":
            continue
        trace = _ANSI.sub("", str(entry.get("msg", "")))
        raw = entry.get("raw_msg")
        is_error = re.match(r"\s*error(?P<ignored> \(ignored\))?:", trace)
        if raw is None and not is_error:  # builtins.trace
            continue
        if is_error and is_error["ignored"] and _CHECKS not in trace:  # a cache that another Nix holds, a closed pipe
            continue
        message = _ANSI.sub("", str(raw)) if raw is not None else _innermost(trace)
        yield LoggedError(_REPEATED.split(message)[0], trace, tuple(output))


def _innermost(trace: str) -> str:
    """Return the error in a trace, without what Nix was doing, and without the lines of code that follow."""
    return _SNIPPET.split(re.split(r"^\s*error:", trace, flags=re.MULTILINE)[-1])[0]


def builder_output(stderr: str) -> list[str]:
    """Return what the builders of a build printed."""
    return [line for text in stderr.splitlines() for line in _output_of(_entry(text))]


def _output_of(entry: dict[str, Any]) -> list[str]:
    is_output = entry.get("type") == _LOG_LINE and entry.get("action") == "result" and entry.get("fields")
    return [_ANSI.sub("", str(entry["fields"][0]))] if is_output else []


def plain_lines(stderr: str) -> list[str]:
    """Return what the programs that Nix starts (git, ssh) printed."""
    return [line for line in stderr.splitlines() if not line.startswith("@nix ")]


def _entry(line: str) -> dict[str, Any]:
    """Parse a line of a log; an ordinary line is all message."""
    if not line.startswith("@nix "):
        return {"msg": line}
    try:
        entry = json.loads(line[5:])
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) else {}


def warnings(stderr: str) -> Iterator[tuple[str, str | None]]:
    """Give what the evaluated code warns of and traces, each with the host that was evaluated then, None if unknown.

    Nix's own warnings (a dirty tree, a download that is tried again) are left out.
    """
    host = None
    for line in stderr.splitlines():
        entry = _entry(line)
        message = _ANSI.sub("", str(entry.get("msg", "")))
        if message.startswith(_TRACE + HOST_MARK):
            host = message.removeprefix(_TRACE + HOST_MARK)
        elif entry.get("level") == _WARNING and "raw_msg" in entry:
            yield _ANSI.sub("", str(entry["raw_msg"])).strip(), host
        elif message.startswith((_TRACE, "evaluation warning: ")):
            yield _OLD_WARNING.sub("", message).strip(), host


@dataclass
class Warnings:
    """The warnings of a run's evaluations: each text once, with the hosts that it came with."""

    _hosts: dict[str, set[str]] = field(default_factory=dict)
    _told: dict[str, set[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, stderr: str, *, are_hosts_known: bool = True) -> None:
        """Add those in the log of an evaluation; its hosts are unknown where several are evaluated at a time."""
        with self._lock:
            for text, host in warnings(stderr):
                self._hosts.setdefault(text, set()).update([host] if host and are_hosts_known else [])

    def news(self) -> list[tuple[str, tuple[str, ...], bool]]:
        """Return what was not returned yet: the text, its new hosts, and whether the text itself is new."""
        with self._lock:
            news = [
                (text, tuple(sorted(hosts - self._told.get(text, set()))), text not in self._told)
                for text, hosts in self._hosts.items()
                if text not in self._told or hosts - self._told[text]
            ]
            self._told = {text: set(hosts) for text, hosts in self._hosts.items()}
        return news


def shown(text: str, hosts: Iterable[str]) -> str:
    """Return a warning in one line, with its hosts."""
    hosts = ", ".join(hosts)
    return " ".join(text.split()) + (f" ({hosts})" if hosts else "")


def readable(line: str) -> str:
    """Return what a line of a log says to people; empty where that is nothing."""
    entry = _entry(line)
    return _ANSI.sub("", str(entry.get("msg") or entry.get("text") or "")).strip()


class EvaluationProgress:
    """How many hosts of `total` are evaluated, told as a line for people; several evaluations may go on at a time."""

    def __init__(self, total: int, tell: Callable[[str], None]) -> None:
        self._total, self._tell = total, tell
        self._done: set[str] = set()
        self._lock = threading.Lock()

    def follow(self) -> Callable[[str], None]:
        """Return what is to be given each line of one evaluation's log."""
        at: list[str] = []

        def feed(line: str) -> None:
            message = readable(line)
            if message.startswith(_TRACE + HOST_MARK):
                host = message.removeprefix(_TRACE + HOST_MARK)
                self.take(at, f", at {host}")
                at[:] = [host]

        return feed

    def take(self, hosts: Iterable[str], more: str = "") -> None:
        """Count these as evaluated."""
        with self._lock:
            self._done.update(hosts)
            text = f"{len(self._done)} of {self._total} hosts evaluated{more}"
        self._tell(text)


PAUSE = 1.0  # seconds between two lines for people
_DRV = re.compile(r"/nix/store/[0-9a-z]{32}-(.+?)\.drv")


@dataclass
class BuildProgress:
    """Fed with the lines of a log; some are worth telling. `log` is the end of the builders' output."""

    log: list[str] = field(default_factory=list)
    _kinds: dict[Any, Any] = field(default_factory=dict)
    _names: dict[Any, str] = field(default_factory=dict)
    _counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    _bytes: dict[Any, tuple[int, int]] = field(default_factory=dict)
    _expected: int = 0
    _said: str = ""
    _told: float = -math.inf

    def feed(self, line: str) -> str | None:
        """Take a line; return one for people when there is something new to say."""
        if not line.startswith("@nix "):
            return None
        try:
            self._take(json.loads(line[5:]))
        except UNFORESEEN:  # in another form than we know; it says nothing of how the build ends
            return None
        words = self._words()
        if words == self._said or time.monotonic() - self._told < PAUSE:
            return None
        self._said, self._told = words, time.monotonic()
        return words

    def _take(self, entry: dict[str, Any]) -> None:
        fields = entry.get("fields") or []
        number, kind = entry.get("id"), entry.get("type")
        match entry.get("action"):
            case "start":
                self._kinds[number] = kind
                if kind == _BUILD and fields and (drv := _DRV.match(str(fields[0]))):
                    self._names[number] = drv[1]
            case "stop":
                self._kinds.pop(number, None)
                self._names.pop(number, None)
            case "result" if kind == _PROGRESS and self._kinds.get(number) in (_COPIES, _BUILDS) and fields[1:2] != [0]:
                self._counts[self._kinds[number]] = (int(fields[0]), int(fields[1]))
            case "result" if kind == _PROGRESS and self._kinds.get(number) == _COPY:
                self._bytes[number] = (int(fields[0]), int(fields[1]))
            case "result" if kind == _EXPECTED and fields[:1] == [_COPY]:
                self._expected = max(self._expected, int(fields[1]))
            case "result" if kind == _LOG_LINE and fields:
                self.log = [*self.log[-49:], str(fields[0])]

    def _words(self) -> str:
        parts = []
        for kind, verb in ((_BUILDS, "built"), (_COPIES, "copied")):
            if kind in self._counts:
                done, expected = self._counts[kind]
                parts.append(f"{done} of {expected} {verb}")
        if done := sum(done for done, _ in self._bytes.values()):
            expected = max(self._expected, sum(expected for _, expected in self._bytes.values()))
            parts.append(f"{human(done)} of {human(expected)}")
        if self._names:
            names = list(self._names.values())
            parts.append(f"building {', '.join(names[:3])}{' …' if len(names) > 3 else ''}")
        return ", ".join(parts)
