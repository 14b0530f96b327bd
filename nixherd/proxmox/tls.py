"""By what the API's certificate is known: what the token's file says, and nothing from the environment.

OpenSSL and Python follow SSL_CERT_FILE, SSL_CERT_DIR and SSLKEYLOGFILE where a context is made with their defaults.
"""

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from nixherd.errors import FleetError
from nixherd.fleet.models import Endpoint
from nixherd.proxmox.token import Token

_DECLARED = "proxmox.caFile {} in vms/definitions.nix"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


@dataclass(frozen=True)
class Trust:
    """What a connection is judged by: a context, and the certificate's SHA-256 where one is pinned."""

    context: ssl.SSLContext
    fingerprint: str | None


def trust(endpoint: Endpoint, token: Token) -> Trust:
    """How to know the server that `endpoint` names and `token` belongs to.

    Refused when they are not the same, FleetError when the CA file cannot be used. Nothing is sent.
    """
    certificates = (
        read_authorities(endpoint.ca_file, _DECLARED) if endpoint.ca_file and not endpoint.fingerprint else []
    )
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
    """The certificates of a PEM file; `what` names it in messages. FleetError when there is none that can be used."""
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
    """The SHA-256 of each, as 64 lower-case hex digits."""
    return [sha256(ssl.PEM_cert_to_DER_cert(each)).hexdigest() for each in certificates]


def _trust_the_system(context: ssl.SSLContext) -> None:
    """Load the authorities from where OpenSSL was built to look for them."""
    built_in = ssl.get_default_verify_paths()
    file, directory = Path(built_in.openssl_cafile), Path(built_in.openssl_capath)
    if not file.is_file() and not directory.is_dir():
        raise FleetError(
            f"this system has no certificate authorities at {file} or {directory}; give proxmox.fingerprint or "
            "proxmox.caFile in vms/definitions.nix"
        )
    context.load_verify_locations(
        cafile=str(file) if file.is_file() else None, capath=str(directory) if directory.is_dir() else None
    )
