"""Host keys that the operator knows already, by their known_hosts files or by a certificate authority named there.

Nothing here is trusted on first use: an entry is compared with what a person confirms, and a certificate is verified
with the authority's key. Formats: sshd(8) "SSH_KNOWN_HOSTS FILE FORMAT", OpenSSH's PROTOCOL.certkeys.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from nixherd.base.errors import FleetError
from nixherd.base.process import run
from nixherd.base.ssh_keys import PublicKey, known_hosts_name, parse_public_key

_DEADLINE = 30.0  # seconds for ssh-keygen and ssh-keyscan
_AUTHORITY, _REVOKED = "@cert-authority", "@revoked"
KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
"""the types of host keys, the one that is preferred first"""


@dataclass(frozen=True)
class Known:
    """A key that a known_hosts file has for a name, or an authority whose word counts for it."""

    key: PublicKey
    name: str
    where: str
    """the file and its line"""
    mark: str = ""
    """@cert-authority, or nothing"""

    @property
    def is_authority(self) -> bool:
        return self.mark == _AUTHORITY


def usual_files() -> list[Path]:
    """The known_hosts files that OpenSSH reads without further configuration, of those that exist."""
    places = [Path.home() / ".ssh" / "known_hosts", Path("/etc/ssh/ssh_known_hosts")]
    return [path for path in places if path.is_file()]


def known(files: Iterable[Path], names: Sequence[str], port: int = 22) -> list[Known]:
    """What the files have for any of the names, without what they revoke. FleetError when one cannot be read."""
    found = [each for path in files for name in names for each in _of(path, name, port)]
    revoked = {each.key for each in found if each.mark == _REVOKED}
    return [each for each in dict.fromkeys(found) if each.key not in revoked]


def _of(path: Path, name: str, port: int) -> Iterator[Known]:
    """Ask ssh-keygen, which knows hashed names and patterns."""
    try:
        word = known_hosts_name(name, port)
    except ValueError:
        return
    done = run(["ssh-keygen", "-F", word, "-f", str(path)], timeout=_DEADLINE, check=False)
    if done.status not in (0, 1) or (done.status == 1 and done.stderr.strip()):
        raise FleetError(f"{path}: cannot be searched: {done.stderr.strip() or 'ssh-keygen does not say why'}")
    where = str(path)
    for line in done.stdout.splitlines():
        if line.startswith("#"):
            where = f"{path}:{line.split()[-1]}" if " line " in line else str(path)
            continue
        words = line.split()
        mark = words.pop(0) if words and words[0].startswith("@") else ""
        try:
            key = parse_public_key(" ".join(words[1:]))
        except ValueError:  # of a type that we do not know
            continue
        yield Known(key, name, where, mark)


@dataclass(frozen=True)
class Certified:
    """A host key that an authority has certified for a name, until a moment in seconds since 1970."""

    key: PublicKey
    authority: Known
    until: int


def certified(authorities: Iterable[Known], names: Sequence[str], address: str, port: int = 22) -> Certified | None:
    """Ask the machine at an address for its certificate, and verify it; None where it shows none that counts.

    FleetError where it shows one of a known authority that does not hold: another name, another time, a wrong
    signature. Nothing but a key exchange is sent.
    """
    argv = ["ssh-keyscan", "-T", "5", "-c", "-p", str(port), "--", address]
    shown = run(argv, timeout=_DEADLINE, check=False).stdout
    by_key = {each.key.bare: each for each in authorities if each.is_authority}
    for line in shown.splitlines():
        words = line.split()
        if line.startswith("#") or len(words) < 3 or "-cert-v01@" not in words[1]:
            continue
        if found := _verified(" ".join(words[1:3]), by_key, names):
            return found
    return None


def _verified(text: str, by_key: dict[str, Known], names: Sequence[str]) -> Certified | None:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        SSHCertificate,
        SSHCertificateType,
        load_ssh_public_identity,
    )

    try:
        certificate = load_ssh_public_identity(text.encode())
        if not isinstance(certificate, SSHCertificate):
            return None
        signer = certificate.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        host_key = certificate.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (ValueError, UnsupportedAlgorithm):
        return None
    authority = by_key.get(parse_public_key(signer).bare)
    if authority is None:
        return None
    what = f"its certificate {certificate.key_id.decode(errors='replace')!r}"
    try:
        certificate.verify_cert_signature()
    except InvalidSignature:
        raise FleetError(f"{what} has a wrong signature") from None
    if certificate.type is not SSHCertificateType.HOST:
        raise FleetError(f"{what} is a user's, not a host's")
    if not certificate.valid_after <= time.time() < certificate.valid_before:
        raise FleetError(f"{what} is not valid now")
    if certificate.critical_options:
        raise FleetError(f"{what} has critical options, which nobody here knows")
    principals = [each.decode(errors="replace") for each in certificate.valid_principals]
    if not any(fnmatchcase(name, pattern) for name in names for pattern in principals):
        raise FleetError(f"{what} is for {', '.join(principals) or 'nobody'}, not for {names[0]}")
    return Certified(parse_public_key(host_key), authority, certificate.valid_before)


def preferred(found: Iterable[Known]) -> list[Known]:
    """Keys of hosts, each once, of the type that is preferred of those at hand: a machine has one of each."""
    keys = {each.key.bare: each for each in found if not each.is_authority}
    kind = min((each.key.type for each in keys.values()), key=_rank, default="")
    return [each for each in keys.values() if each.key.type == kind]


def _rank(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else len(KINDS)
