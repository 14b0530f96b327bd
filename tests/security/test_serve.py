"""Whom `nixherd serve` answers, and what: real sockets of this machine's loopback."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import FleetError, Usage
from nixherd.overview import serve
from nixherd.overview.document import Overview
from nixherd.overview.page.render import name_of
from nixherd.overview.serve import Serving, listen, listen_on_socket, read_token
from nixherd.overview.shown import Gathered, Shown
from tests.overviews import host, overview

pytestmark = pytest.mark.process
TOKEN = "f" * 40


def gathered(document: Overview) -> Gathered:
    return json.loads(json.dumps(document.to_json())), {}


@pytest.fixture
def shown() -> Shown:
    shown = Shown()
    shown.look(lambda: gathered(overview(hosts=(host("web01"), host("../../etc/passwd")))))
    return shown


@pytest.fixture
def up(shown: Shown) -> Iterator[Callable[..., int]]:
    """Starts a server; its port."""
    servers: list[Serving] = []

    def start(**how: Any) -> int:
        servers.append(listen(shown, "127.0.0.1", 0, **how))
        return int(servers[-1].url.rstrip("/").rpartition(":")[2])

    yield start
    for each in servers:
        each.close()


def get(port: int, path: str = "/", method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer, answer.read()


def raw(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(text)
        parts = []
        try:
            while part := connection.recv(65536):
                parts.append(part)
        except ConnectionResetError:  # it closed before it had read all
            pass
        return b"".join(parts)


def test_what_is_there(up: Callable[..., int]) -> None:
    port = up()
    for path, kind, text in (
        ("/", "text/html; charset=utf-8", b"web01"),
        ("/hosts/web01.html", "text/html; charset=utf-8", b"web01"),
        ("/status.json", "application/json", b'"version"'),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", b"nixherd_host_reachable"),
    ):
        answer, body = get(port, path)
        assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
        assert text in body
        head, nothing = get(port, path, "HEAD")
        assert (head.status, nothing, head.headers["Content-Length"]) == (200, b"", str(len(body)))
    assert get(port, f"/hosts/{name_of('../../etc/passwd')}")[0].status == 200


def test_every_answer_lets_nobody_else_in(up: Callable[..., int]) -> None:
    port = up()
    for path, method in (("/", "GET"), ("/status.json", "GET"), ("/nothing", "GET"), ("/", "POST")):
        headers = get(port, path, method)[0].headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
        assert (headers["Cache-Control"], headers["Cross-Origin-Resource-Policy"]) == ("no-store", "same-origin")
        assert headers["Access-Control-Allow-Origin"] is None


def test_a_name_that_somebody_points_here_is_answered_nothing(up: Callable[..., int]) -> None:
    port = up(host_names=["status.example.org"])
    good = (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", f"LOCALHOST:{port}", "status.example.org",
            f"status.example.org:{port}")  # fmt: skip
    bad = ("evil.example", f"evil.example:{port}", "localhost", f"localhost:{port + 1}", f"localhost.:{port}", "",
           f"localhost:{port}.evil.example", f"evil.example@localhost:{port}", "sub.status.example.org")  # fmt: skip
    assert {get(port, Host=name)[0].status for name in good} == {200}
    for name in bad:
        answer, body = get(port, "/status.json", Host=name)
        assert (answer.status, b"web01" in body) == (421, False), name
    two = f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil.example\r\n\r\n"
    assert raw(port, two.encode()).startswith(b"HTTP/1.0 421")
    assert raw(port, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 421")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "get", "FOO"])
def test_nothing_but_reading(up: Callable[..., int], method: str) -> None:
    answer, _ = get(up(), "/", method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_no_path_leads_to_a_file(up: Callable[..., int]) -> None:
    port = up()
    for path in (
        "/../../etc/passwd", "/hosts/../../../etc/passwd", "/hosts/..%2f..%2fetc%2fpasswd", "/hosts/", "/hosts",
        "//etc/passwd", "/hosts/%2e%2e/index.html", "/style.css", "/hosts/web01", "/hosts/nobody.html", "/.git/config",
    ):  # fmt: skip
        answer, body = get(port, path)
        assert (answer.status, b"root:" in body) == (404, False), path
    proxied = f"GET http://evil.example/ HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
    assert raw(port, proxied.encode()).startswith(b"HTTP/1.0 400")


def test_what_was_asked_for_is_not_repeated(up: Callable[..., int]) -> None:
    port = up()
    for text in (b"GET /<script>alert(1)</script> HTTP/1.1", b"<script> / HTTP/1.1", b"GET <script>", b"<script>"):
        answer = raw(port, text + f"\r\nHost: localhost:{port}\r\n\r\n".encode())
        assert b"<script>" not in answer
    split = get(port, "/%0d%0aSet-Cookie:%20a=b")[0]
    assert split.headers["Set-Cookie"] is None


def test_a_request_is_short(up: Callable[..., int]) -> None:
    port = up()
    for head in (
        b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 20000,
        b"GET / HTTP/1.1\r\nX: a\r\n" * 2000,
    ):  # fmt: skip
        answer = raw(port, head)
        assert answer == b"" or answer.startswith(b"HTTP/1.0 431")
    assert get(port)[0].status == 200


def test_who_is_slow_is_let_go(up: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte now and then is as slow as none at all."""
    monkeypatch.setattr(serve, "PATIENCE", 0.3)
    with socket.create_connection(("127.0.0.1", up()), timeout=20) as connection:
        ended = False
        for byte in b"GET / HTTP/1.1\r\n" * 20:
            try:
                connection.sendall(bytes([byte]))
                connection.settimeout(0.02)
                ended = connection.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                ended = True
            if ended:
                break
        assert ended


def test_many_who_wait_keep_out_only_so_many(up: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "CONNECTIONS", 3)
    port = up()
    waiting = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(8)]
    refused = [each for each in waiting if _is_closed(each)]
    assert 5 <= len(refused) < 8
    for each in waiting:
        each.close()
    _until(lambda: raw(port, f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n".encode()).startswith(b"HTTP/1.0 200"))


def _is_closed(connection: socket.socket) -> bool:
    connection.settimeout(1)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_token_opens(up: Callable[..., int]) -> None:
    port = up(token=TOKEN)
    for headers in (
        {}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": f"nixherd-{port}={TOKEN}"}, {"Cookie": f"nixherd-{port}="}, {"Authorization": "Bearer \xff"},
    ):  # fmt: skip
        for path in ("/", "/status.json", "/metrics", "/events", "/hosts/web01.html", "/nothing", "/?token=wrong"):
            answer, body = get(port, path, **headers)
            assert (answer.status, b"web01" in body) == (401, False)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert get(port, "/metrics", Authorization=f"Bearer {TOKEN}")[0].status == 200


def test_a_token_is_once_in_the_address(up: Callable[..., int]) -> None:
    port = up(token=TOKEN)
    answer, body = get(port, f"/?token={TOKEN}")
    assert (answer.status, answer.headers["Location"], body) == (303, "/", b"")
    cookie, *attributes = answer.headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= {*attributes}
    assert TOKEN not in cookie
    assert get(port, Cookie=f"other=1; {cookie}")[0].status == 200
    assert get(port, f"/?token={TOKEN}", Host="evil.example")[0].status == 421


def test_a_token_is_a_file_of_ours_alone(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(Usage, match="openssl rand"):
        read_token(file)
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o640)
    with pytest.raises(Usage, match="others may read it"):
        read_token(file)
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    for text in ("short", "two words" * 10, "ü" * 40, ""):
        file.write_text(text)
        with pytest.raises(Usage, match="--token-file"):
            read_token(file)


def test_others_need_a_token(shown: Shown) -> None:
    for address in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(Usage, match="--token-file FILE, or --socket"):
            listen(shown, address, 0)


def test_an_address_that_is_taken(shown: Shown, up: Callable[..., int]) -> None:
    with pytest.raises(Usage, match="in use; name a free port"):
        listen(shown, "127.0.0.1", up())


def test_a_socket_is_of_one_account(shown: Shown, tmp_path: Path) -> None:
    path = tmp_path / "s"
    serving = listen_on_socket(shown, path)
    assert path.stat().st_mode & 0o777 == 0o600
    for name, status in (("localhost", b"200"), ("evil.example", b"421")):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.0 " + status
    with pytest.raises(Usage, match="somebody listens there"):
        listen_on_socket(shown, path)
    serving.close()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    listen_on_socket(shown, path).close()
    path.write_text("a file")
    with pytest.raises(Usage, match="is not a socket"):
        listen_on_socket(shown, path)
    assert path.read_text() == "a file"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Usage, match="is not a socket"):
        listen_on_socket(shown, path)


def test_listeners_hear_of_what_is_newer(shown: Shown, up: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "LISTENERS", 1)
    port = up()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", f"/events?since={shown.version}")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert [answer.readline(), answer.readline()] == [b"retry: 5000\n", b"\n"]
        assert get(port, "/events")[0].status == 503
        shown.look(lambda: gathered(overview()))
        lines = [answer.readline() for _ in range(4)]
        assert lines == [
            f"id: {shown.version}\n".encode(),
            b"event: refresh\n",
            f"data: {shown.version}\n".encode(),
            b"\n",
        ]
        old = f"/events?since={shown.version}x"
        answer.close()  # which holds the connection, too
    monkeypatch.setattr(serve, "PULSE", 0.05)
    shown.look(lambda: gathered(overview()))  # by which it sees that the first listener is gone
    _until(lambda: _first(port, old).startswith(b"id: "))


def _first(port: int, path: str) -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read() if answer.status != 200 else [answer.readline() for _ in range(3)][2]


def test_a_look_that_failed_is_said_beside_what_was_seen_before(up: Callable[..., int]) -> None:
    def fail() -> Gathered:
        raise FleetError("<b>fleet.file</b> cannot be read")

    shown = Shown()
    serving = listen(shown, "127.0.0.1", 0)
    port = int(serving.url.rstrip("/").rpartition(":")[2])
    answer, body = get(port)
    assert (answer.status, b"first time" in body) == (503, True)
    shown.look(fail)
    assert b"cannot be read" in get(port)[1]
    shown.look(lambda: gathered(overview(hosts=(host("web01"),))))
    shown.look(fail)
    answer, body = get(port)
    assert answer.status == 200
    assert b"web01" in body
    assert b"Looking again failed" in body
    assert b"<b>fleet" not in body
    shown.look(lambda: gathered(overview(hosts=(host("web01"),))))
    assert b"Looking again failed" not in get(port)[1]
    serving.close()


def _open_now() -> tuple[int, int]:
    return threading.active_count(), len([*Path("/proc/self/fd").iterdir()])


def test_nothing_stays_behind(shown: Shown) -> None:
    before = _open_now()
    serving = listen(shown, "127.0.0.1", 0)
    assert get(int(serving.url.rstrip("/").rpartition(":")[2]))[0].status == 200
    serving.close()
    _until(lambda: all(now <= then for now, then in zip(_open_now(), before, strict=True)))
