"""paramiko's connection, told the same as OpenSSH: the pinned key alone, the way of a Route, and no ssh_config.

It takes the place of pyinfra's client, which reads ~/.ssh/config by itself: that one forwards the agent where it says
so, checks hops as it says, and sets SSH_AUTH_SOCK for the whole process.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import Agent, AgentSSH
from paramiko.auth_strategy import AuthStrategy, SourceResult
from paramiko.pkey import PublicBlob
from typing_extensions import override

from nixherd.base.errors import NotSent
from nixherd.base.process import Carrier, Completed
from nixherd.ssh.destination import Destination, Identities
from nixherd.ssh.login_shell import Answer, Command, TooLong
from nixherd.ssh.ssh_config import family_of

PEER_TIMEOUT = 15_000  # milliseconds after which data that nobody acknowledged means a dead connection
UNTOLD = "the connection ended, or the command was killed or went on, before it told its exit status"
MOST = 4 << 20  # bytes of an answer that are read
_SILENCE = ("No existing session", "Error reading SSH protocol banner")  # what paramiko calls that
CHANNEL_TIMEOUT = 30.0  # seconds for a connection that stands to begin a command


class DeadConnection(NotSent):
    """The connection was dead already: what was to run on it has not begun."""


class WatchedTransport(paramiko.Transport):
    """Tells a command that never began from one that may have, and does not wait an hour for it to begin."""

    @override
    def __init__(self, *args: Any, **arguments: Any) -> None:
        super().__init__(*args, **arguments)
        self.channel_timeout = CHANNEL_TIMEOUT

    @override
    def open_session(self, *args: Any, **arguments: Any) -> paramiko.Channel:
        try:
            return super().open_session(*args, **arguments)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise DeadConnection(f"the connection broke: {str(error) or 'no answer'}") from error


def notice_a_dead_peer(transport: paramiko.Transport) -> None:
    """A machine that jumped leaves no FIN behind: let the kernel end a connection that nobody acknowledges."""
    transport.set_keepalive(5)
    sock = transport.sock
    if isinstance(sock, socket.socket) and sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_TIMEOUT)


class PinnedClient(paramiko.SSHClient):
    """A connection to one Destination."""

    carrier: Carrier | None = None
    heard: Callable[[Answer, int], None] = staticmethod(lambda answer, status: None)
    """is given each command's answer at its end, and with which status sshd says that its login shell ended"""
    limit: float | None = None
    """seconds that a command may take to tell its status once its output has ended; None: for ever"""

    def open(self, to: Destination, keys: "Keys", transport: Callable[..., paramiko.Transport], timeout: float) -> None:
        """Connect and log in; `timeout`, in seconds, is for TCP and for each part of the handshake.

        BadHostKeyException for another key, AuthenticationException when none of ours is accepted; else OSError,
        SSHException or EOFError.
        """
        _keep_paramiko_off_the_terminal()
        self.set_missing_host_key_policy(paramiko.RejectPolicy())
        self.get_host_keys().load(str(to.known_hosts))
        self.connect(
            to.address,
            port=to.port,
            username=to.user,
            sock=self._socket(to, timeout),
            timeout=timeout,
            banner_timeout=timeout,
            auth_timeout=timeout,
            allow_agent=False,
            look_for_keys=False,
            transport_factory=transport,
            auth_strategy=keys,
        )

    def _socket(self, to: Destination, timeout: float) -> socket.socket:
        argv = to.carrier or (_by_shell(to.route.command) if to.route.command else None)
        if argv is None:
            return _tcp(to, timeout)
        self.carrier = Carrier(argv)
        return self.carrier.socket

    @override
    def exec_command(  # type: ignore[override]
        self, command: str, bufsize: int = -1, timeout: float | None = None, get_pty: bool = False, **options: Any
    ) -> tuple["Fed", "Printed", "Printed"]:
        """Have a script run by /bin/sh, whatever the login shell is. OSError, SSHException when it cannot be begun."""
        command_line = Command(command)
        try:
            text = command_line.text
        except TooLong as error:
            raise NotSent(str(error)) from error
        stdin, stdout, _ = super().exec_command(text, bufsize, timeout, get_pty, **options)
        reply = Reply(stdout.channel, Answer(command_line.mark), self.heard, timeout or self.limit)
        return Fed(stdin), Printed(reply, 1), Printed(reply, 2)

    def ask(self, script: str, timeout: float, most: int = MOST) -> Completed:
        """Have a script run, and wait for its end. `timeout` is in seconds, `most` bytes on stdout and stderr each.

        NotSent where it was not begun, OSError without an answer in time, or with one that is too long.
        """
        with _answering(timeout) as until:
            reply = self.exec_command(script, timeout=timeout)[1].channel
            received = _received(reply.channel, most, until)
            out, err = ("\n".join(reply.answer.output(*each)) for each in enumerate(map(str.splitlines, received), 1))
            return Completed(out, err, reply.recv_exit_status())

    def say(self, words: str, timeout: float, most: int = MOST) -> Completed:
        """The same of words that are said as they are, to a machine that takes forced commands."""
        with _answering(timeout) as until:
            channel = super().exec_command(words, timeout=timeout)[1].channel
            received = _received(channel, most, until)
            status = _status_of(channel, timeout)
            if status < 0:
                raise OSError(UNTOLD)
            return Completed(*received, status)

    def why(self, error: Exception) -> str:
        """Why it failed: what the program says that leads there, where there is one, knows better."""
        words = self.carrier.last_words if self.carrier else ""
        shown = "what listens there speaks no SSH, or not in time" if str(error).startswith(_SILENCE) else str(error)
        return words or getattr(error, "strerror", None) or shown

    @override
    def close(self) -> None:
        super().close()
        if self.carrier:
            self.carrier.end()


@dataclass
class Reply:
    """What comes back on a channel for one command; `limit` as PinnedClient's."""

    channel: paramiko.Channel
    answer: Answer
    heard: Callable[[Answer, int], None]
    limit: float | None = None

    def recv_exit_status(self) -> int:
        """The command's own, once all of its output was read. What `heard` raises where that was not run.

        OSError where nobody told it: the connection ended, or the command was killed.
        """
        status = _status_of(self.channel, self.limit)
        self.heard(self.answer, status)
        if status < 0 and self.answer.status is None:
            raise OSError(UNTOLD)
        return self.answer.ended(status)


def _status_of(channel: paramiko.Channel, limit: float | None) -> int:
    """With what a command ended, -1 where the connection ended before. OSError where nobody tells it in time: a machine
    may end the output, and never the command."""
    if not channel.status_event.wait(limit):
        raise OSError(UNTOLD)
    return channel.recv_exit_status()


@dataclass(frozen=True)
class Fed:
    """What a command reads. It may end without having read it all: then its status says what became of it."""

    stdin: paramiko.ChannelFile

    def write(self, data: str | bytes) -> None:
        try:
            self.stdin.write(data)
        except OSError:
            if not self.stdin.channel.closed:
                raise

    def close(self) -> None:
        self.stdin.close()


@dataclass
class Printed:
    """The lines that a command prints on stdout (1) or stderr (2), without those of the login shell."""

    channel: Reply
    """as paramiko's files have it"""
    stream: int

    def __iter__(self) -> Iterator[str]:
        channel = self.channel.channel
        file = channel.makefile("rb") if self.stream == 1 else channel.makefile_stderr("rb")
        return self.channel.answer.output(self.stream, (line.decode(errors="replace") for line in file))


@contextmanager
def _answering(timeout: float) -> Iterator[float]:
    """Give until when an answer is waited for, by the monotonic clock. OSError that says why there is none."""
    try:
        yield time.monotonic() + timeout
    except (paramiko.SSHException, EOFError) as error:
        raise OSError(f"the connection broke: {str(error) or 'no answer'}") from error
    except TimeoutError as error:
        raise OSError(f"it did not answer within {timeout:.0f} s") from error


def _received(channel: paramiko.Channel, most: int, until: float) -> tuple[str, str]:
    """All that comes on stdout and on stderr. TimeoutError, and OSError for more than so many bytes of one of them."""

    def whole(take: Callable[[int], bytes]) -> str:
        received = bytearray()
        while part := take(1 << 16):
            received += part
            if time.monotonic() > until:  # a byte now and then is not an answer
                raise TimeoutError
            if len(received) > most:
                raise OSError(f"it answered with more than {most >> 20} MiB; look at it")
        return received.decode(errors="replace")

    return whole(channel.recv), whole(channel.recv_stderr)


def _keep_paramiko_off_the_terminal() -> None:
    """It logs what it raises, with a traceback, and Python prints what no handler takes."""
    log = logging.getLogger("paramiko")
    if not log.handlers:
        log.addHandler(logging.NullHandler())


def _by_shell(command: str) -> list[str]:
    """As OpenSSH runs a ProxyCommand."""
    return [os.environ.get("SHELL") or "/bin/sh", "-c", f"exec {command}"]


def _tcp(to: Destination, timeout: float) -> socket.socket:
    """A connection to the first of its addresses that answers. OSError of the last one when none does."""
    failed: OSError = OSError("no address")
    found = socket.getaddrinfo(to.address, to.port, family_of(to.route.family), socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout)
            if to.route.bind:
                connection.bind((to.route.bind, 0))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failed = error
        else:
            return connection
    raise failed


@dataclass
class Keys(AuthStrategy):
    """What is offered, in OpenSSH's order: the agent's keys that are named, its others, then the files.

    `pkey` is the one key that was named on the command line, `password` one that was; `agent` False leaves out agents.
    """

    user: str
    identities: Identities
    pkey: paramiko.PKey | None = None
    password: str | None = None

    @override
    def get_sources(self) -> Iterator[Any]:
        yield from ()

    @override
    def authenticate(self, transport: paramiko.Transport) -> list[SourceResult]:
        """AuthenticationException when nothing of it is accepted; SSHException when the machine hangs up before."""
        agent = None if self.pkey else _agent_at(self.identities.agent)
        try:
            offered = [self.pkey] if self.pkey else self._offered(agent)
            for key in offered:
                if self._accepted(transport, lambda key=key: transport.auth_publickey(self.user, key)):  # type: ignore[misc]
                    return []
            password = self.password
            if password is not None and self._accepted(transport, lambda: transport.auth_password(self.user, password)):
                return []
        finally:
            if agent:
                agent.close()
        raise paramiko.AuthenticationException("none of our keys is accepted")

    def _accepted(self, transport: paramiko.Transport, attempt: Callable[[], object]) -> bool:
        try:
            attempt()
        except paramiko.SSHException:
            if not transport.is_active():
                why = "it hung up before all of our keys were offered; name the right one with --data ssh_key=FILE"
                raise paramiko.SSHException(why) from None
        return transport.is_authenticated()

    def _offered(self, agent: Agent | None) -> Iterator[paramiko.PKey]:
        held = list(agent.get_keys()) if agent else []
        for key in held:
            if not hasattr(key, "public_blob"):  # a security key's, which paramiko looks for all the same
                key.public_blob = None
        named = [key for blob in map(_public_blob, self.identities.files) for key in held if blob == key.asbytes()]
        yield from named
        if not self.identities.only:
            yield from (key for key in held if key not in named)
        for file in self.identities.files:
            yield from load(file, self.identities.certificates)


class _AgentAt(Agent):
    """The agent that listens at a path."""

    def __init__(self, path: str) -> None:
        AgentSSH.__init__(self)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
        except OSError:  # no agent is not an error, here as in OpenSSH
            connection.close()
            return
        self._connect(connection)  # type: ignore[attr-defined]


def _agent_at(path: str | None) -> Agent | None:
    if path == "none":
        return None
    try:
        return _AgentAt(path) if path else Agent()
    except (paramiko.SSHException, OSError):
        return None


def load(file: Path, certificates: tuple[Path, ...] = ()) -> Iterator[paramiko.PKey]:
    """A private key from its file: with each of the certificates that are its own, and without; nothing when it cannot
    be read without a passphrase."""
    beside = file.with_name(f"{file.name}-cert.pub")
    for certificate in (*certificates, beside):
        key = _private_key(file)
        if key and (blob := _certificate(certificate)) and certifies(blob, key.asbytes()):
            key.load_certificate(str(certificate))
            yield key
    if key := _private_key(file):
        yield key


def _private_key(file: Path) -> paramiko.PKey | None:
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key_file(str(file))
        except (paramiko.SSHException, OSError, ValueError):  # another kind, encrypted, not there, or no key at all
            continue
    return None


def _certificate(file: Path) -> bytes | None:
    try:
        return bytes(PublicBlob.from_file(str(file)).key_blob)
    except (OSError, ValueError):
        return None


def certifies(certificate: bytes, public: bytes) -> bool:
    """Whether a certificate's blob is of this public key's: after its type and nonce the key's own fields follow.

    Format: OpenSSH's PROTOCOL.certkeys.
    """
    fields = public[4 + int.from_bytes(public[:4], "big") :]
    rest = certificate
    for _ in range(2):
        rest = rest[4 + int.from_bytes(rest[:4], "big") :]
    return rest.startswith(fields)


def _public_blob(file: Path) -> bytes | None:
    """The public half of an identity: beside it, or the file itself where the private one is in the agent alone."""
    for each in (file.with_name(f"{file.name}.pub"), file):
        if blob := _certificate(each):
            return blob
    return None
