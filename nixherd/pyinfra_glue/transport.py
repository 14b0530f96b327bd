"""An SSH connection that notices when nobody is there any more, and tells what never began from what may have."""

import socket
from typing import Any

from paramiko import Channel, SSHException, Transport
from typing_extensions import override

PEER_TIMEOUT = 15_000  # milliseconds after which data that nobody acknowledged means a dead connection
CHANNEL_TIMEOUT = 30.0  # seconds for a connection that stands to begin a command


class NotBegun(OSError):
    """The connection was dead already: what was to run on it has not begun."""


class WatchedTransport(Transport):
    """Tells a command that never began from one that may have, and does not wait an hour for it to begin."""

    @override
    def __init__(self, *args: Any, **arguments: Any) -> None:
        super().__init__(*args, **arguments)
        self.channel_timeout = CHANNEL_TIMEOUT

    @override
    def open_session(self, *args: Any, **arguments: Any) -> Channel:
        try:
            return super().open_session(*args, **arguments)
        except (SSHException, EOFError, OSError) as error:
            raise NotBegun(f"the connection broke: {error or 'no answer'}") from error


def notice_a_dead_peer(transport: Transport) -> None:
    """A machine that jumped leaves no FIN behind: let the kernel end a connection that nobody acknowledges."""
    transport.set_keepalive(5)
    sock = transport.sock
    if isinstance(sock, socket.socket) and sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT)
