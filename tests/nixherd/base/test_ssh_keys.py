import base64
import contextlib
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from hypothesis import example, given
from hypothesis import strategies as st

from nixherd.base.ssh_keys import (
    KNOWN_TYPES,
    KeyPair,
    PublicKey,
    generate_ed25519,
    known_hosts_line,
    known_hosts_name,
    pair_of,
    parse_authorized_key,
    parse_public_key,
)

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHr0XQJzPKAyGJHXvWcsDGeSw3aLPLCHdTQbnrBHtmY operator@home"
BLOB = ED25519.split()[1]
NO_ED25519 = "its base64 is not a ssh-ed25519 key: cut off or damaged"


def _packed(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


def test_parts_of_a_key() -> None:
    key = parse_public_key(f"  {ED25519} (new)\n")
    assert key == PublicKey("ssh-ed25519", BLOB)
    assert key.comment == "operator@home (new)"
    assert str(key) == f"{ED25519} (new)"
    assert key.bare == f"ssh-ed25519 {BLOB}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it does not begin with a key type such as ssh-ed25519"),
        ("hello world", "it does not begin with a key type such as ssh-ed25519"),
        (f"ssh-dss {BLOB}", "it does not begin with a key type such as ssh-ed25519"),
        (BLOB, "it does not begin with a key type such as ssh-ed25519"),
        ("ssh-ed25519", "nothing follows the type ssh-ed25519"),
        ("ssh-ed25519 AAAA!", "its second word is not base64"),
        (f"ssh-ed25519 {BLOB[:-8]}", "its base64 is cut off or damaged"),
        ("ssh-ed25519 AAAA", "its base64 is cut off or damaged"),
        (f"ssh-rsa {BLOB}", "its type word says ssh-rsa, its base64 says ssh-ed25519"),
        (f"ssh-ed25519 {_packed(b'ssh-ed25519', b'short')}", NO_ED25519),
        (f"ssh-ed25519 {_packed(b'ssh-ed25519', b'k' * 32, b'x')}", NO_ED25519),
        (f"ssh-ed25519 {_packed()}", "nothing follows the type ssh-ed25519"),
        (f"{ED25519}\n{ED25519}", "it is more than one line"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "it is a private key"),
    ],
)  # fmt: skip
def test_what_is_no_key(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_public_key(text)
    assert str(caught.value) == problem


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_keys_and_fingerprints_agree_with_openssh(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "a comment", "-f", file], check=True)
    key = parse_public_key(file.with_suffix(".pub").read_text())
    shown = subprocess.run(["ssh-keygen", "-lf", f"{file}.pub"], capture_output=True, text=True, check=True).stdout
    assert key.comment == "a comment"
    assert key.fingerprint == shown.split()[1]


@given(st.sampled_from(KNOWN_TYPES), st.binary(max_size=80))
@example("ssh-ed25519", base64.b64decode(BLOB))
@example("ssh-rsa", b"\0\0\0\7ssh-rsa")
def test_never_more_lenient_than_cryptography(kind: str, data: bytes) -> None:
    """A line that we take for an ed25519 key is one for an independent reader too; no input crashes ours."""
    line = f"{kind} {base64.b64encode(data).decode()}"
    try:
        key = parse_public_key(line)
    except ValueError:
        return
    if key.type == "ssh-ed25519":
        try:
            load_ssh_public_key(line.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise AssertionError(line) from error


@given(st.binary(min_size=32, max_size=32), st.text(st.characters(categories=("L", "N", "P")), max_size=30))
def test_every_ed25519_key_is_read_back(raw: bytes, comment: str) -> None:
    line = f"ssh-ed25519 {_packed(b'ssh-ed25519', raw)} {comment}".strip()
    if "PRIVATE KEY" not in line:
        assert str(parse_public_key(line)) == line


@given(st.text())
def test_any_text_is_a_key_or_a_value_error(text: str) -> None:
    for parse in (parse_public_key, parse_authorized_key):
        with contextlib.suppress(ValueError):
            assert parse(text).type in KNOWN_TYPES


@given(st.integers(0, len(BLOB) - 1), st.sampled_from("AZaz09+/="))
def test_a_changed_type_or_length_is_noticed(position: int, letter: str) -> None:
    """The first 25 characters of the blob hold the type and the lengths: none can change unnoticed."""
    damaged = BLOB[:position] + letter + BLOB[position + 1 :]
    if position < 25 and damaged != BLOB:
        with pytest.raises(ValueError):
            parse_public_key(f"ssh-ed25519 {damaged}")


@pytest.mark.parametrize(
    "options",
    [
        "",
        "restrict ",
        'command="/bin/deploy \\"x y\\"",no-pty ',
        'from="10.0.0.0/8,!10.1.1.1",restrict,command="a, b" ',
    ],
)
def test_authorized_keys_may_have_options(options: str) -> None:
    assert parse_authorized_key(options + ED25519) == parse_public_key(ED25519)


@pytest.mark.parametrize("line", ['command="open ' + ED25519, "restrict", "restrict,command ssh-nothing AAAA"])
def test_options_alone_make_no_key(line: str) -> None:
    with pytest.raises(ValueError):
        parse_authorized_key(line)


def test_generated_pairs_belong_together_and_differ() -> None:
    pair, other = generate_ed25519("root@dev"), generate_ed25519("root@dev")
    private = load_ssh_private_key(pair.private_openssh.encode(), password=None)
    public = load_ssh_public_key(pair.public.encode())
    assert private.public_key() == public
    assert parse_public_key(pair.public).comment == "root@dev"
    assert pair.public != other.public


def test_openssh_reads_a_generated_key(tmp_path: Path) -> None:
    pair = generate_ed25519("root@dev")
    file = tmp_path / "key"
    file.write_text(pair.private_openssh)
    file.chmod(0o600)
    shown = subprocess.run(["ssh-keygen", "-yf", file], capture_output=True, text=True, check=True).stdout
    assert parse_public_key(shown) == parse_public_key(pair.public)


def test_the_private_half_is_in_no_representation() -> None:
    pair = KeyPair("PRIVATE-WORDS", "ssh-ed25519 …")
    assert "PRIVATE-WORDS" not in f"{pair!r} {pair}"


@pytest.mark.parametrize("comment", ["", "root@dev"])
def test_the_public_half_is_in_the_private_one(comment: str) -> None:
    pair = generate_ed25519(comment)
    assert pair_of(pair.private_openssh, comment) == pair


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["-t", "ed25519", "-N", "passphrase"], r"^it is encrypted with a passphrase$"),
        (["-t", "rsa", "-N", ""], r"^it is not an ed25519 key$"),
    ],
)
def test_what_no_sshd_of_ours_could_use_is_no_pair(tmp_path: Path, options: list[str], problem: str) -> None:
    subprocess.run(["ssh-keygen", "-q", *options, "-f", tmp_path / "key"], check=True)
    with pytest.raises(ValueError, match=problem):
        pair_of((tmp_path / "key").read_text())


@given(st.text())
@example(generate_ed25519("").private_openssh[:-40])
def test_any_text_is_a_pair_or_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it is "):
        pair_of(text)


def test_a_comment_of_two_lines_is_refused() -> None:
    with pytest.raises(ValueError):
        generate_ed25519("root\nssh-ed25519 AAAA")


def test_known_hosts_lines() -> None:
    assert known_hosts_line("dev", ED25519) == f"dev ssh-ed25519 {BLOB}"
    assert known_hosts_line(["10.77.0.5", "dev"], ED25519) == f"10.77.0.5,dev ssh-ed25519 {BLOB}"
    assert known_hosts_line(["dev"], parse_public_key(ED25519), port=2222) == f"[dev]:2222 ssh-ed25519 {BLOB}"
    assert known_hosts_name("fd00::1") == "fd00::1"
    assert known_hosts_name("fd00::1", 2222) == "[fd00::1]:2222"


@pytest.mark.parametrize("name", ["", "*", "a b", "a,b", "!dev", "|1|hash", "@revoked", "-o", "[dev]:22", "dev\n"])
def test_known_hosts_takes_no_patterns(name: str) -> None:
    with pytest.raises(ValueError):
        known_hosts_line([name], ED25519)


def test_openssh_finds_the_key_under_each_name(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(
        f"{known_hosts_line(['dev', '10.77.0.5'], ED25519)}\n{known_hosts_line(['dev'], ED25519, port=2222)}\n"
    )
    for name in ("dev", "10.77.0.5", "[dev]:2222"):
        found = subprocess.run(["ssh-keygen", "-F", name, "-f", file], capture_output=True, text=True, check=True)
        assert BLOB in found.stdout
