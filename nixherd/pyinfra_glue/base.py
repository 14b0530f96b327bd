"""What our two SSH connectors share: their names, the run's context, and what a refused connection is called."""

from collections.abc import Callable, Iterator
from typing import Any

from paramiko import BadHostKeyException, SFTPError, SSHException
from pyinfra import logger
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.scp.client import SCPException
from pyinfra.connectors.ssh import SSHConnector
from typing_extensions import override

from nixherd.pyinfra_glue.context import Context
from nixherd.pyinfra_glue.failures import NoShell
from nixherd.pyinfra_glue.ssh_client import PinnedClient
from nixherd.ssh.login_shell import Answer


class PinnedConnector(SSHConnector):
    """pyinfra's, for machines whose host keys are known before anybody connects to them."""

    handles_execution = True
    sudo_password: str | None = None
    """what sudo on this machine asks for, where it does"""
    noise: Answer | None = None
    """the first answer that the machine's login shell printed beside"""

    @override
    @staticmethod
    def make_names_data(name: str) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        yield name, {}, []

    @property
    def context(self) -> Context:
        context: Context = self.host.data.context
        return context

    def pinned_client(self) -> PinnedClient:
        """A connection to be opened, which tells what the login shell there prints of its own."""
        client = PinnedClient()
        client.heard = self._heard
        return client

    def _heard(self, answer: Answer, status: int) -> None:
        """Name the login shell that prints, once. NoShell where it did not run the command."""
        if not answer.was_run:
            if status >= 0:  # else the connection broke
                raise NoShell(f"{self.host.data.host_id}: {answer.not_run(self.data['ssh_user'])}")
        else:
            self.name_noise(answer)

    def name_noise(self, answer: Answer) -> None:
        """Say of a login shell that it prints, once."""
        if not answer.noise:
            return
        known, self.noise = self.noise, answer if answer.prints_on_stdout or self.noise is None else self.noise
        if known is not None:
            return
        text = answer.warning
        self.host.log_styled(text, fg="yellow", log_func=logger.warning)
        self.context.run.journal.note("found", self.host.data.host_id, login_shell=text)

    def breaks(self, what: str) -> str | None:
        """Why a protocol of this name cannot be spoken through the login shell there; None where it may."""
        return self.noise.breaks(what) if self.noise else None

    @override
    def _put_file(self, *args: Any, **arguments: Any) -> None:
        self._transfer(lambda: super(PinnedConnector, self)._put_file(*args, **arguments))  # type: ignore[no-untyped-call]

    @override
    def _get_file(self, *args: Any, **arguments: Any) -> None:
        self._transfer(lambda: super(PinnedConnector, self)._get_file(*args, **arguments))

    def _transfer(self, transfer: Callable[[], object]) -> None:
        """OSError, also where what answers does not speak the protocol: sshd starts it by the login shell, too."""
        try:
            transfer()
        except (SFTPError, SCPException, SSHException, EOFError, ConnectError) as error:
            protocol = str(self.data["ssh_file_transfer_protocol"])
            why = self.breaks(protocol) or str(error) or "it hung up"
            raise OSError(f"{self.host.data.host_id}: no files can be sent there by {protocol}: {why}") from error


def another_key(who: str, error: BadHostKeyException) -> str:
    key = f"{error.key.get_name()} {error.key.fingerprint}"
    return f"{who} shows another host key than the pinned one ({key}); nothing was sent to it"


def unwelcome(user: str, address: str) -> str:
    return (
        f"{user}@{address} accepts none of our keys; add one to its authorized_keys, or name another with --data "
        f"ssh_key=FILE; where it has one, look whether the login shell of {user} exists there: sshd says no without it"
    )
