"""An HTTPS server on loopback that answers as a test tells it, and keeps what it was asked."""

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nixherd.fleet.models import Endpoint


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: str


@dataclass
class Answer:
    """`data` becomes the body; `hang_up` closes the connection instead."""

    data: Any = None
    status: int = 200
    reason: str = "OK"
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False


class Scripted:
    """`answer` decides what each request gets; `asked` is all that came in."""

    def __init__(self, certificate: Path) -> None:
        self.answer: Callable[[Asked], Answer] = lambda _: Answer()
        self.asked: list[Asked] = []
        self.certificate = certificate
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                asked = Asked(self.command, self.path, dict(self.headers), self.rfile.read(length).decode())
                scripted.asked.append(asked)
                answer = scripted.answer(asked)
                if answer.hang_up:
                    self.close_connection = True
                    return
                body = json.dumps({"data": answer.data}).encode() if answer.body is None else answer.body
                self.send_response(answer.status, answer.reason)
                for key, value in {**answer.headers, "Content-Length": str(len(body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def fingerprint(self) -> str:
        return sha256(ssl.PEM_cert_to_DER_cert(_public(self.certificate))).hexdigest()

    def endpoint(self, **values: Any) -> Endpoint:
        return Endpoint(
            "127.0.0.1", "prom", "nvmeprom", port=self.port, **(values or {"fingerprint": self.fingerprint})
        )


def _public(pem: Path) -> str:
    text = pem.read_text()
    return text[text.index("-----BEGIN CERTIFICATE") :]


@contextmanager
def serving(certificate: Path) -> Iterator[Scripted]:
    scripted = Scripted(certificate)
    thread = threading.Thread(target=scripted.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield scripted
    scripted.server.shutdown()
    scripted.server.server_close()
    thread.join()


def make_certificate(path: Path, address: str = "127.0.0.1") -> Path:
    """Key and self-signed certificate in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "prom")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
