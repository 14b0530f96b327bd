"""What a tool of the gate comes to: findings with file and line, or why it cannot be told."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nixherd.base.errors import Finding, FleetError, Severity
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
