"""The API token, and by what the server that may be given it is known. The environment has no say in either.

The token's file is TOML that nobody else can read, written by `nixherd token add`: `server` is HOST:PORT, `fingerprint`
its certificate's SHA-256 or `authorities` a list of the SHA-256 of each certificate of a CA file, or "system"; `token`
is what pveum printed. OpenSSL and Python follow SSL_CERT_FILE, SSL_CERT_DIR and SSLKEYLOGFILE where a context is made
with their defaults, so none is.
"""

import ipaddress
import json
import os
import re
import ssl
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from nixherd.base.errors import FleetError, Refused
from nixherd.base.files import expanded
from nixherd.fleet.field_types import is_address, parse_fingerprint
from nixherd.fleet.models import DEFINITIONS, Endpoint
from nixherd.fleet.schema import DEFAULT_PORT

SHAPE = "USER@REALM!TOKENID=UUID"
SYSTEM = "system"
_TOKEN = re.compile(
    r"(?P<user>[^\s:/!@=\"\\]+@[A-Za-z][A-Za-z0-9._-]*)!(?P<name>[A-Za-z][A-Za-z0-9._-]*)"
    r"=(?P<secret>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"
)
_SERVER = re.compile(r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)|\[(?P<v6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?")
_ADD = "run: nixherd token add"


@dataclass(frozen=True, slots=True)
class Server:
    """An API server and by what it is known.

    `fingerprint` is its certificate's SHA-256, `authorities` are those of the certificates that may have signed it, as
    64 hex digits each; with neither the system's own authorities decide.
    """

    host: str
    port: int = DEFAULT_PORT
    fingerprint: str | None = None
    authorities: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, fingerprint: str | None = None, authorities: Sequence[str] = ()) -> "Server":
        """Return `HOST`, `HOST:PORT` or `[V6]:PORT`; the others with or without colons.

        Raise ValueError when it is none.
        """
        match = _SERVER.fullmatch(text.strip())
        port = int(match["port"] or DEFAULT_PORT) if match else 0
        if match is None or not 0 < port < 65536 or not is_address(match["name"] or match["v6"]):
            raise ValueError(f"{text!r} is not HOST:PORT")
        known = tuple(sorted(parse_fingerprint(each) for each in authorities))
        return cls(match["name"] or match["v6"], port, fingerprint and parse_fingerprint(fingerprint), known)

    @classmethod
    def of(cls, endpoint: Endpoint, authorities: Sequence[str] = ()) -> "Server":
        """Return the server of the definitions; `authorities` are those of their CA file."""
        return cls(endpoint.host, endpoint.port, endpoint.fingerprint, tuple(sorted(authorities)))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def known_by(self) -> str:
        """By what it is known, for people."""
        if self.fingerprint:
            return f"its certificate's SHA-256 {colons(self.fingerprint)}"
        if self.authorities:
            return f"the authority with SHA-256 {' or '.join(map(colons, self.authorities))}"
        return "the system's certificate authorities"

    def require(self, endpoint: Endpoint, authorities: Sequence[str], whose: str) -> None:
        """Refuse unless the definitions name this very server, with the same certificate or none."""
        named = Server.of(endpoint, authorities)
        remedy = f"nothing was sent; correct proxmox there, or if that is the server you mean, {_ADD} --replace"
        if (_plain(named.host), named.port) != (_plain(self.host), self.port):
            raise Refused(f"token {whose} belongs to {self}, and {DEFINITIONS} names {named}: {remedy}")
        known = named.fingerprint or named.authorities
        if (known or self.authorities) and known != (self.fingerprint or self.authorities):
            raise Refused(
                f"token {whose} knows {self} by {self.known_by}, and {DEFINITIONS} by {named.known_by}: {remedy}"
            )


@dataclass(frozen=True, slots=True)
class Token:
    """A Proxmox API token and whose it is. `user` includes the realm; the secret is in no representation."""

    user: str
    name: str
    secret: str = field(repr=False)
    server: Server

    @property
    def id(self) -> str:
        """`USER@REALM!TOKENID`: what may be shown."""
        return f"{self.user}!{self.name}"

    def __str__(self) -> str:
        return self.id

    @classmethod
    def parse(cls, text: str, server: Server) -> "Token":
        """Return one line `USER@REALM!TOKENID=UUID`. ValueError, without any of the text, when it is none."""
        match = _TOKEN.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"not of the form {SHAPE}")
        return cls(**match.groupdict(), server=server)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Token":
        """Read the token's file, of mode 0600.

        Raise FleetError when it is missing, readable by group or others, not ours, or holds anything else.
        """
        file = expanded(path)
        text = _read_private(file)
        if _TOKEN.fullmatch(text.strip()):
            raise _error(file, "it does not say which server the token belongs to")
        try:
            values = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError):
            raise _error(file, "not what `nixherd token add` writes") from None
        return _token(file, values)

    def to_toml(self) -> str:
        """Return the file's text, secret included."""
        if self.server.fingerprint:
            known = f'fingerprint = "{colons(self.server.fingerprint)}"'
        elif self.server.authorities:
            known = f"authorities = {json.dumps([colons(each) for each in self.server.authorities])}"
        else:
            known = f'authorities = "{SYSTEM}"'
        return (
            "# A token of one Proxmox VE server, written by `nixherd token add`. No other server is given it.\n"
            f'server = "{self.server}"\n{known}\ntoken = "{self.id}={self.secret}"\n'
        )


def _error(file: Path, what: str, remedy: str = f"{_ADD} --replace") -> FleetError:
    return FleetError(f"token file {file}: {what}; {remedy}")


def _token(file: Path, values: dict[str, Any]) -> Token:
    """Check the values of a token's file. FleetError, which shows none of them, for one that is wrong."""
    wrong = partial(_error, file)
    server, fingerprint, authorities, token = map(values.get, ("server", "fingerprint", "authorities", "token"))
    if unknown := values.keys() - {"server", "fingerprint", "authorities", "token"}:
        raise wrong(f"{min(unknown)!r} means nothing here")
    if not isinstance(server, str):
        raise wrong("server is missing: HOST:PORT, the one that the token belongs to")
    if (fingerprint is None) == (authorities is None):
        raise wrong("either fingerprint or authorities says by what the server is known")
    listed = [] if authorities in (None, SYSTEM) else authorities
    if fingerprint is not None and not isinstance(fingerprint, str):
        raise wrong("fingerprint is not a string")
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise wrong(f'authorities is neither "{SYSTEM}" nor a list of SHA-256 fingerprints')
    if authorities == []:
        raise wrong("authorities is empty: nobody could vouch for the server")
    try:
        known = Server.parse(server, fingerprint, listed)
    except ValueError as error:
        raise wrong(f"{error}") from None
    try:
        return Token.parse(str(token), known)
    except ValueError as error:
        raise wrong(f"token is {error}") from None


def colons(fingerprint: str) -> str:
    """Return `AB:CD:…`, as Proxmox shows it."""
    return ":".join(re.findall("..", fingerprint.upper()))


def _plain(host: str) -> str:
    """Normalize a name or an address."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().removesuffix(".")


def _read_private(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            status = os.fstat(stream.fileno())
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077:
                raise _error(file, f"group or others may use it (mode {mode:04o})", f"run: chmod 600 {file}")
            if status.st_uid not in (os.geteuid(), 0):
                raise _error(file, f"belongs to another user (uid {status.st_uid})", "make your own copy")
            text = stream.read(16384)
    except FileNotFoundError:
        raise _error(
            file, "missing", f"make an API token and {_ADD}, or name another file with PROXMOX_TOKEN_FILE"
        ) from None
    except OSError as error:
        raise _error(file, f"cannot be read: {error.strerror}", "check its path and mode") from None
    if not text.strip():
        raise _error(file, "empty")
    return text


_CA_FILE = f"proxmox.caFile {{}} in {DEFINITIONS}"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


@dataclass(frozen=True)
class Trust:
    """What a connection is judged by: a context, and the certificate's SHA-256 where one is pinned."""

    context: ssl.SSLContext
    fingerprint: str | None


def trust(endpoint: Endpoint, token: Token) -> Trust:
    """Return how to know the server that `endpoint` names and `token` belongs to; nothing is sent.

    Raise Refused when they differ, FleetError when the CA file cannot be used.
    """
    certificates = read_authorities(endpoint.ca_file, _CA_FILE) if endpoint.ca_file and not endpoint.fingerprint else []
    token.server.require(endpoint, fingerprints(certificates), token.id)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if token.server.fingerprint:
        # A pinned certificate needs no chain and no name: urllib3 compares its SHA-256 before anything is sent.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif certificates:
        context.load_verify_locations(cadata="\n".join(certificates))
    else:
        _trust_the_system(context)
    return Trust(context, token.server.fingerprint)


def read_authorities(file: str, what: str) -> list[str]:
    """Return the certificates of a PEM file; `what` names it in messages.

    Raise FleetError when it has none that can be used.
    """
    try:
        certificates = _CERTIFICATE.findall(Path(file).read_text(errors="replace"))
        if certificates:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(certificates))
            return certificates
        reason: object = "it holds no certificate"
    except OSError as error:  # ssl.SSLError is one
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror or error
    except ValueError:
        reason = "it holds no certificate"
    raise FleetError(f"{what.format(file)} cannot be used: {reason}; name a PEM file, or give a fingerprint instead")


def fingerprints(certificates: Sequence[str]) -> list[str]:
    """Return the SHA-256 of each, as 64 lower-case hex digits."""
    return [sha256(ssl.PEM_cert_to_DER_cert(each)).hexdigest() for each in certificates]


def _trust_the_system(context: ssl.SSLContext) -> None:
    """Load the authorities from where OpenSSL was built to look for them."""
    built_in = ssl.get_default_verify_paths()
    file, directory = Path(built_in.openssl_cafile), Path(built_in.openssl_capath)
    if not file.is_file() and not directory.is_dir():
        raise FleetError(
            f"this system has no certificate authorities at {file} or {directory}; give proxmox.fingerprint or "
            f"proxmox.caFile in {DEFINITIONS}"
        )
    context.load_verify_locations(
        cafile=str(file) if file.is_file() else None, capath=str(directory) if directory.is_dir() else None
    )
