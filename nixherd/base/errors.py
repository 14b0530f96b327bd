"""What goes wrong, as nixherd raises it, and the status that a command ends with."""

from collections.abc import Iterable, Sequence
from enum import IntEnum, StrEnum

UNFORESEEN = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, ImportError, LookupError, MemoryError),
    *(NameError, ReferenceError, RuntimeError, StopIteration, SyntaxError, SystemError, TypeError, ValueError),
)
"""What Python raises where a program is wrong: a fault of ours, and no reason to leave other hosts alone."""


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


class OtherServer(ApiError):
    """What answers shows another certificate than the known one, or none. Nothing was sent."""


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


class Altered(FleetError):
    """What was committed is not what was made, as a git hook changed it. The commit is there."""


class EndUnknown(FleetError):
    """What was begun is still going on, or how it ended is not known."""


class Undecided(EndUnknown):
    """What became of a machine is not known: it decides by itself, or nobody could ask it. The message says how to."""


class DeadlineExceeded(FleetError, TimeoutError):
    """Something that should have happened by now has not; the message says what was waited for, and how long."""


class NotSent(OSError):
    """A machine was told nothing: no connection stood, or it is not told such things."""


class Unforeseen(FleetError, OSError):
    """A fault of our own, in words (`nixherd.base.terminal`): it ends what it happened in, and nothing else."""


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


class Unusable(FleetError):
    """Nothing in this run can use the hypervisor's API."""


class Foreign(Unusable, Refused):
    """The token belongs to another server than the definitions name."""


class Misused(Unusable, Usage):
    """The command line says something about a machine that cannot be meant."""


class NotVisible(Refused):
    """A guest that is there and that the token may not see: its VMID is taken, by whatever it is. Nothing was sent.

    `who` is the guest in words, `also` what else could be done about it.
    """

    def __init__(self, who: str, vmid: int, token: str, also: str = "", *, role: str = "PVEAuditor") -> None:
        self.vmid, self.token = vmid, token
        user = token.partition("!")[0]
        super().__init__(
            f"{who} is not visible: VMID {vmid} is taken, and token {token} lacks VM.Audit on /vms/{vmid}; to show it, "
            f"on the node: `pveum acl modify /vms/{vmid} --roles {role} --users {user} --tokens '{token}'`{also}"
        )


class OutcomeUnknown(ApiError, EndUnknown):
    """A changing request was sent and no answer came: it may have been carried out, now or later. Observe again."""


class TaskForgotten(OutcomeUnknown):
    """The server knows nothing (any more) of a task that was begun: how it ended is not known. Observe again."""


class AgentUnavailable(ApiError):
    """The guest's agent does not answer (yet): the machine is off, booting, or its agent is not running."""


class NoAgent(ApiError):
    """The guest is configured without an agent: none will ever answer."""


class StillRunning(DeadlineExceeded, EndUnknown):
    """A task is not done within its deadline; it goes on on the server. `upid` names it."""

    def __init__(self, message: str, upid: str) -> None:
        self.upid = upid
        super().__init__(message)


class Locked(DeadlineExceeded):
    """Somebody else held a guest for too long; nothing was done by us meanwhile."""


def is_passing(error: BaseException | None) -> bool:
    """Whether the same question may be answered when it is asked again: nobody answered, or the server was at fault."""
    while error is not None:
        if isinstance(error, ApiError):
            return error.status is None or error.status >= 500
        error = error.__cause__
    return False


class Exit(IntEnum):
    """The statuses, and what each means."""

    meaning: str

    def __new__(cls, status: int, meaning: str = "") -> "Exit":
        member = int.__new__(cls, status)
        member._value_, member.meaning = status, meaning
        return member

    DONE = 0, "done, or nothing to do"
    FAILED = 1, "some host failed, or differs from its definition"
    USAGE = 2, "wrong usage or wrong input"
    REFUSED = 3, "refused by the guard or for want of a signature, nothing was sent"
    REMOTE = 4, "remote, evaluation or build failure, nothing was changed"
    UNKNOWN = 5, "still running, or its outcome is not known"
    INTERRUPTED = 130, "interrupted (Ctrl-C)"


def exit_of(error: BaseException, *, changed: bool) -> Exit:
    """The status for an error; `changed`: something had been changed before it."""
    match error:
        case KeyboardInterrupt():
            return Exit.INTERRUPTED
        case EndUnknown():
            return Exit.UNKNOWN
        case NotWell() | Unforeseen() | Altered():  # of the latter nobody knows what it left behind
            return Exit.FAILED
        case Refused() if not changed:
            return Exit.REFUSED
        case Usage() | FleetInvalid() if not changed:
            return Exit.USAGE
        case FleetError() | OSError() if not changed:
            return Exit.REMOTE
    return Exit.FAILED


def worst(exits: Iterable[Exit]) -> Exit:
    """The status of a command over several hosts: their common one; when they differ FAILED, or UNKNOWN if any is."""
    found = set(exits)
    if Exit.UNKNOWN in found:
        return Exit.UNKNOWN
    failures = found - {Exit.DONE}
    if not failures:
        return Exit.DONE
    return failures.pop() if len(found) == 1 else Exit.FAILED
