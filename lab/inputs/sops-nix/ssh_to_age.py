"""Print the age identity of an Ed25519 host key in OpenSSH's format; needs only the standard library.

Format: OpenSSH's PROTOCOL.key; the scalar is the first half of the seed's SHA-512, written in Bech32 (BIP 173).
"""

import base64
import hashlib
import sys

CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def string(data: bytes) -> tuple[bytes, bytes]:
    """Return a length-prefixed string and the bytes after it."""
    end = 4 + int.from_bytes(data[:4], "big")
    return data[4:end], data[end:]


def seed_of(pem: str) -> bytes:
    body = base64.b64decode("".join(line for line in pem.splitlines() if "-----" not in line))
    header = b"openssh-key-v1\0"
    assert body.startswith(header), "this is not a key in OpenSSH's format"
    cipher, rest = string(body[len(header) :])
    assert cipher == b"none", "the key is encrypted"
    _, rest = string(rest)  # the KDF, its options, the number of keys, the public key
    _, rest = string(rest)
    _, rest = string(rest[4:])
    private, _ = string(rest)
    kind, rest = string(private[8:])
    assert kind == b"ssh-ed25519", f"expected an Ed25519 key, got {kind.decode()}"
    _, rest = string(rest)
    return string(rest)[0][:32]


def checksum(values: list[int]) -> int:
    state = 1
    for value in values:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            state ^= generator * (top >> bit & 1)
    return state


def bech32(prefix: str, data: bytes) -> str:
    bits = "".join(f"{byte:08b}" for byte in data)
    words = [int(bits[at : at + 5].ljust(5, "0"), 2) for at in range(0, len(bits), 5)]
    spread = [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]
    check = checksum([*spread, *words, *[0] * 6]) ^ 1
    return (
        prefix + "1" + "".join(CHARACTERS[word] for word in [*words, *(check >> 5 * (5 - at) & 31 for at in range(6))])
    )


def identity(pem: str) -> str:
    """Return the age identity of a host key. AssertionError, ValueError or IndexError for what is not one."""
    return bech32("age-secret-key-", hashlib.sha512(seed_of(pem)).digest()[:32]).upper()


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print(identity(file.read()))
