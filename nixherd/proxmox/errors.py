"""The API's failures that callers tell apart; everything else is an ApiError."""

from nixherd.base.errors import ApiError, DeadlineExceeded, EndUnknown, FleetError, Refused, Usage


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
