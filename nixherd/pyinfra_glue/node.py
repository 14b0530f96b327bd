"""`@node/NAME`: pyinfra's SSH connector for a node of the hypervisor, which is not a host of the fleet.

Its host key is never learnt: the operator names it (`--data host_key=`), or has it in known_hosts. As on every
connection of ours no ssh_config is read on it; what is taken from one is what docs/ssh.md lists.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from paramiko import AuthenticationException, BadHostKeyException, SSHException
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.connectors.util import CommandOutput
from typing_extensions import override

from nixherd.errors import FAILURES, FleetError, Refused, Usage
from nixherd.faults import worded
from nixherd.files import expanded, write_whole
from nixherd.process import run
from nixherd.pyinfra_glue.base import PinnedConnector, another_key, unwelcome
from nixherd.pyinfra_glue.ssh_client import Keys
from nixherd.pyinfra_glue.transport import NotBegun, WatchedTransport, notice_a_dead_peer
from nixherd.ssh.destination import Destination
from nixherd.ssh.keys import known_hosts_line, known_hosts_name
from nixherd.ssh.ssh_config import Configuration, config_options, known_hosts_files

CONNECT_TIMEOUT = 10.0  # seconds for TCP, and for each part of the handshake


class NodeConnector(PinnedConnector):
    """One per node."""

    @override
    def connect(self) -> None:
        try:
            self._connect()
        except FAILURES as failure:
            error = worded(failure, f"{self.host.data.host_id}: connecting")
            self.context.run.failed(self.host.data.host_id, error)
            raise ConnectError(str(error)) from failure

    def _connect(self) -> None:
        to = self._destination()
        client = self.pinned_client()
        try:
            given = self.make_paramiko_kwargs()
            keys = Keys(to.user, to.identities, given.get("pkey"), given.get("password"))
            client.open(to, keys, WatchedTransport, CONNECT_TIMEOUT)
        except BadHostKeyException as error:
            client.close()
            raise Refused(another_key(f"{self.host.data.host_id} at {to.address}", error)) from error
        except AuthenticationException as error:
            client.close()
            raise FleetError(unwelcome(to.user, to.address)) from error
        except (SSHException, EOFError, OSError, PyinfraError) as error:
            why = client.why(error)
            client.close()
            raise FleetError(f"{self.host.data.host_id}: no SSH at {to.address}{to.way}: {why}") from error
        transport = client.get_transport()
        assert transport is not None
        notice_a_dead_peer(transport)
        self.client = client

    def _destination(self) -> Destination:
        """How the node is reached, as the operator's ssh_config has it. FleetError without a key to know it by."""
        data = self.host.data
        self.data["ssh_user"] = user = str(data.get("ssh_user") or "root")
        given = str(data.get("ssh_hostname") or "")
        port = _port(data.get("ssh_port"))
        names = tuple(dict.fromkeys(name for name in (data.node, given or data.address) if name))
        config = Configuration(
            tuple(config_options(data.get("ssh_config_file"))), self.context.ssh_config, lambda names: None
        )
        way = config.way_to(names, user, port, address=names[-1])
        pinned = [str(data.host_key)] if data.get("host_key") else known_keys((*names, way.address), way.port)
        if not pinned:
            known_as = " or ".join(dict.fromkeys((*names, way.address)))
            raise Refused(
                f"{data.host_id}: no host key is known for {known_as}, and none is "
                "taken on trust; put the one that its console shows (`cat /etc/ssh/ssh_host_ed25519_key.pub`) into "
                "~/.ssh/known_hosts, or say --data host_key='ssh-ed25519 …'"
            )
        try:
            lines = [known_hosts_line([way.address], key, port=way.port) for key in pinned]
        except ValueError as error:
            raise FleetError(f"{data.host_id}: host_key: {error}") from None
        known = self.context.run.plain_directory / "known_hosts" / "nodes" / data.node
        write_whole(known, "\n".join(lines) + "\n")
        key, offered = data.get("ssh_key"), way.identities
        to = Destination(
            address=way.address,
            user=user,
            known_hosts=known,
            port=way.port,
            identity=expanded(key) if key else None,
            offered=offered.files,
            certificates=offered.certificates,
            agent=offered.agent,
            identities_only=offered.only,
            route=way.route,
        )
        return _written(to, known.with_name(f"{data.node}.config")) if to.route.jumps else to

    @override
    def run_shell_command(self, command: StringCommand, *args: Any, **arguments: Any) -> tuple[bool, CommandOutput]:
        """OSError when the connection breaks: what was begun may go on there, and is looked at by the next run."""
        try:
            return super().run_shell_command(command, *args, **arguments)
        except (SSHException, EOFError, NotBegun) as error:
            raise OSError(f"{self.host.data.host_id}: the connection broke: {error or 'no answer'}") from error

    @override
    def disconnect(self) -> None:
        if self.client is not None:
            self.client.close()
        self.client = None


def _port(given: int | None) -> int | None:
    """Usage when it is none; that it is a number pyinfra has seen to."""
    if given is not None and not 0 < given < 65536:
        raise Usage(f"--data ssh_port={given}: that is not a port; write one up to 65535")
    return given


def _written(to: Destination, file: Path) -> Destination:
    write_whole(file, to.text)
    return replace(to, config=file)


def known_keys(names: tuple[str, ...], port: int) -> list[str]:
    """The keys that the operator's known_hosts have for any of these names, as `TYPE BLOB`. Refused for a revoked one.

    `ssh-keygen` looks them up: names may be hashed there.
    """
    found: list[str] = []
    for file in known_hosts_files():
        for name in dict.fromkeys(names) if file.is_file() else ():
            printed = run(["ssh-keygen", "-F", known_hosts_name(name, port), "-f", str(file)], check=False, timeout=10)
            for line in printed.stdout.splitlines():
                words = line.split()
                if not words or words[0].startswith("#") or words[0] == "@cert-authority":
                    continue
                if words[0] == "@revoked":
                    raise Refused(f"{file}: the host key of {name} is marked as revoked there")
                found.append(" ".join(words[1:3]))
    return list(dict.fromkeys(found))
