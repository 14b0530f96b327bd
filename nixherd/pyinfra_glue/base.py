"""What our two SSH connectors share: their names, the run's session, and what a refused connection is called."""

from collections.abc import Iterator
from typing import Any

from paramiko import BadHostKeyException
from pyinfra.connectors.ssh import SSHConnector
from typing_extensions import override

from nixherd.session import Session


class PinnedConnector(SSHConnector):
    """pyinfra's, for machines whose host keys are known before anybody connects to them."""

    handles_execution = True
    sudo_password: str | None = None
    """what sudo on this machine asks for, where it does"""

    @override
    @staticmethod
    def make_names_data(name: str) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        yield name, {}, []

    @property
    def session(self) -> Session:
        session: Session = self.host.data.session
        return session


def another_key(who: str, error: BadHostKeyException) -> str:
    key = f"{error.key.get_name()} {error.key.fingerprint}"
    return f"{who} shows another host key than the pinned one ({key}); nothing was sent to it"


def unwelcome(who: str) -> str:
    return f"{who} accepts none of our keys; add one to its authorized_keys, or name another with --data ssh_key=FILE"
