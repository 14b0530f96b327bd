"""What is found in a fleet's files: errors, which refuse the fleet, and warnings, which do not."""

from enum import StrEnum


class Severity(StrEnum):
    """`check` fails for either."""

    ERROR = "error"
    WARNING = "warning"


class Finding(str):
    """One line, `FILE: ATTRIBUTE: what is wrong; what to do`; a warning says so first. Its parts are kept for JSON."""

    severity: Severity
    file: str
    attribute: str
    what: str
    remedy: str

    def __new__(cls, severity: Severity, file: str, attribute: str, what: str, remedy: str) -> "Finding":
        prefix = "warning: " if severity is Severity.WARNING else ""
        finding = super().__new__(cls, f"{prefix}{file}: {f'{attribute}: ' if attribute else ''}{what}; {remedy}")
        finding.severity, finding.file, finding.attribute = severity, file, attribute
        finding.what, finding.remedy = what, remedy
        return finding

    def __getnewargs__(self) -> tuple[Severity, str, str, str, str]:  # type: ignore[override]  # what copies are made of
        return (self.severity, self.file, self.attribute, self.what, self.remedy)

    @property
    def is_warning(self) -> bool:
        return self.severity is Severity.WARNING

    def to_json(self) -> dict[str, str]:
        """All of it, by name."""
        parts = {"file": self.file, "attribute": self.attribute, "what": self.what, "remedy": self.remedy}
        return {"severity": str(self.severity), **parts}
