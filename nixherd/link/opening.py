"""Logging in to a Destination, working through that connection, and in words why there is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from paramiko import AuthenticationException, BadHostKeyException, SSHException, Transport

from nixherd.base.errors import FleetError
from nixherd.base.files import expanded
from nixherd.link.client import Keys, PinnedClient, notice_a_dead_peer
from nixherd.link.failures import NoShell, Stranger, Unwelcome
from nixherd.ssh.destination import Destination
from nixherd.ssh.login_shell import Answer
from nixherd.ssh.ssh_config import Way


class Connected:
    """What works through a connection."""

    client: PinnedClient | None = None

    def take(self, client: PinnedClient) -> None:
        """Work through this connection from now on."""
        transport = client.get_transport()
        assert transport is not None
        notice_a_dead_peer(transport)
        self.client = client

    def leave(self) -> None:
        """Close the connection, where there is one."""
        if self.client is not None:
            self.client.close()
        self.client = None


@contextmanager
def opened(
    to: Destination,
    who: str,
    at: str,
    *,
    keys_for: Callable[[Destination], Keys],
    heard: Callable[[Answer, int], None],
    transport: Callable[..., Transport],
    timeout: float,
) -> Iterator[PinnedClient]:
    """Connect and log in to `who` at an address, and close the connection where anything fails in it.

    `heard` as a PinnedClient's; `timeout` in seconds. OSError that says why: Stranger, Unwelcome, or no answer;
    FleetError and NoShell as they are.
    """
    client = PinnedClient()
    client.heard = heard
    try:
        client.open(to, keys_for(to), transport, timeout)
        yield client
    except (FleetError, NoShell):
        client.close()
        raise
    except (SSHException, EOFError, OSError) as error:
        problem = _in_words(error, client, to, who, at)
        client.close()
        raise problem from error


def _in_words(error: Exception, client: PinnedClient, to: Destination, who: str, at: str) -> OSError:
    """Why a machine could not be connected to."""
    if isinstance(error, BadHostKeyException):
        key = f"{error.key.get_name()} {error.key.fingerprint}"
        message = f"{who} shows another host key than the pinned one ({key}); nothing was sent to it"
        return Stranger(message, at, f"{error.key.get_name()} {error.key.get_base64()}")
    if isinstance(error, AuthenticationException):
        return Unwelcome(
            f"{to.user}@{at} accepts none of our keys; add one to its authorized_keys, or name another with --data "
            f"ssh_key=FILE; where it has one, look whether the login shell of {to.user} exists there: sshd says no "
            "without it"
        )
    return OSError(f"no SSH at {at}{to.way}: {client.why(error)}")


def destination_of(
    way: Way, user: str, known_hosts: Path, key: str | None, *, looks_for_keys: bool = True, uses_agent: bool = True
) -> Destination:
    """How a machine is reached by a way of the operator's ssh_config, with the keys that this offers and with `key`."""
    offered = way.identities
    return Destination(
        address=way.address,
        user=user,
        known_hosts=known_hosts,
        port=way.port,
        identity=expanded(key) if key else None,
        offered=offered.files if looks_for_keys else (),
        certificates=offered.certificates,
        agent=offered.agent if uses_agent else "none",
        identities_only=offered.only,
        route=way.route,
    )
