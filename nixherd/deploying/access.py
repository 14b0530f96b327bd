"""How far a machine lets us in. Pure.

`access` in a host's entry of hosts.nix says it; the NixOS option `nixherd.access` makes a machine be so. Where it
is not `shell`, no fact, operation or command of ours is ever sent there.
"""

from enum import StrEnum

from nixherd.errors import Usage
from nixherd.models import Host


class Access(StrEnum):
    """`shell`: what its user may. `push-closure`: closures are received, and one program activates them. `trigger`: it
    is told to pull its configuration itself."""

    SHELL = "shell"
    PUSH_CLOSURE = "push-closure"
    TRIGGER = "trigger"

    @property
    def user(self) -> str | None:
        """Who logs in there, where it is not the host's own user."""
        return None if self is Access.SHELL else "root"


def access_of(host: Host) -> Access:
    """Usage when its entry says what is no way in."""
    given = host.extra.get("access", Access.SHELL)
    if given not in list(Access):
        raise Usage(f"hosts.nix: {host.id}.access={given} is none of {', '.join(Access)}")
    return Access(given)
