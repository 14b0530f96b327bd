"""The API's failures that callers tell apart; everything else is an ApiError."""

from fleetwright.errors import ApiError


class OutcomeUnknown(ApiError):
    """A changing request was sent and no answer came: it may have been carried out, now or later. Observe again."""


class AgentUnavailable(ApiError):
    """The guest's agent does not answer (yet): the machine is off, booting, or its agent is not running."""
