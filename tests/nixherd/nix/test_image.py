"""An installer that is fetched by its hash, by the real Nix from a server on loopback."""

import base64
import functools
import gzip
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nixherd.base.errors import FleetError
from nixherd.nix.image import fetched, require_gzip
from tests import nix_cli

pytestmark = pytest.mark.nix
TARBALL = gzip.compress(b"a kexec installer", mtime=0)
SHA256 = f"sha256-{base64.b64encode(hashlib.sha256(TARBALL).digest()).decode()}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the tarball is served."""
    for name, value in nix_cli.environment().items():
        monkeypatch.setenv(name, value)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "installer.tar.gz").write_bytes(TARBALL)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_it_is_the_file_of_that_hash(place: str) -> None:
    file = Path(fetched(f"{place}/installer.tar.gz", SHA256))
    assert file.read_bytes() == TARBALL
    require_gzip(file)


def test_another_file_is_refused(place: str) -> None:
    other = f"sha256-{base64.b64encode(bytes(32)).decode()}"
    with pytest.raises(FleetError, match=r"^kexec: http://127.*hash mismatch"):
        fetched(f"{place}/installer.tar.gz", other)


def test_what_is_not_there_is_said(place: str) -> None:
    with pytest.raises(FleetError, match=r"^kexec: http://127.*404"):
        fetched(f"{place}/gone.tar.gz", SHA256)
