"""What a machine's services answer to the machine itself, asked through the SSH connection that stands."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from paramiko import Channel, SSHException

if TYPE_CHECKING:
    from nixherd.pyinfra_glue.fleet import FleetConnector


@contextmanager
def channel(connector: "FleetConnector", address: tuple[str, int], timeout: float) -> Iterator[Channel | socket.socket]:
    """A TCP connection that the machine makes to host and port. OSError when there is none."""
    if connector.here:
        with socket.create_connection(address, timeout) as connection:
            yield connection
        return
    transport = connector.client.get_transport() if connector.client else None
    if transport is None:
        raise OSError("the connection is gone")
    try:
        opened = transport.open_channel("direct-tcpip", address, ("localhost", 0), timeout=timeout)
    except (SSHException, EOFError) as error:
        raise OSError(f"no connection to {address[0]}:{address[1]} ({error})") from error
    try:
        opened.settimeout(timeout)
        yield opened
    finally:
        opened.close()


def status(connector: "FleetConnector", url: str, address: tuple[str, int], timeout: float) -> int:
    """With which status a URL answers. OSError when it does not."""
    path = "/" + url.split("/", 3)[3] if url.count("/") > 2 else "/"
    with channel(connector, address, timeout) as opened:
        connection = http.client.HTTPConnection(*address, timeout=timeout)
        connection.sock = _Socket(opened)
        try:
            connection.request("GET", path, headers={"User-Agent": "nixherd", "Connection": "close"})
            return connection.getresponse().status
        except http.client.HTTPException as error:
            raise OSError(f"{url} answers with what is no HTTP: {error!r}") from error


class _Socket:
    """As much of a socket as http.client takes, over a channel."""

    def __init__(self, opened: Channel | socket.socket) -> None:
        self._opened = opened

    def sendall(self, data: bytes) -> None:
        self._opened.sendall(data)

    def makefile(self, mode: str) -> object:
        return self._opened.makefile(mode)  # type: ignore[call-overload,no-any-return,unused-ignore]

    def close(self) -> None:
        """The channel is its owner's to close."""
