"""The API's failures that callers tell apart; everything else is an ApiError."""

from nixherd.errors import ApiError, DeadlineExceeded


class OutcomeUnknown(ApiError):
    """A changing request was sent and no answer came: it may have been carried out, now or later. Observe again."""


class TaskForgotten(OutcomeUnknown):
    """The server knows nothing (any more) of a task that was begun: how it ended is not known. Observe again."""


class AgentUnavailable(ApiError):
    """The guest's agent does not answer (yet): the machine is off, booting, or its agent is not running."""


class NoAgent(ApiError):
    """The guest is configured without an agent: none will ever answer."""


class StillRunning(DeadlineExceeded):
    """A task is not done within its deadline; it goes on on the server. `upid` names it."""

    def __init__(self, message: str, upid: str) -> None:
        self.upid = upid
        super().__init__(message)


class Locked(DeadlineExceeded):
    """Somebody else held a guest for too long; nothing was done by us meanwhile."""
