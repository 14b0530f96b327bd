"""What a tool of the gate comes to: findings with file and line, or why it is not known; in others' formats too."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from nixherd.base.errors import Finding, FleetError, Severity
from nixherd.base.terminal import visible, visible_values
from nixherd.nix.errors import is_circumstance

# `FILE[:LINE[:COLUMN]]: WHAT`, as Nix' errors and our own begin.
_PLACE = re.compile(r"(?s)(?P<file>[^\s:]([^:\n]*[^\s:])?)(?::(?P<line>\d+)(?::(?P<column>\d+))?)?: (?P<what>.+)")


class Status(StrEnum):
    """How a tool ended. Only the first and the last let the gate through."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"
    MISSING = "missing"
    NOT_RUN = "not run"

    @property
    def is_good(self) -> bool:
        return self in (Status.OK, Status.NOT_RUN)


class Unknown(FleetError):
    """A tool ended so that nobody can say whether anything is wrong."""


class Missing(FleetError):
    """A tool that is required is not here."""


@dataclass(frozen=True)
class Found:
    """One thing that is wrong. `file` is below the fleet's directory; line and column count from 1, None if unsaid.

    `attribute` is what the finding is about (`dev.publicKey`, `nixosConfigurations.dev`), `rule` the tool's own name
    for what it looks for.
    """

    what: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    severity: Severity = Severity.ERROR
    attribute: str = ""
    remedy: str = ""
    rule: str = ""

    @property
    def place(self) -> str:
        """`FILE:LINE:COLUMN`, as far as it is known."""
        return ":".join(str(each) for each in (self.file, self.line, self.column) if each is not None)

    @property
    def message(self) -> str:
        """All but the place."""
        subject = f"{self.attribute}: " if self.attribute else ""
        return f"{subject}{self.what}{f'; {self.remedy}' if self.remedy else ''}"

    def __str__(self) -> str:
        warning = "warning: " if self.severity is Severity.WARNING else ""
        return f"{warning}{f'{self.place}: ' if self.place else ''}{self.message}"

    def to_json(self) -> dict[str, Any]:
        parts = {"file": self.file, "line": self.line, "column": self.column, "attribute": self.attribute or None}
        return {"severity": str(self.severity), **parts, "what": self.what, "remedy": self.remedy, "rule": self.rule}

    @classmethod
    def of_text(cls, text: str, root: str = "", attribute: str = "") -> "Found":
        """From a line that we say elsewhere, `[FILE[:LINE[:COLUMN]]: ]WHAT[; REMEDY]`."""
        if isinstance(text, Finding):
            name, _, number = text.file.partition(":")
            at = (name.removeprefix(f"{root}/"), int(number) if number.isdigit() else None, None)
            return cls(text.what, *at, text.severity, text.attribute, text.remedy)
        what, _, remedy = text.rpartition("; ") if "; " in text else (text, "", "")
        place = _PLACE.fullmatch(what)
        if place is None or not _is_file(place["file"]):
            return cls(what, attribute=attribute, remedy=remedy)
        file = place["file"].removeprefix(f"{root}/")
        line, column = (int(place[part]) if place[part] else None for part in ("line", "column"))
        return cls(place["what"], file, line, column, attribute=attribute, remedy=remedy)


def _is_file(text: str) -> bool:
    return "/" in text or "." in text.strip(".")


@dataclass(frozen=True)
class Result:
    """How one tool ended: `reason` says why nobody can tell, `note` what was looked at, or why it was not run."""

    tool: str
    findings: Sequence[Found] = ()
    reason: str = ""
    missing: bool = False
    not_run: bool = False
    note: str = ""
    seconds: float = field(default=0.0, compare=False)

    @property
    def status(self) -> Status:
        if self.not_run:
            return Status.NOT_RUN
        if self.reason:
            return Status.MISSING if self.missing else Status.UNKNOWN
        return Status.FAILED if self.findings else Status.OK

    def to_json(self) -> dict[str, Any]:
        values = {"status": str(self.status), "reason": self.reason or None, "note": self.note or None}
        return {"name": self.tool, **values, "seconds": round(self.seconds, 2), "findings": len(self.findings)}


@dataclass(frozen=True)
class Look:
    """What a tool gives back: what it found, what it looked at, and what of it could not be judged."""

    findings: Sequence[Found] = ()
    note: str = ""
    unknown: str = ""


def judged(found: Sequence[Found], note: str) -> Look:
    """What Nix complained of: the fleet's, and what cannot be judged here: no network, no room, another system."""
    ours = [each for each in found if not is_circumstance(each.what)]
    other = [each for each in found if is_circumstance(each.what)]
    reasons = dict.fromkeys(each.message for each in other)
    return Look(ours, note, "; ".join(reasons))


def passed(results: Iterable[Result]) -> bool:
    """Whether the gate lets the fleet through: each tool has said so, or was left out by the operator's own word."""
    return all(result.status.is_good for result in results)


# In the formats of others

SUITE = "nixherd check"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "%SRCROOT%"
_DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_PROPERTY = {**_DATA, ":": "%3A", ",": "%2C"}


def junit_xml(results: Sequence[Result]) -> str:
    """A test case a tool: findings are failures, what cannot be told is an error, what was left out is skipped."""
    seconds = f"{sum(result.seconds for result in results):.3f}"
    ends = Counter(result.status for result in results)
    errors, skipped = ends[Status.UNKNOWN] + ends[Status.MISSING], ends[Status.NOT_RUN]
    counts = {"tests": len(results), "failures": ends[Status.FAILED], "errors": errors, "skipped": skipped}
    numbers = {name: str(number) for name, number in counts.items()}
    top = ElementTree.Element("testsuites", {"name": SUITE, **numbers, "time": seconds})
    suite = ElementTree.SubElement(top, "testsuite", {"name": SUITE, **numbers, "time": seconds})
    for result in results:
        _case(suite, result)
    ElementTree.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(top, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, result: Result) -> None:
    attributes = {"classname": SUITE, "name": result.tool, "time": f"{result.seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", attributes)
    lines = visible("\n".join(map(str, result.findings)))
    match result.status:
        case Status.NOT_RUN:
            ElementTree.SubElement(case, "skipped", {"message": f"not run: {result.note}"})
        case Status.UNKNOWN | Status.MISSING:
            kind = {"message": visible(result.reason), "type": str(result.status)}
            ElementTree.SubElement(case, "error", kind).text = lines
        case Status.FAILED:
            kind = {"message": f"{len(result.findings)} findings", "type": "findings"}
            ElementTree.SubElement(case, "failure", kind).text = lines


def sarif_log(results: Sequence[Result], prefix: str = "") -> dict[str, Any]:
    """A run a tool. `prefix` is where in its repository the fleet is: paths are told from the repository's top."""
    runs = [_run(result, prefix) for result in results]
    whole: dict[str, Any] = visible_values({"$schema": SCHEMA, "version": "2.1.0", "runs": runs})
    return whole


def _run(result: Result, prefix: str) -> dict[str, Any]:
    """A tool that was left out, or of which nothing is known, has not been executed successfully, and says so."""
    rules = sorted({_rule(result, found) for found in result.findings})
    invocation: dict[str, Any] = {"executionSuccessful": result.status in (Status.OK, Status.FAILED)}
    if not invocation["executionSuccessful"]:
        left_out = result.status is Status.NOT_RUN
        text = f"not run: {result.note}" if left_out else f"{result.status}: {result.reason}"
        level = "note" if left_out else "error"
        invocation["toolExecutionNotifications"] = [{"level": level, "message": {"text": text}}]
    return {
        "tool": {"driver": {"name": result.tool, "rules": [{"id": rule} for rule in rules]}},
        "automationDetails": {"id": f"nixherd/{result.tool}"},
        "columnKind": "unicodeCodePoints",
        "invocations": [invocation],
        "results": [_result(result, found, rules, prefix) for found in result.findings],
    }


def _rule(result: Result, found: Found) -> str:
    return found.rule or result.tool


def _result(result: Result, found: Found, rules: Sequence[str], prefix: str) -> dict[str, Any]:
    rule = _rule(result, found)
    document: dict[str, Any] = {
        "ruleId": rule,
        "ruleIndex": rules.index(rule),
        "level": "warning" if found.severity is Severity.WARNING else "error",
        "message": {"text": found.message},
    }
    if found.file is not None:
        place: dict[str, Any] = {
            "artifactLocation": {"uri": quote(os.fsencode(f"{prefix}{found.file}")), "uriBaseId": _ROOT}
        }
        if found.line is not None:
            column = {"startColumn": found.column} if found.column is not None else {}
            place["region"] = {"startLine": found.line, **column}
        document["locations"] = [{"physicalLocation": place}]
    return document


def annotations(results: Sequence[Result], prefix: str = "") -> Iterator[str]:
    """A workflow command of GitHub for each finding, and each tool of which nothing is known. `prefix` as in SARIF."""
    for result in results:
        for found in result.findings:
            place = {"file": f"{prefix}{found.file}" if found.file else None, "line": found.line, "col": found.column}
            level = "warning" if found.severity is Severity.WARNING else "error"
            yield _command(level, {**place, "title": result.tool}, found.message)
        if result.status in (Status.UNKNOWN, Status.MISSING):
            yield _command("error", {"title": result.tool}, f"{result.status}: {result.reason}")
        elif result.status is Status.NOT_RUN:
            yield _command("notice", {"title": result.tool}, f"not run: {result.note}")


def _command(level: str, properties: Mapping[str, object], text: str) -> str:
    given = {name: str(value) for name, value in properties.items() if value is not None}
    words = ",".join(f"{name}={_escaped(value, _PROPERTY)}" for name, value in given.items())
    return f"::{level} {words}::{_escaped(text, _DATA)}"


def _escaped(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(character, character) for character in visible(text))
