"""A host of pyinfra as the engine's `Machine`."""

import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from shlex import quote
from typing import Any

from paramiko import Channel, SSHException
from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host
from pyinfra.connectors.util import CommandOutput

from nixherd.base.process import Completed
from nixherd.deploy.machine import ANSWER_DEADLINE, COMMAND_DEADLINE
from nixherd.fleet.models import Access
from nixherd.locate.reach import Epoch
from nixherd.pyinfra_glue.hosts import connector_of, context_of
from nixherd.ssh.destination import Destination

INSTALLED = (Epoch.FINAL,)


class PyinfraMachine:
    """Implements `nixherd.deploy.machine.Machine`; `epochs` are the systems that may answer, all of the run's if none.

    pyinfra tells success from failure alone: the status is 0 or 1.
    """

    def __init__(self, host: Host, epochs: Collection[Epoch] = INSTALLED) -> None:
        self._host, self._epochs, self.id = host, epochs, str(host.data.host_id)
        self._connector = connector_of(host)

    @property
    def access(self) -> Access:
        return self._connector.access

    @property
    def is_local(self) -> bool:
        return self._connector.here is not None

    @property
    def user(self) -> str:
        return str(self._connector.data["ssh_user"])

    @property
    def boot_deadline(self) -> float:
        return self._connector.deadline

    @property
    def password(self) -> str | None:
        return self._connector.sudo_password

    def run(
        self, script: str, *, stdin: str | None = None, sudo: bool = False, deadline: float = COMMAND_DEADLINE
    ) -> Completed:
        if sudo:
            script, stdin = self._by_root(script, stdin)
        arguments: dict[str, Any] = {"_stdin": [stdin]} if stdin is not None else {}
        ok, output = self._host.run_shell_command(StringCommand(script), _timeout=int(deadline), **arguments)
        return _completed(ok, output)

    def _by_root(self, script: str, stdin: str | None) -> tuple[str, str | None]:
        """The script by sudo, where we are not root, which reads the first line of stdin and leaves the rest.

        pyinfra's own way would put the password into the machine's argv.
        """
        if self.user == "root":
            return script, stdin
        if self.password is None:
            return f"sudo -n -H sh -c {quote(script)}", stdin
        return f"sudo -S -k -H -p '' sh -c {quote(script)}", f"{self.password}\n{stdin or ''}"

    def run_forced(self, words: str, *, deadline: float = ANSWER_DEADLINE) -> Completed:
        return _completed(*self._connector.forced(words, deadline))

    def reconnect(self, deadline: float | None = None, *, if_lost: bool = False, absent_ok: bool = False) -> str:
        if not if_lost:
            self._connector.drop()
        return self._connector.reach(deadline, epochs=self._epochs, absent_ok=absent_ok).address

    def copy_to(self) -> Destination:
        return self._connector.destination()

    @contextmanager
    def tunnel(self, address: tuple[str, int], timeout: float) -> Iterator[Channel | socket.socket]:
        if self.is_local:
            with socket.create_connection(address, timeout) as connection:
                yield connection
            return
        client = self._connector.client
        transport = client.get_transport() if client else None
        if transport is None:
            raise OSError("the connection is gone")
        try:
            channel = transport.open_channel("direct-tcpip", address, ("localhost", 0), timeout=timeout)
        except (SSHException, EOFError) as error:
            raise OSError(f"no connection to {address[0]}:{address[1]} ({error})") from error
        try:
            channel.settimeout(timeout)
            yield channel
        finally:
            channel.close()

    def breaks(self, protocol: str) -> str | None:
        return self._connector.breaks(protocol)

    def give_password(self) -> bool:
        if self._host.data.get("sudo_password") != "stdin":
            return False
        read = context_of(self._host).run.sudo_password
        self._connector.sudo_password = read(lambda: sys.stdin.readline().rstrip("\n"))
        return True

    def say(self, text: str) -> None:
        self._host.log(text)


def _completed(ok: bool, output: CommandOutput) -> Completed:
    return Completed(output.stdout, output.stderr, 0 if ok else 1)
