"""Age keys out of SSH keys: the recipient of an Ed25519 host key, and the identity that decrypts for it.

The conversion is that of ssh-to-age, which sops-nix decrypts with: the point on Edwards25519 becomes its u coordinate
on Curve25519 (by libsodium), the private scalar is the first half of the seed's SHA-512 (RFC 8032 §5.1.5); both are
written in Bech32 (BIP 173) with age's prefixes (age-encryption.org/v1, "X25519 recipient stanza"). Where `ssh-to-age`
is on PATH it is run as well, and must agree.
"""

import base64
import functools
import hashlib
import re
import secrets
import shutil
from collections.abc import Callable, Iterable

from nixherd.base.errors import FleetError, ProcessFailed
from nixherd.base.process import run
from nixherd.base.ssh_keys import PublicKey, parse_public_key, private_key

RECIPIENT_PREFIX, IDENTITY_PREFIX = "age", "age-secret-key-"
ED25519 = "ssh-ed25519"
SSH_TO_AGE = "ssh-to-age"

_CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")


def recipient_of(public: str | PublicKey) -> str:
    """The age recipient (`age1…`) of an SSH public key. ValueError says why there is none."""
    from nacl.bindings import crypto_sign_ed25519_pk_to_curve25519
    from nacl.exceptions import CryptoError

    key = parse_public_key(public) if isinstance(public, str) else public
    if key.type != ED25519:
        raise ValueError(f"it is an {key.type} key; age recipients come from {ED25519} keys only")
    try:
        return _encode(RECIPIENT_PREFIX, crypto_sign_ed25519_pk_to_curve25519(base64.b64decode(key.blob)[-32:]))
    except CryptoError:
        raise ValueError("it is not a point of the curve that can be a key: damaged") from None


def identity_of(private_openssh: str) -> str:
    """The age identity (`AGE-SECRET-KEY-1…`) of an SSH private key in OpenSSH's PEM form. ValueError as above."""
    # not clamped, as ssh-to-age has it: X25519 sets and clears its bits whenever it is used
    scalar = hashlib.sha512(private_key(private_openssh).private_bytes_raw()).digest()[:32]
    return _encode(IDENTITY_PREFIX, scalar).upper()


@functools.lru_cache(1024)  # a fleet has few, in many rules and files
def is_recipient(text: str) -> bool:
    """Whether it is an age recipient, its checksum included."""
    return _RECIPIENT.fullmatch(text) is not None and _polymod(_values(text)) == 1


def recipient_of_identity(text: str) -> str:
    """The recipient of an age identity, `AGE-SECRET-KEY-1…`. ValueError where it is damaged."""
    from nacl.bindings import crypto_scalarmult_base

    lower = text.lower()
    if not is_bech32(lower) or not lower.startswith(f"{IDENTITY_PREFIX}1"):
        raise ValueError("it is mistyped or cut off")
    return _encode(RECIPIENT_PREFIX, crypto_scalarmult_base(_decoded(lower)))


def recipient_of_nobody() -> str:
    """A recipient that is made at random: nobody has its identity."""
    return _encode(RECIPIENT_PREFIX, secrets.token_bytes(32))


def is_bech32(text: str) -> bool:
    """Whether it is written in Bech32, its checksum included: what an age plugin's recipient is."""
    prefix, separator, data = text.rpartition("1")
    is_written = bool(prefix and separator) and set(data) <= set(_CHARACTERS) and len(data) >= 6
    return is_written and _polymod(_values(text)) == 1


def recipient(public: str) -> str:
    """The age recipient of an SSH public key line. FleetError says why there is none."""
    return _converted(public, [], recipient_of)


def identity(private_openssh: str) -> str:
    """The age identity of an SSH private key in OpenSSH's PEM form; it travels on stdin. FleetError as above."""
    return _converted(private_openssh, ["-private-key"], identity_of)


def _converted(text: str, options: list[str], convert: Callable[[str], str]) -> str:
    try:
        expected = convert(text)  # says what is wrong with a key in words of ours
    except ValueError as error:
        raise FleetError(f"it cannot become an age key: {error}") from None
    if shutil.which(SSH_TO_AGE) is None:
        return expected
    try:
        converted = run([SSH_TO_AGE, *options], input=text, timeout=30).stdout.strip()
    except ProcessFailed as error:
        raise FleetError(f"{SSH_TO_AGE}: status {error.status}; remove it from PATH, or mend it") from None
    if converted != expected:
        raise FleetError(f"{SSH_TO_AGE} on PATH converts this key otherwise than expected; nothing was done with it")
    return converted


# Bech32


def _encode(prefix: str, data: bytes) -> str:
    bits = int.from_bytes(data, "big") << (-len(data) * 8 % 5)
    length = -(-len(data) * 8 // 5)
    words = [bits >> 5 * place & 31 for place in reversed(range(length))]
    check = _polymod([*_expanded(prefix), *words, 0, 0, 0, 0, 0, 0]) ^ 1
    words += [check >> 5 * place & 31 for place in reversed(range(6))]
    return f"{prefix}1{''.join(_CHARACTERS[word] for word in words)}"


def _decoded(text: str) -> bytes:
    number = 0
    words = text.rpartition("1")[2][:-6]
    for letter in words:
        number = number << 5 | _CHARACTERS.index(letter)
    length = len(words) * 5 // 8
    return (number >> len(words) * 5 % 8).to_bytes(length, "big")


def _values(text: str) -> list[int]:
    prefix, _, data = text.rpartition("1")
    return [*_expanded(prefix), *map(_CHARACTERS.index, data)]


def _expanded(prefix: str) -> list[int]:
    return [*(ord(letter) >> 5 for letter in prefix), 0, *(ord(letter) & 31 for letter in prefix)]


def _polymod(values: Iterable[int]) -> int:
    generators = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(generators):
            checksum ^= generator if top >> place & 1 else 0
    return checksum
