"""The `$5$` password hash (SHA-256 crypt, as specified by Ulrich Drepper), which Python no longer has."""

import hashlib
import secrets

_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS = 5000


def _repeated(block: bytes, length: int) -> bytes:
    return (block * (length // len(block) + 1))[:length]


def sha256_crypt(password: str, salt: str | None = None) -> str:
    """Return the hash of a password with a new salt, or with the given one (at most 16 characters)."""
    salt = salt or "".join(secrets.choice(_ALPHABET) for _ in range(8))
    key, grain = password.encode(), salt.encode()[:16]
    alternate = hashlib.sha256(key + grain + key).digest()
    first = key + grain + _repeated(alternate, len(key))
    bits = len(key)
    while bits:
        first += alternate if bits & 1 else key
        bits >>= 1
    digest = hashlib.sha256(first).digest()
    p = _repeated(hashlib.sha256(key * len(key)).digest(), len(key))
    s = _repeated(hashlib.sha256(grain * (16 + digest[0])).digest(), len(grain))
    for number in range(_ROUNDS):
        odd = number & 1
        middle = (s if number % 3 else b"") + (p if number % 7 else b"")
        digest = hashlib.sha256((p if odd else digest) + middle + (digest if odd else p)).digest()
    return f"$5${salt}${_encode(digest)}"


def _encode(digest: bytes) -> str:
    a, b, c = 0, 10, 20
    text = ""
    for _ in range(10):
        text += _characters(digest[a] << 16 | digest[b] << 8 | digest[c], 4)
        a, b, c = c + 1, a + 1, b + 1
    return text + _characters(digest[31] << 8 | digest[30], 3)


def _characters(value: int, count: int) -> str:
    return "".join(_ALPHABET[value >> 6 * n & 63] for n in range(count))
