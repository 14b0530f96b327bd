"""Whom the rolling update trusts with its token, and origins and keys that it refuses."""

import base64
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.fleet.rolling import Forge

pytestmark = pytest.mark.nix

TOKEN = "t0ken-of-this-test"


@contextmanager
def served(forge: Forge) -> Iterator[str]:
    """The origin by HTTPS, for whom has the token alone; gives its URL."""
    forge.sh(
        "openssl req -x509 -newkey ed25519 -nodes -days 1 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
        " -keyout tls.key -out tls.crt 2>/dev/null; git --git-dir=origin.git config http.receivepack true"
    )

    class Backend(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            output = base64.b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if output != f"x-access-token:{TOKEN}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            requests = {
                "GIT_PROJECT_ROOT": str(forge.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "REMOTE_USER": "x",
            }
            answer = subprocess.run(
                ["git", "http-backend"], input=body, env={**forge.env, **requests}, capture_output=True, check=True
            ).stdout
            head, _, content = answer.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(headers.pop("Status", "200").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *words: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(forge.root / "tls.crt", forge.root / "tls.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{server.server_port}/origin.git"
    finally:
        server.shutdown()
        server.server_close()


def test_the_token_gets_to_git_and_nowhere_else(forge: Forge) -> None:
    (forge.root / "bin").mkdir()
    for program in ("git", "nix"):
        seen = forge.root / "bin" / program
        seen.write_text(
            f'#!/bin/sh\n{{ tr "\\0" "\\n" </proc/self/environ; echo "$@"; }} >>{forge.root}/seen\n'
            f'PATH=${{PATH#{forge.root}/bin:}} exec {program} "$@"\n'
        )
        seen.chmod(0o755)
    (forge.root / "credentials/token").write_text(f"{TOKEN}\n")
    with served(forge) as url:
        (forge.root / "credentials/clone").write_text(f'[remote "origin"]\n\turl = {url}\n')
        trusted = {"GIT_SSL_CAINFO": str(forge.root / "tls.crt")}
        status, output = forge.run(**trusted)
        assert status == 0, output
        assert forge.told() == {"web01": ("1", forge.tip), "db01": ("1", forge.tip)}
        seen_text = (forge.root / "seen").read_text()
        assert "rev-parse" in seen_text
        assert "flake update" in seen_text
        assert TOKEN not in seen_text + output
        kept = [file for file in forge.state.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]
        assert not kept
        (forge.root / "credentials/token").write_text("another\n")
        forge.commit("readme", "words")
        status, output = forge.run(**trusted)
        assert (status, "main cannot be fetched" in output or "names no default branch" in output) == (1, True), output
        (forge.root / "credentials/token").unlink()
        status, output = forge.run("main", **trusted)
        assert (status, f"main cannot be fetched from {url}" in output) == (1, True), output


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "has no remote named origin"),
        ("https://me:secret@forge.example/fleet.git", "has a password in its URL"),
        ("http://forge.example/fleet.git", "does not use TLS"),
        ("ext::sh -c id", "has a URL that cannot be used"),
        ("--upload-pack=id", "has a URL that cannot be used"),
        # without SSH, which there is no key for
        ("git@127.0.0.1:me/fleet.git", "from https://127.0.0.1/me/fleet.git"),
        ("ssh://git@127.0.0.1:22/me/fleet.git", "from https://127.0.0.1/me/fleet.git"),
        ("https://me@127.0.0.1/fleet.git", "from https://127.0.0.1/fleet.git"),
    ],
)
def test_an_origin_that_cannot_be_used_is_said(tmp_path: Path, url: str | None, message: str) -> None:
    for name in ("credentials", "runtime", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "credentials/clone").write_text(f'[remote "origin"]\n\turl = {url}\n' if url else "")
    (tmp_path / "credentials/token").write_text(f"{TOKEN}\n")
    (tmp_path / "credentials/key").write_text(f"t-1:{base64.b64encode(bytes(64)).decode()}\n")
    status, told = Forge(tmp_path).run("main")
    assert (status, message in told) == (1, True), told
    assert "secret" not in told


def test_a_key_that_is_none_is_said_before_anything_is_fetched(forge: Forge) -> None:
    (forge.root / "credentials/key").write_text("t-1:c2hvcnQ=\n")
    status, output = forge.run()
    assert (status, "signingKeyFile is not a key" in output) == (1, True)
    assert not (forge.state / "work/tree").exists()
