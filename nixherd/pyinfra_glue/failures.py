"""Why a machine could not be connected to, as far as it matters for the next try."""

from collections.abc import Iterator, Sequence

from nixherd.locate.installed import Search

UNWELCOME_PAUSE = 20.0  # seconds between tries where our keys are refused, after the first ones


class Stranger(OSError):
    """Something answers there with another host key."""


class Unwelcome(OSError):
    """The machine itself answers there, and accepts none of our keys."""


class NoShell(Unwelcome):
    """The machine lets us in, and its login shell runs no command."""


class NotFound(OSError):
    """A machine answers nowhere, for several reasons; `problem` is why the hypervisor could not be asked, if that is
    one."""

    def __init__(self, errors: Sequence[OSError], search: Search) -> None:
        super().__init__("; ".join(dict.fromkeys(map(str, (*errors, *search.reasons)))))
        self.errors = tuple(errors)
        self.problem = search.problem


def is_one(error: OSError, kind: type[OSError]) -> bool:
    """Whether this is one of a kind, or one of those that it is about."""
    return isinstance(error, kind) or (isinstance(error, NotFound) and any(isinstance(e, kind) for e in error.errors))


def pauses() -> Iterator[float]:
    """Seconds between two tries at a machine that lets us not in: sshd counts them, and shuts out who tries often."""
    pause = 1.0
    while True:
        yield pause
        pause = min(UNWELCOME_PAUSE, pause * 2)
