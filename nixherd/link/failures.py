"""Why a machine cannot be talked to, as far as it makes a difference for what is done then."""

from collections.abc import Sequence

from nixherd.locate.installed import Search
from nixherd.ssh.login_shell import Answer


class Stranger(OSError):
    """Something answers at `address` with another host key: `shown`, as `TYPE BASE64`."""

    def __init__(self, message: str, address: str, shown: str) -> None:
        super().__init__(message)
        self.address, self.shown = address, shown


class Unwelcome(OSError):
    """The machine itself answers there, and accepts none of our keys."""


class NoShell(Unwelcome):
    """The machine lets us in, and its login shell runs no command."""


def require_run(host_id: str, user: str, answer: Answer, status: int) -> None:
    """NoShell where the login shell of `user` ended with this status and did not run what it was given."""
    if not answer.was_run and status >= 0:  # else the connection broke
        raise NoShell(f"{host_id}: {answer.not_run(user)}")


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


def stranger_in(error: BaseException) -> Stranger | None:
    """What answered with another host key, where that is what an error is about."""
    errors = error.errors if isinstance(error, NotFound) else (error,)
    return next((each for each in errors if isinstance(each, Stranger)), None)
