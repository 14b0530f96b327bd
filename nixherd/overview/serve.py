"""The pages, the document and its metrics over HTTP: read-only, to whoever may read them and to nobody else.

A browser is made to ask for other people: by a name that is pointed at this address (so only names that were given are
answered), from other sites' pages (so nothing may be embedded, and the cookie stays here), or with a form (so nothing
but GET and HEAD is done). Whoever is slow, or many, keeps others waiting only so far.
"""

import hmac
import os
import secrets
import socket
import stat
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from socketserver import BaseServer, TCPServer, ThreadingMixIn, UnixStreamServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from nixherd.base.errors import Usage
from nixherd.base.terminal import line_of, worded
from nixherd.overview.page.render import policy
from nixherd.overview.shown import Shown

CONNECTIONS = 64
LISTENERS = 16
"""to events, each of which keeps a connection"""
HEAD = 16 << 10  # bytes of a request
PATIENCE = 10.0  # seconds that a request may take to arrive
SENDING = 60.0  # seconds that an answer may take to be taken
PULSE = 15.0  # seconds between signs of life to a listener, by which one that is gone is noticed
SHORTEST = 32  # characters of a token
LOCAL = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Door:
    """Who may come in. `names`: what a request may call this server, as its Host header has it, in lower case; `token`
    is None where everybody who reaches it may read it. `session` is the cookie's: it has no part of the token."""

    names: frozenset[str]
    token: str | None = None
    cookie: str = "nixherd"
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def admits(self, authorization: str | None, cookies: str | None) -> bool:
        if self.token is None:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and _same(given.strip(), self.token):
            return True
        pairs = [each.strip().partition("=") for each in (cookies or "").split(";")]
        return any(name == self.cookie and _same(value, self.session) for name, _, value in pairs)

    def knows(self, token: str) -> bool:
        return self.token is not None and _same(token, self.token)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode("utf-8", "surrogateescape"))


class _Handler(BaseHTTPRequestHandler):
    """One request; then the connection is closed."""

    server: "_Server"
    server_version, sys_version = "nixherd", ""
    timeout = SENDING

    def handle(self) -> None:
        with suppress(OSError):  # whoever asked is gone, or too slow
            head = self._head()
            if head is None:
                return
            self.rfile = BytesIO(head)
            self.handle_one_request()

    def _head(self) -> bytes | None:
        """The request up to its empty line; None where it is too long, or does not arrive in time."""
        end, head = time.monotonic() + PATIENCE, b""
        while b"\r\n\r\n" not in head:
            self.connection.settimeout(max(0.001, end - time.monotonic()))
            part = self.connection.recv(4096)
            if not part or time.monotonic() > end:
                return None
            head += part
            if len(head) > HEAD:
                self.request_version, self.requestline, self.command = "HTTP/1.1", "", "GET"
                self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return None
        self.connection.settimeout(SENDING)
        return head

    def parse_request(self) -> bool:
        """Read the request, and refuse it where it is not to be answered."""
        if not super().parse_request():
            return False
        self.close_connection = True
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.door.names:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, explain="ask by a name that it was given: --host-name NAME")
        elif self.command not in ("GET", "HEAD"):
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
        elif not self.path.startswith("/"):
            self.send_error(HTTPStatus.BAD_REQUEST)
        else:
            return True
        return False

    def do_GET(self) -> None:
        url = urlsplit(f"//x{self.path}")
        query = parse_qs(url.query)
        door = self.server.door
        if "token" in query and door.knows(query["token"][0]):  # once: the address that stays has none
            self._begin(HTTPStatus.SEE_OTHER, "text/plain", 0)
            self.send_header("Set-Cookie", f"{door.cookie}={door.session}; Path=/; HttpOnly; SameSite=Strict")
            self.send_header("Location", "/")
            self.end_headers()
            return
        if not door.admits(self.headers["Authorization"], self.headers["Cookie"]):
            self.send_error(HTTPStatus.UNAUTHORIZED)
            return
        if url.path == "/events":
            self._events(self.headers["Last-Event-ID"] or query.get("since", [""])[0])
            return
        shown = self.server.shown
        content = shown.content
        if content is None:
            self._body(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", _nothing(shown.problem).encode())
            return
        found = content.answer(url.path)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self._body(HTTPStatus.OK, *found)

    do_HEAD = do_GET

    def _events(self, version: str) -> None:
        """Tell of each newer version, until the listener goes."""
        if self.command == "HEAD":
            self._begin(HTTPStatus.OK, "text/event-stream")
            self.end_headers()
            return
        if not self.server.listeners.acquire(blocking=False):
            self._body(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"as many listen as may; ask again later\n")
            return
        try:
            self._begin(HTTPStatus.OK, "text/event-stream")
            self.end_headers()
            self.wfile.write(b"retry: 5000\n\n")
            while not self.server.closing.is_set():
                newer = self.server.shown.wait(version, PULSE)
                text = f"id: {newer}\nevent: refresh\ndata: {newer}\n\n" if newer != version else ":\n\n"
                self.wfile.write(text.encode())
                version = newer
        finally:
            self.server.listeners.release()

    def _body(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._begin(status, kind, len(body))
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Refresh", "5")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", 'Bearer realm="nixherd"')
        for name, value in _headers().items():
            self.send_header(name, value)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """One line of text: nothing that was asked for is repeated in it."""
        status = HTTPStatus(code)
        self.close_connection = True
        body = f"{status.value} {status.phrase}{f': {explain}' if explain else ''}\n".encode()
        if getattr(self, "command", None) is None:
            self.command = "GET"
        self._body(status, "text/plain; charset=utf-8", body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: an address may have a token in it."""


def _headers() -> dict[str, str]:
    """What each answer has: no other site may run, embed or read anything of it, and nothing keeps it."""
    return {
        "Content-Security-Policy": f"{policy(served=True)}; frame-ancestors 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Connection": "close",
    }


def _nothing(problem: str | None) -> str:
    return f"Nothing is known yet: {problem}\n" if problem else "The fleet is being looked at for the first time.\n"


class _Server(ThreadingMixIn, BaseServer):
    """A thread for each connection, of which only so many are open."""

    daemon_threads, block_on_close, allow_reuse_address = True, False, True
    request_queue_size: ClassVar[int] = 32

    def prepare(self, door: Door, shown: Shown) -> None:
        self.door, self.shown, self.closing = door, shown, threading.Event()
        self.listeners = threading.BoundedSemaphore(LISTENERS)
        self._open = threading.BoundedSemaphore(CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._open.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._open.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write a fault of ours down; it ends this request, and nothing else."""
        if (error := sys.exc_info()[1]) is not None:
            worded(error, "answering a request")


class _Tcp(_Server, TCPServer):
    pass


class _Tcp6(_Tcp):
    address_family = socket.AF_INET6


class _Unix(_Server, UnixStreamServer):
    pass


class Serving:
    """A server that is up, in threads of its own, until it is closed."""

    def __init__(self, server: _Server, url: str, socket_path: Path | None = None) -> None:
        self._server, self.url, self._path = server, url, socket_path
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def listen(
    shown: Shown, address: str, port: int, *, host_names: Sequence[str] = (), token: str | None = None
) -> Serving:
    """Serve at an address of this machine; port 0 is any that is free. Usage for one that others reach, without a
    token."""
    if token is None and not _is_loopback(address):
        raise Usage(f"--listen {address}: others reach that address; give --token-file FILE, or --socket PATH instead")
    kind = _Tcp6 if ":" in address else _Tcp
    try:
        server = kind((address, port), _Handler)
    except OSError as error:
        raise Usage(f"--listen {address}: {line_of(error)}; name a free port and an address of this machine") from None
    port = server.server_address[1]
    shown_address = f"[{address}]" if ":" in address else address
    server.prepare(Door(_names([*LOCAL, shown_address], host_names, port), token, f"nixherd-{port}"), shown)
    return Serving(server, f"http://{shown_address}:{port}/")


def listen_on_socket(shown: Shown, path: Path, *, host_names: Sequence[str] = (), token: str | None = None) -> Serving:
    """Serve on a Unix socket that this account alone may open. Usage where something else is there."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise Usage(f"--socket {path}: is there, and is not a socket; name another place")
        with socket.socket(socket.AF_UNIX) as other:
            try:
                other.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()  # its server is gone
            else:
                raise Usage(f"--socket {path}: somebody listens there; end that server, or name another place")
    before = os.umask(0o177)  # so that it is nobody else's from the beginning
    try:
        server = _Unix(str(path), _Handler)
    except OSError as error:
        raise Usage(f"--socket {path}: {line_of(error)}") from None
    finally:
        os.umask(before)
    server.prepare(Door(_names(LOCAL, host_names, 80), token), shown)
    return Serving(server, str(path), path)


def _names(local: Sequence[str], given: Sequence[str], port: int) -> frozenset[str]:
    """What Host may say: names of this machine with the port, and those that were given with any that was given, with
    ours, or with none, as a proxy that stands before has another."""
    bare = local if port == 80 else ()
    names = [*(f"{name}:{port}" for name in (*local, *given)), *bare, *given]
    return frozenset(name.lower() for name in names)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def read_token(path: Path) -> str:
    """The token in a file of this account's alone. Usage where others may read it, or it can be guessed."""
    what = f"--token-file {path}"
    make = f"write one: (umask 077; openssl rand -hex 32 > {path})"
    try:
        with path.open(encoding="ascii") as file:
            status = os.fstat(file.fileno())
            token = file.read(4096).strip()
    except OSError as error:
        raise Usage(f"{what}: {line_of(error)}; {make}") from None
    except UnicodeDecodeError:
        raise Usage(f"{what}: is not plain ASCII; {make}") from None
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise Usage(f"{what}: others may read it; it has to be a file of this account's with mode 0600")
    if len(token) < SHORTEST or not token.isprintable() or " " in token:
        raise Usage(f"{what}: has to be one word of at least {SHORTEST} characters; {make}")
    return token
