"""What nixherd raises when a person has to do something about it.

Each message is one line that says what is wrong, where (file and attribute, host, VMID) and what to do
next. The front ends print it as it is; a traceback is for our own mistakes only.
"""

from collections.abc import Sequence
from enum import StrEnum


class FleetError(Exception):
    """The root of every error meant for the operator; `output` is what a program printed that it is about."""

    output: Sequence[str] = ()


class FleetInvalid(FleetError):
    """The fleet's files say something that cannot be; `findings` holds every reason found at once."""

    def __init__(self, findings: Sequence[str]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(self.findings))


class Usage(FleetError):
    """What was asked for cannot be meant: an unknown name, a value that is none. Nothing was done."""


class Refused(FleetError):
    """The guard said no. Nothing was sent."""


class ProcessFailed(FleetError):
    """A local command ended with a status other than 0; `stderr` keeps its last words."""

    def __init__(self, message: str, status: int, stderr: str = "") -> None:
        self.status = status
        self.stderr = stderr
        self.output = stderr.splitlines()
        super().__init__(message)


class ApiError(FleetError):
    """The hypervisor answered with an error, or not at all; `status` is None without an answer.

    `errors` maps a parameter to what the server said of it.
    """

    def __init__(self, message: str, status: int | None, errors: dict[str, str] | None = None) -> None:
        self.status = status
        self.errors = errors or {}
        super().__init__(message)


class TaskFailed(FleetError):
    """A task on the hypervisor ended with an exit status other than OK."""

    def __init__(self, message: str, upid: str, exitstatus: str) -> None:
        self.upid = upid
        self.exitstatus = exitstatus
        super().__init__(message)


class NotBegun(FleetError):
    """What was to be changed on a machine was not begun: it is as it was."""


class NeedsBoot(NotBegun):
    """A system cannot be switched to while the one that runs does: it has to be booted. Nothing was changed."""


class NotWell(FleetError):
    """A machine runs what is wanted, and something is wrong with it. Nothing was changed."""


class EndUnknown(FleetError):
    """What was begun is still going on, or how it ended is not known."""


class Undecided(EndUnknown):
    """What became of a machine is not known: it decides by itself, or nobody could ask it. The message says how to."""


class DeadlineExceeded(FleetError, TimeoutError):
    """Something that should have happened by now has not; the message says what was waited for, and how long."""


class NotSent(OSError):
    """No connection stood, so a machine was told nothing."""


class Unforeseen(FleetError, OSError):
    """A fault of our own, in words (`nixherd.base.faults`): it ends what it happened in, and nothing else."""


UNFORESEEN = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, LookupError, MemoryError),
    *(NameError, ReferenceError, RuntimeError, StopIteration, SyntaxError, SystemError, TypeError, ValueError),
)
"""What Python raises where a program is wrong: a fault of ours, and no reason to leave other hosts alone."""

FAILURES = (FleetError, OSError, *UNFORESEEN)
"""All that ends one host, or one command, with one line. Nobody catches FleetError and OSError by themselves."""


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
