"""Age keys out of SSH keys, against two other implementations: Rust's age (pyrage) and Go's (age-keygen)."""

import base64
import subprocess

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import FleetError
from nixherd.base.ssh_keys import generate_ed25519
from nixherd.ssh.age import identity, identity_of, is_recipient, recipient, recipient_of
from tests.nix_cli import environment
from tests.properties import examples

# RFC 8032 §7.1, test 1: its public key; the recipient as age 1.2.1's own conversion (agessh) gives it.
RFC_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def line(kind: str, *fields: bytes) -> str:
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (kind.encode(), *fields))
    return f"{kind} {base64.b64encode(blob).decode()} somebody"


def test_both_halves_agree_with_rusts_age() -> None:
    for _ in range(50):
        pair = generate_ed25519("root@dev")
        other = pyrage.x25519.Identity.from_str(identity_of(pair.private_openssh))
        assert str(other.to_public()) == recipient_of(pair.public)
        assert is_recipient(recipient_of(pair.public))


@pytest.mark.nix
def test_both_halves_agree_with_gos_age() -> None:
    pairs = [generate_ed25519("") for _ in range(5)]
    text = "".join(f"{identity_of(pair.private_openssh)}\n" for pair in pairs)
    done = subprocess.run(["age-keygen", "-y"], input=text, env=environment(), capture_output=True, text=True)
    assert done.stdout.split() == [recipient_of(pair.public) for pair in pairs], done.stderr


def test_what_is_encrypted_for_an_ssh_key_is_not_the_same_but_opens_with_the_same_key() -> None:
    pair = generate_ed25519("")
    sealed = pyrage.encrypt(b"secret", [pyrage.x25519.Recipient.from_str(recipient_of(pair.public))])
    assert pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(identity_of(pair.private_openssh))]) == b"secret"


def test_a_known_vector() -> None:
    # u = (1 + y) / (1 - y), worked out by hand with bc(1) for the point of the RFC
    wanted = "d85e07ec22b0ad881537c2f44d662d1a143cf830c57aca4305d85c7a90f6b62e"
    found = recipient_of(line("ssh-ed25519", RFC_PUBLIC))
    sealed = pyrage.encrypt(b"x", [pyrage.x25519.Recipient.from_str(found)])
    assert sealed
    assert decode(found).hex() == wanted
    # RFC 8032 §7.1, tests 2 and 3, by the same arithmetic; the private halves as SHA-512 of the seed, not clamped
    for point, u in (
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "25c704c594b88afc00a76b69d1ed2b984d7e22550f3ed0802d04fbcd07d38d47",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "cbb22fc9f790bd3eba9b84680c157ca4950a9894362601701f89c3c4d9fda23a",
        ),
    ):
        assert decode(recipient_of(line("ssh-ed25519", bytes.fromhex(point)))).hex() == u


def decode(text: str) -> bytes:
    """Bech32 by its definition, without its checksum."""
    words = ["qpzry9x8gf2tvdw0s3jn54khce6mua7l".index(letter) for letter in text.partition("1")[2][:-6]]
    bits = "".join(f"{word:05b}" for word in words)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits) // 8 * 8, 8))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            line("ssh-rsa", b"\1\0\1", b"\0" * 256),
            "it is an ssh-rsa key; age recipients come from ssh-ed25519 keys only",
        ),
        (line("ecdsa-sha2-nistp256", b"nistp256", b"\4" * 65), "it is an ecdsa-sha2-nistp256 key"),
        (line("sk-ssh-ed25519@openssh.com", b"\1" * 32, b"ssh:"), "it is an sk-ssh-ed25519@openssh.com key"),
        pytest.param(line("ssh-ed25519", b"\2" + b"\0" * 31), "not a point of the curve", id="no point"),
        pytest.param(line("ssh-ed25519", b"\1" + b"\0" * 31), "not a point of the curve", id="the neutral element"),
        pytest.param(line("ssh-ed25519", b"\0" * 32), "not a point of the curve", id="a point of order 4"),
        ("ssh-ed25519", "nothing follows the type"),
        ("placeholder", "does not begin with a key type"),
        pytest.param(generate_ed25519("").private_openssh, "more than one line", id="a private key"),
    ],
)
def test_keys_that_cannot_be_recipients_are_named(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        recipient_of(text)
    with pytest.raises(FleetError, match=f"it cannot become an age key: .*{words}"):
        recipient(text)


@examples(300)
@given(st.binary(min_size=32, max_size=32))
def test_any_point_is_converted_or_refused(point: bytes) -> None:
    try:
        found = recipient_of(line("ssh-ed25519", point))
    except ValueError:
        return
    assert is_recipient(found)
    assert pyrage.x25519.Recipient.from_str(found)


@examples(200)
@given(st.integers(4, 61), st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
def test_a_mistyped_recipient_is_noticed(at: int, letter: str) -> None:
    good = recipient_of(line("ssh-ed25519", RFC_PUBLIC))
    bad = good[:at] + letter + good[at + 1 :]
    assert is_recipient(bad) == (bad == good)


def test_the_tool_on_path_is_asked_and_must_agree(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = generate_ed25519("root@dev")
    tool = tmp_path / "ssh-to-age"  # type: ignore[operator]
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def answers(text: str) -> None:
        tool.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/argv\ncat >{tmp_path}/stdin\necho {text}\n')
        tool.chmod(0o755)

    answers(identity_of(pair.private_openssh))
    assert identity(pair.private_openssh) == identity_of(pair.private_openssh)
    assert (tmp_path / "argv").read_text() == "-private-key\n"  # type: ignore[operator]
    assert (tmp_path / "stdin").read_text() == pair.private_openssh  # type: ignore[operator]
    answers("age1somethingelse")
    with pytest.raises(FleetError, match="converts this key otherwise than expected"):
        recipient(pair.public)
