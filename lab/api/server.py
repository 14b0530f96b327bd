"""The HTTP server, with the real server's texts, formats and delays."""

import argparse
import asyncio
import contextlib
import functools
import hashlib
import json
import signal
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from aiohttp import web

from lab.api import control, decoding
from lab.api.daemon import Daemon
from lab.api.dispatch import resolve
from lab.api.emulator import Emulator
from lab.api.errors import ApiError, NotImplementedHere, ParameterError
from lab.api.log import RequestLog
from lab.api.permissions import User
from lab.api.routes import Page, RawBody
from lab.api.state import load
from lab.api.states import StatesBackend
from lab.backend import Backend, BackendError

KEEPALIVE_SECONDS = 5
REQUESTS_PER_CONNECTION = 100
# How long pveproxy waits for an answer from pvedaemon.
BROKEN_PIPE_SECONDS = 5.0
T = TypeVar("T")
_JSON = "application/json;charset=UTF-8"
_WITHOUT_LOGIN = {("POST", "/access/ticket"), ("GET", "/access/ticket")}


class Server:
    """One emulator behind HTTP."""

    def __init__(self, emulator: Emulator, log: RequestLog) -> None:
        self.emulator, self.log, self.daemon = emulator, log, Daemon()
        self._seen: WeakKeyDictionary[asyncio.Transport, int] = WeakKeyDictionary()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path, _, query = request.raw_path.partition("?")
        path = unquote(path)
        if path.startswith("/_lab/"):
            return await self._control(request, path)
        _, _, rest = path.partition("/api2/")
        form, _, below = rest.partition("/")
        exchange = Exchange(self, request, "/" + below.rstrip("/"), form or "json")
        response = await exchange.answer(query)
        if exchange.drops and request.transport:
            request.transport.abort()
        self._close_when_due(request, response)
        return response

    def _close_when_due(self, request: web.BaseRequest, response: web.Response) -> None:
        transport = request.transport
        if transport is None:
            return
        self._seen[transport] = self._seen.get(transport, 0) + 1
        if response.status >= 400 or self._seen[transport] >= REQUESTS_PER_CONNECTION:
            response.force_close()

    async def _control(self, request: web.BaseRequest, path: str) -> web.Response:
        body = await request.read()
        params: dict[str, Any] = json.loads(body) if body else {}
        status, data = await in_thread(lambda: control.handle(self.emulator, self.daemon, request.method, path, params))
        return web.Response(status=status, text=json.dumps(data), content_type="application/json")


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a daemon thread, which never keeps the process alive."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast(T, result))

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001  (the waiting caller gets it)
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended in the meantime
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, daemon=True).start()
    return await future


class Exchange:
    """One request up to its answer."""

    def __init__(self, server: Server, request: web.BaseRequest, path: str, form: str) -> None:
        self.server, self.request, self.path, self.form = server, request, path, form
        self.method = "GET" if request.method == "HEAD" else request.method
        self.user: User | None = None
        self.params: dict[str, Any] = {}
        self.drops = False
        self.protected = False
        self.began = time.monotonic()

    async def answer(self, query: str) -> web.Response:
        """Return the answer and log it."""
        faults = self.server.emulator.faults
        try:
            if faults.refuses(self.method, self.path):
                raise ApiError("Connection refused", 595, body="")
            result = await self._result(query)
            if faults.times_out(self.method, self.path):
                raise ApiError("Connection timed out", 596, body="")
            response = self._success(result)
        except ApiError as error:
            lost = error.status < 595 and faults.times_out(self.method, self.path, refused=True)
            response = await self._failure(ApiError("Connection timed out", 596, body="") if lost else error)
        except BackendError as error:
            response = await self._failure(ApiError(str(error)))
        if response.status < 595:
            self.drops = faults.drops(self.method, self.path, refused=response.status >= 400)
        user = self.user.name if self.user else None
        status = 0 if self.drops else response.status
        self.server.log.write(user, self.method, self.path, self.params, status, time.monotonic() - self.began)
        return response

    async def _result(self, query: str) -> Any:
        emulator, headers = self.server.emulator, self.request.headers
        decoding.check_framing(self.method, headers)
        if (self.method, self.path) not in _WITHOUT_LOGIN:
            self.user = emulator.authenticator.authenticate(emulator.state, self.method, headers)
        decoding.check_content(self.method, headers)
        body = await self.request.content.read()
        self.params, files = decoding.decode(query, headers.get("Content-Type", ""), body)
        user = self.user or User("")
        schema, work = resolve(emulator, user, self.method, self.path, self.params, files)
        self.protected = schema.protected
        run = functools.partial(in_thread, work)
        return await (self.server.daemon.run(run) if schema.protected else run())

    def _success(self, result: Any) -> web.Response:
        if isinstance(result, RawBody):
            return web.Response(body=result.content, headers=result.headers)
        data = result.data if isinstance(result, Page) else result
        answer: dict[str, Any] = {"data": data}
        if isinstance(result, Page) and result.total:
            answer["total"] = result.total
        if self.form == "extjs":
            answer["success"] = 1
        return self._json(200, "OK", answer)

    async def _failure(self, error: ApiError) -> web.Response:
        await asyncio.sleep(error.delay)
        message = error.message
        reason = message.split("\n")[0]
        if self.protected and any(ord(character) > 0xFF for character in reason):
            # The daemon cannot send such a status line and closes the connection.
            await asyncio.sleep(BROKEN_PIPE_SECONDS)
            return self._plain(596, "Broken pipe", "")
        if error.body is not None:
            return self._plain(error.status, reason, error.body)
        full = message if isinstance(error, NotImplementedHere) else message + "\n"
        answer: dict[str, Any] = {"data": None, "message": full}
        if isinstance(error, ParameterError):
            answer["errors"] = error.errors
        if self.form == "extjs":
            answer["success"] = 0
            answer["status"] = str(error.status) if isinstance(error, ParameterError) else error.status
            return self._json(200, "OK", answer)
        return self._json(error.status, reason, answer)

    def _plain(self, status: int, reason: str, text: str) -> web.Response:
        return web.Response(status=status, reason=reason, text=text, headers={"Server": "pve-api-daemon/3.0"})

    def _json(self, status: int, reason: str, answer: object) -> web.Response:
        body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {
            "Content-Type": _JSON,
            "Server": "pve-api-daemon/3.0",
            "Cache-Control": "max-age=0",
            "Pragma": "no-cache",
        }
        response = web.Response(status=status, reason=reason, body=body, headers=headers)
        if len(body) > 1024 and "gzip" in self.request.headers.get("Accept-Encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response


async def _run(emulator: Emulator, log: RequestLog, listen: tuple[str, int], context: ssl.SSLContext) -> None:
    server = Server(emulator, log)
    runner = web.ServerRunner(web.Server(server.handle, keepalive_timeout=KEEPALIVE_SECONDS, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, *listen, ssl_context=context, shutdown_timeout=0.5, backlog=512).start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print("ready", flush=True)
    await stop.wait()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(runner.cleanup(), 2)


def serve(
    state: Mapping[str, Any], backend: Backend, listen: tuple[str, int], certificate: Path, key: Path, log: Path | None
) -> None:
    """Serve the API of the node in `state` until SIGTERM; prints `ready` once it listens."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    emulator = Emulator(state, backend)
    emulator.certificate = certificate.read_text()
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(emulator.certificate)).hexdigest().upper()
    emulator.fingerprint = ":".join(digest[at : at + 2] for at in range(0, 64, 2))
    asyncio.run(_run(emulator, RequestLog(log), listen, context))


def main(argv: list[str]) -> None:
    """Run `python -m lab api`: the API alone, with machines that are only states."""
    parser = argparse.ArgumentParser(prog="python -m lab api", description=main.__doc__)
    parser.add_argument("--state", type=Path, required=True, help="a start state (JSON)")
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--log", type=Path, help="append each request to this file as a JSON line")
    options = parser.parse_args(argv)
    host, _, port = options.listen.rpartition(":")
    document = load(options.state.read_text())
    with tempfile.TemporaryDirectory() as folder:
        from lab.api.certificate import make_certificate

        certificate, key = make_certificate(Path(folder), host)
        serve(document, StatesBackend(document), (host, int(port)), certificate, key, options.log)
