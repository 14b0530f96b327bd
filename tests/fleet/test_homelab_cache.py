"""The cache server's virtual hosts in a real nginx: what is kept, what is asked again, what is not there."""

import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.nix_cli import nix_json

NARINFO = "/0c9ig0jivbqlnwqwqj4dzzcpb3pnf8xp.narinfo"
NAR = "/nar/1w1fff338fvdw53sqgamddn1b2xgds473pv6y13gizdbqjv4i5p3.nar.xz"


@dataclass
class Upstream:
    """A cache that has two files; `requests` are the paths requested."""

    server: ThreadingHTTPServer
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.requests.append(self.path)
            there = self.path in (NARINFO, NAR, "/nix-cache-info")
            self.send_response(200 if there else 404)
            self.end_headers()
            self.wfile.write(b"of upstream" if there else b"no")

        def log_message(self, *_: Any) -> None:
            pass

    found = Upstream(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    threading.Thread(target=found.server.serve_forever, daemon=True).start()
    yield found
    found.server.shutdown()
    found.server.server_close()


def free() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        port: int = it.getsockname()[1]
        return port


def server(name: str, host: dict[str, Any], port: int) -> str:
    """A virtual host as NixOS' nginx module writes it, but for TLS."""

    def location(path: str, at: dict[str, Any]) -> str:
        lines = [f"{key} {at[value]};" for key, value in KEYS.items() if at.get(value)]
        return f"location {path} {{ {' '.join(lines)}\n{at.get('extraConfig', '')} }}"

    parts = "\n".join(location(path, at) for path, at in host["locations"].items())
    root = f"root {host['root']};" if host.get("root") else ""
    return f"server {{ listen 127.0.0.1:{port}; server_name {name}; {root}\n{parts}\n}}"


KEYS = {"root": "root", "try_files": "tryFiles", "proxy_pass": "proxyPass", "return": "return"}


def test_the_virtual_hosts_serve_as_they_should(flake: Path, tmp_path: Path, upstream: Upstream) -> None:
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("there is no nginx here")
    kept, published = tmp_path / "mirror", tmp_path / "published"
    module = f"""{{lib, ...}}: {{
      homelab.cache.mirrorCacheRoot = "{kept}";
      homelab.nixCaches.upstream.url = "{upstream.url}/";
      services.nginx.virtualHosts."nixcache.ablz.au".root = "{published}";
      services.nix-serve.port = {upstream.server.server_address[1]};
    }}"""
    read = f"m: (m.extendModules {{modules = [({module})];}}).config.services.nginx.virtualHosts"
    hosts = nix_json("eval", "--json", f"{flake}#nixosConfigurations.proxmox-vm", "--apply", read)
    assert {host["forceSSL"] for host in hosts.values()} == {True}
    for directory in (kept / "nar", kept / "narinfo", kept / "temp", published / "systems"):
        directory.mkdir(parents=True)
    (published / "systems/dev").write_text("/nix/store/x")
    ports = {name: free() for name in hosts}
    configuration = tmp_path / "nginx.conf"
    servers = "\n".join(server(name, host, ports[name]) for name, host in hosts.items())
    # its workers are whoever runs the test
    configuration.write_text(f"""daemon off; pid {tmp_path}/pid; error_log stderr; user root;
      events {{}}
      http {{ access_log off; client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p;
        fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u; scgi_temp_path {tmp_path}/s;
        {servers} }}""")
    tested = subprocess.run([nginx, "-t", "-c", configuration], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr

    def get(name: str, path: str) -> tuple[int, str, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[name]}{path}", timeout=5) as response:
                return response.status, response.read().decode(), response.headers.get("Cache-Control", "")
        except urllib.error.HTTPError as error:
            return error.code, "", ""

    running = subprocess.Popen([nginx, "-c", configuration])
    try:
        _answers(ports["nix-mirror.ablz.au"])
        mirror, local = "nix-mirror.ablz.au", "nixcache.ablz.au"
        for _ in range(2):
            for path in (NARINFO, NAR):
                assert get(mirror, path) == (200, "of upstream", "")
        assert (kept / "narinfo" / NARINFO[1:]).read_text() == (
            kept / NAR[1:].replace("nar/", "nar/nar/", 1)
        ).read_text()
        assert upstream.requests == [NARINFO, NAR], "the second time it is served from the disk"
        assert [get(mirror, "/nix-cache-info")[0] for _ in range(2)] == [200, 200]
        assert upstream.requests[2:] == ["/nix-cache-info"] * 2
        absent = NARINFO.replace("0c9", "1c9")
        assert [get(mirror, path)[0] for path in (absent, absent, "/", "/../etc/passwd", "/log/x")][:3] == [404] * 3
        assert upstream.requests.count(absent) == 2, "what is not there today may be tomorrow"
        assert get(mirror, "/log/x")[0] == 404
        del upstream.requests[:]
        assert get(local, "/systems/dev") == (200, "/nix/store/x", "no-store")
        assert get(local, "/systems/other")[0] == 404
        assert upstream.requests == []
        assert get(local, NARINFO)[:2] == (200, "of upstream")
        assert upstream.requests == [NARINFO], "what the rolling update has not published is in the store"
    finally:
        running.terminate()
        running.wait(10)


def _answers(port: int) -> None:
    for _ in range(100):
        with socket.socket() as it:
            if it.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail("nginx does not answer")
