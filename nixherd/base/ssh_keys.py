"""SSH public keys as OpenSSH writes them into `.pub` files, authorized_keys and known_hosts.

Formats: sshd(8) "AUTHORIZED_KEYS FILE FORMAT" and "SSH_KNOWN_HOSTS FILE FORMAT"; the blob is RFC 4253 §6.6,
RFC 5656 §3.1, RFC 8709 §4 and OpenSSH's PROTOCOL.u2f.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# Per type the fields of the blob after the type word itself: a length in bytes, a literal, or None for any.
_ED25519 = 32
_FIELDS: dict[str, tuple[int | bytes | None, ...]] = {
    "ssh-ed25519": (_ED25519,),
    "ssh-rsa": (None, None),
    "ecdsa-sha2-nistp256": (b"nistp256", 65),
    "ecdsa-sha2-nistp384": (b"nistp384", 97),
    "ecdsa-sha2-nistp521": (b"nistp521", 133),
    "sk-ssh-ed25519@openssh.com": (_ED25519, None),
    "sk-ecdsa-sha2-nistp256@openssh.com": (b"nistp256", 65, None),
}
KNOWN_TYPES = tuple(_FIELDS)
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"  # of a machine, its private half
HOST_KEY_FILE = f"{HOST_KEY}.pub"

_HOST_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
# The options before a key in authorized_keys: words and word="quoted", separated by commas, no bare blanks.
_OPTIONS = re.compile(r'(?:[^\s",]+(?:="(?:[^"\\]|\\.)*")?(?:,|(?=\s)))+')


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key; `blob` is the key's base64 as it stands in files, `comment` may be empty."""

    type: str
    blob: str
    comment: str = field(default="", compare=False)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.type, self.blob, self.comment)))

    @property
    def bare(self) -> str:
        """Type and blob without the comment, as known_hosts wants it."""
        return f"{self.type} {self.blob}"

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it: `SHA256:` and unpadded base64."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A private key in OpenSSH's PEM form, unencrypted, and its public half as one line."""

    private_openssh: str = field(repr=False)
    public: str


def parse_public_key(text: str) -> PublicKey:
    """One public key from one line `TYPE BASE64 [COMMENT]`. ValueError says what is wrong with it."""
    line = text.strip()
    if "\n" in line or "\r" in line:
        raise ValueError("it is more than one line")
    if "PRIVATE KEY" in line:
        raise ValueError("it is a private key")
    kind, _, rest = line.partition(" ")
    blob, _, comment = rest.strip().partition(" ")
    if kind not in _FIELDS:
        raise ValueError(f"it does not begin with a key type such as {KNOWN_TYPES[0]}")
    if not blob:
        raise ValueError(f"nothing follows the type {kind}")
    _check_blob(kind, blob)
    return PublicKey(kind, blob, comment.strip())


def same_key(one: str, other: str) -> bool:
    """Whether two public keys are the same, however their base64 is written. ValueError when one is none."""
    return parse_public_key(one).fingerprint == parse_public_key(other).fingerprint


def parse_authorized_key(text: str) -> PublicKey:
    """The key of one authorized_keys line, whose options (`restrict,command="…" ssh-ed25519 …`) are allowed for."""
    line = text.strip()
    if not line.startswith(KNOWN_TYPES) and (options := _OPTIONS.match(line)):
        line = line[options.end() :]
    return parse_public_key(line)


def generate_ed25519(comment: str) -> KeyPair:
    """A new ed25519 key pair. ValueError if the comment is more than one line."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if not comment.isprintable():
        raise ValueError("the comment of a key is one line")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return KeyPair(private, _public_line(key, comment))


def pair_of(private_openssh: str, comment: str = "") -> KeyPair:
    """The pair of an ed25519 private key in OpenSSH's PEM form, unencrypted. ValueError says what is wrong with it."""
    return KeyPair(private_openssh, _public_line(private_key(private_openssh), comment))


def private_key(private_openssh: str) -> "Ed25519PrivateKey":
    """The ed25519 key in OpenSSH's PEM form, unencrypted. ValueError says what is wrong with it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(private_openssh.encode(), password=None)
    except UnsupportedAlgorithm:
        raise ValueError("it is not an ed25519 key") from None
    except TypeError:
        raise ValueError("it is encrypted with a passphrase") from None
    except ValueError:
        raise ValueError("it is not a private key in OpenSSH's form, or damaged") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it is not an ed25519 key")
    return key


def _public_line(key: "Ed25519PrivateKey", comment: str) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"{public} {comment}".strip()


def known_hosts_name(address: str, port: int = 22) -> str:
    """How known_hosts names a server: the plain name or address, with a port other than 22 as `[name]:port`."""
    if not _HOST_NAME.fullmatch(address) or address.startswith("-"):
        raise ValueError(f"{address!r} is not a hostname or address")
    return address if port == 22 else f"[{address}]:{port}"


def known_hosts_line(addresses: str | Iterable[str], public: str | PublicKey, port: int = 22) -> str:
    """One known_hosts line, without its newline, that pins the key for all these addresses."""
    names = [addresses] if isinstance(addresses, str) else list(addresses)
    if not names:
        raise ValueError("a known_hosts line needs an address")
    key = parse_public_key(public) if isinstance(public, str) else public
    return f"{','.join(known_hosts_name(name, port) for name in names)} {key.bare}"


def _check_blob(kind: str, blob: str) -> None:
    try:
        data = base64.b64decode(blob, validate=True)
    except binascii.Error:
        raise ValueError("its second word is not base64") from None
    fields = _split(data)
    if fields is None:
        raise ValueError("its base64 is cut off or damaged")
    named = fields[0].decode("ascii", "replace") if fields else ""
    if named != kind:
        shown = named if named.isprintable() else "something else"
        raise ValueError(f"its type word says {kind}, its base64 says {shown or 'nothing'}")
    expected = _FIELDS[kind]
    if len(fields) != 1 + len(expected) or not all(map(_fits, expected, fields[1:])):
        raise ValueError(f"its base64 is not a {kind} key: cut off or damaged")


def _fits(expected: int | bytes | None, value: bytes) -> bool:
    if isinstance(expected, int):
        return len(value) == expected
    return bool(value) if expected is None else value == expected


def _split(data: bytes) -> list[bytes] | None:
    """The length-prefixed strings of a blob; None if their lengths do not add up."""
    fields = []
    while data:
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 + size:
            return None
        fields.append(data[4 : 4 + size])
        data = data[4 + size :]
    return fields
