"""People with keys of other kinds: in gpg, behind a plugin, SSH keys as they are. Real programs."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from nacl.public import PrivateKey

from nixherd.ssh.age import _encode as bech32
from tests.nixherd.trust.secrets import age_plugin


@dataclass(frozen=True)
class Plugin:
    """Somebody's token: its recipient, and the identity that goes into a file."""

    recipient: str
    identity: str


def token(name: str) -> Plugin:
    private = PrivateKey(hashlib.sha256(name.encode()).digest())
    identity = bech32(f"age-plugin-{age_plugin.NAME}-", bytes(private)).upper()
    return Plugin(bech32(f"age1{age_plugin.NAME}", bytes(private.public_key)), identity)


def install_plugin(directory: Path) -> Path:
    """Put the plugin into a directory for PATH."""
    directory.mkdir(exist_ok=True)
    program = directory / f"age-plugin-{age_plugin.NAME}"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {age_plugin.__file__} "$@"\n')
    program.chmod(0o755)
    return directory


@contextlib.contextmanager
def gpg_home(*names: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """A ~/.gnupg with a key pair for each name, without passphrases; and their fingerprints. No agent is left."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"), ".gnupg")  # sockets have short names
    home.mkdir(0o700)
    try:
        for name in names:
            gpg(home, "--quick-generate-key", f"{name} <{name}@invalid>", "ed25519", "sign", "never")
            gpg(home, "--quick-add-key", fingerprints(home)[name], "cv25519", "encr", "never")
        yield home, fingerprints(home)
    finally:
        end_agent(home)
        shutil.rmtree(home.parent, onerror=_unless_gone)  # the agent takes its sockets along when it ends


def _unless_gone(_function: object, _path: object, raised: Any) -> None:
    if not isinstance(raised[1], FileNotFoundError):
        raise raised[1]


def gpg(home: Path, *words: str, input: bytes | None = None) -> bytes:
    argv = ["gpg", "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback", *words]
    env = {**os.environ, "GNUPGHOME": str(home)}
    done = subprocess.run(argv, env=env, input=input, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fingerprints(home: Path) -> dict[str, str]:
    """By the name of whose they are, of the primary keys."""
    found, last = {}, ""
    for line in gpg(home, "--with-colons", "--list-keys").decode().splitlines():
        fields = line.split(":")
        if fields[0] == "fpr" and not last:
            last = fields[9]
        elif fields[0] == "uid":
            found[fields[9].split()[0]] = last
        elif fields[0] == "pub":
            last = ""
    return found


def end_agent(home: Path) -> None:
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, capture_output=True)


def rsa_key() -> tuple[str, str]:
    """An SSH key of RSA: the private half, the public line."""
    private = generate_private_key(65537, 2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return pem, private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
